"""The paired bootstrap and what it is made of, against plain computations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from paddle_cxr.evaluation.significance import holm, macro_auc_statistic, mean_statistic, paired_bootstrap

RNG = np.random.default_rng(0)


def one_row(values):
    return np.asarray(values, np.float64)[None]


def test_macro_auc_with_weights_is_scikit_learns():
    labels = RNG.integers(0, 2, (60, 3)).astype(float)
    labels[RNG.random(labels.shape) < 0.2] = np.nan
    scores = RNG.normal(size=(60, 3)).round(1)  # with ties
    weights = RNG.integers(0, 4, (5, 60)).astype(float)
    for row, got in zip(weights, macro_auc_statistic(labels, scores)(weights), strict=True):
        known = [~np.isnan(labels[:, k]) & (row > 0) for k in range(3)]
        assert got == pytest.approx(np.mean([roc_auc_score(labels[of, k], scores[of, k], sample_weight=row[of])
                                             for k, of in enumerate(known)]))


def test_macro_auc_of_degenerate_labels():
    ones = np.ones((1, 4))
    unknown = macro_auc_statistic(np.full((4, 2), np.nan), np.zeros((4, 2)))
    assert np.isnan(unknown(ones)).all()
    one_class = macro_auc_statistic(np.array([[1, 1], [1, 0], [1, 1], [1, 0.0]]), np.tile([[3.0, 5.0]], (4, 1)))
    assert one_class(ones)[0] == 0.5  # the first finding has no negatives; all scores of the second are equal


def test_the_mean_of_each_kinds_mean_ignores_what_is_unknown():
    values = np.array([1.0, np.nan, 3.0, 10.0, np.nan])
    kinds = ["a", "a", "a", "b", "c"]
    weights = np.array([[1, 1, 1, 1, 1], [0, 5, 2, 3, 0], [0, 0, 0, 1, 1.0]])
    assert mean_statistic(values, kinds)(weights) == pytest.approx([6.0, 6.5, 10.0])
    assert mean_statistic(values)(weights) == pytest.approx([14 / 3, 36 / 5, 10.0])
    assert np.isnan(mean_statistic(np.full(3, np.nan))(np.ones((1, 3)))).all()


def test_a_model_does_not_differ_from_itself():
    statistic = mean_statistic(RNG.normal(size=40))
    found = paired_bootstrap([statistic], [statistic], 40, n=200)
    assert (found.value, found.ci95, found.p) == (0.0, (0.0, 0.0), 1.0)


@pytest.mark.parametrize("paired", [False, True])
def test_it_is_the_plain_loop_over_resamples_of_patients_and_seeds(paired):
    first, second = RNG.normal(0.4, 1, (2, 30)), RNG.normal(size=(2, 30))
    patients = [f"p{i // 3}" for i in range(30)]
    found = paired_bootstrap([mean_statistic(one) for one in first], [mean_statistic(one) for one in second], 30,
                             patients, n=4000, seed=1, paired=paired)
    rng, differences = np.random.default_rng(7), []
    for _ in range(4000):
        rows = np.concatenate([np.arange(3 * p, 3 * p + 3) for p in rng.integers(10, size=10)])
        seeds = rng.integers(2, size=2)
        others = seeds if paired else rng.integers(2, size=2)
        differences.append(first[seeds][:, rows].mean() - second[others][:, rows].mean())
    assert found.value == pytest.approx(first.mean() - second.mean())
    assert found.ci95 == pytest.approx(tuple(np.percentile(differences, [2.5, 97.5])), abs=0.05)
    assert found.p == pytest.approx(2 * min(np.mean(np.array(differences) <= 0), np.mean(np.array(differences) >= 0)),
                                    abs=0.03)


def test_what_one_seed_gains_and_another_loses_is_no_difference():
    """The images would say it is one: every one of them scores higher on average over these three seeds."""
    rng = np.random.default_rng(0)
    hard = rng.normal(size=300)
    base = [mean_statistic(hard + rng.normal(0, 0.01, 300)) for _ in range(3)]
    lucky = [mean_statistic(hard + gain + rng.normal(0, 0.01, 300)) for gain in (0.5, -0.2, -0.1)]
    better = [mean_statistic(hard + gain + rng.normal(0, 0.01, 300)) for gain in (0.1, 0.06, 0.08)]
    assert paired_bootstrap(lucky, base, 300, n=2000, paired=True).p > 0.3
    assert paired_bootstrap(better, base, 300, n=2000, paired=True).p < 0.01
    with pytest.raises(ValueError, match="pairs of 3 and 2"):
        paired_bootstrap(better, base[:2], 300, paired=True)


def test_without_a_difference_a_small_p_is_as_rare_as_it_says():
    """Two models with the same errors on average: p < 0.05 in about 5 % of experiments, never in half of them."""
    rng = np.random.default_rng(3)
    small = 0
    for seed in range(200):
        hard = rng.normal(size=80)  # what both find hard
        both = [mean_statistic(hard + rng.normal(size=80)) for _ in range(2)]
        p = paired_bootstrap(both[:1], both[1:], 80, n=200, seed=seed).p
        small += p < 0.05
    assert 2 <= small <= 24  # binomial(200, 0.05 … 0.07)


def test_what_has_no_value_has_no_p():
    nothing = mean_statistic(np.full(5, np.nan))
    found = paired_bootstrap([nothing], [nothing], 5, n=50)
    assert np.isnan(found.value) and found.ci95 is None and found.p is None
    with pytest.raises(ValueError, match="each side"):
        paired_bootstrap([], [nothing], 5)


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12))
def test_holm_never_makes_a_p_smaller_and_keeps_the_order(values):
    adjusted = holm(values)
    known = sorted((p, q) for p, q in zip(values, adjusted, strict=True) if p is not None)
    assert [p is None for p in values] == [q is None for q in adjusted]
    assert all(p <= q <= 1 for p, q in known)
    assert [q for _, q in known] == sorted(q for _, q in known)
    if known:
        assert known[0][1] == pytest.approx(min(1, known[0][0] * len(known)))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_how_often_a_sample_counts_may_be_a_small_whole_number():
    """The bootstrap hands out bytes, for speed: sums and products of them must not overflow."""
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 200, (3, 500)).astype(np.uint8)
    labels, scores = rng.integers(0, 2, (500, 2)).astype(float), rng.normal(size=(500, 2))
    for statistic in (macro_auc_statistic(labels, scores), mean_statistic(scores[:, 0]),
                      mean_statistic(scores[:, 0], rng.integers(0, 3, 500).tolist())):
        assert statistic(weights) == pytest.approx(statistic(weights.astype(float)))
