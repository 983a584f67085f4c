"""Metrics against scikit-learn, intervals against brute force, and the conventions where values are undefined."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_cxr import registry
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation import (
    ClassificationMetrics,
    classification_metrics,
    summarise_folds,
    with_intervals,
    worst_mistakes,
)
from paddle_cxr.evaluation import metrics as m
from paddle_cxr.evaluation.calibration import reliability_curve

sklearn_metrics = pytest.importorskip("sklearn.metrics")

NAMES = ["NORMAL", "PNEUMONIA", "COVID"]


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels and probabilities: few or many samples, classes absent, ties (coarse scores), sure and wrong ones."""
    classes = draw(st.integers(2, 4))
    samples = draw(st.integers(1, 40))
    present = draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=classes, unique=True))
    labels = np.array(draw(st.lists(st.sampled_from(present), min_size=samples, max_size=samples)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["smooth", "ties", "perfect", "inverted", "constant"]))
    truth = np.eye(classes)[labels]
    if kind == "perfect":
        scores = truth
    elif kind == "inverted":
        scores = (1 - truth) / (classes - 1)
    elif kind == "constant":
        scores = np.ones((samples, classes))
    else:
        scores = random.dirichlet(np.ones(classes), samples)
        if kind == "ties":
            scores = np.round(scores * 4) + 1
    return labels, scores / scores.sum(axis=1, keepdims=True), [f"class{k}" for k in range(classes)]


def example(samples: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A classifier that is right about three times in four."""
    random = np.random.default_rng(seed)
    labels = random.choice(3, samples, p=[0.45, 0.4, 0.15])
    logits = random.normal(size=(samples, 3)) + 1.5 * np.eye(3)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@settings(max_examples=150, deadline=None)
@given(predictions())
def test_equals_scikit_learn(case: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    labels, probabilities, names = case
    result = classification_metrics(labels, probabilities, names)
    predicted = probabilities.argmax(axis=1)
    classes = range(len(names))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns where a value is undefined; ours is None there
        precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
            labels, predicted, labels=list(classes), zero_division=np.nan)
        assert result["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(labels, predicted))
        assert result["balanced_accuracy"] == pytest.approx(sklearn_metrics.balanced_accuracy_score(labels, predicted))
        assert result["macro_f1"] == pytest.approx(sklearn_metrics.f1_score(labels, predicted, average="macro"))
        assert result["loss"] == pytest.approx(
            sklearn_metrics.log_loss(labels, probabilities, labels=list(classes)), abs=1e-9)
        assert result["brier"] == pytest.approx(
            np.mean([(probabilities[i] - np.eye(len(names))[labels[i]]) @ (probabilities[i] - np.eye(len(names))[
                labels[i]]) for i in range(len(labels))]))
    assert result["confusion_matrix"] == sklearn_metrics.confusion_matrix(
        labels, predicted, labels=list(classes)).tolist()
    for k, name in enumerate(names):
        ours, positive = result["per_class"][name], labels == k
        assert ours["support"] == support[k]
        same(ours["recall"], recall[k] if support[k] else None)
        same(ours["precision"], precision[k] if (predicted == k).any() else None)
        same(ours["f1"], f1[k] if support[k] or (predicted == k).any() else None)
        both = positive.any() and not positive.all()
        same(ours["auc"], sklearn_metrics.roc_auc_score(positive, probabilities[:, k]) if both else None)
        same(ours["average_precision"],
             sklearn_metrics.average_precision_score(positive, probabilities[:, k]) if positive.any() else None)
    json.dumps(result, allow_nan=False)


def same(ours: float | None, theirs: float | None) -> None:
    assert (ours is None) == (theirs is None)
    assert ours is None or ours == pytest.approx(theirs, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(predictions())
def test_curves_have_the_area_they_claim(case: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    labels, probabilities, _ = case
    positive, scores = labels == labels[0], probabilities[:, labels[0]]
    if not positive.all():
        fpr, tpr = m.roc_curve(positive, scores)
        theirs = sklearn_metrics.roc_curve(positive, scores, drop_intermediate=False)
        np.testing.assert_allclose(fpr, theirs[0])
        np.testing.assert_allclose(tpr, theirs[1])
        area = np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2)
        assert area == pytest.approx(m.auc(positive, scores, np.ones((1, len(scores))))[0])
    recall, precision = m.precision_recall_curve(positive, scores)
    theirs = sklearn_metrics.precision_recall_curve(positive, scores)
    np.testing.assert_allclose(recall[::-1], theirs[1][:-1])
    np.testing.assert_allclose(precision[::-1], theirs[0][:-1])


def test_values_worked_out_by_hand() -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6], [0.2, 0.8]])
    result = classification_metrics(labels, probabilities, ["a", "b"])
    assert result["confusion_matrix"] == [[1, 1], [0, 2]]
    assert result["accuracy"] == 0.75 and result["balanced_accuracy"] == 0.75
    # Pairs (negative, positive) of class b: .1<.6, .1<.8, .6=.6 (half), .6<.8 → 3.5 of 4.
    assert result["per_class"]["b"]["auc"] == 0.875
    assert result["loss"] == pytest.approx(-np.mean(np.log([0.9, 0.4, 0.6, 0.8])))
    # Confidences .9 right, .6 wrong, .6 right, .8 right; .6 lies in one bin of 15, the others alone.
    assert result["ece"] == pytest.approx((abs(1 - 0.9) + 2 * abs(0.5 - 0.6) + abs(1 - 0.8)) / 4)
    assert result["brier"] == pytest.approx((2 * 0.01 + 2 * 0.36 + 2 * 0.16 + 2 * 0.04) / 4)


def test_a_class_nobody_has_is_none_and_out_of_the_macro_average() -> None:
    result = classification_metrics(np.array([0, 1, 0]), np.array([[.8, .2, 0], [.3, .7, 0], [.6, .4, 0]]), NAMES)
    assert result["per_class"]["COVID"] == {
        "precision": None, "recall": None, "f1": None, "auc": None, "average_precision": None, "support": 0}
    assert result["macro_auc"] == 1.0 and result["macro_f1"] == 1.0
    assert with_intervals(np.array([0, 0]), np.array([[1., 0], [1., 0]]), ["a", "b"], n=20)["ci95"]["macro_auc"] is None


def test_samples_not_batches() -> None:
    labels, probabilities = example(10)
    whole = classification_metrics(labels, probabilities, NAMES)["accuracy"]
    assert whole == np.mean(probabilities.argmax(axis=1) == labels)  # and not the mean over batches of 8 and 2


def test_zero_probability_of_the_truth_stays_finite() -> None:
    result = classification_metrics(np.array([0]), np.array([[0.0, 1.0]], dtype=np.float32), ["a", "b"])
    assert 30 < result["loss"] < 40


@settings(max_examples=60, deadline=None)
@given(predictions(), st.integers(1, 20))
def test_reliability_counts_every_sample_once(case: tuple[np.ndarray, np.ndarray, list[str]], bins: int) -> None:
    labels, probabilities, _ = case
    curve = reliability_curve(labels, probabilities, bins)
    assert curve.counts.sum() == len(labels) and len(curve.edges) == bins + 1
    used = curve.counts > 0
    assert (curve.confidence[used] > curve.edges[:-1][used] - 1e-12).all()
    assert (curve.confidence[used] <= curve.edges[1:][used] + 1e-12).all()
    assert np.sum(curve.accuracy[used] * curve.counts[used]) == pytest.approx(
        np.sum(probabilities.argmax(axis=1) == labels))
    assert 0 <= curve.error <= 1


# --- intervals ---------------------------------------------------------------------------------------------------

@settings(max_examples=40, deadline=None)
@given(predictions(), st.integers(0, 1000))
def test_weights_mean_repeated_samples(case: tuple[np.ndarray, np.ndarray, list[str]], seed: int) -> None:
    """What the bootstrap computes from counts is what one gets by really repeating the samples."""
    labels, probabilities, names = case
    draws = np.random.default_rng(seed).integers(0, len(labels), (3, len(labels)))
    weights = np.stack([np.bincount(draw, minlength=len(labels)) for draw in draws]).astype(float)
    confusion = m.confusion_matrices(labels, probabilities, weights)
    for b, draw in enumerate(draws):
        repeated = classification_metrics(labels[draw], probabilities[draw], names)
        assert confusion[b].tolist() == repeated["confusion_matrix"]
        assert m.jsonable(m.mean_defined(m.f1(confusion[b]))) == pytest.approx(repeated["macro_f1"])
        for k, name in enumerate(names):
            ours = m.auc(labels == k, probabilities[:, k], weights[b:b + 1])[0]
            same(m.jsonable(ours), repeated["per_class"][name]["auc"])


def test_intervals_agree_with_a_plain_bootstrap() -> None:
    labels, probabilities = example(200)
    result = with_intervals(labels, probabilities, NAMES, n=2000, seed=1)
    random = np.random.default_rng(7)
    plain = []
    for _ in range(1000):
        draw = random.integers(0, 200, 200)
        predicted = probabilities[draw].argmax(axis=1)
        plain.append((np.mean(predicted == labels[draw]),
                      sklearn_metrics.roc_auc_score(labels[draw] == 1, probabilities[draw, 1])))
    low, high = np.percentile(plain, [2.5, 97.5], axis=0)
    assert result["ci95"]["accuracy"] == pytest.approx([low[0], high[0]], abs=0.015)
    assert result["ci95"]["per_class"]["PNEUMONIA"]["auc"] == pytest.approx([low[1], high[1]], abs=0.015)
    assert result["bootstrap"] == {"resamples": 2000, "unit": "sample", "seed": 1}


def test_intervals_are_deterministic_and_contain_the_value() -> None:
    labels, probabilities = example()
    first, second = (with_intervals(labels, probabilities, NAMES, n=300, seed=3) for _ in range(2))
    assert first == second != with_intervals(labels, probabilities, NAMES, n=300, seed=4)
    for key in ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc"):
        low, high = first["ci95"][key]
        assert low < first[key] < high
    for name in NAMES:
        for key in ("auc", "recall"):
            low, high = first["ci95"]["per_class"][name][key]
            assert low <= first["per_class"][name][key] <= high
    json.dumps(first, allow_nan=False)


def test_memory_chunks_do_not_change_the_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, probabilities = example(100)
    whole = with_intervals(labels, probabilities, NAMES, n=50)
    monkeypatch.setattr("paddle_cxr.evaluation.bootstrap._CHUNK", 700)
    assert with_intervals(labels, probabilities, NAMES, n=50) == whole


def test_patients_are_drawn_whole() -> None:
    """Four copies of every image as four images of one patient say no more than one image did."""
    labels, probabilities = example(150)
    single = with_intervals(labels, probabilities, NAMES, seed=1)
    copied = np.tile(labels, 4), np.tile(probabilities, (4, 1))
    patients = [f"patient{i % 150}" for i in range(600)]
    by_patient = with_intervals(*copied, NAMES, groups=patients, seed=1)
    assert by_patient["ci95"] == single["ci95"]
    assert by_patient["bootstrap"]["unit"] == "patient"
    low, high = with_intervals(*copied, NAMES, seed=1)["ci95"]["accuracy"]
    assert high - low < 0.7 * (single["ci95"]["accuracy"][1] - single["ci95"]["accuracy"][0])


def test_an_image_of_unknown_patient_counts_for_itself() -> None:
    labels, probabilities = example(50)
    nobody = with_intervals(labels, probabilities, NAMES, groups=[None] * 50)
    assert nobody == with_intervals(labels, probabilities, NAMES)
    with pytest.raises(ValueError, match="groups"):
        with_intervals(labels, probabilities, NAMES, groups=["a"])


# --- folds -------------------------------------------------------------------------------------------------------

def test_summary_of_folds() -> None:
    labels, probabilities = example(300)
    parts = np.array_split(np.arange(300), 5)
    folds = [with_intervals(labels[part], probabilities[part], NAMES, n=10) for part in parts]
    summary = summarise_folds(json.loads(json.dumps(folds)))
    accuracies = [fold["accuracy"] for fold in folds]
    assert summary["accuracy"]["values"] == accuracies
    assert summary["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    assert summary["accuracy"]["sd"] == pytest.approx(np.std(accuracies, ddof=1))
    assert summary["folds"] == 5 and summary["samples"] == 300
    whole = classification_metrics(labels, probabilities, NAMES)
    assert summary["confusion_matrix"] == whole["confusion_matrix"]
    assert set(summary["per_class"]["COVID"]) == {"precision", "recall", "f1", "auc", "average_precision"}
    json.dumps(summary, allow_nan=False)


def test_summary_leaves_undefined_folds_out_and_one_fold_has_no_spread() -> None:
    with_both = classification_metrics(np.array([0, 1]), np.array([[.9, .1], [.2, .8]]), ["a", "b"])
    with_one = classification_metrics(np.array([0, 0]), np.array([[.9, .1], [.2, .8]]), ["a", "b"])
    summary = summarise_folds([with_one, with_both])
    assert summary["macro_auc"] == {"mean": 1.0, "sd": None, "values": [None, 1.0]}
    assert summarise_folds([with_both])["accuracy"]["sd"] is None


# --- mistakes, errors, component ---------------------------------------------------------------------------------

def test_worst_mistakes_come_first() -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[.4, .6], [.1, .9], [.3, .7], [.8, .2]])
    assert worst_mistakes(labels, probabilities, 2).tolist() == [1, 3]
    assert worst_mistakes(labels, probabilities, 10).tolist() == [1, 3, 0]
    assert worst_mistakes(labels[2:3], probabilities[2:3], 10).tolist() == []


@pytest.mark.parametrize(("labels", "probabilities", "words"), [
    (np.zeros(0, int), np.zeros((0, 2)), "没有样本"),
    (np.array([2]), np.array([[.5, .5]]), "标签超出范围"),
    (np.array([-1]), np.array([[.5, .5]]), "标签超出范围"),
    (np.array([0, 1]), np.array([[.5, .5], [np.nan, np.nan]]), "1 张图像输出了 NaN"),
])
def test_bad_input_is_one_clear_line(labels: np.ndarray, probabilities: np.ndarray, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        classification_metrics(labels, probabilities, ["a", "b"])
    assert "\n" not in str(error.value)


def test_logits_are_not_taken_for_probabilities() -> None:
    with pytest.raises(ValueError, match="softmax"):
        classification_metrics(np.array([0]), np.array([[3.0, -1.0]]), ["a", "b"])
    with pytest.raises(ValueError, match="belong together"):
        classification_metrics(np.array([0]), np.array([[.5, .5]]), NAMES)


def test_component_from_a_recipe() -> None:
    metric = registry.build("metric", {"name": "ClassificationMetrics", "main": "loss", "bootstrap": 50}, "Metric",
                            seed=5)
    assert isinstance(metric, ClassificationMetrics)
    labels, probabilities = example(60)
    assert "ci95" not in metric(labels, probabilities, class_names=NAMES)
    result = metric(labels, probabilities, class_names=NAMES, intervals=True)
    assert result["bootstrap"] == {"resamples": 50, "unit": "sample", "seed": 5}
    assert metric.better(0.1, 0.2) and not metric.better(0.2, 0.1) and not metric.better(0.1, 0.1)
    with pytest.raises(UserError, match="Metric.main"):
        registry.build("metric", {"name": "ClassificationMetrics", "main": "acc"}, "Metric")
    with pytest.raises(UserError, match="Metric.bootstrap"):
        registry.build("metric", {"name": "ClassificationMetrics", "bootstrap": 0}, "Metric")


def test_better_with_undefined_values() -> None:
    metric = ClassificationMetrics("macro_auc")
    assert metric.better(0.9, 0.8) and not metric.better(0.8, 0.9)
    assert metric.better(0.5, None) and metric.better(0.5, math.nan)
    assert not metric.better(None, 0.5) and not metric.better(math.nan, None)
