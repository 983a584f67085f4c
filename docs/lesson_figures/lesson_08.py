"""Lesson 8: quality control."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lesson_figures import figure

NAMES = {"blurred": "模糊", "inverted": "反相", "rotated": "旋转 90°", "cropped": "裁剩一角", "overexposed": "过曝",
         "posterised": "色阶缺失", "collage": "拼接", "noise": "噪声", "text": "文字", "scene": "非胸部的图",
         "lateral": "像侧位"}


@figure()
def spoiled(path: Path) -> None:
    """A phantom, its eleven spoiled copies, and the questions that the judge answers with no."""
    from paddle_cxr.data.phantom import draw_image
    from paddle_cxr.data.spoil import SPOILINGS
    from paddle_cxr.plots.gallery import show
    from paddle_cxr.plots.style import GREEN, RED, drawing
    from paddle_cxr.synthesis.quality.measured import MeasuredJudge

    film, other = (draw_image("normal", seed=0, index=index, size=512) for index in (3, 4))
    pictures = {"原图 original": film}
    for number, (name, spoil) in enumerate(SPOILINGS.items()):
        pictures[f"{NAMES[name]} {name}"] = spoil(film, other, np.random.default_rng((8, number)))
    verdicts = MeasuredJudge().judge(list(pictures.values()))
    with drawing(path, 7.4, 6.6, title="弄坏的副本，和答“否”的那几问", demo=True) as sheet:
        for axes, (name, picture), verdict in zip(sheet.subplots(3, 4).flat, pictures.items(), verdicts, strict=True):
            failed = [question for question, answer in verdict.items() if answer.passed is False]
            show(axes, picture)
            axes.set_title(name, fontsize=9)
            axes.text(0.5, -0.04, "\n".join(failed) or "全部通过", ha="center", va="top", fontsize=8,
                      color=RED if failed else GREEN, transform=axes.transAxes)
