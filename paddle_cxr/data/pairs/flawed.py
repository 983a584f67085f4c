"""Pairs as hospitals have them: some images spoiled, some reports with the wrong image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from paddle_cxr.data.pairs.absent import OnError
from paddle_cxr.data.pairs.nested import PairsOfOther, why_missing_inside
from paddle_cxr.data.pairs.record import PairSource, fingerprint_of
from paddle_cxr.data.spoil import SPOILINGS
from paddle_cxr.errors import UserError
from paddle_cxr.registry import build, register

FLAW = "flaw"
"""Key of ``Record.extra`` that says what is wrong with a pair: a kind of spoiling, or ``mismatched``."""

_FLAW_STREAM = 17  # keeps these random numbers apart from others made of the same seed (see data/dataset.py)
_PICTURE_STREAM = 19


@register("pairs")
class FlawedPairs(PairsOfOther):
    """Another source's pairs, of which a fixed share is spoiled and another share has somebody else's report.

    What quality control is for: data sets are collected by machine, and some images in them are blurred, inverted, cut
    off or no chest X-rays, some reports belong to another study.  The spoilings are those of
    :mod:`paddle_cxr.data.spoil`, in turn.  ``Record.extra["flaw"]`` says what was done; the labels stay with the image.

    Args:
        source: a component of the kind ``pairs``.
        spoiled: share of images that are spoiled, 0 … 1.
        mismatched: share of pairs, others than those, whose reports change places, 0 … 1.
        seed: of who they are.
        on_error: about images that are not there (supplied by the program: the recipe's ``DataLoader.on_error``).

    Raises:
        UserError: shares that are out of range, or more than 1 together; what the source has to say.
    """

    def __init__(self, source: dict[str, Any], spoiled: float = 0.05, mismatched: float = 0.05, seed: int = 0, *,
                 on_error: OnError = "error") -> None:
        if min(spoiled, mismatched) < 0 or spoiled + mismatched > 1:
            raise UserError(f"FlawedPairs：spoiled（{spoiled}）和 mismatched（{mismatched}）应不小于 0，"
                            "加起来不大于 1")
        inner: PairSource = build("pairs", source, "FlawedPairs.source", on_error=on_error)
        number = len(inner.records)
        order = np.random.default_rng((_FLAW_STREAM, seed)).permutation(number)
        bad = round(spoiled * number)
        exchanged = order[bad:bad + round(mismatched * number)]
        exchanged = exchanged if len(exchanged) > 1 else exchanged[:0]  # one alone has nobody to change with
        kinds = list(SPOILINGS)
        self._spoilt = {int(index): kinds[turn % len(kinds)] for turn, index in enumerate(order[:bad])}
        records = list(inner.records)
        for index, kind in self._spoilt.items():
            records[index] = replace(records[index], extra=records[index].extra | {FLAW: kind})
        for index, giver in zip(exchanged, np.roll(exchanged, 1), strict=True):
            given = inner.records[giver]
            records[index] = replace(records[index], findings=given.findings, impression=given.impression,
                                     entities=given.entities, extra=records[index].extra | {FLAW: "mismatched"})
        super().__init__(inner, records)
        self.weights, self.shares, self._seed = inner.weights, inner.shares, seed
        self.notices.append(f"有意弄坏 {bad} 张图，换错 {len(exchanged)} 份报告（共 {number} 对），"
                            "模仿真实数据里的差错")

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """What the source says."""
        return why_missing_inside("pairs", arguments.get("source"), "FlawedPairs.source")

    def read(self, index: int) -> np.ndarray:
        """The image, spoiled where it is one of those: then grey, and perhaps of another size."""
        if index not in self._spoilt:
            return super().read(index)
        film, other = _grey(super().read(index)), _grey(super().read((index + 1) % len(self.records)))
        rng = np.random.default_rng((_PICTURE_STREAM, self._seed, index))
        return SPOILINGS[self._spoilt[index]](film, other, rng)

    def fingerprint(self) -> str:
        """The source's, and what was done to whom."""
        told = sorted(self._spoilt.items())
        return fingerprint_of(f"flawed {self._source.fingerprint()} {self._seed} {told}", self.records)


def _grey(image: np.ndarray) -> np.ndarray:
    from PIL import Image

    return image if image.ndim == 2 else np.asarray(Image.fromarray(image).convert("L"))
