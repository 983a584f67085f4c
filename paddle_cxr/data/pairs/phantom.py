"""Phantoms as pairs: text and image agree by construction, on any machine."""

from __future__ import annotations

from typing import Any

import numpy as np

from paddle_cxr.data.pairs.record import PairRecord, PairSource, fingerprint_of
from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.registry import register

_PAIR_STREAM = 7  # keeps these random numbers apart from others made of the same seed (see data/dataset.py)


@register("pairs")
class PhantomPairs(PairSource):
    """Phantoms and the reports that describe them, drawn when read.

    The entries of ``findings`` take turns, and so do the sides of each, so any first part of the pairs is balanced.
    Pair ``index`` is the same on every machine for the same arguments, and the same patient as film ``index`` of
    :class:`~paddle_cxr.data.sources.phantom.Phantoms` with the same ``seed``: take another to test what was trained.

    Args:
        count: pairs.
        seed: of the patients and of their findings.
        size: side of the square images in pixels, 32 or more.
        findings: what is drawn: ``normal``, a drawer (``covid``, ``effusion`` …), or one on a side (``effusion:left``,
            ``covid:bilateral``).  A drawer without a side is drawn on every side it can.

    Raises:
        UserError: an argument out of range, something that cannot be drawn.
    """

    demo = True

    def __init__(self, count: int = 1000, seed: int = 0, size: int = 224,
                 findings: tuple[str, ...] = ("normal", "viral", "covid")) -> None:
        if count < 1 or seed < 0 or size < 32:
            raise UserError(f"PhantomPairs：count（{count}）至少为 1，seed（{seed}）至少为 0，size（{size}）至少为 32")
        self._seed, self._size = seed, size
        asked = [_drawer_and_sides(entry) for entry in findings]
        if not asked:
            raise UserError("PhantomPairs.findings：至少写一种征象，例如 [normal, effusion]")
        self._names = tuple(dict.fromkeys(name for name, _ in asked if name))
        turns = [(asked[index % len(asked)], index // len(asked)) for index in range(count)]
        placed = [self._place(index, name, sides[turn % len(sides)])
                  for index, ((name, sides), turn) in enumerate(turns)]
        self._findings = [finding for finding, _ in placed]
        super().__init__("phantom", "phantom", [record for _, record in placed])

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """Never."""
        return None

    def _place(self, index: int, name: str, side: str | None) -> tuple[list[Any], PairRecord]:
        """What film ``index`` shows (a list of findings, nothing left open), and its record."""
        from paddle_cxr.data.phantom.findings import Finding, place
        from paddle_cxr.data.phantom.report import write_report

        rng = np.random.default_rng((_PAIR_STREAM, self._seed, index))
        places = [place(Finding(name, side), rng)] if name else []
        report, _ = write_report(places, rng)
        identity = f"phantom/{self._seed}/{name or 'normal'}{f'-{side}' if side else ''}/{index:06d}"
        record = PairRecord(identity, 0, f"phantom-{self._seed}-{index}", id=identity, view="PA", side=side,
                            labels={one: int(one == name) for one in self._names}, **report)
        return [Finding(one.name, one.side, one.zone, one.region, one.severity) for one in places], record

    def read(self, index: int) -> np.ndarray:
        """Draw image ``index``, uint8 ``[size, size]``."""
        from paddle_cxr.data.phantom import draw_image

        return draw_image(self._findings[index], seed=self._seed, index=index, size=self._size)

    def locate(self, index: int) -> str:
        """The made-up name."""
        return self.records[index].path

    def fingerprint(self) -> str:
        """Over what determines the pictures, and the reports."""
        from paddle_cxr.data.phantom.generator import VERSION

        return fingerprint_of(f"phantom pairs {VERSION} {self._seed} {self._size}", self.records)


def _drawer_and_sides(entry: str) -> tuple[str, tuple[str | None, ...]]:
    """``effusion:left`` → drawer and the sides to draw it on; ``normal`` → no drawer, no side."""
    from paddle_cxr.data.phantom import DRAWERS

    name, colon, side = entry.partition(":")
    if name == "normal" and not colon:
        return "", (None,)
    if name not in DRAWERS:
        raise UserError(f"PhantomPairs.findings：画不出 {entry!r}{did_you_mean(name, DRAWERS)}"
                        f"（可用：normal、{'、'.join(sorted(DRAWERS))}，可加 :left、:right、:bilateral）")
    sides = DRAWERS[name].sides
    if colon and side not in sides:
        raise UserError(f"PhantomPairs.findings：{entry!r} 的位置应为 {'、'.join(sides)} 之一")
    return name, (side,) if colon else sides
