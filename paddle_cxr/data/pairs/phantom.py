"""Phantoms as pairs: text and image agree by construction, on any machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from paddle_cxr.data.pairs.record import PairRecord, PairSource, fingerprint_of
from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.registry import register

if TYPE_CHECKING:
    from paddle_cxr.data.phantom import Phantom
    from paddle_cxr.data.phantom.findings import Place

_PAIR_STREAM = 7  # keeps these random numbers apart from others made of the same seed (see data/dataset.py)
_TAIL_STREAM = 23  # which finding comes next where they are not equally frequent
_MORE_STREAM = 13  # what else a film shows: apart, so that its first finding is the one it has alone

# Spread through the lungs alike: a film with two of them tells neither.
_PNEUMONIAS = frozenset({"covid", "viral", "consolidation", "oedema"})


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
        together: at most so many different findings on one film, so that most reports are unique: up to
            ``together - 1`` others join each film's own where they do not hide each other.  ``normal`` stays alone.
        language: of the reports, ``en`` or ``zh``.
        long_tail: 0: all entries of ``findings`` are equally frequent.  Above it the k-th is drawn with probability
            proportional to 1 / k to this power (Zipf's law), as findings are in hospitals: put the common ones first.

    Raises:
        UserError: an argument out of range, something that cannot be drawn.
    """

    demo = True

    def __init__(self, count: int = 1000, seed: int = 0, size: int = 224,
                 findings: tuple[str, ...] = ("normal", "viral", "covid"), together: int = 1,
                 language: Literal["en", "zh"] = "en", long_tail: float = 0.0) -> None:
        if together < 1:
            raise UserError(f"PhantomPairs.together：一张片子上最多几种征象，至少为 1，现在是 {together}")
        if not 0 <= long_tail < 10:
            raise UserError(f"PhantomPairs.long_tail：应为 0（各征象一样多）到 10，现在是 {long_tail}")
        if count < 1 or seed < 0 or size < 32:
            raise UserError(f"PhantomPairs：count（{count}）至少为 1，seed（{seed}）至少为 0，size（{size}）至少为 32")
        self._seed, self._size, self._together, self._language = seed, size, together, language
        asked = [_drawer_and_sides(entry) for entry in findings]
        if not asked:
            raise UserError("PhantomPairs.findings：至少写一种征象，例如 [normal, effusion]")
        self._names = tuple(dict.fromkeys(name for name, _ in asked if name))
        self._asked = [(name, sides) for name, sides in asked if name]
        turns = _turns(asked, count, seed, long_tail)
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
        places += self._others(index, places)
        report = write_report(places, rng)[self._language == "zh"]
        shown = "+".join(f"{one.name}-{one.side}" for one in places)
        identity = f"phantom/{self._seed}/{shown or 'normal'}/{index:06d}"
        record = PairRecord(identity, 0, f"phantom-{self._seed}-{index}", id=identity, view="PA",
                            side=_common_side(places), **report,
                            labels={one: int(one in {other.name for other in places}) for one in self._names})
        return [Finding(one.name, one.side, one.zone, one.region, one.severity) for one in places], record

    def _others(self, index: int, places: Sequence[Place]) -> list[Place]:
        """What film ``index`` shows beside ``places``; nothing with what is normal."""
        from paddle_cxr.data.phantom.findings import Finding, place

        found: list[Place] = []
        if self._together == 1 or not places:
            return found
        rng = np.random.default_rng((_MORE_STREAM, self._seed, index))
        wanted = int(rng.integers(self._together, size=2).max())  # few films show one thing only: their reports repeat
        for entry in rng.permutation(len(self._asked)):
            if len(found) == wanted:
                break
            name, sides = self._asked[entry]
            other = place(Finding(name, sides[int(rng.integers(len(sides)))]), rng)
            if all(_visible_together(one, other) for one in (*places, *found)):
                found.append(other)
        return found

    def read(self, index: int) -> np.ndarray:
        """Draw image ``index``, uint8 ``[size, size]``."""
        from paddle_cxr.data.phantom import draw_image

        return draw_image(self._findings[index], seed=self._seed, index=index, size=self._size)

    def film(self, index: int) -> Phantom:
        """Image ``index`` with everything there is to know about it: masks, boxes, what was drawn where."""
        from paddle_cxr.data.phantom import draw

        return draw(self._findings[index], seed=self._seed, index=index, size=self._size)

    def locate(self, index: int) -> str:
        """The made-up name."""
        return self.records[index].path

    def fingerprint(self) -> str:
        """Over what determines the pictures, and the reports."""
        from paddle_cxr.data.phantom.generator import VERSION

        more = f" {self._together} together" if self._together > 1 else ""
        return fingerprint_of(f"phantom pairs {VERSION} {self._seed} {self._size}{more}", self.records)


def _turns(asked: Sequence[Any], count: int, seed: int, long_tail: float) -> list[tuple[Any, int]]:
    """For each film the entry of ``asked`` it shows, and how many films before it showed the same."""
    if not long_tail:
        return [(asked[index % len(asked)], index // len(asked)) for index in range(count)]
    share = np.arange(1, len(asked) + 1) ** -long_tail
    drawn = np.random.default_rng((_TAIL_STREAM, seed)).choice(len(asked), count, p=share / share.sum())
    before = [0] * len(asked)
    turns = []
    for entry in drawn:
        turns.append((asked[entry], before[entry]))
        before[entry] += 1
    return turns


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


def _visible_together(one: Place, other: Place) -> bool:
    """Whether a film can show both so that each is seen for what it is."""
    from paddle_cxr.data.phantom import DRAWERS

    if one.name == other.name or _PNEUMONIAS >= {one.name, other.name}:
        return False
    if not (DRAWERS[one.name].in_lung and DRAWERS[other.name].in_lung):
        return True  # a large heart hides nothing: findings are drawn where lung is seen
    if not set(one.sides) & set(other.sides):
        return True
    if "pneumothorax" in (one.name, other.name):
        return False  # that lung has collapsed
    return one.zone != other.zone and "all" not in (one.zone, other.zone)


def _common_side(places: Sequence[Place]) -> str | None:
    """The side all findings are on, ``bilateral`` where they differ, None without any."""
    sides = {one.side for one in places}
    return sides.pop() if len(sides) == 1 else "bilateral" if sides else None
