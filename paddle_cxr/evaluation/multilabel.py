"""Metrics of findings that are each present, absent or unknown by themselves, with 95 % intervals.

One finding is one question.  Their means ("macro") are all taken over the same ones, those with images of both kinds:
without a positive image there is no AUC, and one false alarm makes an F1 of 0; without a negative one the average
precision is 1, whatever the model says.  A label of NaN is unknown and left out for that finding only.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.bootstrap import counts, interval, unit_of
from paddle_cxr.evaluation.metrics import jsonable, mean_defined
from paddle_cxr.evaluation.ranking import Ranking


def multilabel_metrics(labels: np.ndarray, scores: np.ndarray, names: Sequence[str],
                       thresholds: Sequence[float] | np.ndarray | None = None,
                       groups: Sequence[Hashable] | None = None, n: int = 1000, seed: int = 0,
                       averages: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
    """AUC, average precision and, at thresholds, F1, accuracy, sensitivity and specificity, ready for JSON.

    Args:
        labels: float ``[N, K]``: 1 present, 0 absent, NaN unknown.
        scores: float ``[N, K]``, higher means more positive; any finite numbers.
        names: K findings.
        thresholds: K scores at or above which a finding counts as found, NaN for none; taken from other images
            (:func:`paddle_cxr.evaluation.thresholds.f1_thresholds`).  None leaves out what needs one.
        groups, n, seed: as of :func:`paddle_cxr.evaluation.bootstrap.with_intervals`; ``n`` 0 leaves out the
            intervals (None).
        averages: further means over some of the findings, by name (seen, unseen …).

    Returns:
        ``samples``; for every metric ``macro_<metric>`` and ``macro_<metric>_ci95``; ``per_finding``: name → each
        ``<metric>`` and ``<metric>_ci95``, ``threshold``, ``positives``, ``negatives``, ``unknown``; ``left_out``:
        findings without images of both kinds, which are in no mean; ``averages``: name → the macro values and
        ``findings``; ``bootstrap``: ``resamples``, ``unit``, ``seed``.  Undefined values are None.  The mean of a
        resample is taken over the findings that have both kinds in it.

    Raises:
        UserError: no images, a label that is none of 1, 0, NaN, scores that are not finite.
        ValueError: shapes that do not belong together, an average over a finding that there is not.
    """
    labels, scores = checked(labels, scores, names)
    if thresholds is not None and len(thresholds) != len(names):
        raise ValueError(f"{len(thresholds)} thresholds for {len(names)} findings")
    rankings = [Ranking(labels[:, k], scores[:, k]) for k in range(len(names))]
    cuts = [None] * len(names) if thresholds is None else [float(one) for one in thresholds]
    unit = unit_of(groups, len(labels))
    values = _measure(rankings, cuts, np.ones((1, len(labels)), np.uint8))
    drawn = [_measure(rankings, cuts, weights) for weights in counts(unit, n, seed)]
    draws = {metric: np.concatenate([part[metric] for part in drawn]) if drawn else np.empty((0, len(names)))
             for metric in values}
    of = {name: k for k, name in enumerate(names)}
    result: dict[str, Any] = {"samples": len(labels), **_means(values, draws, slice(None))}
    result["per_finding"] = {name: {
        **{key: value for metric in values for key, value in (
            (metric, jsonable(values[metric][0, k])), (f"{metric}_ci95", interval(draws[metric][:, k])))},
        **({} if cuts[k] is None else {"threshold": jsonable(cuts[k])}),
        "positives": int((labels[:, k] == 1).sum()), "negatives": int((labels[:, k] == 0).sum()),
        "unknown": int(np.isnan(labels[:, k]).sum())} for name, k in of.items()}
    result["left_out"] = [name for name, k in of.items() if np.isnan(values["auc"][0, k])]
    if averages is not None:
        result["averages"] = {title: {"findings": list(some), **_means(values, draws, _places(some, of))}
                              for title, some in averages.items()}
    result["bootstrap"] = {"resamples": n, "unit": "sample" if len(set(unit)) == len(unit) else "patient",
                           "seed": seed}
    return result


def checked(labels: np.ndarray, scores: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, or the errors :func:`multilabel_metrics` names."""
    labels, scores = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    if labels.shape != scores.shape or labels.ndim != 2 or labels.shape[1] != len(names):
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} do not belong together "
                         f"for {len(names)} findings")
    if not len(labels):
        raise UserError("没有图像可评估（0 张）；请检查 DataLoader.Eval 的数据")
    wrong = ~np.isnan(labels) & (labels != 0) & (labels != 1)
    if wrong.any():
        raise UserError(f"征象（finding）的标签应为 1（有）、0（无）或空（未知），现在有 {labels[wrong][0]:g}")
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores).all(axis=1)).sum())
        raise UserError(f"模型对 {bad} 张图像输出了 NaN 或 Inf，无法评估；请换用训练正常的检查点（checkpoint）")
    return labels, scores


def _measure(rankings: Sequence[Ranking], cuts: Sequence[float | None], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Every metric ``[B, K]`` for ``weights`` ``[B, N]``."""
    found = [ranking.measure(weights, cut) for ranking, cut in zip(rankings, cuts, strict=True)]
    return {metric: np.stack([one[metric] for one in found], axis=1) for metric in found[0]}


def _means(values: Mapping[str, np.ndarray], draws: Mapping[str, np.ndarray], chosen: Any) -> dict[str, Any]:
    """The macro values over those of the chosen findings that have both kinds."""
    values, draws = _of_both_kinds(values), _of_both_kinds(draws)
    return {key: value for metric in values for key, value in (
        (f"macro_{metric}", jsonable(mean_defined(values[metric][0, chosen]))),
        (f"macro_{metric}_ci95", interval(mean_defined(draws[metric][:, chosen]))))}


def _of_both_kinds(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``values`` ``[B, K]`` of every metric with NaN where a kind is missing: that is where AUC is undefined."""
    return {metric: np.where(np.isnan(values["auc"]), np.nan, of_metric) for metric, of_metric in values.items()}


def _places(some: Sequence[str], of: Mapping[str, int]) -> list[int]:
    absent = [name for name in some if name not in of]
    if absent:
        raise ValueError(f"no findings {absent}")
    return [of[name] for name in some]
