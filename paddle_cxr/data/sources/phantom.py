"""The built-in generator as a data set: works on any machine, proves nothing about patients."""

from __future__ import annotations

import hashlib

import numpy as np

from paddle_cxr.data.records import ClassInfo, Record, Source
from paddle_cxr.errors import UserError
from paddle_cxr.registry import register


@register("source")
class Phantoms(Source):
    """``per_class`` phantoms of each class, drawn when read.

    Image ``index`` is the same on every machine for the same ``seed`` and ``size``; every image is another patient.
    The classes are interleaved, so any first part of the records is balanced.

    Args:
        per_class: images a class.
        seed: of the generator.
        size: side of the square images in pixels.
        classes: the classes (supplied by the program); each must be, by name or alias, ``normal``, a drawer
            (``covid``, ``effusion`` …) or one on a side (``effusion:left``).

    Raises:
        UserError: a class the generator cannot draw, or an argument out of range.
    """

    demo = True

    def __init__(self, per_class: int = 300, seed: int = 0, size: int = 224, *, classes: tuple[ClassInfo, ...]) -> None:
        if per_class < 1 or seed < 0 or size < 32:
            raise UserError(f"Phantoms：per_class（{per_class}）至少为 1，seed（{seed}）至少为 0，"
                            f"size（{size}）至少为 32")
        self.notices: list[str] = []
        self._drawn = tuple(_drawable(info) for info in classes)
        if len(set(self._drawn)) < len(classes):
            raise UserError(f"Phantoms：有两个类别对应同一种模体（{'、'.join(self._drawn)}）；请检查 aliases")
        self._seed, self._size = seed, size
        # The seed is part of the names: a film of another seed is another patient's, never seen in training.
        records = [Record(f"phantom/{seed}/{name.replace(':', '-')}/{turn:04d}", label,
                          patient_id=f"phantom-{seed}-{turn * len(classes) + label}")
                   for turn in range(per_class) for label, name in enumerate(self._drawn)]
        super().__init__("phantom", "phantom", classes, records)

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """Never."""
        return None

    def read(self, index: int) -> np.ndarray:
        """Draw image ``index``, uint8 ``[size, size]``."""
        from paddle_cxr.data.phantom import Finding, draw_image

        name, _, side = self._drawn[self.records[index].label].partition(":")
        return draw_image([Finding(name, side)] if side else name, seed=self._seed, index=index, size=self._size)

    def locate(self, index: int) -> str:
        """The made-up name."""
        return self.records[index].path

    def fingerprint(self) -> str:
        """As of other sources, over what determines the pictures."""
        from paddle_cxr.data.phantom.generator import VERSION

        text = f"phantom {VERSION} {self._seed} {self._size} {len(self.records)} {' '.join(self._drawn)}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _drawable(info: ClassInfo) -> str:
    """The generator's name for a class."""
    from paddle_cxr.data.phantom import CLASSES, DRAWERS

    sided = [f"{name}:{side}" for name, drawer in DRAWERS.items() for side in drawer.sides]
    for name in dict.fromkeys((*CLASSES, *DRAWERS, *sided)):
        if info.matches(name):
            return name
    others = [name for name in DRAWERS if name not in CLASSES]
    raise UserError(f"内置模体（phantom）画不出类别 {info.name}；请把 {'、'.join(CLASSES)} 之一写进它的 aliases"
                    f"（也可以是 {'、'.join(others)}，或写明左右，如 effusion:left），或使用真实数据并删去 fallback")
