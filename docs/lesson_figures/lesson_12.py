"""Lesson 12: the central experiment."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lesson_figures import figure

FINDINGS = ("normal", "effusion:left", "consolidation:right", "cardiomegaly", "effusion:right", "consolidation:left",
            "pneumothorax:right", "pneumothorax:left")


@figure()
def compare_arms_findings(path: Path) -> None:
    """How often each finding is drawn in the "real" arm (Zipf's law) and in the synthetic one (all alike)."""
    from paddle_cxr.data.pairs.phantom import PhantomPairs
    from paddle_cxr.plots.style import BLUE, ORANGE, drawing

    arms = {"真实（模体）：长尾": PhantomPairs(2000, seed=11, size=64, findings=FINDINGS, long_tail=0.8),
            "合成：一样多": PhantomPairs(1600, seed=701, size=64, findings=FINDINGS)}
    with drawing(path, 7.4, 3.4, title="两组数据的报告说的是什么", demo=True) as sheet:
        axes = sheet.subplots()
        places = np.arange(len(FINDINGS))
        for number, ((name, pairs), colour) in enumerate(zip(arms.items(), (BLUE, ORANGE), strict=True)):
            drawn = [record.id.split("/")[2] for record in pairs.records]
            shares = [np.mean([_entry(one) == entry for one in drawn]) for entry in FINDINGS]
            axes.bar(places + (number - 0.5) * 0.4, shares, 0.38, color=colour, label=name)
        axes.set_xticks(places, [entry.replace(":", "\n") for entry in FINDINGS], fontsize=8)
        axes.set_ylabel("占全部报告")
        axes.grid(axis="x", visible=False)
        axes.legend()


def _entry(shown: str) -> str:
    """``effusion-left`` → ``effusion:left``; a finding that has no side in the recipe loses its own."""
    name, _, side = shown.partition("-")
    return f"{name}:{side}" if f"{name}:{side}" in FINDINGS else name


@figure()
def compare_arms_flaws(path: Path) -> None:
    """What is wrong with some pairs of the "real" arm: spoiled films, and another film's report."""
    from paddle_cxr.data.pairs.flawed import FLAW, FlawedPairs
    from paddle_cxr.plots.gallery import show
    from paddle_cxr.plots.style import GREEN, RED, drawing, wrapped

    pairs = FlawedPairs({"name": "PhantomPairs", "count": 200, "seed": 11, "size": 160, "findings": FINDINGS,
                         "long_tail": 0.8}, spoiled=0.05, mismatched=0.05)
    flaws = [record.extra.get(FLAW, "") for record in pairs.records]
    chosen = [flaws.index(""), flaws.index("blurred"), flaws.index("cropped"), flaws.index("mismatched")]
    told = ("没有毛病", "坏图：模糊", "坏图：裁剩一角", "报告是别人的")
    with drawing(path, 8.4, 3.2, title="“真实”一组：5 % 的图坏了，5 % 的报告张冠李戴", demo=True) as sheet:
        for axes, index, words in zip(sheet.subplots(1, 4), chosen, told, strict=True):
            show(axes, pairs.read(index))
            axes.set_title(words, fontsize=10, color=RED if flaws[index] else GREEN)
            axes.text(0.5, -0.04, wrapped(pairs.records[index].impression, 30, 3), ha="center", va="top", fontsize=8,
                      transform=axes.transAxes)


@figure()
def paired_difference(path: Path) -> None:
    """Two models that find the same images hard: each one's mean over resamples, and their difference."""
    from paddle_cxr.evaluation.significance import mean_statistic, paired_bootstrap
    from paddle_cxr.plots.style import BLUE, GREY, ORANGE, drawing

    rng = np.random.default_rng(12)
    hard = rng.normal(0.6, 0.2, 120)  # how well any model does on an image
    first, second = (hard + rng.normal(shift, 0.04, 120) for shift in (0.02, 0.0))
    draws = np.random.default_rng(0).multinomial(120, np.full(120, 1 / 120), 4000) / 120
    apart = (draws @ first) - (draws[::-1] @ second)
    found = paired_bootstrap([mean_statistic(first)], [mean_statistic(second)], 120, n=4000)
    with drawing(path, 8.2, 3.3, title="配对自助法（paired bootstrap）：同一次重抽给两个模型", demo=False) as sheet:
        left, right = sheet.subplots(1, 2)
        for name, values, colour in (("模型 A", first, ORANGE), ("模型 B", second, BLUE)):
            left.hist(draws @ values, bins=40, color=colour, alpha=0.55, label=name)
        left.set_xlabel("重抽以后的得分")
        left.set_title("各自的起伏：两堆几乎重叠", fontsize=10)
        right.hist(apart, bins=40, color=GREY, alpha=0.5, label="各抽各的")
        right.hist(draws @ (first - second), bins=40, color=ORANGE, alpha=0.75, label="配对")
        right.axvline(0, color="black", linewidth=1)
        right.set_xlabel("A − B")
        right.set_title(f"配对：[{found.ci95[0]:.3f}, {found.ci95[1]:.3f}]，不含 0", fontsize=10)
        for axes in (left, right):
            axes.set_yticks([])
            axes.legend(fontsize=9)
