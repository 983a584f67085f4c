"""Classification metrics over samples: what lesson 4 teaches, in numpy.

Every function sees all samples at once.  Averaging the metrics of batches instead is a classic mistake: the last,
smaller batch counts too much, and AUC or F1 of a part says little about the whole.

Two ideas carry the file.  (1) Accuracy, precision, recall and F1 are read off the confusion matrix.  (2) AUC and
average precision need only, for every distinct score, how many positive and negative samples have it
(:mod:`paddle_cxr.evaluation.ranking`).  Both take *weights* ``[B, N]``, B ways of counting the N samples, so that the
bootstrap (:mod:`paddle_cxr.evaluation.bootstrap`) reuses them for a thousand resamples at once; a plain metric is the
case of one row of ones.

Undefined values (recall of a class nobody has, precision of a class never predicted) are NaN inside and None in the
dictionaries, and a macro average is taken over the classes where the value is defined.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.calibration import brier_score, reliability_curve
from paddle_cxr.evaluation.ranking import Ranking, divide


def classification_metrics(labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """All metrics of a single-label classifier, ready for JSON.

    Args:
        labels: int ``[N]``, true class numbers 0 … K-1, N ≥ 1.
        probabilities: float ``[N, K]``, 0 … 1, rows summing to 1 (softmax output).
        class_names: K names, the keys of ``per_class``.

    Returns:
        ``samples``, ``loss`` (cross entropy, nats), ``accuracy``, ``balanced_accuracy`` (mean recall), ``macro_f1``,
        ``macro_auc``, ``macro_average_precision``, ``ece`` (15 bins), ``brier`` (0 … 2), ``per_class`` (name →
        ``precision``, ``recall``, ``f1``, ``auc``, ``average_precision``, ``support``) and ``confusion_matrix``
        (K lists of K counts, row = truth, column = prediction).  A value that is undefined is None.

    Raises:
        UserError: no samples, a label outside the classes, or probabilities that are not finite.
        ValueError: shapes that do not belong together, or rows that are no distribution.
    """
    labels, probabilities = checked(labels, probabilities, class_names)
    one = np.ones((1, len(labels)))
    confusion = confusion_matrices(labels, probabilities, one)[0]
    per_class = {
        "precision": precision(confusion),
        "recall": recall(confusion),
        "f1": f1(confusion),
        "auc": np.stack([auc(labels == k, probabilities[:, k], one)[0] for k in range(len(class_names))]),
        "average_precision": np.stack([average_precision(labels == k, probabilities[:, k])
                                       for k in range(len(class_names))]),
        "support": confusion.sum(axis=1),
    }
    return {
        "samples": len(labels),
        "loss": cross_entropy(labels, probabilities),
        "accuracy": jsonable(accuracy(confusion)),
        "balanced_accuracy": jsonable(mean_defined(per_class["recall"])),
        "macro_f1": jsonable(mean_defined(per_class["f1"])),
        "macro_auc": jsonable(mean_defined(per_class["auc"])),
        "macro_average_precision": jsonable(mean_defined(per_class["average_precision"])),
        "ece": reliability_curve(labels, probabilities).error,
        "brier": brier_score(labels, probabilities),
        "per_class": {
            name: {metric: int(values[k]) if metric == "support" else jsonable(values[k])
                   for metric, values in per_class.items()}
            for k, name in enumerate(class_names)
        },
        "confusion_matrix": confusion.astype(int).tolist(),
    }


def checked(labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]
            ) -> tuple[np.ndarray, np.ndarray]:
    """``labels`` as int64 and ``probabilities`` as float64, or the errors :func:`classification_metrics` names."""
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if probabilities.shape != (len(labels), len(class_names)) or labels.ndim != 1:
        raise ValueError(f"labels {labels.shape} and probabilities {probabilities.shape} do not belong together "
                         f"for {len(class_names)} classes")
    if len(labels) == 0:
        raise UserError("没有样本可评估（0 张图像）；请检查 DataLoader.Eval 的数据列表")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= len(class_names):
        raise UserError(f"标签超出范围：应为 0 到 {len(class_names) - 1} 的整数，"
                        f"现在是 {labels.min()} 到 {labels.max()}（{labels.dtype}）；请检查数据列表与 Global.classes")
    if not np.isfinite(probabilities).all():
        bad = int((~np.isfinite(probabilities).all(axis=1)).sum())
        raise UserError(f"模型对 {bad} 张图像输出了 NaN 或 Inf，无法评估；请换用训练正常的检查点（checkpoint）")
    if probabilities.min() < 0 or np.abs(probabilities.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError("probabilities must lie in 0..1 and every row must sum to 1: apply softmax first")
    return labels.astype(np.int64), probabilities


def cross_entropy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of -log p(true class) in nats; p is kept off 0, where a float32 softmax may have rounded it."""
    of_truth = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(of_truth, np.finfo(np.float64).eps, None)).mean())


# --- read off the confusion matrix --------------------------------------------------------------------------------

def confusion_matrices(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Confusion matrices ``[B, K, K]`` (row = truth, column = most probable class) for ``weights`` ``[B, N]``."""
    classes = probabilities.shape[1]
    cell = labels * classes + probabilities.argmax(axis=1)
    counted = [np.bincount(cell, weights=row, minlength=classes * classes) for row in weights]
    return np.reshape(counted, (-1, classes, classes))


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Share of samples on the diagonal; ``[..., K, K]`` → ``[...]``."""
    return divide(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum(axis=(-2, -1)))


def recall(confusion: np.ndarray) -> np.ndarray:
    """Of the samples of a class, the share found (sensitivity); ``[..., K, K]`` → ``[..., K]``."""
    return divide(_diagonal(confusion), confusion.sum(axis=-1))


def precision(confusion: np.ndarray) -> np.ndarray:
    """Of the predictions of a class, the share that is right; ``[..., K, K]`` → ``[..., K]``."""
    return divide(_diagonal(confusion), confusion.sum(axis=-2))


def f1(confusion: np.ndarray) -> np.ndarray:
    """Harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN); ``[..., K, K]`` → ``[..., K]``."""
    return divide(2 * _diagonal(confusion), confusion.sum(axis=-1) + confusion.sum(axis=-2))


def _diagonal(confusion: np.ndarray) -> np.ndarray:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


# --- over all thresholds ------------------------------------------------------------------------------------------

def count_by_score(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct scores, falling, and how many samples of each kind have them.

    Args:
        positive: bool ``[N]``.
        scores: float ``[N]``, higher means more positive.

    Returns:
        distinct scores, positives, negatives, ``[G]`` each.
    """
    distinct, place = np.unique(-scores, return_inverse=True)
    positives = np.bincount(place, weights=positive, minlength=len(distinct))
    return -distinct, positives, np.bincount(place, minlength=len(distinct)) - positives


def auc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve ``[B]`` for ``weights`` ``[B, N]``; NaN where one kind is missing.

    It is the chance that a random positive scores higher than a random negative, a tie counting one half
    (Hanley & McNeil 1982): the same as the Mann-Whitney U with mid-ranks, and as the trapezoids under the curve.
    """
    return Ranking(positive, scores).measure(weights)["auc"]


def roc_curve(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ROC curve: false and true positive rate ``[G + 1]`` each, from (0, 0) to (1, 1); NaN where undefined."""
    _, positives, negatives = count_by_score(positive, scores)
    true, false = np.r_[0, np.cumsum(positives)], np.r_[0, np.cumsum(negatives)]
    return divide(false, false[-1]), divide(true, true[-1])


def precision_recall_curve(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall (rising to 1) and precision ``[G]`` at every distinct threshold, falling; recall NaN without positives."""
    _, positives, negatives = count_by_score(positive, scores)
    true, false = np.cumsum(positives), np.cumsum(negatives)
    return divide(true, true[-1]), true / (true + false)


def average_precision(positive: np.ndarray, scores: np.ndarray) -> float:
    """Average precision: precision at each threshold weighted by the recall gained there; NaN without positives.

    The step sum, not trapezoids: interpolating between points of a PR curve is too optimistic (Davis & Goadrich 2006).
    """
    reached, precise = precision_recall_curve(positive, scores)
    return float(np.sum(np.diff(reached, prepend=0.0) * precise))


# --- mistakes -----------------------------------------------------------------------------------------------------

def worst_mistakes(labels: np.ndarray, probabilities: np.ndarray, count: int) -> np.ndarray:
    """Numbers of at most ``count`` misclassified samples, the least probable truth first (ties in sample order)."""
    of_truth = probabilities[np.arange(len(labels)), labels]
    order = np.argsort(of_truth, kind="stable")
    return order[probabilities.argmax(axis=1)[order] != labels[order]][:count]


# --- small helpers ------------------------------------------------------------------------------------------------

def mean_defined(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN where nothing is defined."""
    return divide(np.nansum(values, axis=-1), np.sum(~np.isnan(values), axis=-1))


def jsonable(value: float) -> float | None:
    """A Python float, or None for NaN, which JSON does not know."""
    return None if math.isnan(value) else float(value)
