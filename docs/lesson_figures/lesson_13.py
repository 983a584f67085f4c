"""Lesson 13: scaling out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lesson_figures import figure


@figure()
def whole_batch_columns(path: Path) -> None:
    """Who computes which cells of the similarity matrix: each rank its own texts' columns, or only its own block."""
    from paddle_cxr.plots.style import BLUE, GREY, ORANGE, drawing

    pairs, ranks = 8, 2
    parts = 4  # micro-batches; rank r has parts r, r + ranks, …
    owner = np.repeat(np.arange(parts) % ranks, pairs // parts)
    with drawing(path, 7.8, 4.2, title="8 对，两个 rank，各两份：谁算哪些格", demo=False) as sheet:
        panels = sheet.subplots(1, 2)
        for axes, whole in zip(panels, (False, True), strict=True):
            for row in range(pairs):
                for column in range(pairs):
                    seen = whole or owner[row] == owner[column]
                    colour = (BLUE, ORANGE)[owner[column]] if seen else "#F2F2F2"
                    axes.fill_between([column - 0.46, column + 0.46], row - 0.46, row + 0.46, color=colour,
                                      alpha=0.75 if seen else 1, linewidth=0)
            axes.plot(range(pairs), range(pairs), "o", color="black", markersize=4)
            axes.set(xlim=(-0.5, pairs - 0.5), ylim=(pairs - 0.5, -0.5), aspect="equal")
            axes.set_xticks(range(pairs), [f"文{number + 1}" for number in range(pairs)], fontsize=8)
            axes.set_yticks(range(pairs), [f"图{number + 1}" for number in range(pairs)], fontsize=8)
            axes.grid(visible=False)
            axes.set_title("整批：每行 8 选 1" if whole else "各算各的：每行只有 4 选 1", fontsize=11)
        for colour, name in ((BLUE, "rank 0 算"), (ORANGE, "rank 1 算"), ("#DDDDDD", "没有人算")):
            panels[0].plot([], [], "s", color=colour, label=name)
        panels[0].plot([], [], "o", color="black", markersize=4, label="本来的一对")
        sheet.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, labelcolor=GREY)


@figure()
def serial_share(path: Path) -> None:
    """Half an hour that cannot be shared out, beside the hours that can, for 1, 8 and 64 GPUs."""
    from paddle_cxr.plots.style import BLUE, ORANGE, drawing

    gpus, shared, alone = (1, 8, 64), 146.5, 0.5  # hours; docs/scaling.md
    rest = [shared / count for count in gpus]
    with drawing(path, 6.2, 3.6, title="20 万对：能分的时间，不能分的时间（按公式算的）", demo=False) as sheet:
        axes = sheet.subplots()
        total = [hours + alone for hours in rest]
        axes.bar(range(3), [hours / whole for hours, whole in zip(rest, total, strict=True)], color=BLUE,
                 label="画、写、六问、特征：除以 GPU 数")
        bars = axes.bar(range(3), [alone / whole for whole in total], color=ORANGE,
                        bottom=[hours / whole for hours, whole in zip(rest, total, strict=True)],
                        label="读模型、起停服务：半小时")
        axes.bar_label(bars, [f"{alone / whole:.1%}" for whole in total], fontsize=9)
        axes.set_xticks(range(3), [f"{count} 个 GPU\n{hours:.1f} 小时"
                                   for count, hours in zip(gpus, total, strict=True)])
        axes.set_ylabel("占总时间")
        axes.set_ylim(0, 1.12)
        axes.grid(axis="x", visible=False)
        sheet.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
