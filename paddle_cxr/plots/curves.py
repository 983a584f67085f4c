"""Figures over time and over folds: training curves and the summary of a cross-validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle_cxr.data.records import ClassInfo
from paddle_cxr.errors import UserError
from paddle_cxr.plots.style import BLUE, GREY, ORANGE, bilingual, drawing, line_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METRIC_NAMES = {
    "accuracy": "准确率（accuracy）",
    "balanced_accuracy": "平衡准确率（balanced accuracy）",
    "macro_f1": "宏平均 F1（macro F1）",
    "macro_auc": "宏平均 AUC（macro AUC）",
}
SEGMENTATION_NAMES = {"dice": "Dice", "iou": "IoU"}
RETRIEVAL_NAMES = {
    "mean_recall": "平均召回率（mean recall）",
    "image_to_text_R@5": "图→文 R@5",
    "text_to_image_R@5": "文→图 R@5",
}


def plot_training_curves(history: Sequence[Mapping[str, Any]], path: str | Path, *, demo: bool = False) -> Path:
    """Loss, metrics and learning rate over the epochs.

    Args:
        history: one row an epoch with ``epoch`` and any of ``lr``, ``train_loss``, ``val_loss``, ``train_accuracy``,
            ``val_accuracy`` and further ``val_*`` metrics of 0 … 1; numbers or the text of a CSV, empty or None where
            nothing was measured.
        path: PNG to write.

    Raises:
        UserError: no rows, or the file cannot be written.
    """
    if not history:
        raise UserError("训练记录（history.csv）是空的，没有曲线可画；至少训练 1 个 epoch")
    known = dict.fromkeys(key for row in history for key in row)  # an epoch without validation has fewer
    names = METRIC_NAMES | RETRIEVAL_NAMES | SEGMENTATION_NAMES
    others = {key: names[key[4:]] for key in known
              if key.startswith("val_") and key[4:] in names and key != "val_accuracy"}
    accuracy = {"train_accuracy": "训练（train）", "val_accuracy": "验证（val）"}
    rest = "其他验证指标" if any(key in known for key in accuracy) else "验证指标"
    panels = {
        "损失（loss）": {"train_loss": "训练（train）", "val_loss": "验证（val）"},
        "准确率（accuracy）": accuracy,
        f"{rest}（validation metrics）": others,
        "学习率（learning rate）": {"lr": ""},
    }
    panels = {title: lines for title, lines in panels.items() if any(key in known for key in lines)}
    rows, columns, height = (2, 2, 6.7) if len(panels) == 4 else (1, len(panels), 3.8)
    with drawing(path, 10 if len(panels) > 2 else 7, height, title="训练曲线（training curves）", demo=demo) as figure:
        cells = figure.subplots(rows, columns, squeeze=False).flat
        for axes, (title, lines) in zip(cells, panels.items(), strict=True):
            for number, (key, label) in enumerate(lines.items()):
                _line(axes, history, key, label, number)
            _finish(axes, title)
    return Path(path)


def _line(axes: Axes, history: Sequence[Mapping[str, Any]], key: str, label: str, number: int) -> None:
    points = [(float(row["epoch"]), _number(row.get(key))) for row in history]
    points = [(epoch, value) for epoch, value in points if not math.isnan(value)]
    if points:
        # Few points are marked, or one epoch would show nothing.
        axes.plot(*zip(*points, strict=True), label=label, marker="o" if len(points) <= 40 else "", markersize=4,
                  **line_style(number))


def _number(value: Any) -> float:
    return math.nan if value is None or value == "" else float(value)


def _finish(axes: Axes, title: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_title(title)
    axes.set_xlabel("轮（epoch）")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if not axes.lines:
        axes.text(0.5, 0.5, "没有记录", transform=axes.transAxes, ha="center", color=GREY)
        return
    first, last = (edge(line.get_xdata()[i] for line in axes.lines) for edge, i in ((min, 0), (max, -1)))
    if first == last:  # one epoch: from zero, or the axis would magnify the gap between two points
        axes.set_xlim(first - 0.5, last + 0.5)
        axes.set_ylim(0, 1.25 * max(line.get_ydata()[0] for line in axes.lines) or 1)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=9)


def plot_cross_validation(summary: Mapping[str, Any], classes: Sequence[ClassInfo], path: str | Path, *,
                          demo: bool = False) -> Path:
    """Each fold as a point, with mean ± standard deviation: overall metrics, and the recall of each class.

    Args:
        summary: what :func:`paddle_cxr.evaluation.summarise_folds` returned.
        classes: the classes, in label order.
        path: PNG to write.

    Raises:
        UserError: the file cannot be written.
    """
    overall = [(name.replace("（", "\n（"), summary[key]) for key, name in METRIC_NAMES.items()]
    recalls = [(bilingual(info, lines=True), summary["per_class"][info.name]["recall"]) for info in classes]
    title = f"{summary['folds']} 折交叉验证（cross-validation）：各折结果与均值 ± 标准差"
    # Side by side while that fits a screen, else one above the other.
    columns = len(overall) + len(recalls)
    side_by_side = columns <= 9
    width, height = (2 + 1.35 * columns, 4.5) if side_by_side else (max(8.0, 2 + 1.15 * len(recalls)), 8.0)
    layout = {"ncols": 2, "width_ratios": [len(overall), len(recalls)]} if side_by_side else {"nrows": 2}
    with drawing(path, width, height, title=title, demo=demo) as figure:
        left, right = figure.subplots(sharey=True, **layout)
        left.set_title("总体指标")
        right.set_title("各类召回率（recall）")
        lows = [_folds(axes, values) for axes, values in ((left, overall), (right, recalls))]
        low = max(0.0, math.floor((min(lows) - 0.03) * 20) / 20)
        left.set_ylim(low - 0.02 * (1 - low), 1 + 0.16 * (1 - low))  # above 1: room for the figures
    return Path(path)


def _folds(axes: Axes, metrics: Sequence[tuple[str, Mapping[str, Any]]]) -> float:
    """Draw one column for each label and its spread; return the lowest value drawn."""
    lows = []
    for x, (_, spread) in enumerate(metrics):
        values = [value for value in spread["values"] if value is not None]
        if not values:
            axes.text(x, 0.5, "无定义", ha="center", color=GREY, transform=axes.get_xaxis_transform())
            continue
        # Spread sideways in fold order: equal values would hide one another.
        axes.scatter(x - 0.12 + np.linspace(-0.12, 0.12, len(values)), values, color=BLUE, s=22, alpha=0.8, zorder=2)
        mean, deviation = spread["mean"], spread["sd"] or 0.0
        axes.errorbar(x + 0.2, mean, yerr=deviation, color=ORANGE, marker="D", markersize=6, capsize=4, zorder=3)
        lows.append(min(*values, mean - deviation))
        text = f"{mean:.3f}" if spread["sd"] is None else f"{mean:.3f} ± {deviation:.3f}"
        axes.text(x, 0.99, text, transform=axes.get_xaxis_transform(), ha="center", va="top", fontsize=9,
                  bbox={"color": "white", "pad": 2}, zorder=4)
    axes.set_xticks(range(len(metrics)), [label for label, _ in metrics], fontsize=9)
    axes.set_xlim(-0.6, len(metrics) - 0.4)
    axes.grid(axis="x", visible=False)
    return min(lows, default=0.0)
