"""Does a probability of 0.8 come true 80 % of the time?  Reliability curve, calibration error and Brier score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15  # Guo et al. 2017 and most papers since


@dataclass(frozen=True)
class Reliability:
    """The reliability curve: what the model claimed and what came true, over equal bins of confidence.

    Attributes:
        edges: float64 ``[bins + 1]``, bin edges from 0 to 1; a bin holds ``lower < confidence <= upper``.
        counts: int64 ``[bins]``, samples per bin.
        confidence: float64 ``[bins]``, mean confidence (largest probability of a sample), NaN in an empty bin.
        accuracy: float64 ``[bins]``, share of samples whose most probable class is right, NaN in an empty bin.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error (ECE), 0 … 1: mean gap between claim and truth, weighted by samples."""
        used = self.counts > 0
        gap = np.abs(self.accuracy[used] - self.confidence[used])
        return float(np.sum(gap * self.counts[used]) / self.counts.sum())


def reliability_curve(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> Reliability:
    """Reliability curve of the predicted class (Guo et al., *On Calibration of Modern Neural Networks*, 2017).

    Args:
        labels: int ``[N]``, true class numbers, N ≥ 1.
        probabilities: float ``[N, K]``, rows summing to 1.
        bins: number of equal bins over 0 … 1.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0.0, 1.0, bins + 1)
    # Searching the edges themselves, not multiplying by `bins`: a confidence on an edge must not move by rounding.
    position = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(position, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 = NaN marks an empty bin
        mean_confidence = np.bincount(position, weights=confidence, minlength=bins) / counts
        accuracy = np.bincount(position, weights=right, minlength=bins) / counts
    return Reliability(edges, counts, mean_confidence, accuracy)


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Brier score, 0 (perfect) … 2: mean over samples of the squared distance to the one-hot truth (Brier 1950)."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(np.mean(np.sum((probabilities - truth) ** 2, axis=1)))
