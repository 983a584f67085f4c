"""How well a score tells positives from negatives, for a thousand ways of counting the samples.

AUC, average precision and everything read at a threshold need only, at the distinct scores s₁ > s₂ > … of the
positives, four counts:

    gained   positives with the score s        P = their sum
    true     positives with a score ≥ s
    above    negatives with a score > s
    reached  negatives with a score ≥ s        N = all of them

    AUC                = Σ gained · (N - (above + reached) / 2) / (P · N)      a tie counts one half
    average precision  = Σ gained / P · precision,   precision = true / (true + reached)

The samples are sorted once (:class:`Ranking`); a resample of the bootstrap is a row of whole numbers, how often each
sample counts, and takes one pass over the numbers in that order, with no multiplication for a sample.  Sums of whole
numbers are exact, so nothing depends on the order they are added in.

References: Hanley & McNeil 1982 (AUC as the chance that a positive scores higher than a negative); Davis & Goadrich
2006 (why average precision is a sum of steps and not of trapezoids).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_BLOCK = 2**18  # samples counted at a time: rows of a small data set together, those of a large one by themselves


@dataclass(frozen=True)
class Counts:
    """The counts above, for B ways of counting and G distinct scores of positives.

    Attributes:
        gained, true, above, reached: ``[B, G]``.
        positives, negatives: P and N, ``[B]``.
        true_found, false_found: positives and negatives with a score at or above the threshold, ``[B]``.
    """

    gained: np.ndarray
    true: np.ndarray
    above: np.ndarray
    reached: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray
    true_found: np.ndarray
    false_found: np.ndarray


class Ranking:
    """The samples of one finding, sorted by score.

    Args:
        labels: ``[N]``: 1 positive, 0 negative, anything else (NaN) does not count.
        scores: float ``[N]``, higher means more positive.

    Attributes:
        distinct: the distinct scores of the positives, falling, ``[G]``.
    """

    def __init__(self, labels: np.ndarray, scores: np.ndarray) -> None:
        self._positives, self._negatives = (_falling(np.flatnonzero(labels == kind), scores) for kind in (1, 0))
        of_positives = scores[self._positives]
        self._ends = np.flatnonzero(np.r_[of_positives[1:] != of_positives[:-1], True][:len(of_positives)])
        self.distinct = of_positives[self._ends]
        self._rising = scores[self._negatives][::-1]
        self._above = len(self._negatives) - np.searchsorted(self._rising, self.distinct, side="right")
        self._reached = len(self._negatives) - np.searchsorted(self._rising, self.distinct, side="left")

    def measure(self, weights: np.ndarray, threshold: float | None = None) -> dict[str, np.ndarray]:
        """Metrics for B ways of counting, float64 ``[B]`` each, NaN where undefined.

        Args:
            weights: ``[B, N]``, ≥ 0, how often each sample counts; whole numbers of any type, or floats.
            threshold: a sample counts as found where its score is at or above it; NaN where there is none.

        Returns:
            ``auc`` and ``average_precision``; with a threshold also ``f1``, ``accuracy``, ``sensitivity`` and
            ``specificity``.
        """
        rows = max(1, _BLOCK // max(1, weights.shape[1]))
        parts = [_metrics(self.count(weights[first:first + rows], threshold), threshold)
                 for first in range(0, len(weights), rows)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def count(self, weights: np.ndarray, threshold: float | None = None) -> Counts:
        """The counts for ``weights``, as :meth:`measure` takes them."""
        kind, total = _sum_types(weights)
        found, passed = (_summed_up(weights, of_kind, kind) for of_kind in (self._positives, self._negatives))
        true = np.take(found, self._ends + 1, axis=1) if len(self._ends) < len(self._positives) else found[:, 1:]
        at = (0, 0)
        if threshold is not None:
            at = (np.count_nonzero(self.distinct >= threshold),
                  len(self._rising) - np.searchsorted(self._rising, threshold, side="left"))
        return Counts(np.diff(true, axis=1, prepend=kind(0)), true, np.take(passed, self._above, axis=1),
                      np.take(passed, self._reached, axis=1), found[:, -1].astype(total), passed[:, -1].astype(total),
                      true[:, at[0] - 1].astype(total) if at[0] else np.zeros(len(weights), total),
                      passed[:, at[1]].astype(total))


def _summed_up(weights: np.ndarray, chosen: np.ndarray, kind: type) -> np.ndarray:
    """Weights of the first 0, 1, 2 … of the chosen samples together, ``[B, n + 1]``."""
    sums = np.zeros((len(weights), len(chosen) + 1), kind)
    np.cumsum(np.take(weights, chosen, axis=1), axis=1, dtype=kind, out=sums[:, 1:])
    return sums


def _sum_types(weights: np.ndarray) -> tuple[type, type]:
    """Types for sums of weights along the samples, as short as is safe, and for P and N, which get multiplied."""
    if np.issubdtype(weights.dtype, np.floating):
        return np.float64, np.float64
    largest = np.iinfo(weights.dtype).max * max(1, weights.shape[1])
    return (np.int32 if largest <= np.iinfo(np.int32).max else np.int64), np.int64


def _falling(chosen: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """``chosen`` in falling order of their scores."""
    return chosen[np.argsort(-scores[chosen], kind="stable")]


def _metrics(counts: Counts, threshold: float | None) -> dict[str, np.ndarray]:
    found = {"auc": auc(counts), "average_precision": average_precision(counts)}
    if threshold is None:
        return found
    if np.isnan(threshold):
        return found | dict.fromkeys(AT_THRESHOLD, np.full(len(counts.positives), np.nan))
    positives, negatives, true, false = (counts.positives, counts.negatives, counts.true_found, counts.false_found)
    return found | {"f1": divide(2 * true, true + false + positives),
                    "accuracy": divide(true + negatives - false, positives + negatives),
                    "sensitivity": divide(true, positives), "specificity": divide(negatives - false, negatives)}


AT_THRESHOLD = ("f1", "accuracy", "sensitivity", "specificity")
METRICS = ("auc", "average_precision", *AT_THRESHOLD)


def auc(counts: Counts) -> np.ndarray:
    """Area under the ROC curve ``[B]``; NaN where one kind is missing."""
    twice = 2 * counts.negatives[:, None] - counts.above - counts.reached
    wins = (counts.gained * twice.astype(np.float64)).sum(axis=1) / 2
    return divide(wins, counts.positives * counts.negatives)


def average_precision(counts: Counts) -> np.ndarray:
    """Average precision ``[B]``; NaN without positives."""
    found = counts.true + counts.reached
    # Before the first positive that counts nothing may be found, which would be 0 / 0; it adds nothing.
    smallest = 1 if np.issubdtype(found.dtype, np.integer) else np.finfo(found.dtype).tiny
    steps = counts.gained * (counts.true / np.maximum(found, smallest))
    return divide(steps.sum(axis=1), counts.positives)


def f1_by_score(counts: Counts) -> np.ndarray:
    """F1 with each distinct score of a positive as the threshold, ``[B, G]``; no other threshold gives a higher one.

    Lowering a threshold past negatives only, F1 falls.
    """
    return divide(2 * counts.true, counts.true + counts.reached + counts.positives[:, None])


def divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """``part / whole`` with NaN, quietly, where ``whole`` is 0: undefined is not zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole == 0, np.nan, np.asarray(part, dtype=np.float64) / whole)
