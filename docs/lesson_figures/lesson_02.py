"""Lesson 2: residual networks."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lesson_figures import figure

DEGRADATION = "output/lesson2/degradation.csv"


@figure()
def residual_blocks(path: Path) -> None:
    """The basic block and the bottleneck, with channels and weights, side by side."""
    from paddle_cxr.plots.style import drawing

    basic = (("3×3 卷积，64 → 64", 36_864), ("3×3 卷积，64 → 64", 36_864))
    bottleneck = (("1×1 卷积，256 → 64", 16_384), ("3×3 卷积，64 → 64", 36_864), ("1×1 卷积，64 → 256", 16_384))
    with drawing(path, 7.4, 5, title="残差块：学到的改动，加上原样的输入", demo=False) as sheet:
        left, right = sheet.subplots(1, 2)
        _block(left, "基本块 BasicBlock\n（ResNet-18、34）", basic, "64 个通道")
        _block(right, "瓶颈块 BottleneckBlock\n（ResNet-50、101、152）", bottleneck, "256 个通道")


def _block(axes: Any, title: str, layers: Sequence[tuple[str, int]], channels: str) -> None:
    """One block, from its input at the top to its output at the bottom."""
    from paddle_cxr.plots.style import BLUE, GREEN, ORANGE

    arrow = {"arrowstyle": "-|>", "color": "black", "lw": 1.2}
    axes.set(xlim=(0, 10), ylim=(0, 10))
    axes.axis("off")
    axes.set_title(title, fontsize=10.5)
    axes.text(3.6, 9.7, f"输入 x（{channels}）", ha="center", va="center", fontsize=9.5)
    step = 7.6 / len(layers)
    for number, (text, weights) in enumerate(layers):
        middle = 9.2 - step * (number + 0.5)
        axes.annotate("", (3.6, middle + 0.5), (3.6, 9.4 if number == 0 else middle + step - 0.5), arrowprops=arrow)
        axes.text(3.6, middle, f"{text}\n{weights:,} 个权重，然后 BN", ha="center", va="center", fontsize=9,
                  bbox={"boxstyle": "round,pad=0.35", "facecolor": "#EAF2F8", "edgecolor": BLUE})
        if number:
            axes.text(3.9, middle + step / 2, "ReLU", ha="left", va="center", fontsize=8.5, color=GREEN)
    axes.annotate("", (3.6, 1.75), (3.6, 1.6 + step / 2 - 0.5), arrowprops=arrow)
    axes.text(3.6, 1.4, "＋", ha="center", va="center", fontsize=13,
              bbox={"boxstyle": "circle,pad=0.12", "facecolor": "white", "edgecolor": ORANGE})
    axes.plot([6.0, 8.6, 8.6], [9.7, 9.7, 1.4], color=ORANGE, linewidth=2)
    axes.annotate("", (4.2, 1.4), (8.6, 1.4), arrowprops=arrow | {"color": ORANGE, "lw": 2, "shrinkA": 0})
    axes.text(8.75, 5.5, "捷径：\n原样", ha="left", va="center", fontsize=9.5, color=ORANGE)
    axes.annotate("", (3.6, 0.35), (3.6, 1.05), arrowprops=arrow)
    axes.text(3.9, 0.72, "ReLU", ha="left", va="center", fontsize=8.5, color=GREEN)
    axes.text(3.6, 0.1, f"输出（{channels}，共 {sum(weights for _, weights in layers):,} 个权重）", ha="center",
              va="center", fontsize=9.5)


@figure(reads=DEGRADATION, after="第 2 课第六节的程序")
def degradation(path: Path) -> None:
    """Training loss of plain and residual networks of three depths, step by step."""
    from paddle_cxr.plots.style import COLOURS, drawing

    with open(DEGRADATION, encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    depths = list(dict.fromkeys(row["layers"] for row in rows))
    with drawing(path, 7.4, 3.6, title="同一批 48 张模体，只看训练损失", demo=True) as sheet:
        panels = sheet.subplots(1, 2, sharey=True)
        for axes, block, name in zip(panels, ("PlainBlock", "BasicBlock"), ("普通网络", "残差网络"), strict=True):
            for colour, layers in zip(COLOURS, depths, strict=False):
                chosen = [row for row in rows if row["layers"] == layers and row["block"] == block]
                axes.plot([int(row["step"]) for row in chosen], [float(row["loss"]) for row in chosen], color=colour,
                          label=f"{layers} 层")
            axes.set_title(name, fontsize=10.5)
            axes.set_xlabel("步（step）")
            axes.legend()
        panels[0].set_ylabel("训练损失")
        panels[0].set_ylim(bottom=0)
