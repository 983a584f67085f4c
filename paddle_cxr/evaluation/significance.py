"""Is one model better than another, or were the test images kind to it?  The paired bootstrap.

Two models are tested on the same images, and what is hard for one is mostly hard for the other.  So the same resample
of the images is given to both, and the *difference* is looked at: its spread is far smaller than that of either figure.

References: Efron & Tibshirani, "An Introduction to the Bootstrap" (1993); Holm, "A simple sequentially rejective
multiple test procedure" (1979).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from paddle_cxr.evaluation import metrics as m
from paddle_cxr.evaluation.bootstrap import resamples, unit_of
from paddle_cxr.evaluation.ranking import Ranking

Statistic = Callable[[np.ndarray], np.ndarray]
"""Weights of N samples, float ``[B, N]`` → the figure for each way of weighting, ``[B]``; NaN where undefined."""


@dataclass(frozen=True)
class Difference:
    """How much more the first has than the second.

    Attributes:
        value: on the samples as they are.
        ci95: middle 95 % of the resamples' differences; None where no resample has one.
        p: two-sided: how often chance alone would reach the other side of 0, 1 / (resamples + 1) … 1; None likewise.
    """

    value: float
    ci95: tuple[float, float] | None
    p: float | None


def paired_bootstrap(first: Sequence[Statistic], second: Sequence[Statistic], samples: int,
                     groups: Sequence[Hashable] | None = None, n: int = 1000, seed: int = 0) -> Difference:
    """The difference between two models' figures on the same samples.

    Several statistics a side (one a training seed) are averaged first.  Only the samples are drawn again: the interval
    says what other test images might have given, and not what other seeds might have.

    Args:
        first, second: at least one each.
        samples: how many there are.
        groups, n, seed: as in :func:`~paddle_cxr.evaluation.bootstrap.with_intervals`.

    Raises:
        ValueError: no statistic, or groups of another length.
    """
    if not first or not second:
        raise ValueError("a statistic is needed on each side")

    def difference(weights: np.ndarray) -> np.ndarray:
        return (np.mean([one(weights) for one in first], axis=0)
                - np.mean([one(weights) for one in second], axis=0))

    value = float(difference(np.ones((1, samples)))[0])
    drawn = np.concatenate([difference(weights) for weights in resamples(unit_of(groups, samples), n, seed)])
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(drawn):
        return Difference(value, None, None)
    low, high = (float(edge) for edge in np.percentile(drawn, [2.5, 97.5]))
    # One is added on both sides (the data as they are count as a resample), or p could be 0, which no sample shows.
    beyond = min(int((drawn <= 0).sum()), int((drawn >= 0).sum())) + 1
    return Difference(value, (low, high), min(1.0, 2 * beyond / (len(drawn) + 1)))


def macro_auc_statistic(labels: np.ndarray, scores: np.ndarray) -> Statistic:
    """Mean AUC over the findings; labels and scores float ``[N, K]``, NaN for an unknown label."""
    rankings = [Ranking(labels[:, k], scores[:, k]) for k in range(labels.shape[1])]  # sorted once for all resamples

    def statistic(weights: np.ndarray) -> np.ndarray:
        return m.mean_defined(np.stack([ranking.measure(weights)["auc"] for ranking in rankings], axis=1))

    return statistic


def mean_statistic(values: np.ndarray, kinds: Sequence[Hashable] | None = None) -> Statistic:
    """Mean of what is not NaN, float ``[N]``; with ``kinds`` (N of them) the mean of each kind's mean."""
    kinds = np.zeros(len(values), int) if kinds is None else np.unique(np.asarray(kinds), return_inverse=True)[1]
    known = ~np.isnan(values)
    member = np.eye(int(kinds.max()) + 1 if len(kinds) else 1)[kinds] * known[:, None]  # [N, kinds]
    filled = np.where(known, values, 0.0)

    def statistic(weights: np.ndarray) -> np.ndarray:
        return m.mean_defined(m.divide((weights * filled) @ member, weights @ member))

    return statistic


def holm(p: Sequence[float | None]) -> list[float | None]:
    """P values adjusted for how many there are (Holm 1979); None stays None and does not count."""
    known = sorted((value, place) for place, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    highest = 0.0
    for rank, (value, place) in enumerate(known):
        highest = max(highest, min(1.0, value * (len(known) - rank)))
        adjusted[place] = highest
    return adjusted
