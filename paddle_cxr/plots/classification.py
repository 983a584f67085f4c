"""Figures of one evaluation: confusion matrix, ROC, precision-recall and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle_cxr.data.records import ClassInfo
from paddle_cxr.evaluation.calibration import reliability_curve
from paddle_cxr.evaluation.metrics import precision_recall_curve, roc_curve
from paddle_cxr.plots.style import BLUE, GREY, ORANGE, bilingual, drawing, line_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_confusion_matrix(matrix: Sequence[Sequence[int]] | np.ndarray, classes: Sequence[ClassInfo],
                          path: str | Path, *, demo: bool = False) -> Path:
    """Confusion matrix: each cell its count and its share of the row (of the images of that true class).

    Args:
        matrix: ``[K, K]`` counts, row = truth, column = prediction.
        classes: the K classes, in label order.
        path: PNG to write.

    Raises:
        UserError: the file cannot be written.
    """
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [bilingual(info, lines=True) for info in classes]
    side = max(3.4, len(classes))  # an inch a cell
    with drawing(path, side + 3, side + 1.3, title="混淆矩阵（confusion matrix）", demo=demo) as figure:
        axes = figure.subplots()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(*counts.shape):
            axes.text(column, row, f"{counts[row, column]}\n{shares[row, column]:.1%}", ha="center", va="center",
                      color="white" if shares[row, column] > 0.55 else "black")
        axes.set_xticks(range(len(names)), names, fontsize=9)
        axes.set_yticks(range(len(names)), names, fontsize=9)
        axes.set_xlabel("预测类别（predicted）")
        axes.set_ylabel("真实类别（true）")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        bar = figure.colorbar(image, ax=axes, shrink=0.85, label="占该真实类别的比例")
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        bar.outline.set_visible(False)
        bar.ax.grid(visible=False)
    return Path(path)


def plot_roc(labels: np.ndarray, probabilities: np.ndarray, metrics: Mapping[str, Any], classes: Sequence[ClassInfo],
             path: str | Path, *, demo: bool = False) -> Path:
    """ROC curve of each class against the rest, with its AUC and, where known, the 95 % interval.

    Args:
        labels: int ``[N]``; probabilities: float ``[N, K]``.
        metrics: what ``classification_metrics`` or ``with_intervals`` returned for them.
        classes: the K classes, in label order.
        path: PNG to write.

    Raises:
        UserError: the file cannot be written.
    """
    with drawing(path, 6.6, 5.7, title="ROC 曲线（每一类对其余各类，one-vs-rest）", demo=demo) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="随机猜测 AUC 0.500")
        for k, info in enumerate(classes):
            curve = roc_curve(labels == k, probabilities[:, k])
            interval = metrics.get("ci95", {}).get("per_class", {}).get(info.name, {}).get("auc")
            axes.plot(*curve, label=f"{info.zh} AUC {_value(metrics['per_class'][info.name]['auc'], interval)}",
                      **line_style(k))
        axes.set_xlabel("假阳性率 = 1 − 特异度（false positive rate）")
        axes.set_ylabel("真阳性率 = 灵敏度（true positive rate）")
        _unit_square(axes)
        axes.legend(loc="lower right", fontsize=9, title=_interval_note(metrics), title_fontsize=9,
                    alignment="left")
    return Path(path)


def plot_precision_recall(labels: np.ndarray, probabilities: np.ndarray, metrics: Mapping[str, Any],
                          classes: Sequence[ClassInfo], path: str | Path, *, demo: bool = False) -> Path:
    """Precision-recall curve of each class, with its average precision; dotted: the class's share, i.e. guessing.

    Arguments and errors as :func:`plot_roc`.
    """
    with drawing(path, 6.6, 5.7, title="精确率—召回率曲线（precision-recall）", demo=demo) as figure:
        axes = figure.subplots()
        for k, info in enumerate(classes):
            recall, precision = precision_recall_curve(labels == k, probabilities[:, k])
            style = line_style(k)
            # Steps, as average precision sums them: a straight line between two points would promise too much.
            axes.plot(np.r_[0, recall], np.r_[precision[0], precision], drawstyle="steps-pre",
                      label=f"{info.zh} AP {_value(metrics['per_class'][info.name]['average_precision'])}", **style)
            axes.axhline(np.mean(labels == k), color=style["color"], linewidth=1, linestyle=":")
        axes.set_xlabel("召回率（recall）")
        axes.set_ylabel("精确率（precision）")
        _unit_square(axes)
        axes.legend(loc="lower left", fontsize=9, title="AP：平均精确率；点线：该类占比（随机猜测）",
                    title_fontsize=9, alignment="left")
    return Path(path)


def plot_calibration(labels: np.ndarray, probabilities: np.ndarray, metrics: Mapping[str, Any], path: str | Path, *,
                     demo: bool = False) -> Path:
    """Reliability curve of the predicted class over the histogram of confidence, with ECE and Brier score.

    Arguments and errors as :func:`plot_roc`.
    """
    curve = reliability_curve(labels, probabilities)
    used = curve.counts > 0
    width = curve.edges[1] - curve.edges[0]
    with drawing(path, 6.2, 6.6, title="校准曲线（calibration）", demo=demo) as figure:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        top.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="完全校准")
        top.plot(curve.confidence[used], curve.accuracy[used], color=BLUE, marker="o", markersize=5, label="模型")
        top.set_ylabel("准确率（accuracy）")
        top.legend(loc="upper left", title=f"ECE {metrics['ece']:.3f}　Brier {metrics['brier']:.3f}", alignment="left")
        _unit_square(top)
        bottom.bar(curve.edges[:-1], curve.counts, width=width, align="edge", color=ORANGE, edgecolor="white")
        bottom.set_ylabel("图像数")
        bottom.set_xlabel("置信度：最可能一类的概率（confidence）")
        bottom.yaxis.get_major_locator().set_params(integer=True)
    return Path(path)


def _unit_square(axes: Axes) -> None:
    # A little beyond 0 and 1, or a perfect curve would hide under the frame.
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.04)


def _value(value: float | None, interval: Sequence[float] | None = None) -> str:
    if value is None:
        return "无定义（缺正例或反例）"
    return f"{value:.3f}" if interval is None else f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _interval_note(metrics: Mapping[str, Any]) -> str:
    return "方括号：95 % 置信区间（bootstrap）" if "ci95" in metrics else ""
