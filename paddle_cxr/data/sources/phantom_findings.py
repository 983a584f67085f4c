"""The built-in generator as a data set of findings: every label, box and mask is known, because it was drawn."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import overload

import numpy as np

from paddle_cxr.data.findings import FindingBox, FindingsRecord, FindingsSource
from paddle_cxr.data.pairs.phantom import PhantomPairs
from paddle_cxr.data.phantom.generator import VERSION
from paddle_cxr.data.phantom.names import NAMES
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.errors import UserError
from paddle_cxr.registry import register

LUNG = "lung"


@register("findings")
class PhantomFindings(FindingsSource):
    """Phantoms with the labels, boxes and masks of what they show, drawn when read.

    Image ``index`` is that of :class:`~paddle_cxr.data.pairs.phantom.PhantomPairs` with the same arguments, patient id
    included: take another ``seed`` to test what was trained on those.  Every label is known.  A finding's mask is what
    was drawn of it; the mask of ``lung`` (no finding, and not among them) is the lung that is not behind the heart or
    below the diaphragm.

    Args:
        count: images.
        seed: of the patients and of their findings.
        size: side of the square images in pixels, 32 or more.
        findings: what is drawn: ``normal``, a drawer (``covid``, ``effusion`` …), or one on a side (``effusion:left``,
            ``covid:bilateral``).  A drawer without a side is drawn on every side it can.
        together: at most so many different findings on one film.

    Raises:
        UserError: an argument out of range, something that cannot be drawn.
    """

    demo = True
    regions = (LUNG,)

    def __init__(self, count: int = 300, seed: int = 0, size: int = 224,
                 findings: tuple[str, ...] = ("normal", *NAMES), together: int = 1) -> None:
        try:
            films = PhantomPairs(count, seed, size, findings, together)
        except UserError as error:
            raise UserError(str(error).replace(PhantomPairs.__name__, type(self).__name__)) from None
        names = list(films.records[0].labels)
        if not names:
            raise UserError("PhantomFindings.findings：除 normal 外至少写一种征象，例如 [normal, effusion]")
        self._films, self._made_of = films, f"{VERSION} {seed} {size} {together}"
        # One film at a time: a film's boxes and masks are asked for one after another, and drawing takes longest.
        self._film = lru_cache(maxsize=1)(films.film)
        super().__init__("phantom", "phantom", [ClassInfo(name, *NAMES[name]) for name in names],
                         [FindingsRecord(record.path, 0, record.patient_id, labels=record.labels,
                                         boxes=_DrawnBoxes(self, index), view="PA")
                          for index, record in enumerate(films.records)])

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """Never."""
        return None

    def read(self, index: int) -> np.ndarray:
        """Draw image ``index``, uint8 ``[size, size]``."""
        return self._films.read(index)

    def locate(self, index: int) -> str:
        """The made-up name."""
        return self.records[index].path

    def annotated(self, index: int, finding: str) -> bool:
        """Everything that is drawn is known, and the lungs are."""
        return finding == LUNG or finding in self.records[index].labels

    def mask(self, index: int, finding: str, shape: tuple[int, int]) -> np.ndarray:
        """Where ``finding``, or ``lung``, was drawn; bool ``[size, size]``."""
        film = self._film(index)
        if tuple(shape) != film.image.shape:
            raise UserError(f"{self.locate(index)}：模体（phantom）大小是 {film.image.shape}，"
                            f"要的掩膜（mask）是 {tuple(shape)}")
        if finding == LUNG:
            return film.lung_mask > 0
        drawn = [mask for one, mask in zip(film.findings, film.masks, strict=True) if one.name == finding]
        return np.logical_or.reduce(drawn) if drawn else np.zeros(shape, bool)

    def boxes(self, index: int) -> tuple[FindingBox, ...]:
        """Tight rectangles around what was drawn on film ``index``, each side by itself."""
        return tuple(FindingBox(one.name, *map(float, box)) for one in self._film(index).findings for box in one.boxes)

    def fingerprint(self) -> str:
        """Over what determines the pictures."""
        digest = hashlib.sha256(f"phantom findings {self._made_of}".encode())
        for record in self.records:
            digest.update(json.dumps([record.path, record.labels]).encode())
        return digest.hexdigest()[:16]


class _DrawnBoxes(Sequence[FindingBox]):
    """A film's boxes, found by drawing it when somebody looks: drawing all films to list them would take minutes."""

    def __init__(self, source: PhantomFindings, index: int) -> None:
        self._source, self._index = source, index

    def __len__(self) -> int:
        return len(self._source.boxes(self._index))

    @overload
    def __getitem__(self, number: int) -> FindingBox: ...

    @overload
    def __getitem__(self, number: slice) -> tuple[FindingBox, ...]: ...

    def __getitem__(self, number: int | slice) -> FindingBox | tuple[FindingBox, ...]:
        return self._source.boxes(self._index)[number]

    def __iter__(self) -> Iterator[FindingBox]:
        return iter(self._source.boxes(self._index))
