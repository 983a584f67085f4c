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
from paddle_cxr.evaluation.bootstrap import counts, unit_of
from paddle_cxr.evaluation.ranking import Ranking

_STREAM = 29  # keeps the draws of seeds apart from those of samples

Statistic = Callable[[np.ndarray], np.ndarray]
"""How often each of N samples counts, ``[B, N]`` of any number type → the figure for each of the B ways of counting,
``[B]``; NaN where undefined."""


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
                     groups: Sequence[Hashable] | None = None, n: int = 1000, seed: int = 0, paired: bool = False
                     ) -> Difference:
    """The difference between two models' figures on the same samples.

    Several statistics a side (one a training seed) are averaged.  Then the seeds are drawn again too, with the samples:
    the interval says what other test images *and* other seeds might have given, and a difference that one seed makes
    and another does not is none.  Of a single seed nothing is known of that.

    Args:
        first, second: at least one each.
        samples: how many there are.
        groups, n, seed: as in :func:`~paddle_cxr.evaluation.bootstrap.with_intervals`.
        paired: statistic k of both sides is of the same seed, so that the two are drawn together.

    Raises:
        ValueError: no statistic, groups of another length, or pairs of unequal sides.
    """
    if not first or not second:
        raise ValueError("a statistic is needed on each side")
    if paired and len(first) != len(second):
        raise ValueError(f"pairs of {len(first)} and {len(second)} statistics")
    random = np.random.default_rng((_STREAM, seed))

    def difference(weights: np.ndarray) -> np.ndarray:
        shares = _shares(len(first), len(weights), random)
        others = shares if paired else _shares(len(second), len(weights), random)
        return ((shares * [one(weights) for one in first]).sum(axis=0)
                - (others * [one(weights) for one in second]).sum(axis=0))

    everything = np.ones((1, samples))
    value = float(np.mean([one(everything) for one in first]) - np.mean([one(everything) for one in second]))
    drawn = np.concatenate([difference(weights) for weights in counts(unit_of(groups, samples), n, seed)])
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(drawn):
        return Difference(value, None, None)
    low, high = (float(edge) for edge in np.percentile(drawn, [2.5, 97.5]))
    # One is added on both sides (the data as they are count as a resample), or p could be 0, which no sample shows.
    beyond = min(int((drawn <= 0).sum()), int((drawn >= 0).sum())) + 1
    return Difference(value, (low, high), min(1.0, 2 * beyond / (len(drawn) + 1)))


def _shares(seeds: int, times: int, random: np.random.Generator) -> np.ndarray:
    """How much each of some seeds counts when as many are drawn with replacement, ``[seeds, times]``; sums to 1."""
    return random.multinomial(seeds, np.full(seeds, 1 / seeds), size=times).T / seeds


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
        weights = weights.astype(np.float64)  # small whole numbers would overflow in a product
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
