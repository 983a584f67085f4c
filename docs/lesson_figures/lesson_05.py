"""Lesson 5: long tails and balanced sampling."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lesson_figures import figure


@figure()
def lorenz_by_hand(path: Path) -> None:
    """The Lorenz curve of four counts, small enough to draw by hand."""
    from paddle_cxr.plots.style import BLUE, GREY, ORANGE, drawing
    from paddle_cxr.synthesis.analysis import gini, lorenz

    counts = (1, 1, 1, 9)
    with drawing(path, 6, 4.6, title="洛伦兹曲线（Lorenz curve）：四个实体", demo=False) as sheet:
        axes = sheet.subplots()
        x, y = lorenz(counts)
        axes.fill_between(x, y, x, color=ORANGE, alpha=0.3, label=f"面积的两倍是 Gini = {gini(counts):g}")
        axes.plot(x, x, color=GREY, linestyle="--", label="一样多：3、3、3、3（对角线）")
        axes.plot(x, y, color=BLUE, marker="o", label="不一样多：1、1、1、9")
        axes.set_xticks(x)
        axes.set_xlabel("最少见的那一部分实体占全部实体")
        axes.set_ylabel("它们占全部提及")
        axes.legend(loc="upper left")


@figure()
def gini_of_chance(path: Path) -> None:
    """Counts that differ by chance alone: their Gini falls with their mean."""
    from paddle_cxr.plots.style import BLUE, GREY, drawing
    from paddle_cxr.synthesis.analysis import gini

    entities = 348  # as many as the shipped vocabulary has abnormalities
    means = np.geomspace(3, 3000, 16)
    rng = np.random.default_rng(5)
    with drawing(path, 6.4, 4, title="机会完全相同，Gini 也不是 0", demo=False) as sheet:
        axes = sheet.subplots()
        axes.loglog(means, 1 / np.sqrt(np.pi * means), color=GREY, linestyle="--", label="公式 1 ÷ √(πμ)")
        axes.loglog(means, [gini(rng.poisson(mean, entities)) for mean in means], color=BLUE, linestyle="", marker="o",
                    label=f"随机的次数（泊松分布，{entities} 项）")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        axes.set_xlabel("每项平均的次数 μ")
        axes.set_ylabel("Gini")
        axes.legend()
