"""How far to trust a metric: bootstrap confidence intervals, and mean ± s.d. over folds."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from paddle_cxr.evaluation import metrics as m
from paddle_cxr.evaluation.ranking import Ranking

_CHUNK = 2_000_000  # weights held at a time (16 MB), so that 20 000 samples × 1000 resamples fit a small machine


def with_intervals(labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str],
                   groups: Sequence[Hashable] | None = None, n: int = 1000, seed: int = 0) -> dict[str, Any]:
    """:func:`~paddle_cxr.evaluation.metrics.classification_metrics` plus 95 % intervals.

    The percentile bootstrap (Efron 1979): draw as many samples as there are, with replacement, ``n`` times, and take
    the middle 95 % of the metric's values.  Images of one patient are alike, so with ``groups`` whole patients are
    drawn (cluster bootstrap); the interval is then wider, and honest.  Resamples in which a metric is undefined (none
    of a rare class drawn) are left out.  A metric that is 1.0 in every resample gets the interval [1, 1]: the
    bootstrap cannot see past a sample without mistakes.

    Args:
        labels: int ``[N]``, true class numbers; probabilities: float ``[N, K]``; class_names: K names.
        groups: N patient ids (None for an image of unknown patient, which then counts as a patient of its own).
        n: number of resamples, ≥ 1.
        seed: the same seed gives the same intervals.

    Returns:
        The metrics, with ``ci95``: ``[low, high]`` or None for ``accuracy``, ``balanced_accuracy``, ``macro_f1``,
        ``macro_auc`` and, under ``per_class``, each class's ``auc`` and ``recall``; and ``bootstrap``: how they were
        made (``resamples``, ``unit``, ``seed``).

    Raises:
        UserError, ValueError: as ``classification_metrics``; ValueError when ``groups`` is not N long.
    """
    result = m.classification_metrics(labels, probabilities, class_names)
    labels, probabilities = m.checked(labels, probabilities, class_names)
    unit = unit_of(groups, len(labels))
    rankings = [Ranking(labels == k, probabilities[:, k]) for k in range(len(class_names))]
    parts = [_resampled(labels, probabilities, rankings, weights) for weights in counts(unit, n, seed)]
    values = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    result["ci95"] = {key: interval(values[key])
                      for key in ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc")}
    result["ci95"]["per_class"] = {name: {key: interval(values[key][:, k]) for key in ("auc", "recall")}
                                   for k, name in enumerate(class_names)}
    result["bootstrap"] = {"resamples": n, "unit": "sample" if len(set(unit)) == len(unit) else "patient", "seed": seed}
    return result


def unit_of(groups: Sequence[Hashable] | None, samples: int) -> np.ndarray:
    """For each sample the number of the unit that is drawn with it, int64 ``[N]``: itself, or its patient.

    Args:
        groups: N patient ids, None for one that is unknown; or None.
        samples: N.

    Raises:
        ValueError: ``groups`` is not N long.
    """
    if groups is None:
        return np.arange(samples)
    if len(groups) != samples:
        raise ValueError(f"{len(groups)} groups for {samples} samples")
    number: dict[Hashable, int] = {}
    keys = ((index,) if group is None else group for index, group in enumerate(groups))
    return np.array([number.setdefault(key, len(number)) for key in keys])


def counts(unit: np.ndarray, n: int, seed: int) -> Iterator[np.ndarray]:
    """Chunks ``[b, N]`` of ``n`` resamples: how often each sample is drawn, in the smallest unsigned type that fits.

    Args:
        unit: int64 ``[N]``, as :func:`unit_of` gives it.
        n: resamples; 0 gives no chunk.
        seed: the same seed gives the same resamples, whatever the chunks.
    """
    random = np.random.default_rng(seed)
    units = int(unit.max()) + 1
    alone = units == len(unit)  # then unit is 0 … N-1
    chunk = max(1, _CHUNK // len(unit))

    def draw(first: int) -> np.ndarray:
        # How often each unit comes up in `units` draws with replacement is a multinomial count.
        drawn = random.multinomial(units, np.full(units, 1 / units), size=min(chunk, n - first))
        drawn = drawn.astype(np.min_scalar_type(drawn.max()))
        return drawn if alone else np.take(drawn, unit, axis=1)

    starts = range(0, n, chunk)
    if len(starts) < 2:
        yield from map(draw, starts)
        return
    # Drawing takes about as long as what is computed from it, and NumPy draws beside other threads: one chunk ahead.
    with ThreadPoolExecutor(max_workers=1) as ahead:
        waiting = ahead.submit(draw, 0)
        for first in starts[1:]:
            drawn, waiting = waiting.result(), ahead.submit(draw, first)
            yield drawn
        yield waiting.result()


def resamples(unit: np.ndarray, n: int, seed: int) -> Iterator[np.ndarray]:
    """:func:`counts` as float64, for products with matrices."""
    return (drawn.astype(np.float64) for drawn in counts(unit, n, seed))


def _resampled(labels: np.ndarray, probabilities: np.ndarray, rankings: Sequence[Ranking], weights: np.ndarray
               ) -> dict[str, np.ndarray]:
    """The metrics of every resample: ``[b]`` each, per-class ones ``[b, K]``."""
    confusion = m.confusion_matrices(labels, probabilities, weights)
    recall = m.recall(confusion)
    auc = np.stack([ranking.measure(weights)["auc"] for ranking in rankings], axis=1)
    return {"accuracy": m.accuracy(confusion), "balanced_accuracy": m.mean_defined(recall),
            "macro_f1": m.mean_defined(m.f1(confusion)), "macro_auc": m.mean_defined(auc),
            "auc": auc, "recall": recall}


def interval(values: np.ndarray) -> list[float] | None:
    """The middle 95 % of the defined values, or None when none is."""
    defined = values[~np.isnan(values)]
    return [float(edge) for edge in np.percentile(defined, [2.5, 97.5])] if len(defined) else None


def summarise_folds(folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean ± standard deviation of every number over the folds of a cross-validation.

    Args:
        folds: one dictionary of metrics a fold (as ``classification_metrics`` returns), at least one.

    Returns:
        ``folds`` (how many); for each number ``{"mean", "sd", "values"}``, where ``sd`` is the sample standard
        deviation (n - 1 below the line; None for a single fold) and undefined folds (None in ``values``) are left
        out; ``per_class`` likewise; ``samples`` and ``confusion_matrix`` summed: every sample is tested once.
    """
    first = folds[0]
    numbers = [key for key, value in first.items() if isinstance(value, float) or value is None]
    per_class = {name: {key: _spread([fold["per_class"][name][key] for fold in folds])
                        for key in of_class if key != "support"}
                 for name, of_class in first["per_class"].items()}
    return {
        "folds": len(folds),
        "samples": sum(fold["samples"] for fold in folds),
        **{key: _spread([fold[key] for fold in folds]) for key in numbers},
        "per_class": per_class,
        "confusion_matrix": np.sum([fold["confusion_matrix"] for fold in folds], axis=0).tolist(),
    }


def _spread(values: list[float | None]) -> dict[str, Any]:
    defined = [value for value in values if value is not None]
    return {"mean": float(np.mean(defined)) if defined else None,
            "sd": float(np.std(defined, ddof=1)) if len(defined) > 1 else None,
            "values": values}
