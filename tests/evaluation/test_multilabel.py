"""Metrics of findings against scikit-learn, and of resamples against really repeating the samples."""

from __future__ import annotations

import json
import resource
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_cxr.errors import UserError
from paddle_cxr.evaluation import metrics as m
from paddle_cxr.evaluation.bootstrap import counts, resamples, unit_of, with_intervals
from paddle_cxr.evaluation.multilabel import multilabel_metrics
from paddle_cxr.evaluation.ranking import METRICS, Ranking
from paddle_cxr.evaluation.thresholds import f1_thresholds

sklearn_metrics = pytest.importorskip("sklearn.metrics")

NAMES = ("effusion", "nodule", "covid")


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels 0, 1 and NaN, one kind or none, few samples or many; scores all the same, with ties or without."""
    samples = draw(st.integers(1, 30))
    kinds = draw(st.sampled_from([[0.0, 1.0, np.nan], [0.0, 1.0], [1.0], [0.0], [np.nan]]))
    labels = np.array(draw(st.lists(st.sampled_from(kinds), min_size=3 * samples, max_size=3 * samples)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = random.normal(size=(samples, 3)) * draw(st.sampled_from([0, 1, 1e6]))
    if draw(st.booleans()):
        scores = np.round(scores)
    thresholds = np.where(random.random(3) < 0.2, np.nan, random.choice(scores[:, 0], 3))
    return labels.reshape(samples, 3), scores, thresholds


def by_hand(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float]:
    """Metrics of one finding by scikit-learn and by counting; NaN where undefined."""
    known = ~np.isnan(labels)
    truth, scores = labels[known] == 1, scores[known]
    found = dict.fromkeys(METRICS, np.nan)
    if truth.any() and not truth.all():
        found["auc"] = sklearn_metrics.roc_auc_score(truth, scores)
    if truth.any():
        found["average_precision"] = sklearn_metrics.average_precision_score(truth, scores)
    if np.isnan(threshold) or not len(truth):
        return found
    predicted = scores >= threshold
    if truth.any() or predicted.any():
        found["f1"] = sklearn_metrics.f1_score(truth, predicted)
    found["accuracy"] = np.mean(truth == predicted)
    if truth.any():
        found["sensitivity"] = np.mean(predicted[truth])
    if not truth.all():
        found["specificity"] = np.mean(~predicted[~truth])
    return found


@settings(max_examples=80, deadline=None)
@given(cases())
def test_equals_scikit_learn(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, scores, thresholds = case
    result = multilabel_metrics(labels, scores, NAMES, thresholds, n=0)
    expected = {name: by_hand(labels[:, k], scores[:, k], thresholds[k]) for k, name in enumerate(NAMES)}
    for name, values in expected.items():
        for metric, value in values.items():
            found = result["per_finding"][name][metric]
            assert found is None if np.isnan(value) else found == pytest.approx(value, abs=1e-12), (name, metric)
            assert result["per_finding"][name][f"{metric}_ci95"] is None
    for metric in METRICS:
        # Of one kind alone a finding is in no mean, though it may have some of the metrics.
        defined = [values[metric] for values in expected.values()
                   if not np.isnan(values["auc"]) and not np.isnan(values[metric])]
        assert result[f"macro_{metric}"] == (pytest.approx(np.mean(defined)) if defined else None)
    assert result["left_out"] == [name for name in NAMES if np.isnan(expected[name]["auc"])]
    json.dumps(result, allow_nan=False)


@settings(max_examples=25, deadline=None)
@given(cases(), st.integers(0, 1000))
def test_weights_mean_repeated_samples(case: tuple[np.ndarray, np.ndarray, np.ndarray], seed: int) -> None:
    """Counting a sample three times is the same as having it three times, for whole numbers of every type."""
    labels, scores, thresholds = case
    draws = np.random.default_rng(seed).integers(0, len(labels), (2, len(labels)))
    weights = np.stack([np.bincount(draw, minlength=len(labels)) for draw in draws])
    for k in range(3):
        threshold = float(thresholds[k])
        ranking = Ranking(labels[:, k], scores[:, k])
        repeated = [by_hand(labels[draw, k], scores[draw, k], threshold) for draw in draws]
        for kind in (np.uint8, np.int64, np.float64):
            for metric, values in ranking.measure(weights.astype(kind), threshold).items():
                np.testing.assert_allclose(values, [one[metric] for one in repeated], atol=1e-12, err_msg=metric)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_the_f1_threshold_is_the_best_there_is(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, scores, _ = case
    for k, threshold in enumerate(f1_thresholds(labels, scores)):
        known = ~np.isnan(labels[:, k])
        truth, values = labels[known, k] == 1, scores[known, k]
        if not truth.any() or truth.all():
            assert np.isnan(threshold)
            continue
        by_score = {one: sklearn_metrics.f1_score(truth, values >= one) for one in np.unique(values)}
        best = max(by_score.values())
        assert by_score[threshold] == pytest.approx(best)
        assert threshold >= max(one for one, value in by_score.items() if value > best - 1e-12) - 1e-12


def test_values_worked_out_by_hand() -> None:
    labels = np.array([[1], [0], [1], [0], [np.nan]], float)
    scores = np.array([[0.9], [0.8], [0.8], [0.1], [0.99]])
    result = multilabel_metrics(labels, scores, ["x"], [0.8], n=0)["per_finding"]["x"]
    assert result["auc"] == (1 + 0.5 + 1 + 1) / 4  # 0.9>0.8, 0.8=0.8 (half), 0.9>0.1, 0.8>0.1
    assert result["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert result["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 0))
    assert (result["accuracy"], result["sensitivity"], result["specificity"]) == (0.75, 1.0, 0.5)
    assert (result["positives"], result["negatives"], result["unknown"], result["threshold"]) == (2, 2, 1, 0.8)


def example(samples: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = (random.random((samples, 3)) < [0.5, 0.2, 0.1]).astype(float)
    labels[random.random((samples, 3)) < 0.1] = np.nan
    return labels, random.normal(size=(samples, 3)) + 1.2 * np.nan_to_num(labels)


def test_intervals_are_those_of_resampled_images() -> None:
    labels, scores = example(60)
    labels[:, 2] = 1  # never a negative: no AUC, and not in any mean of any resample
    thresholds = f1_thresholds(labels, scores)
    patients = [f"p{i // 3}" for i in range(60)]
    result = multilabel_metrics(labels, scores, NAMES, thresholds, patients, n=60, seed=4,
                                averages={"seen": ["nodule"], "none": []})
    plain = []
    for weights in np.concatenate(list(resamples(unit_of(patients, 60), 60, 4))).astype(int):
        drawn = np.repeat(np.arange(60), weights)
        plain.append([by_hand(labels[drawn, k], scores[drawn, k], thresholds[k]) for k in range(3)])
    for metric in METRICS:
        of_resamples = np.array([[one[metric] for one in row] for row in plain])
        for k, name in enumerate(NAMES):
            self_made = of_resamples[~np.isnan(of_resamples[:, k]), k]
            interval = result["per_finding"][name][f"{metric}_ci95"]
            assert interval == (pytest.approx(np.percentile(self_made, [2.5, 97.5])) if len(self_made) else None)
        aucs = np.array([[one["auc"] for one in row] for row in plain])
        means = m.mean_defined(np.where(np.isnan(aucs), np.nan, of_resamples))
        assert result[f"macro_{metric}_ci95"] == pytest.approx(np.percentile(means, [2.5, 97.5]))
    seen, none = result["averages"]["seen"], result["averages"]["none"]
    assert seen["macro_auc"] == result["per_finding"]["nodule"]["auc"]
    assert seen["macro_auc_ci95"] == result["per_finding"]["nodule"]["auc_ci95"]
    assert none == {"findings": [], **{f"macro_{metric}{end}": None for metric in METRICS for end in ("", "_ci95")}}
    assert result["bootstrap"] == {"resamples": 60, "unit": "patient", "seed": 4}


def test_every_mean_is_over_the_same_findings() -> None:
    """One false alarm on a finding nobody has made an F1 of 0, and one that everybody has an average precision of 1."""
    labels = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]], float)
    scores = np.array([[0.9, 0.9, 0.1], [0.8, 0.1, 0.1], [0.7, 0.1, 0.1], [0.1, 0.1, 0.1]])
    result = multilabel_metrics(labels, scores, NAMES, [0.5, 0.5, 0.5], n=20, averages={"seen": NAMES})
    assert result["left_out"] == ["nodule", "covid"]
    whole, one_kind, other_kind = (result["per_finding"][name] for name in NAMES)
    for metric in METRICS:
        assert result[f"macro_{metric}"] == result["averages"]["seen"][f"macro_{metric}"] == whole[metric]
    assert result["macro_f1"] == pytest.approx(0.8) and result["macro_average_precision"] == pytest.approx(5 / 6)
    assert one_kind["f1"] == 0 and other_kind["average_precision"] == 1  # what there is of each is still told


def test_without_thresholds_nothing_that_needs_one() -> None:
    labels, scores = example()
    result = multilabel_metrics(labels, scores, NAMES, n=5)
    assert {key.removesuffix("_ci95") for key in result if key.startswith("macro_")} == {
        "macro_auc", "macro_average_precision"}
    assert "threshold" not in result["per_finding"]["nodule"]


def test_only_the_order_of_scores_matters() -> None:
    labels, scores = example()
    once = multilabel_metrics(labels, scores, NAMES, n=20)
    assert multilabel_metrics(labels, np.arctan(scores) * 1e-3, NAMES, n=20) == once


def test_counts_are_what_resamples_always_were() -> None:
    """Chunks, types and patients change nothing in which samples are drawn."""
    random = np.random.default_rng(7)
    expected = random.multinomial(50, np.full(50, 1 / 50), size=30)
    found = list(counts(np.arange(50), 30, 7))
    np.testing.assert_array_equal(np.concatenate(found), expected)
    assert all(chunk.dtype == np.uint8 for chunk in found)
    patients = np.arange(100) // 2
    np.testing.assert_array_equal(np.concatenate(list(counts(patients, 30, 7))), expected[:, patients])
    assert next(counts(np.zeros(5, int), 1, 0)).tolist() == [[1] * 5]
    assert list(counts(patients, 0, 7)) == []


def test_bad_input() -> None:
    labels, scores = np.zeros((2, 3)), np.zeros((2, 3))
    with pytest.raises(UserError, match="没有图像"):
        multilabel_metrics(labels[:0], scores[:0], NAMES)
    with pytest.raises(UserError, match="1 张图像.*NaN 或 Inf"):
        multilabel_metrics(labels, np.where(np.arange(6).reshape(2, 3) == 3, np.nan, scores), NAMES)
    with pytest.raises(UserError, match="现在有 0.5"):
        multilabel_metrics(labels + 0.5, scores, NAMES)
    for bad in ((labels[:1], scores, NAMES), (labels, scores, NAMES[:2]), (labels[:, 0], scores[:, 0], NAMES[:1])):
        with pytest.raises(ValueError, match="belong"):
            multilabel_metrics(*bad)
    with pytest.raises(ValueError, match="2 thresholds"):
        multilabel_metrics(labels, scores, NAMES, [0, 1])
    with pytest.raises(ValueError, match="no findings"):
        multilabel_metrics(labels, scores, NAMES, averages={"seen": ["oedema"]})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["findings", "classes"])
def test_a_hundred_thousand_images(kind: str) -> None:
    """With 1000 resamples in half a minute on two quiet cores, and no memory for them."""
    random = np.random.default_rng(0)
    labels = (random.random((100_000, 14)) < np.linspace(0.01, 0.5, 14)).astype(float)
    scores = (random.normal(size=labels.shape) + labels).astype(np.float32)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    if kind == "findings":
        multilabel_metrics(labels, scores, list(map(str, range(14))), np.full(14, 0.5))
    else:
        odds = np.exp(scores[:, :9].astype(float))
        with_intervals(random.integers(0, 9, 100_000), odds / odds.sum(axis=1, keepdims=True), list(map(str, range(9))))
    # Several times what it takes: other programs share the machine.
    assert time.monotonic() - started < 120
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024
