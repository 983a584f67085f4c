"""Several pair sources as one: real with synthetic pairs."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from paddle_cxr.data.pairs.absent import OnError
from paddle_cxr.data.pairs.nested import why_missing_inside
from paddle_cxr.data.pairs.record import PairRecord, PairSource, fingerprint_of
from paddle_cxr.data.records import Record
from paddle_cxr.data.splits import SUBSETS, patients_of
from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.registry import build, check_type, register

PART = "part"
"""Key of ``Record.extra`` under which a pair's part is named."""

_KEYS = ("source", "weight", "fraction", "split")


@dataclass(frozen=True)
class _Part:
    name: str
    source: PairSource
    weight: float | None
    chosen: list[int]  # records of the source that are used
    subsets: list[str | None]  # of all its records


@register("pairs")
class MixedPairs(PairSource):
    """Pairs of several sources.

    A pair's id and path begin with its part's name, which is also ``Record.extra["part"]``; patients keep their ids, so
    that one who is in two parts (a set of films with two kinds of text) is not torn apart by a split.

    Args:
        parts: name → ``{source: {name: PairsFile, …}, weight: 1.0, fraction: 1.0, split: train}``; only ``source`` is
            needed.
            ``weight``: the part's share of what is drawn in training, whatever its size, in proportion to the others';
            given for all parts or none.  Without, every pair comes once an epoch.
            ``fraction``: use a fixed subset of this part, above 0 and at most 1: by patient where patients are known,
            and nested (the 10 % are among the 50 %).  Pairs of ``val`` and ``test`` all stay, so that fractions are
            compared on the same.
            ``split``: the subset this part goes to (synthetic pairs: ``train``), or a component that divides it, e.g.
            ``{name: PatientSplit, val: 0.1, test: 0.1}``; without, what the source says.  Then choose
            ``Split: {name: Published}``.
        seed: of the fractions.
        on_error: about images that are not there (supplied by the program: the recipe's ``DataLoader.on_error``).

    Attributes:
        weights: float64 [N], how much more often than others each pair is drawn; None without weights.
        shares: part → weight; empty without.

    Raises:
        UserError: no part, an unknown key, a number out of range, weights within a part; what the sources have to say.
    """

    def __init__(self, parts: dict[str, dict[str, Any]], seed: int = 0, *, on_error: OnError = "error") -> None:
        if not parts:
            raise UserError("MixedPairs.parts：至少写一部分，例如 {real: {source: {…}}, synthetic: {source: {…}}}")
        built = [_part(name, spec, seed, on_error) for name, spec in parts.items()]
        weighted = [part.name for part in built if part.weight is not None]
        if weighted and len(weighted) < len(built):
            other = next(part.name for part in built if part.weight is None)
            raise UserError(f"MixedPairs.parts.{other}：{'、'.join(weighted)} 写了 weight，每一部分都要写；"
                            "或都不写，每对每轮一次")
        self._parts = [part.source for part in built]
        self._where = [(number, index) for number, part in enumerate(built) for index in part.chosen]
        self.demo = any(source.demo for source in self._parts)
        self.notices = [f"{part.name}：{notice}" for part in built for notice in getattr(part.source, "notices", ())]
        self.notices += [_used(part) for part in built]
        records = [_record(part, index) for part in built for index in part.chosen]
        super().__init__("+".join(parts), "mixed", records)
        self.shares = {part.name: part.weight for part in built if part.weight is not None}
        self.weights = part_weights(records, self.shares) if self.shares else None

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """What the first part says whose data is absent."""
        parts = arguments.get("parts")
        for name, spec in (parts if isinstance(parts, Mapping) else {}).items():
            source = spec.get("source") if isinstance(spec, Mapping) else None
            if reason := why_missing_inside("pairs", source, f"MixedPairs.parts.{name}.source"):
                return f"{name}：{reason}"
        return None

    def read(self, index: int) -> np.ndarray:
        part, own = self._where[index]
        return self._parts[part].read(own)

    def locate(self, index: int) -> str:
        part, own = self._where[index]
        return self._parts[part].locate(own)

    def origin(self, index: int) -> tuple[str, str]:
        part, own = self._where[index]
        return self._parts[part].origin(own)

    def fingerprint(self) -> str:
        """The parts', and which of their pairs are used."""
        return fingerprint_of(" ".join(["mixed", *(part.fingerprint() for part in self._parts)]), self.records)


def part_weights(records: Sequence[Record], shares: Mapping[str, float]) -> np.ndarray:
    """How much more often than others each pair is to be drawn, so that parts come in proportion to ``shares``.

    Args:
        records: some of a :class:`MixedPairs`' records, e.g. those of the training subset.
        shares: part → its share.

    Returns:
        float64 [n], the share divided by the number of records of the part; sums to the shares' sum where every part
        has a record.
    """
    parts = [record.extra[PART] for record in records]
    number = Counter(parts)
    return np.array([shares[part] / number[part] for part in parts], np.float64)


def _part(name: str, spec: Mapping[str, Any], seed: int, on_error: OnError) -> _Part:
    path = f"MixedPairs.parts.{name}"
    if not name or "/" in name:
        raise UserError(f"{path}：部分的名字不能为空，也不能有斜线")
    for key in spec:
        if key not in _KEYS:
            raise UserError(f"{path}.{key}：没有这一项{did_you_mean(key, _KEYS)}（可用：{'、'.join(_KEYS)}）")
    weight = check_type(spec.get("weight"), float | None, f"{path}.weight")
    fraction = check_type(spec.get("fraction", 1.0), float, f"{path}.fraction")
    if weight is not None and not (weight > 0 and math.isfinite(weight)):
        raise UserError(f"{path}.weight：应大于 0，现在是 {weight}；不要这一部分就删去它")
    if not 0 < fraction <= 1:
        raise UserError(f"{path}.fraction：应大于 0、不大于 1，现在是 {fraction}")
    source = build("pairs", spec.get("source"), f"{path}.source", on_error=on_error)
    if source.shares:
        raise UserError(f"{path}.source：里面的混合也写了 weight，混合之后就不起作用；请把它的各部分写在这一层，"
                        "或删去里面的 weight")
    subsets = _subsets(spec.get("split"), source, path)
    return _Part(name, source, weight, _chosen(source.records, subsets, fraction, seed), subsets)


def _used(part: _Part) -> str:
    """What of a part is used."""
    line = f"{part.name}：用 {len(part.chosen)}／{len(part.source.records)} 对"
    if len(part.chosen) < len(part.subsets) and set(part.subsets) == {None}:
        line += ("；!! 这一部分还没有划分，之后由 DataLoader.Split 划出的验证集、测试集也随 fraction 变小，"
                 f"不同的 fraction 不在同样的图上比较：请写 MixedPairs.parts.{part.name}.split")
    return line


def _subsets(split: Any, source: PairSource, path: str) -> list[str | None]:
    if split is None:
        return [record.split for record in source.records]
    if isinstance(split, str):
        if split not in SUBSETS:
            raise UserError(f"{path}.split：应为 {'、'.join(SUBSETS)} 之一，或一个划分组件，现在是 {split!r}")
        return [split] * len(source.records)
    return build("split", split, f"{path}.split")(source.records)


def _chosen(records: Sequence[PairRecord], subsets: Sequence[str | None], fraction: float, seed: int) -> list[int]:
    """Positions that are used: of ``val`` and ``test`` all; of the others whole patients, until they are enough."""
    divided = [subset in ("val", "test") for subset in subsets]
    groups: dict[str, list[int]] = {}
    for index, group in enumerate(patients_of(records)):
        if not divided[index]:
            groups.setdefault(group, []).append(index)
    wanted = fraction * (len(records) - sum(divided))
    taken = [index for index, stays in enumerate(divided) if stays]
    count = 0
    # Each patient's place in the queue depends on nothing but the seed and its name, so smaller fractions are within
    # larger ones, and pairs that join the source change no other's place.
    for group in sorted(groups, key=lambda one: hashlib.sha256(f"{seed} {one}".encode()).digest()):
        if count >= wanted:
            break
        taken += groups[group]
        count += len(groups[group])
    return sorted(taken)


def _record(part: _Part, index: int) -> PairRecord:
    record = part.source.records[index]
    return replace(record, path=f"{part.name}/{record.path}", id=f"{part.name}/{record.id}", split=part.subsets[index],
                   fold=None, extra={**record.extra, PART: part.name})
