"""Balanced sampling: exact caps to the last place, the paper's distribution, mistakes told with their arithmetic."""

from __future__ import annotations

import functools
import hashlib
import itertools
import random
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_cxr.errors import UserError
from paddle_cxr.registry import build
from paddle_cxr.synthesis.entities import TYPES, Entity
from paddle_cxr.synthesis.sampling import BalancedSampler
from paddle_cxr.synthesis.vocabulary import Vocabulary, load_vocabulary

Pairs = Sequence[tuple[int, int]]


def vocabulary(*sizes: int, pairs: Pairs = ()) -> Vocabulary:
    """Entities of the five types, so many of each; ``pairs`` of positions contradict each other."""
    types = [type_ for type_, size in zip(TYPES, sizes, strict=True) for _ in range(size)]
    contradicts = {one: [f"e{other}" for first, other in pairs if first == one] for one, _ in pairs}
    return Vocabulary([Entity(f"e{number}", type_, f"entity{number}x", contradicts=tuple(contradicts.get(number, ())))
                       for number, type_ in enumerate(types)], "test")


def check(plan: np.ndarray, words: Vocabulary, sampler: BalancedSampler, count: int) -> np.ndarray:
    """Assert what holds for every plan; returns how often each entity was drawn."""
    assert plan.shape == (count, sampler.k + sampler.m) and plan.dtype == np.int32
    is_anatomy = np.array([entity.type == "anatomy" for entity in words.entities])
    assert not is_anatomy[plan[:, :sampler.k]].any() and is_anatomy[plan[:, sampler.k:]].all()
    in_order = np.sort(plan, axis=1)
    assert (in_order[:, 1:] > in_order[:, :-1]).all(), "an entity twice in a report"
    if sampler.contradictions == "avoid":
        assert not any(set(row) & words.contradictions.get(entity, frozenset()) for row in plan.tolist()
                       for entity in row)
    return np.bincount(plan.ravel(), minlength=len(words))


# --- caps -----------------------------------------------------------------------------------------------------------

def rate_sized(scale: int = 1) -> tuple[Vocabulary, int]:
    """The issue's vocabulary and number of reports, or 1/scale of both; every other pair of types contradicts."""
    quarter = 34_125 // scale
    return vocabulary(*[quarter] * 4, 40_500 // scale,
                      pairs=[(one, one + quarter) for one in range(0, quarter, 2)]), 200_000 // scale


@pytest.mark.parametrize("balance", ["none", "type"])
def test_caps_hold_when_almost_everything_is_used_up(balance):
    words, count = rate_sized(scale=25)
    sampler = BalancedSampler(k=9, m=3, cap=15, balance=balance)
    used = check(sampler.plan(words, count, seed=0), words, sampler, count)
    assert used.max() == 15
    assert used[words.of_type("anatomy")].sum() / (15 * 1620) == pytest.approx(0.987, abs=0.001)


@pytest.mark.slow
def test_two_hundred_thousand_reports():
    words, count = rate_sized()
    sampler = BalancedSampler()
    start = time.process_time()
    plan = sampler.plan(words, count, seed=0)
    assert time.process_time() - start <= 10
    assert check(plan, words, sampler, count).max() == 15


@pytest.mark.parametrize("contradictions", ["avoid", "allow"])
@pytest.mark.parametrize("balance", ["none", "type"])
@pytest.mark.parametrize("seed", range(3))
def test_every_place_of_every_entity_can_be_used(seed, balance, contradictions):
    words = vocabulary(40, 40, 40, 40, 40, pairs=[(number, number + 80) for number in range(60)])
    sampler = BalancedSampler(k=12, m=3, cap=15, balance=balance, contradictions=contradictions)
    used = check(sampler.plan(words, 200, seed), words, sampler, 200)
    assert (used == 15).all()


def test_entities_with_many_places_left_are_spread_over_the_reports():
    """Two entities may still be drawn in each report, the others twice: the last reports cannot be filled in turn."""
    words = vocabulary(12, 0, 0, 0, 0)
    sampler = BalancedSampler(k=4, m=0, cap=10)
    spent = np.array([0, 0] + [8] * 10)
    used = check(sampler.plan(words, 10, 3, spent), words, sampler, 10)
    assert used.tolist() == [10, 10] + [2] * 10


@given(sizes=st.tuples(*[st.integers(0, 4)] * 4, st.integers(1, 4)), k=st.integers(1, 8), m=st.integers(0, 3),
       cap=st.integers(1, 8), count=st.integers(0, 12), balance=st.sampled_from(["none", "type"]),
       contradictions=st.sampled_from(["avoid", "allow"]), seed=st.integers(0, 2**32), data=st.data())
def test_any_small_plan_keeps_the_rules_or_is_refused(sizes, k, m, cap, count, balance, contradictions, seed, data):
    size = sum(sizes)
    pairs = data.draw(st.lists(st.sampled_from(list(itertools.combinations(range(size), 2)) or [(0, 0)]), max_size=5,
                               unique=True)) if size > 1 else []
    spent = np.array(data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)))
    words, sampler = vocabulary(*sizes, pairs=pairs), BalancedSampler(k, m, cap, balance, contradictions)
    left = np.clip(cap - spent, 0, count)
    anatomy, others = words.of_type("anatomy"), np.concatenate([words.of_type(name) for name in TYPES[:4]])
    feasible = (len(anatomy) >= m and len(others) >= k and left[anatomy].sum() >= count * m
                and left[others].sum() >= count * k)
    try:
        plan = sampler.plan(words, count, seed, spent)
    except UserError:
        # Under balance="type" more is needed; and what can be avoided is tested against a full search below.
        assert not feasible or balance == "type" or contradictions == "avoid"
        return
    assert feasible
    used = check(plan, words, sampler, count)
    assert (used + spent <= np.maximum(spent, cap)).all()
    if balance == "type":
        assert_balanced(plan, words, k)


def can_be_filled(size: int, k: int, cap: int, count: int, pairs: Pairs) -> bool:
    """Whether ``count`` reports of k entities exist at all, by trying everything."""
    reports = [report for report in itertools.combinations(range(size), k)
               if not set(itertools.combinations(report, 2)) & set(pairs)]

    @functools.lru_cache(None)
    def fill(left: tuple[int, ...], reports_left: int, first: int) -> bool:
        """``first``: reports are chosen in ascending order, as their order says nothing."""
        return reports_left == 0 or any(
            all(left[entity] for entity in report)
            and fill(tuple(number - (entity in report) for entity, number in enumerate(left)), reports_left - 1, place)
            for place, report in enumerate(reports) if place >= first)

    return fill((cap,) * size, count, 0)


def test_contradictions_are_avoided_wherever_they_can_be():
    """Tiny vocabularies full of contradictions, hardly a place to spare, against a full search."""
    choose, outcomes = random.Random(0), Counter()
    for _ in range(300):
        size = choose.randint(2, 9)
        k, count = choose.randint(1, min(4, size)), choose.randint(1, 7)
        cap = -(-k * count // size) + choose.choice([0, 0, 1])
        pairs = [pair for pair in itertools.combinations(range(size), 2) if choose.random() < 0.2]
        words = vocabulary(size, 0, 0, 0, 0, pairs=pairs)
        possible, sampler = can_be_filled(size, k, cap, count, pairs), BalancedSampler(k, 0, cap)
        outcomes[possible] += 1
        if possible:
            assert check(sampler.plan(words, count, seed=0), words, sampler, count).max() <= cap
        else:
            with pytest.raises(UserError, match="contradictions|最小的 cap"):
                sampler.plan(words, count, seed=0)
    assert min(outcomes.values()) > 30


# --- distribution ---------------------------------------------------------------------------------------------------

def deviation(counts: np.ndarray) -> float:
    """Pearson's χ² of ``counts`` against all alike, in standard deviations above its mean."""
    expected, freedom = counts.mean(), counts.size - 1
    return (((counts - expected) ** 2).sum() / expected - freedom) / np.sqrt(2 * freedom)


def test_sets_are_uniform_where_no_cap_is_reached():
    words = vocabulary(2, 3, 2, 2, 5)
    plan = BalancedSampler(k=4, m=2, cap=60_000, contradictions="allow").plan(words, 60_000, seed=1)
    four = Counter(map(frozenset, plan[:, :4].tolist()))
    assert len(four) == 126 and deviation(np.array(list(four.values()))) < 4  # 9 choose 4
    both = Counter((frozenset(row[:4]), frozenset(row[4:])) for row in plan.tolist())
    assert len(both) == 1260 and deviation(np.array(list(both.values()))) < 4  # and independent of the anatomies


def test_avoided_contradictions_leave_the_other_sets_alike():
    words = vocabulary(6, 0, 0, 0, 0, pairs=[(0, 1)])
    plan = BalancedSampler(k=2, m=0, cap=20_000).plan(words, 20_000, seed=2)
    sets = Counter(map(frozenset, plan.tolist()))
    assert len(sets) == 14 and frozenset([0, 1]) not in sets
    # Two that do not contradict are drawn 1/6 · 1/5 twice; after 0 or 1 there are four to choose from instead of five.
    free = [sets[frozenset(pair)] for pair in itertools.combinations(range(2, 6), 2)]
    bound = [sets[frozenset(pair)] for pair in itertools.product((0, 1), range(2, 6))]
    assert np.mean(free) == pytest.approx(20_000 / 15, rel=0.05)
    assert np.mean(bound) == pytest.approx(20_000 * (1 / 30 + 1 / 24), rel=0.05)


def as_the_paper_says(size: int, k: int, cap: int, count: int, choose: random.Random) -> list[int]:
    """Draw an entity; when it is capped, or in the report already, draw again.  Returns how often each was used."""
    used = [0] * size
    for _ in range(count):
        report: set[int] = set()
        while len(report) < k:
            entity = choose.randrange(size)
            if used[entity] < cap and entity not in report:
                report.add(entity)
                used[entity] += 1
    return used


def test_same_distribution_as_redrawing_capped_entities():
    """How many entities a plan uses 0, 1, 2 and 3 times, against the paper's procedure word for word."""
    words, sampler, choose = vocabulary(8, 0, 0, 0, 0), BalancedSampler(k=3, m=0, cap=3), random.Random(3)
    ours = [np.bincount(sampler.plan(words, 5, seed).ravel(), minlength=8) for seed in range(3000)]
    papers = [as_the_paper_says(8, 3, 3, 5, choose) for _ in range(3000)]
    tables = [(np.array(used)[:, :, None] == np.arange(4)).sum(axis=1) for used in (ours, papers)]
    error = np.sqrt(sum(table.var(axis=0) for table in tables) / 3000)
    assert (np.abs(tables[0].mean(axis=0) - tables[1].mean(axis=0)) < 4 * error).all()


# --- balanced types -------------------------------------------------------------------------------------------------

def of_types(plan: np.ndarray, words: Vocabulary) -> np.ndarray:
    """[reports, 4]: entities of each type but anatomy."""
    number = np.array([TYPES.index(entity.type) for entity in words.entities])
    return (number[plan][:, :, None] == np.arange(4)).sum(axis=1)


def assert_balanced(plan: np.ndarray, words: Vocabulary, k: int) -> None:
    counts = of_types(plan, words)
    assert np.ptp(counts.sum(axis=0)) <= 1
    assert set(counts.ravel().tolist()) <= {k // 4, -(-k // 4)}


@pytest.mark.parametrize("k", range(1, 10))
def test_types_are_equally_frequent(k):
    words = vocabulary(50, 10, 20, 30, 5)
    for count in (1, 2, 3, 97, 400):
        sampler = BalancedSampler(k=k, m=2, cap="auto", balance="type")
        plan = sampler.plan(words, count, seed=k)
        check(plan, words, sampler, count)
        assert_balanced(plan, words, k)


def test_odd_places_go_to_all_pairs_of_types_alike():
    words = vocabulary(9, 9, 9, 9, 1)
    plan = BalancedSampler(k=2, m=0, cap=9999, balance="type").plan(words, 6000, seed=0)
    pairs = Counter(tuple(np.flatnonzero(row).tolist()) for row in of_types(plan, words))
    assert len(pairs) == 6 and deviation(np.array(list(pairs.values()))) < 5


def test_without_balance_a_type_is_drawn_as_its_size():
    words = vocabulary(50, 10, 20, 20, 1)
    plan = BalancedSampler(k=4, m=0, cap=9999).plan(words, 5000, seed=0)
    assert of_types(plan, words).sum(axis=0) / 20_000 == pytest.approx(np.array([0.5, 0.1, 0.2, 0.2]), abs=0.02)


# --- the same again -------------------------------------------------------------------------------------------------

def test_a_plan_is_decided_by_its_seed():
    words, sampler = vocabulary(30, 20, 10, 10, 12), BalancedSampler(k=9, m=3, cap=15)
    plan = sampler.plan(words, 40, seed=7)
    assert (plan == sampler.plan(words, 40, seed=7)).all()
    assert (plan != sampler.plan(words, 40, seed=8)).any()
    # On any platform, with any version of numpy: a plan is made again when a run resumes, or on another machine.
    assert hashlib.sha256(plan.astype("<i4").tobytes()).hexdigest()[:16] == "dfdcc9212c10f5a8"


def test_shards_are_slices_of_one_plan():
    words, sampler = vocabulary(*[25] * 4, 31), BalancedSampler(k=9, m=3, cap=15)
    plan = sampler.plan(words, 150, seed=4)
    shards = [BalancedSampler(k=9, m=3, cap=15).plan(words, 150, seed=4)[shard::4] for shard in range(4)]
    assert sorted(map(len, shards)) == [37, 37, 38, 38]
    used = sum(np.bincount(shard.ravel(), minlength=len(words)) for shard in shards)
    assert used.max() <= 15 and (used == np.bincount(plan.ravel(), minlength=len(words))).all()


def test_no_part_of_the_plan_gets_the_leftovers():
    """The last reports drawn have few entities to choose from; they must not stand together."""
    words = vocabulary(*[25] * 4, 30)
    plan = BalancedSampler(k=10, m=3, cap=100).plan(words, 1000, seed=0)
    varieties = [len(np.unique(part[:, :10])) for part in np.split(plan, 20)]
    assert min(varieties) > 95


def test_what_rejected_reports_give_back_is_used_for_their_replacements():
    words, sampler = vocabulary(*[30] * 4, 40), BalancedSampler(k=9, m=3, cap="auto")
    plan = sampler.plan(words, 300, seed=0)
    accepted = plan[25:]
    spent = np.bincount(accepted.ravel(), minlength=len(words))
    replacements = sampler.plan(words, 25, seed=1, spent=spent)
    used = spent + check(replacements, words, sampler, 25)
    cap = sampler.resolved_cap(words, 300, seed=0)
    assert used.max() <= cap == sampler.resolved_cap(words, 25, seed=1, spent=spent)


# --- caps that are worked out, and mistakes --------------------------------------------------------------------------

@pytest.mark.parametrize("count, expected", [(200_000, 15), (200_500, 16), (100_000, 8), (1, 1), (0, 1)])
def test_automatic_cap_leaves_one_per_cent(count, expected):
    words = vocabulary(0, 0, 0, 1400, 405)  # a hundredth of the paper's
    assert BalancedSampler(cap="auto").resolved_cap(words, count // 100, seed=0) == expected


def test_automatic_cap_of_uneven_types():
    """The smallest type decides: 100 entities, of which 20 have to come from five."""
    words, sampler = vocabulary(50, 5, 50, 50, 0), BalancedSampler(k=4, m=0, cap="auto", balance="type")
    assert sampler.resolved_cap(words, 100, seed=0) == 21  # 20 would leave nothing
    assert check(sampler.plan(words, 100, seed=0), words, sampler, 100).max() <= 21


@pytest.mark.parametrize("arguments, message", [
    ({"cap": 14}, "实体（解剖部位 anatomy）需要 2000 × 3 = 6000 次，而 405 × 14 = 5670；最小的 cap（τ_max）是 15"),
    ({"k": 11}, "实体（前四类 non-anatomy）需要 2000 × 11 = 22000 次，而 1364 × 15 = 20460；最小的 cap（τ_max）是 17"),
    ({"balance": "type", "cap": 13}, "实体（abnormality）需要 2000 份报告共 4500 次，而 341 × 13 = 4433；最小的 cap"),
    ({"k": 1365}, "Sampler.k：每份报告要 1365 个实体（前四类 non-anatomy），而词表（vocabulary）test 里只有 1364 个"),
    ({"m": 406}, "Sampler.m：每份报告要 406 个实体（解剖部位 anatomy），而词表（vocabulary）test 里只有 405 个"),
    ({"k": 1365, "balance": "type"}, "要 342 个实体（abnormality），而词表（vocabulary）test 里只有 341 个"),
])
def test_infeasible_settings_are_refused_with_the_arithmetic(arguments, message):
    words = vocabulary(341, 341, 341, 341, 405)
    with pytest.raises(UserError) as error:
        BalancedSampler(**arguments).plan(words, 2000, seed=0)
    assert message in str(error.value)


def test_the_smallest_cap_told_is_met():
    words = vocabulary(*[341] * 4, 405)
    sampler = BalancedSampler(k=9, m=3, cap=15)
    check(sampler.plan(words, 2000, seed=0), words, sampler, 2000)


def test_what_is_used_up_is_part_of_the_arithmetic():
    words = vocabulary(10, 0, 0, 0, 0)
    with pytest.raises(UserError) as error:
        BalancedSampler(k=2, m=0, cap=4).plan(words, 10, 0, spent=np.full(10, 3))
    assert "20 次，而 10 × 4 = 40，其中已用掉 30 次，只剩 10 次；最小的 cap（τ_max）是 5" in str(error.value)


def test_an_empty_type_cannot_be_balanced():
    with pytest.raises(UserError, match="（disease）.*只有 0 个.*balance: none"):
        BalancedSampler(k=4, m=1, balance="type").plan(vocabulary(5, 5, 0, 5, 5), 3, seed=0)


def test_contradictions_that_cannot_be_avoided_are_refused():
    words = vocabulary(2, 0, 0, 0, 0, pairs=[(0, 1)])
    with pytest.raises(UserError, match="contradictions: allow"):
        BalancedSampler(k=2, m=0).plan(words, 3, seed=0)
    assert BalancedSampler(k=2, m=0, contradictions="allow").plan(words, 3, seed=0).shape == (3, 2)


@pytest.mark.parametrize("arguments, message", [
    ({"k": 0}, "Sampler.k：应不小于 1，现在是 0"), ({"m": -1}, "Sampler.m：应不小于 0"),
    ({"cap": 0}, "Sampler.cap：应不小于 1"), ({"balance": "typ"}, "Sampler.balance.*是不是 type"),
    ({"cap": "all"}, "Sampler.cap"), ({"tau": 3}, "Sampler.tau"),
])
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(UserError, match=message):
        build("sampler", {"name": "BalancedSampler", **arguments}, "Sampler")


def test_number_of_reports_out_of_range():
    sampler, words = BalancedSampler(k=2, m=1), vocabulary(3, 0, 0, 0, 1)
    with pytest.raises(UserError, match="不小于 0"):
        sampler.plan(words, -1, seed=0)
    assert sampler.plan(words, 0, seed=0).shape == (0, 3)


# --- the shipped vocabulary -----------------------------------------------------------------------------------------

def test_shipped_vocabulary_balanced_and_free_of_contradictions():
    words, sampler = load_vocabulary(), BalancedSampler(k=9, m=3, cap="auto", balance="type")
    plan = sampler.plan(words, 2000, seed=0)
    check(plan, words, sampler, 2000)
    assert_balanced(plan, words, 9)
    ids = np.array([entity.id for entity in words.entities])[plan]
    assert all(len(set(row)) == len(row) for row in ids.tolist()), "a thing both present and denied"
