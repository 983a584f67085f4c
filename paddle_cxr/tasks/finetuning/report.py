"""What a fine-tuned network is worth on some images: metrics with intervals, ROC curves, a row an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paddle_cxr.data.labelled import LabelledData
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.evaluation.multilabel import multilabel_metrics
from paddle_cxr.evaluation.per_image import PER_IMAGE, write_per_image
from paddle_cxr.evaluation.report import number_text
from paddle_cxr.evaluation.thresholds import f1_thresholds
from paddle_cxr.plots.findings import plot_findings_roc
from paddle_cxr.tasks.findings_schema import IntervalsSection

WRITTEN = (PER_IMAGE, "roc.png")
"""The files of a report."""


def write_report(folder: Path, data: LabelledData, positions: np.ndarray, findings: Sequence[ClassInfo],
                 labels: np.ndarray, scores: np.ndarray, thresholds: Sequence[float] | None,
                 metric: IntervalsSection) -> dict[str, Any]:
    """Compute the metrics of an evaluation and write its figure and table.

    Args:
        folder: where to write.
        data, positions: which images.
        findings: K.
        labels: float ``[N, K]``, NaN where unknown; scores: float ``[N, K]``, 0 … 1.
        thresholds: from validation images, one a finding (NaN for none), or None.
        metric: how intervals are made.

    Returns:
        The metrics, JSON-ready.
    """
    metrics = multilabel_metrics(labels, scores, [one.name for one in findings], thresholds, data.groups(positions),
                                 metric.bootstrap, metric.seed)
    plot_findings_roc(labels, scores, metrics, findings, folder / "roc.png", demo=data.source.demo)
    write_per_image(folder / PER_IMAGE, [data.source.records[position] for position in positions],
                    [one.name for one in findings], labels, scores)
    return metrics


def chosen_thresholds(labels: np.ndarray, scores: np.ndarray) -> list[float] | None:
    """The threshold of each finding with the best F1 on validation images, NaN where there is none to choose.

    None without images.
    """
    return f1_thresholds(labels, scores).tolist() if len(labels) else None


def say_metrics(metrics: dict[str, Any], say: Callable[[str], None]) -> None:
    """Print the figures a person looks for first."""
    say(f"  宏平均 AUC {number_text(metrics['macro_auc'])}{_between(metrics['macro_auc_ci95'])}，"
        f"平均精确率（AP）{number_text(metrics['macro_average_precision'])}")
    for name, found in metrics["per_finding"].items():
        say(f"  {name}（阳性 {found['positives']}，阴性 {found['negatives']}，未知 {found['unknown']}）："
            f"AUC {number_text(found['auc'])}{_between(found['auc_ci95'])}"
            + (f"，F1 {number_text(found['f1'])}" if "threshold" in found else ""))


def _between(interval: Sequence[float] | None) -> str:
    return f" [{number_text(interval[0])}, {number_text(interval[1])}]" if interval else ""
