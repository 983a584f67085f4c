"""Where to cut a score: above it, a finding counts as present.

A threshold is a choice, and a choice made on the images it is then judged on flatters the model.  So it is taken from
validation images and applied to test images.  (Earlier zero-shot papers took the best F1 of the test set itself;
``tasks/zero_shot`` reports that too, under a name that says so.)
"""

from __future__ import annotations

import numpy as np

from paddle_cxr.evaluation.ranking import Ranking, f1_by_score


def f1_thresholds(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The threshold of each finding with the highest F1, float64 ``[K]``; of several the highest.

    It is the score of an image: found means a score at or above it.

    Args:
        labels: float ``[N, K]``: 1 present, 0 absent, NaN unknown (left out for that finding only).
        scores: float ``[N, K]``, higher means more positive.

    Returns:
        NaN for a finding that has not both kinds: there is nothing to choose.
    """
    return np.array([_f1_threshold(*columns) for columns in zip(labels.T, scores.T, strict=True)], np.float64)


def _f1_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    if not ((labels == 1).any() and (labels == 0).any()):
        return np.nan
    ranking = Ranking(labels, scores)
    return float(ranking.distinct[f1_by_score(ranking.count(np.ones((1, len(labels)), np.uint8)))[0].argmax()])
