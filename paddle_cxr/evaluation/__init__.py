"""Metrics over samples, their confidence intervals, calibration and Grad-CAM.

This file holds the component a recipe names under ``Metric``; the formulas are in :mod:`.metrics`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.bootstrap import summarise_folds, with_intervals
from paddle_cxr.evaluation.metrics import classification_metrics, worst_mistakes
from paddle_cxr.registry import register

__all__ = ["ClassificationMetrics", "classification_metrics", "summarise_folds", "with_intervals", "worst_mistakes"]


@register("metric")
class ClassificationMetrics:
    """The metrics of a single-label classifier, and which of two values of the main one is better.

    Args:
        main: the metric that chooses the best checkpoint and that early stopping watches.
        bootstrap: resamples behind the 95 % intervals.
        seed: seed of the resamples.

    Raises:
        UserError: ``bootstrap`` below 1.
    """

    def __init__(self, main: Literal["accuracy", "balanced_accuracy", "macro_auc", "macro_f1", "loss"] = "accuracy",
                 bootstrap: int = 1000, seed: int = 0) -> None:
        if bootstrap < 1:
            raise UserError(f"Metric.bootstrap：重采样（bootstrap）次数应 ≥ 1，现在是 {bootstrap}；通常用 1000")
        self.main = main
        self.bootstrap = bootstrap
        self.seed = seed

    def __call__(self, labels: np.ndarray, probabilities: np.ndarray, groups: Sequence[Hashable] | None = None, *,
                 class_names: Sequence[str], intervals: bool = False) -> dict[str, Any]:
        """Metrics of all samples: ``labels`` int ``[N]``, ``probabilities`` float ``[N, K]``, ``groups`` N patient ids.

        With ``intervals`` also 95 % bootstrap intervals (a quarter of a second for 1000 samples).  Returned values and
        errors are those of :func:`classification_metrics` and :func:`with_intervals`.
        """
        if intervals:
            return with_intervals(labels, probabilities, class_names, groups, self.bootstrap, self.seed)
        return classification_metrics(labels, probabilities, class_names)

    def better(self, new: float | None, best: float | None) -> bool:
        """Whether the main metric's value ``new`` beats ``best``; an undefined value (None, NaN) never does."""
        if new is None or math.isnan(new):
            return False
        if best is None or math.isnan(best):
            return True
        return new < best if self.main == "loss" else new > best
