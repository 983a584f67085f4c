"""From what is known of a pair to what is to be done with it; the same rows always give the same answer.

A drawing passes when it was drawn without an error, the judge answered and does not fail it, and it is not too similar
to a known-bad image.  One that does not pass is drawn again with the next seed, so often as the recipe allows.

What was judged or compared counts also where a run leaves that stage out: the model that draws and the one that judges
may take turns on one GPU.  A stage that is left out is not waited for, that is all.
"""

from __future__ import annotations

from dataclasses import dataclass

from paddle_cxr.registry import find
from paddle_cxr.synthesis.pairs.schema import PairsRecipe
from paddle_cxr.synthesis.pairs.store import Rows
from paddle_cxr.synthesis.quality.rules import Rule, answered, fails, reasons

UNJUDGED = "unjudged"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One drawing that is decided: ``failed`` is the stage (or ``unjudged``) it failed at, empty where it passed."""

    number: int
    failed: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Outlook:
    """Where a pair stands.

    Attributes:
        attempts: its drawings so far, decided.
        next: (stage, attempt) to be done next, or None where the pair is finished.
        waits: nothing is to be done because this run leaves out the drawing that would come next.
    """

    attempts: tuple[Attempt, ...]
    next: tuple[str, int] | None = None
    waits: bool = False

    @property
    def accepted(self) -> bool:
        return self.next is None and not self.attempts[-1].failed


@dataclass(frozen=True, slots=True)
class Policy:
    """What decides, besides the rows.

    Attributes:
        stages: that this run does.
        attempts: drawings a pair may have, and times a judge is asked about an image until it answers.
        drop: see :mod:`paddle_cxr.synthesis.quality.rules`.
        questions: whose answers count.
        threshold: cosine, over which a drawing is too similar to a known-bad image.
        redraws: whether another seed gives another image; not so for images that lie ready.
    """

    stages: frozenset[str]
    attempts: int
    drop: Rule
    questions: frozenset[str]
    threshold: float
    redraws: bool

    @classmethod
    def of(cls, recipe: PairsRecipe) -> Policy:
        generator = find("generator", recipe.Generator.get("name"), "Generator")
        return cls(frozenset(recipe.Global.stages), recipe.Global.attempts, recipe.Rules.drop,
                   frozenset(recipe.Rules.questions),
                   recipe.Similarity.threshold if recipe.Similarity else 1.0, getattr(generator, "redraws", True))

    def outlook(self, rows: Rows, number: int, prompt: str) -> Outlook:
        """Where pair ``number`` stands; ``prompt`` is its IMPRESSION."""
        if not prompt:
            return Outlook((Attempt(0, "reports", "没有 IMPRESSION，无从画起"),))
        decided: list[Attempt] = []
        for attempt in range(self.attempts if self.redraws else 1):
            result = self._decide(rows, (number, attempt))
            if isinstance(result, str):
                if result not in self.stages:  # to be drawn, and drawing is left out
                    undrawn = Attempt(attempt, "draw", "还没有画（Global.stages 里没有 draw）")
                    return Outlook(tuple(decided) or (undrawn,), waits=True)
                return Outlook(tuple(decided), (result, attempt))
            decided.append(result)
            if result.failed in ("", UNJUDGED):
                break
        return Outlook(tuple(decided))

    def _decide(self, rows: Rows, key: tuple[int, int]) -> Attempt | str:
        """A drawing decided, or the stage that has to come first."""
        attempt = key[1]
        drawing, judgement, comparison = rows.drawn.get(key), rows.judged.get(key), rows.compared.get(key)
        if drawing is None:
            return "draw"
        if drawing.error:
            return Attempt(attempt, "draw", drawing.error)
        counted = {} if judgement is None else {
            question: answer for question, answer in judgement.verdict.items() if question in self.questions}
        judged = answered(counted)
        if judged and fails(counted, self.drop):
            return Attempt(attempt, "judge", "；".join(reasons(counted)))
        if comparison is not None and comparison.similarity > self.threshold:
            return Attempt(attempt, "similarity", f"与坏图 {comparison.nearest}（从 0 数）的余弦相似度 "
                                                  f"{comparison.similarity:.3f}，超过 {self.threshold:g}")
        if "judge" in self.stages and not judged:
            if judgement is None or judgement.tries < self.attempts:
                return "judge"
            why = dict.fromkeys(answer.reason for answer in judgement.verdict.values())
            return Attempt(attempt, UNJUDGED, f"裁判 {judgement.judge} 一问也没有答上：{'；'.join(why)}")
        if "similarity" in self.stages and comparison is None:
            return "similarity"
        return Attempt(attempt)
