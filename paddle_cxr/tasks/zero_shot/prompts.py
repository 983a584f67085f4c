"""The prompts that a recipe's ``Prompts`` section names.  Nothing here loads Paddle."""

from __future__ import annotations

from collections.abc import Sequence

from paddle_cxr.data.records import ClassInfo
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.phantom_prompts import phantom_prompts
from paddle_cxr.evaluation.prompts import FindingPrompts, read_prompts
from paddle_cxr.tasks.zero_shot.schema import PromptsSection


def check_section(section: PromptsSection) -> None:
    """Refuse a section that names no prompts, or two kinds; raises :class:`UserError`."""
    if (section.file is None) == (section.name is None):
        raise UserError("Prompts：file（提示词文件）和 name: phantom 写一个，也只写一个")


def read_section(section: PromptsSection, seed: int = 0, findings: Sequence[ClassInfo] | None = None
                 ) -> tuple[FindingPrompts, ...]:
    """All prompts there are, those of findings that the data set does not speak of included.

    Args:
        section: of the recipe.
        seed: of the draw where ``sample`` is set.
        findings: of the data set, for a file whose templates serve any of them; None: not known yet.

    Raises:
        UserError: as of :func:`check_section` and :func:`paddle_cxr.evaluation.prompts.read_prompts`.
    """
    check_section(section)
    if section.file is None:
        return phantom_prompts(section.language)
    return read_prompts(section.file, section.sample, seed, findings)


def known_as(section: PromptsSection) -> str:
    """What the user knows the prompts by."""
    return section.file or "自带的模体（phantom）提示词"
