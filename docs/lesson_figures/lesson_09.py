"""Lesson 9: ConVIRT."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lesson_figures import figure


@figure()
def convirt_puzzle(path: Path) -> None:
    """Films down the side, reports along the top: which belongs to which?"""
    from paddle_cxr.data.pairs.phantom import PhantomPairs
    from paddle_cxr.plots.gallery import show
    from paddle_cxr.plots.style import BLUE, GREY, ORANGE, drawing, wrapped

    findings = ("effusion:left", "cardiomegaly", "pneumothorax:right", "normal")
    pairs = PhantomPairs(4, seed=9, size=160, findings=findings)
    side = len(pairs.records)
    with drawing(path, 7.2, 5.6, title="连线题：每张图认出自己的报告，每份报告认出自己的图", demo=True) as sheet:
        cells = sheet.subplots(side + 1, side + 1, gridspec_kw={"height_ratios": [0.75, *[1] * side]})
        for axes in cells.flat:
            axes.set_xticks([])
            axes.set_yticks([])
            for edge in axes.spines.values():
                edge.set_visible(False)
        cells[0, 0].text(0.5, 0.5, "图 v\n　　文字 u", ha="center", va="center", fontsize=9, color=GREY)
        for number, record in enumerate(pairs.records):
            show(cells[number + 1, 0], pairs.read(number))
            cells[0, number + 1].text(0.5, 0.1, wrapped(record.impression, 22, 4), ha="center", va="bottom",
                                      fontsize=8)
        for row in range(side):
            for column in range(side):
                axes, own = cells[row + 1, column + 1], row == column
                axes.set_facecolor(ORANGE if own else "#EEF3F7")
                axes.text(0.5, 0.5, f"s {row + 1}{column + 1}" + ("\n本来的一对" if own else ""), ha="center",
                          va="center", fontsize=9, color="black" if own else GREY)
        for (row, column), told in {(1, 4): "一行：这张图在四份报告里选", (4, 1): "一列：这份报告在四张图里选"}.items():
            cells[row, column].text(0.5, 0.08, told, ha="center", va="bottom", fontsize=7.5, color=BLUE,
                                    transform=cells[row, column].transAxes)


@figure()
def temperature_softmax(path: Path) -> None:
    """The same five cosines, divided by three temperatures, after the softmax."""
    from paddle_cxr.plots.style import BLUE, ORANGE, drawing

    cosines = np.array([0.80, 0.70, 0.40, 0.10, -0.20])
    with drawing(path, 8.2, 3.2, title="同样的余弦，不同的温度（temperature）τ", demo=False) as sheet:
        panels = sheet.subplots(1, 3, sharey=True)
        for axes, temperature in zip(panels, (1.0, 0.1, 0.02), strict=True):
            share = np.exp((cosines - cosines.max()) / temperature)
            share /= share.sum()
            bars = axes.bar(range(len(cosines)), share, color=[ORANGE, *[BLUE] * (len(cosines) - 1)])
            axes.bar_label(bars, fmt="%.2f", fontsize=8)
            axes.set_xticks(range(len(cosines)), [f"{value:g}" for value in cosines])
            axes.set_title(f"τ = {temperature:g}")
            axes.set_xlabel("余弦（橙：自己的报告）")
            axes.set_ylim(0, 1.1)
        panels[0].set_ylabel("softmax 分到的概率")


@figure(reads="output/convirt_phantom/similarity.png", after="python tools/train.py -c configs/convirt_phantom.yaml")
def convirt_similarity(path: Path) -> None:
    """The matrix of a trained model, as the training drew it, made smaller."""
    from PIL import Image

    from paddle_cxr.files import write_atomic

    drawn = Image.open("output/convirt_phantom/similarity.png").convert("RGB")
    smaller = drawn.resize((900, round(900 * drawn.height / drawn.width)), Image.Resampling.LANCZOS).quantize(128)
    write_atomic(path, lambda temporary: smaller.save(temporary, format="PNG", optimize=True))
