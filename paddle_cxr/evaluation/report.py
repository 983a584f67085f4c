"""The report of an evaluated classifier: metrics with intervals, figures, predictions and the worst mistakes."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paddle_cxr import plots
from paddle_cxr.data.labelled import LabelledData
from paddle_cxr.evaluation import ClassificationMetrics, worst_mistakes
from paddle_cxr.files import write_atomic

WORST = 16  # pictures in the gallery of mistakes
WRITTEN = ("confusion_matrix.png", "roc.png", "pr.png", "calibration.png", "predictions.csv", "mistakes.csv",
           "worst_mistakes.png")
"""The files of a report."""


def write_report(folder: Path, data: LabelledData, positions: np.ndarray, labels: np.ndarray,
                 probabilities: np.ndarray, metric: ClassificationMetrics) -> dict[str, Any]:
    """Compute metrics with 95 % intervals and write every figure and table of an evaluation.

    Args:
        folder: where to write.
        data: the images the predictions belong to.
        positions: the records predicted, in the order of ``labels`` and ``probabilities``.
        labels: int64 [N]; probabilities: float32 [N, K].
        metric: the recipe's metric.

    Returns:
        The metrics, JSON-ready.
    """
    classes, demo = data.classes, data.source.demo
    names = [info.name for info in classes]
    metrics = metric(labels, probabilities, data.groups(positions), class_names=names, intervals=True)
    plots.plot_confusion_matrix(metrics["confusion_matrix"], classes, folder / "confusion_matrix.png", demo=demo)
    plots.plot_roc(labels, probabilities, metrics, classes, folder / "roc.png", demo=demo)
    plots.plot_precision_recall(labels, probabilities, metrics, classes, folder / "pr.png", demo=demo)
    plots.plot_calibration(labels, probabilities, metrics, folder / "calibration.png", demo=demo)
    _write_predictions(folder / "predictions.csv", data, positions, labels, probabilities)
    _write_mistakes(folder, data, positions, labels, probabilities)
    return metrics


def write_table(file: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV atomically, row by row: that of 100,000 images need not fit into memory as text."""

    def write(temporary: Path) -> None:
        with open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)

    write_atomic(file, write)


def _write_predictions(file: Path, data: LabelledData, positions: np.ndarray, labels: np.ndarray,
                       probabilities: np.ndarray) -> None:
    names = [info.name for info in data.classes]
    records = [data.source.records[position] for position in positions]
    write_table(file, ["file", "patient_id", "label", "predicted", *[f"p_{name}" for name in names]], (
        [record.path, record.patient_id or "", names[label], names[row.argmax()], *[f"{p:.6f}" for p in row]]
        for record, label, row in zip(records, labels, probabilities, strict=True)))


def _write_mistakes(folder: Path, data: LabelledData, positions: np.ndarray, labels: np.ndarray,
                    probabilities: np.ndarray) -> None:
    names = [info.name for info in data.classes]
    examples, rows = [], []
    for index in worst_mistakes(labels, probabilities, len(labels)):
        position, label, row = int(positions[index]), int(labels[index]), probabilities[index]
        rows.append([data.source.locate(position), names[label], names[row.argmax()], f"{row[label]:.6f}",
                     f"{row.max():.6f}"])
        if len(examples) < WORST:
            examples.append(plots.Example(np.asarray(data.images[position]), data.source.records[position].path,
                                          label, row))
    write_table(folder / "mistakes.csv", ["file", "label", "predicted", "p_label", "p_predicted"], rows)
    plots.plot_mistakes(examples, data.classes, folder / "worst_mistakes.png", demo=data.source.demo)


def say_summary(metrics: dict[str, Any], say: Callable[[str], None]) -> None:
    """Print the figures a person looks for first."""
    for key, text in (("accuracy", "准确率（accuracy）"), ("balanced_accuracy", "平衡准确率（balanced accuracy）"),
                      ("macro_f1", "宏平均 F1"), ("macro_auc", "宏平均 AUC")):
        interval = metrics["ci95"][key]
        say(f"  {text} {number_text(metrics[key])}"
            + (f"，95% 区间 [{number_text(interval[0])}, {number_text(interval[1])}]" if interval else ""))
    for name, row in metrics["per_class"].items():
        cells = "，".join(f"{text} {number_text(row[key])}" for key, text in
                         (("precision", "精确率"), ("recall", "召回率"), ("f1", "F1"), ("auc", "AUC")))
        say(f"  {name}（{row['support']} 张）：{cells}")


def number_text(value: float | None) -> str:
    """Four decimals, or 无定义 for a value that is undefined (None)."""
    return "无定义" if value is None else f"{value:.4f}"
