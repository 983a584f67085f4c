"""The rounds of a plan: what rejected reports give back is drawn again, and no cap is ever passed."""

import random

import numpy as np
import pytest

from paddle_cxr.synthesis.entities import TYPES, Entity
from paddle_cxr.synthesis.plan import Plan
from paddle_cxr.synthesis.sampling import BalancedSampler
from paddle_cxr.synthesis.schema import ReportsGlobal
from paddle_cxr.synthesis.vocabulary import Vocabulary

REPORTS = 80


@pytest.fixture(scope="module")
def vocabulary():
    """20 entities of each type, some of which contradict each other."""
    return Vocabulary([Entity(f"{type_[0]}{len(type_)}x{number}", type_, f"{type_} {number}x",
                              contradicts=(f"{type_[0]}{len(type_)}x{number - 1}",) if number % 4 == 1 else ())
                       for type_ in TYPES for number in range(20)], "v")


def plan(vocabulary, seed, shard=0, shards=1, **sampler):
    settings = ReportsGlobal(output_dir="unused", reports=REPORTS, seed=seed, shard=shard, shards=shards)
    return Plan(BalancedSampler(k=9, m=3, **sampler), vocabulary, settings)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("sampler", [{"cap": "auto"}, {"cap": 12}, {"cap": 12, "balance": "type"},
                                     {"cap": "auto", "balance": "type"}])
def test_rejected_reports_are_replaced_within_the_cap_of_all_shards(vocabulary, sampler, shards):
    for seed in range(5):
        used, choose, numbers = np.zeros(len(vocabulary), int), random.Random(seed), []
        for shard in range(shards):
            one, accepted = plan(vocabulary, seed, shard, shards, **sampler), set()
            orders = one.first()
            for round_ in range(1, 5):
                accepted |= {order.number for order in orders if choose.random() < 0.7}
                rejected = sum(order.number not in accepted for order in orders)
                orders = one.again(round_, accepted)
                assert len(orders) == rejected  # never fewer, however little room there is
                assert all(one.round_of(order.number) == round_ for order in orders)
            accepted |= {order.number for order in orders}
            assert len(accepted) == len(one)
            numbers += accepted
            used += np.bincount(np.ravel([one.orders[number].positions for number in accepted]),
                                minlength=len(vocabulary))
        assert used.sum() == REPORTS * 12 and used.max() <= one.cap
        assert len(set(numbers)) == REPORTS


def test_rounds_are_decided_by_what_was_accepted(vocabulary):
    plans = [plan(vocabulary, 3, cap="auto") for _ in range(2)]
    assert [one.again(1, set(range(70))) for one in plans][0] == plans[1].again(1, set(range(70)))
    assert plans[0].digest == plans[1].digest != plan(vocabulary, 4, cap="auto").digest


def test_shards_do_not_draw_the_same_replacements(vocabulary):
    """They have nearly the same left: with one seed for all, they would draw nearly the same."""
    replaced = [plan(vocabulary, 0, shard, 2, cap=200).again(1, set()) for shard in range(2)]
    same = sum(set(one.positions) == set(other.positions) for one, other in zip(*replaced, strict=True))
    assert same == 0
