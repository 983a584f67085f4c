"""Balanced entity sampling: which entities each report is to mention, planned before any report is written.

The method is SynCXR's ("Can Medical Vision-Language Pre-training Succeed with Purely Synthetic Data?", arXiv
2410.13523): a report gets k entities from the union of abnormality, non-abnormality, disease and non-disease, and m
from anatomy, uniformly and without repetition; no entity is drawn more than τ_max (``cap``) times over the whole set,
and one that has been drawn that often is drawn again while the others stay.  That is what takes the long tail away:
a real corpus says "pleural effusion" thousands of times and "azygos fissure" twice.

Redrawing until the entity is below its cap is the same as drawing from the list of the entities below their cap: given
that it succeeds, each of these is equally likely.  We keep that list, so a draw costs the same when nearly all of the
vocabulary is used up, and the whole plan costs time in proportion to its length.

All sets are planned at once, as only then a cap can hold over all of them.  Machines that share the writing each plan
the same (it takes seconds) and take a slice of it: ``plan[shard::shards]``.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.registry import register
from paddle_cxr.synthesis.entities import TYPES
from paddle_cxr.synthesis.vocabulary import Vocabulary

SAMPLING_STREAM = 3  # keeps these random numbers apart from others made of the same seed (see data/dataset.py)
FINDING_TYPES = TYPES[:4]  # all but anatomy
ROOM = 1  # per cent of places more than draws, under cap="auto"
TRIES = 20  # random draws before the entities that fit are listed one by one
PATIENCE = 100  # reports taken back over a plan before contradictions are called unavoidable
RESTARTS = 10  # fresh starts of a report that contradictions block, before an earlier report is changed


@dataclass(frozen=True)
class Choice:
    """The part of a vocabulary that is drawn from, by position.

    Attributes:
        positions: what can be drawn.
        contradictions: position → positions that cannot stand in one report with it, symmetric.
    """

    positions: Container[int]
    contradictions: Mapping[int, frozenset[int]]


@dataclass(frozen=True)
class _Group:
    """Entities that are drawn from together.

    Attributes:
        key: the argument of the sampler that says how many of them a report gets.
        label: for messages.
        members: positions in the vocabulary.
        most: the largest number of them in any report.
        quota: ``[count]``, how many of them each report gets.
    """

    key: str
    label: str
    members: np.ndarray
    most: int
    quota: np.ndarray

    @property
    def need(self) -> int:
        """Draws over the whole plan."""
        return int(self.quota.sum())

    def left(self, cap: int, spent: np.ndarray) -> np.ndarray:
        """How often each member can still be drawn; never more than once a report."""
        return np.clip(cap - spent[self.members], 0, len(self.quota))


@register("sampler")
class BalancedSampler:
    """Plans the entities of all reports.

    Args:
        k: entities a report from abnormality, non-abnormality, disease and non-disease; at least 1.
        m: anatomies a report; 0 for none.
        cap: τ_max, how often an entity may be drawn over the whole set.  ``auto`` takes the smallest under which there
            are 1 % more places than draws (15 for the paper's 200,000 reports); the smallest that fits at all is met
            too, but then the last reports have little to choose from.
        balance: ``none`` draws from the union of the four types as the paper does, so that a type with more entries
            is drawn more often; ``type`` makes the four equally frequent: over the whole plan their counts differ by
            at most 1, and each report is as even as k allows.
        contradictions: ``avoid`` never puts a pair that the vocabulary calls contradictory into one report (low and
            hyperinflated lungs; an effusion and no effusion).  What contradicts much of the vocabulary ("clear lungs")
            then comes up less often, unless the cap leaves little room.
        only: ``drawable`` draws from what phantoms can show (:mod:`paddle_cxr.synthesis.drawable`), and contradictions
            include those of the picture; null draws from the whole vocabulary.  The check of the reports still looks
            for all of it.

    Raises:
        UserError: a number out of range.
    """

    def __init__(self, k: int = 9, m: int = 3, cap: int | Literal["auto"] = 15,
                 balance: Literal["none", "type"] = "none",
                 contradictions: Literal["avoid", "allow"] = "avoid",
                 only: Literal["drawable"] | None = None) -> None:
        for name, value, least in (("k", k, 1), ("m", m, 0), ("cap", cap, 1)):
            if value != "auto" and value < least:
                raise UserError(f"Sampler.{name}：应不小于 {least}，现在是 {value}")
        self.k, self.m, self.cap = k, m, cap
        self.balance, self.contradictions, self.only = balance, contradictions, only

    def plan(self, vocabulary: Vocabulary, count: int, seed: int, spent: np.ndarray | None = None) -> np.ndarray:
        """The entities of ``count`` reports.

        Args:
            vocabulary: what to draw from.
            count: number of reports, at least 0.
            seed: not negative; the same arguments give the same plan on any machine.
            spent: ``[len(vocabulary)]`` int, how often each entity has been used up already (by the reports accepted
                so far, when those that never passed are to be replaced); None for not at all.

        Returns:
            int32 ``[count, k + m]``, positions in the vocabulary: k of the four types, then m of anatomy.  The rows
            come in random order, so any slice of them is like any other.

        Raises:
            UserError: more entities a report than there are, an empty type, a cap too small for ``count`` (with the
                smallest that fits), or contradictions that cannot be avoided.
        """
        rng = np.random.default_rng((SAMPLING_STREAM, seed))
        spent = _counts(spent, vocabulary)
        choice = self.choice(vocabulary)
        groups = self._groups(vocabulary, choice, count, rng)
        cap = self._checked_cap(groups, spent, vocabulary.name)
        pools = [_Pool(group.members, group.left(cap, spent)) for group in groups]
        conflicts = choice.contradictions if self.contradictions == "avoid" else {}
        reports = _Reports(pools, conflicts, _uniform(rng))
        reports.draw(list(zip(*(group.quota.tolist() for group in groups), strict=True)))
        rows = np.array(reports.rows, np.int32).reshape(count, self.k + self.m)
        # The last reports were drawn from what was left: mixed in among the others, no shard gets them all.
        return rows[_shuffled(rng, (count,))]

    def resolved_cap(self, vocabulary: Vocabulary, count: int, seed: int, spent: np.ndarray | None = None) -> int:
        """The cap that :meth:`plan` keeps to, given the same: ``cap`` itself, or what ``auto`` comes to.

        Raises:
            UserError: as :meth:`plan`, contradictions aside; checking a recipe takes milliseconds.
        """
        groups = self._groups(vocabulary, self.choice(vocabulary), count,
                              np.random.default_rng((SAMPLING_STREAM, seed)))
        return self._checked_cap(groups, _counts(spent, vocabulary), vocabulary.name)

    def choice(self, vocabulary: Vocabulary) -> Choice:
        """What is drawn from: the whole vocabulary, or what ``only`` leaves of it."""
        if self.only is None:
            return Choice(range(len(vocabulary)), vocabulary.contradictions)
        from paddle_cxr.synthesis.drawable import drawable

        return drawable(vocabulary)

    def _groups(self, vocabulary: Vocabulary, choice: Choice, count: int, rng: np.random.Generator) -> list[_Group]:
        """What to draw from and how much of it, in the order of a row."""
        if count < 0:
            raise UserError(f"报告数量应不小于 0，现在是 {count}")
        by_type = [np.array([one for one in vocabulary.of_type(name).tolist() if one in choice.positions], np.int32)
                   for name in TYPES]
        anatomy = _Group("m", "解剖部位 anatomy", by_type[4], self.m, np.full(count, self.m))
        if self.balance == "none":
            union = np.concatenate(by_type[:4])
            return [_Group("k", "前四类 non-anatomy", union, self.k, np.full(count, self.k)), anatomy]
        quota = _even_quota(count, self.k, rng)
        return [_Group("k", name, members, -(-self.k // 4), quota[:, column])
                for column, (name, members) in enumerate(zip(FINDING_TYPES, by_type[:4], strict=True))] + [anatomy]

    def _checked_cap(self, groups: list[_Group], spent: np.ndarray, name: str) -> int:
        """The cap to keep to; raises :class:`UserError` with the arithmetic where the plan cannot be made."""
        for group in groups:
            if len(group.members) < group.most:
                advice = "" if self.balance == "none" or group.key == "m" else "，或设 balance: none"
                raise UserError(f"Sampler.{group.key}：每份报告要 {group.most} 个实体（{group.label}），"
                                f"而词表（vocabulary）{name} 里只有 {len(group.members)} 个；"
                                f"请减小 {group.key}，或换更大的词表{advice}")
        smallest = max(_smallest_cap(group, spent) for group in groups)
        if self.cap == "auto":
            return max([smallest] + [_cap_with_room(group, spent) for group in groups])
        for group in groups:
            places = int(group.left(self.cap, spent).sum())
            if places < group.need:
                count, size, used = len(group.quota), len(group.members), int(spent[group.members].sum())
                # In a balanced plan not every report gets the same number.
                needed = f"{count} × {group.most} = " if count * group.most == group.need else f"{count} 份报告共 "
                rest = f"，其中已用掉 {used} 次，只剩 {places} 次" if used else ""
                raise UserError(f"Sampler.cap：实体（{group.label}）需要 {needed}{group.need} 次，"
                                f"而 {size} × {self.cap} = {size * self.cap}{rest}；最小的 cap（τ_max）是 {smallest}，"
                                f"也可以减少报告数量或减小 {group.key}")
        return self.cap


def _counts(spent: np.ndarray | None, vocabulary: Vocabulary) -> np.ndarray:
    """int64 ``[len(vocabulary)]``; None is no use at all."""
    if spent is None:
        return np.zeros(len(vocabulary), np.int64)
    if np.shape(spent) != (len(vocabulary),):
        raise ValueError(f"spent has shape {np.shape(spent)} for {len(vocabulary)} entities")
    return np.asarray(spent, np.int64)


def _smallest_cap(group: _Group, spent: np.ndarray) -> int:
    """The smallest cap with places enough, by bisection.

    Places enough are all it takes: reports whose sizes differ by at most one can always be filled without repetition
    when no entity is wanted more often than there are reports (Gale and Ryser, 1957).
    """
    low, high = 0, int(spent.max(initial=0)) + len(group.quota)  # one too small (or nothing to draw), one that does
    while high - low > 1:
        middle = (low + high) // 2
        if group.left(middle, spent).sum() < group.need:
            low = middle
        else:
            high = middle
    return max(high, 1)


def _cap_with_room(group: _Group, spent: np.ndarray) -> int:
    """The smallest cap with 1 % more places than draws, those spent included.

    Including them makes the replacements of rejected reports come to the cap of the first plan.
    """
    drawn = group.need + int(spent[group.members].sum())
    return -(-drawn * (100 + ROOM) // (100 * max(len(group.members), 1)))


def _even_quota(count: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """int64 ``[count, 4]``: how many entities of each type a report gets, equally many over the whole plan.

    The k mod 4 places left over go round the types in an order drawn anew every four reports, after which each type
    has had as many as the others.
    """
    base, odd = divmod(k, 4)
    quota = np.full((count, 4), base)
    order = _shuffled(rng, (-(-count // 4), 4))
    report = np.arange(count)
    for place in range(odd):
        quota[report, order[report // 4, (report % 4 * odd + place) % 4]] += 1
    return quota


def _shuffled(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random permutations along the last axis, made of ``random()`` alone: how numpy itself shuffles may change."""
    return np.argsort(rng.random(shape), axis=-1, kind="stable")


def _uniform(rng: np.random.Generator) -> Iterator[float]:
    """Random numbers in [0, 1) without end; a block at a time is several times as fast as one by one."""
    while True:
        yield from rng.random(4096).tolist()


class _Pool:
    """The entities of a group, and those of them that are still below their cap.

    Attributes:
        left: how often each entity can still be drawn.
        live: the entities that can still be drawn, in no particular order.
    """

    def __init__(self, members: np.ndarray, left: np.ndarray) -> None:
        self.left = dict(zip(members.tolist(), left.tolist(), strict=True))
        self.live = [entity for entity, number in self.left.items() if number]

    def take(self, place: int) -> int:
        """Use ``live[place]`` once."""
        entity = self.live[place]
        self.left[entity] -= 1
        if not self.left[entity]:  # the last one fills its place: removing costs the same however long the list is
            self.live[place] = self.live[-1]
            self.live.pop()
        return entity

    def give_back(self, entity: int) -> None:
        """Undo one :meth:`take` of ``entity``."""
        if not self.left[entity]:
            self.live.append(entity)
        self.left[entity] += 1


class _Reports:
    """Draws one report after another.

    Args:
        pools: what to draw from.
        conflicts: the entities that each entity contradicts.
        uniform: random numbers in [0, 1).

    Attributes:
        rows: the entities of the reports so far.
        quotas: how many of each pool these have.
    """

    def __init__(self, pools: list[_Pool], conflicts: Mapping[int, frozenset[int]], uniform: Iterator[float]) -> None:
        self.pools, self.conflicts, self.uniform = pools, conflicts, uniform
        self.rows: list[list[int]] = []
        self.quotas: list[tuple[int, ...]] = []

    def draw(self, quotas: list[tuple[int, ...]]) -> None:
        """Draw a report for each element of ``quotas``, which says how many entities of each pool it gets.

        Empties ``quotas``.  Contradictions may leave entities that make no report and cannot be exchanged for others;
        then a report is taken back at random, and both are drawn again.
        """
        patience = PATIENCE
        while quotas:
            row = self._draw_patiently(quotas[-1])
            if row:
                self.rows.append(row)
                self.quotas.append(quotas.pop())
            elif patience and self.rows:
                patience -= 1
                quotas.append(self._undo())
            else:
                raise UserError(f"Sampler.contradictions：还差 {len(quotas)} 份报告，剩下的实体怎样组合都互相矛盾；"
                                "请增大 cap（τ_max），减小 k，或设 contradictions: allow")

    def _undo(self) -> tuple[int, ...]:
        """Give back the entities of one of the reports so far; returns its quotas."""
        place = int(next(self.uniform) * len(self.rows))
        for values in (self.rows, self.quotas):
            values[place], values[-1] = values[-1], values[place]
        self._give_back(self.rows.pop())
        return self.quotas.pop()

    def _draw_patiently(self, quotas: tuple[int, ...]) -> list[int] | None:
        if self.conflicts:  # without any, a fresh start would end where this one does
            for _ in range(RESTARTS):
                row = self._draw_report(quotas)
                if row:
                    return row
        return self._draw_report(quotas, may_exchange=True)

    def _draw_report(self, quotas: tuple[int, ...], may_exchange: bool = False) -> list[int] | None:
        """A report, or None where what is left does not make one."""
        row: list[int] = []
        for pool, quota in zip(self.pools, quotas, strict=True):
            for _ in range(quota):
                if not (self._draw(pool, row) or may_exchange and self._exchange(pool, row)):
                    self._give_back(row)
                    return None
        return row

    def _give_back(self, row: list[int]) -> None:
        for entity in row:
            for pool in self.pools:
                if entity in pool.left:
                    pool.give_back(entity)

    def _draw(self, pool: _Pool, row: list[int]) -> bool:
        """Draw one entity that fits into ``row``; False when there is none."""
        live = pool.live
        for _ in range(TRIES):
            place = int(next(self.uniform) * len(live))
            if self._fits(live[place], row):
                row.append(pool.take(place))
                return True
        # Rarely, all of these were refused: draw from the list of those that fit, which is the same distribution.
        places = [place for place, entity in enumerate(live) if self._fits(entity, row)]
        if places:
            row.append(pool.take(places[int(next(self.uniform) * len(places))]))
        return bool(places)

    def _fits(self, entity: int, row: list[int]) -> bool:
        return entity not in row and (entity not in self.conflicts or self.conflicts[entity].isdisjoint(row))

    def _exchange(self, pool: _Pool, row: list[int]) -> bool:
        """Give an entity that is left over to an earlier report, and add one of that report's to ``row`` instead.

        Where nothing contradicts, one exchange always does.  Were each entity that is left in all earlier reports,
        the places left could not suffice for the reports to come.  So one is missing in some earlier report; that
        report has at least as many of the pool as ``row`` has so far, hence one that ``row`` has not.
        """
        start = int(next(self.uniform) * len(self.rows))
        for place, surplus in enumerate(pool.live):
            for index in range(start - len(self.rows), start):  # negative ones count from the end: all, once
                other = self.rows[index]
                if surplus in other:
                    continue
                for column, wanted in enumerate(other):
                    if (wanted in pool.left and self._fits(wanted, row)
                            and self._fits(surplus, other[:column] + other[column + 1:])):
                        other[column] = pool.take(place)
                        row.append(wanted)
                        return True
        return False
