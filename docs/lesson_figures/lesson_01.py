"""Lesson 1: the first training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lesson_figures import figure


@figure()
def three_classes(path: Path) -> None:
    """The same two phantoms healthy and with either pneumonia, the lesions outlined."""
    from paddle_cxr.data.phantom import CLASSES, draw
    from paddle_cxr.plots.gallery import show
    from paddle_cxr.plots.segmentation import draw_outline
    from paddle_cxr.plots.style import ORANGE, drawing

    names = ("正常 NORMAL", "病毒性肺炎 Viral Pneumonia", "新冠肺炎 COVID")
    with drawing(path, 7.2, 5.2, title="三类模体：同一位“患者”，三种状态", demo=True) as sheet:
        for row, index in zip(sheet.subplots(2, 3), (3, 11), strict=True):
            for axes, label, name in zip(row, CLASSES, names, strict=True):
                film = draw(label, seed=0, index=index, size=224)
                show(axes, film.image)
                if film.lesion_mask.any():
                    draw_outline(axes, film.lesion_mask > 0, ORANGE, "-")
                axes.set_title(name, fontsize=9.5)


@figure()
def cross_entropy(path: Path) -> None:
    """The loss of one image against the probability of its true class."""
    from paddle_cxr.plots.style import BLUE, GREY, RED, drawing

    probability = np.linspace(0.01, 1, 400)
    with drawing(path, 6.2, 3.4, title="交叉熵（cross entropy）：越有把握地猜错，罚得越重", demo=False) as sheet:
        axes = sheet.subplots()
        axes.plot(probability, -np.log(probability), color=BLUE)
        told = ((0.01, "有把握地猜错：4.6", RED, (10, -4)), (1 / 3, "三类乱猜：1.10", GREY, (10, 6)),
                (0.5, "一半对一半：0.69", GREY, (10, 6)), (0.98, "有把握地猜对：0.02", GREY, (-6, 14)))
        for place, text, colour, offset in told:
            axes.plot(place, -np.log(place), color=colour, marker="o", linestyle="")
            axes.annotate(text, (place, -np.log(place)), xytext=offset, textcoords="offset points", color=colour,
                          ha="left" if offset[0] > 0 else "right", fontsize=9.5)
        axes.set_xlabel("网络给真实类别的概率")
        axes.set_ylabel("这张图的损失（loss）")
