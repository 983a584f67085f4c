"""Which entities each report mentions: the whole set first, then what takes the place of rejected reports."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.synthesis.reports import Order
from paddle_cxr.synthesis.sampling import BalancedSampler
from paddle_cxr.synthesis.schema import ReportsGlobal
from paddle_cxr.synthesis.vocabulary import Vocabulary


class Plan:
    """The orders of one shard, round after round; the same on every machine that has the same recipe.

    The first round draws the whole set and takes this shard's rows.  A later round draws anew for the reports that
    were rejected: from their entities, and from this shard's part of what the first round left unused.

    Args:
        sampler: draws the entities.
        vocabulary: what it draws from.
        settings: number of reports, seed and shard.

    Attributes:
        orders: number → order, of the rounds so far.
        cap: τ_max that is kept to over all shards and rounds.
        drawn_from: positions of the entities that can be drawn at all.
        digest: hex; tells the first round of one recipe, vocabulary and sampler from others.

    Raises:
        UserError: the settings cannot be met.
    """

    def __init__(self, sampler: BalancedSampler, vocabulary: Vocabulary, settings: ReportsGlobal) -> None:
        self.vocabulary, self.settings = vocabulary, settings
        self.cap = sampler.resolved_cap(vocabulary, settings.reports, settings.seed)
        self.drawn_from = sampler.choice(vocabulary).positions
        self._sampler = copy.copy(sampler)
        self._sampler.cap = self.cap  # ``auto`` would be worked out anew for each round
        table = self._sampler.plan(vocabulary, settings.reports, settings.seed)
        own = np.arange(settings.shard, settings.reports, settings.shards)
        self.digest = hashlib.sha256(table.astype("<i4").tobytes()).hexdigest()
        # This shard may use so many of each entity, over all rounds.
        self._budget = (self.cap - self._uses(table)) // settings.shards + self._uses(table[own])
        self.orders: dict[int, Order] = {}
        self._add(own.tolist(), table[own].tolist())

    def __len__(self) -> int:
        """Reports that this shard is to come to."""
        return len(range(self.settings.shard, self.settings.reports, self.settings.shards))

    def round_of(self, number: int) -> int:
        """The round that report ``number`` belongs to, from 0."""
        return number // self.settings.reports

    def first(self) -> list[Order]:
        """The orders of the first round."""
        return [order for number, order in self.orders.items() if self.round_of(number) == 0]

    def again(self, round_: int, accepted: set[int]) -> list[Order]:
        """The orders of a later round, one for each order of the round before that is not in ``accepted``.

        Args:
            round_: from 1; each follows the one before.
            accepted: numbers of the accepted reports of all rounds before.
        """
        settings = self.settings
        rejected = [order for number, order in self.orders.items()
                    if self.round_of(number) == round_ - 1 and number not in accepted]
        left = self._budget - self._uses([self.orders[number].positions for number in accepted])
        try:
            table = self._sampler.plan(self.vocabulary, len(rejected), self._seed(round_), self.cap - left).tolist()
        except UserError:  # what was given back makes no other sets that keep the rules: it still makes the same ones
            table = [order.positions for order in rejected]
        start = round_ * settings.reports + settings.shard
        return self._add(range(start, start + len(table) * settings.shards, settings.shards), table)

    def _seed(self, round_: int) -> int:
        """Of its own for each round and shard: shards that have much the same left would draw much the same."""
        place = f"{self.settings.seed} round {round_} shard {self.settings.shard}".encode()
        return int.from_bytes(hashlib.blake2b(place, digest_size=4).digest(), "little")

    def _add(self, numbers: Iterable[int], rows: Iterable[Iterable[int]]) -> list[Order]:
        orders = [Order(number, tuple(row)) for number, row in zip(numbers, rows, strict=True)]
        self.orders |= {order.number: order for order in orders}
        return orders

    def _uses(self, rows: np.ndarray | list[tuple[int, ...]]) -> np.ndarray:
        """``[len(vocabulary)]``: how often each entity stands in ``rows``."""
        return np.bincount(np.asarray(rows, np.int64).ravel(), minlength=len(self.vocabulary))
