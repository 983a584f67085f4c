"""A control: reports that belong to other images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from paddle_cxr.data.pairs.absent import OnError
from paddle_cxr.data.pairs.labelled import TEXT_FROM
from paddle_cxr.data.pairs.nested import PairsOfOther, why_missing_inside
from paddle_cxr.data.pairs.record import PairSource, fingerprint_of
from paddle_cxr.registry import build, register

_SHUFFLE_STREAM = 11  # keeps these random numbers apart from others made of the same seed (see data/dataset.py)


@register("pairs")
class ShuffledPairs(PairsOfOther):
    """Another source's pairs with the reports dealt out to the images at random: a control, never to learn from.

    A model trained on it must score chance, in retrieval and in zero-shot classification.  Where it scores more, the
    score is wrong: test images seen in training, texts counted as hits for being the same, a class that the prompts
    favour.  Texts (findings, impression, entities, who wrote them) move; the labels stay with their images, being the
    truth that a score is held against.

    Args:
        source: a component of the kind ``pairs``.
        seed: of the permutation.
        on_error: about images that are not there (supplied by the program: the recipe's ``DataLoader.on_error``).

    Raises:
        UserError: what the source has to say.
    """

    def __init__(self, source: dict[str, Any], seed: int = 0, *, on_error: OnError = "error") -> None:
        inner: PairSource = build("pairs", source, "ShuffledPairs.source", on_error=on_error)
        givers = np.random.default_rng((_SHUFFLE_STREAM, seed)).permutation(len(inner.records))
        super().__init__(inner, [
            replace(record, findings=giver.findings, impression=giver.impression, entities=giver.entities,
                    extra=record.extra | {key: giver.extra[key] for key in (TEXT_FROM,) if key in giver.extra})
            for record, giver in zip(inner.records, (inner.records[one] for one in givers), strict=True)])
        self.weights, self.shares = inner.weights, inner.shares
        self.notices.append(f"!! 对照（control）：{len(givers)} 份报告已随机分给别的图像，用它训练应只得到猜测的水平")

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """What the source says."""
        return why_missing_inside("pairs", arguments.get("source"), "ShuffledPairs.source")

    def fingerprint(self) -> str:
        """The source's, and who got which report."""
        return fingerprint_of(f"shuffled {self._source.fingerprint()}", self.records)
