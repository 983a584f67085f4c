"""Lesson 11: the four evaluations."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lesson_figures import figure


@figure()
def overlap_measures(path: Path) -> None:
    """Two squares one pixel apart: IoU, Dice and the distance of their outlines."""
    from paddle_cxr.evaluation.overlap import dice, iou
    from paddle_cxr.evaluation.surface import hausdorff, outline
    from paddle_cxr.plots.style import BLUE, GREEN, ORANGE, RED, drawing

    truth, found = np.zeros((2, 8, 8), bool)
    truth[2:6, 1:5] = found[2:6, 2:6] = True
    kinds = {"只有真实": (truth & ~found, GREEN), "两者都有": (truth & found, BLUE),
             "只有预测": (found & ~truth, ORANGE)}
    with drawing(path, 7.4, 3.6, title="8×8 的图：预测向右错开一格", demo=False) as sheet:
        left, right = sheet.subplots(1, 2)
        for axes in (left, right):
            axes.set(xlim=(-0.5, 7.5), ylim=(7.5, -0.5), xticks=range(8), yticks=range(8), aspect="equal")
        for name, (mask, colour) in kinds.items():
            for number, (row, column) in enumerate(np.argwhere(mask)):
                left.fill_between([column - 0.5, column + 0.5], row - 0.5, row + 0.5, color=colour, alpha=0.75,
                                  linewidth=0, label=name if number == 0 else None)
        left.set_title(f"交集 12，并集 20：IoU {iou(found, truth):g}，Dice {dice(found, truth):g}", fontsize=10)
        for mask, colour, marker, name in ((truth, GREEN, "s", "真实的轮廓"), (found, ORANGE, "x", "预测的轮廓")):
            rows, columns = np.nonzero(outline(mask))
            right.plot(columns, rows, marker, color=colour, fillstyle="none", markersize=9, markeredgewidth=2,
                       label=name)
        right.annotate("", (2, 3), (1, 3), arrowprops={"arrowstyle": "<->", "color": RED, "linewidth": 2})
        right.set_title(f"轮廓最远差 1 格：HD95 = {hausdorff(truth, found):g} 像素", fontsize=10)
        for axes in (left, right):
            axes.legend(loc="lower center", ncols=3, fontsize=8)


@figure()
def threshold_leak(path: Path) -> None:
    """What choosing the threshold on the test images adds to F1, by how many positives there are."""
    from paddle_cxr.evaluation.thresholds import f1_thresholds
    from paddle_cxr.plots.style import BLUE, ORANGE, drawing

    counts, gains = (5, 10, 20, 50, 100, 200), {"验证集": [], "测试集": []}
    rng = np.random.default_rng(11)
    for positives in counts:
        labels = np.repeat([1.0, 0.0], [positives, 9 * positives])
        scores = {"验证集": [], "测试集": []}
        for _ in range(200):
            tested, validating = (rng.normal(1.5 * labels) for _ in range(2))
            for chosen_on, values in (("验证集", validating), ("测试集", tested)):
                threshold = f1_thresholds(labels[:, None], values[:, None])[0]
                scores[chosen_on].append(_f1(labels, tested >= threshold))
        for chosen_on, values in scores.items():
            gains[chosen_on].append(np.mean(values))
    with drawing(path, 6.4, 3.8, title="同一个模型，F1 的阈值在哪里选（模拟，各 200 次平均）", demo=False) as sheet:
        axes = sheet.subplots()
        for (name, values), colour in zip(gains.items(), (BLUE, ORANGE), strict=True):
            axes.plot(counts, values, marker="o", color=colour, label=f"阈值取自{name}")
        axes.set_xscale("log")
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.set_xlabel("阳性的张数（阴性是它的 9 倍）")
        axes.set_ylabel("测试集上的 F1")
        axes.legend()


def _f1(labels: np.ndarray, found: np.ndarray) -> float:
    return 2 * float(labels[found].sum()) / max(float(labels.sum() + found.sum()), 1.0)
