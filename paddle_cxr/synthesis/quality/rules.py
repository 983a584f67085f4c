"""From the answers to the six questions to a decision."""

from __future__ import annotations

from typing import Literal

from paddle_cxr.synthesis.quality.base import Verdict

Rule = Literal["any", "all"]


def answered(verdict: Verdict) -> bool:
    """Whether the judge could answer any question; where it could not, nothing is known and nothing may be decided."""
    return any(answer.passed is not None for answer in verdict.values())


def fails(verdict: Verdict, rule: Rule) -> bool:
    """Whether an image fails: ``any`` question answered with no, or ``all`` that were answered.

    SynCXR (arXiv 2410.13523) calls an image of a data set known-bad when it fails all six, and draws an image again
    when it fails any.  What the judge could not answer does not count.
    """
    failed = [not answer.passed for answer in verdict.values() if answer.passed is not None]
    return bool(failed) and {"any": any, "all": all}[rule](failed)


def reasons(verdict: Verdict) -> list[str]:
    """``question: reason`` for every question answered with no."""
    return [f"{question}: {answer.reason}" for question, answer in verdict.items() if answer.passed is False]
