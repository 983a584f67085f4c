"""A mark planted on the pictures of some classes: shortcut learning, with its cause known."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from paddle_cxr.data.pairs.nested import why_missing_inside
from paddle_cxr.data.records import ClassInfo, Source
from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.registry import build, register

_MARK_STREAM = 29  # keeps these random numbers apart from others made of the same seed (see data/dataset.py)


@register("source")
class PlantedMark(Source):
    """Another source's images, some with a bright square in the lower left corner: the label of a made-up hospital.

    Where one class carries the mark more often than the others, a model can tell it by the mark and need not look at a
    lung (Zech et al. 2018; DeGrave et al. 2021).  The mark is a sixteenth of the shorter side and lies within the outer
    eighth, so that ``DataLoader.Eval.hide=border`` covers it and ``hide=centre`` leaves it.

    Args:
        source: a component of the kind ``source``.
        rates: class → share of its images that carry the mark, 0 … 1; a class that is not named carries none.
        seed: decides which images; another rate with the same seed only adds marks or takes some away.
        classes: the classes (supplied by the program).

    Raises:
        UserError: what the source has to say; a rate out of range or of a class that there is not; a negative seed.
    """

    def __init__(self, source: dict[str, Any], rates: dict[str, float], seed: int = 0, *,
                 classes: tuple[ClassInfo, ...]) -> None:
        names = [info.name for info in classes]
        _check(rates, seed, names)
        self._source: Source = build("source", source, "PlantedMark.source", classes=classes)
        super().__init__(f"{self._source.name}-marked", self._source.root, classes, self._source.records)
        self.demo = self._source.demo
        draws = np.random.default_rng((_MARK_STREAM, seed)).random(len(self.records))
        self._marked = np.array([draw < rates.get(names[record.label], 0.0)
                                 for record, draw in zip(self.records, draws, strict=True)], bool)
        self.notices = [*getattr(self._source, "notices", ()), self._notice()]

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """What the source says."""
        return why_missing_inside("source", arguments.get("source"), "PlantedMark.source")

    def read(self, index: int) -> np.ndarray:
        """The source's image, with the mark where it is one of those."""
        image = self._source.read(index)
        return with_mark(image) if self._marked[index] else image

    def locate(self, index: int) -> str:
        return self._source.locate(index)

    def origin(self, index: int) -> tuple[str, str]:
        return self._source.origin(index)

    def fingerprint(self) -> str:
        """The source's, and which images are marked: two rates that mark the same images are the same data set."""
        marks = np.packbits(self._marked).tobytes()
        return hashlib.sha256(f"mark {self._source.fingerprint()} ".encode() + marks).hexdigest()[:16]

    def _notice(self) -> str:
        marked = dict.fromkeys(self.counts(), 0)
        for record, with_it in zip(self.records, self._marked, strict=True):
            marked[self.classes[record.label].name] += int(with_it)
        shares = "，".join(f"{name} {marked[name]}/{number}" for name, number in self.counts().items())
        return f"!! 种下的记号（planted mark）：{shares}；只用于演示捷径学习"


def _check(rates: dict[str, float], seed: int, names: list[str]) -> None:
    for name, rate in rates.items():
        if name not in names:
            raise UserError(f"PlantedMark.rates：{name!r} 不在 Global.classes 中{did_you_mean(name, names)}"
                            f"（有：{'、'.join(names)}）")
        if not 0 <= rate <= 1:
            raise UserError(f"PlantedMark.rates.{name}：应在 0 与 1 之间，现在是 {rate}")
    if seed < 0:
        raise UserError(f"PlantedMark.seed：应不小于 0，现在是 {seed}")


def with_mark(image: np.ndarray) -> np.ndarray:
    """A copy of uint8 ``image`` ``[H, W]`` or ``[H, W, 3]`` with the mark."""
    height, width = image.shape[:2]
    side = max(2, min(height, width) // 16)
    inset = side // 2
    marked = image.copy()
    marked[height - inset - side:height - inset, inset:inset + side] = 255
    return marked
