"""Lesson 3: data, augmentation, leakage and shortcuts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from lesson_figures import figure

EVALUATED = tuple(f"output/{name}/eval_test/metrics.json" for name in ("shortcut", "shortcut_none", "shortcut_normal"))


@figure()
def augmentations(path: Path) -> None:
    """One phantom and what each of seven augmentations makes of it, with the amount."""
    from paddle_cxr.data import transforms
    from paddle_cxr.data.phantom import draw_image
    from paddle_cxr.plots.gallery import show
    from paddle_cxr.plots.style import drawing

    film = draw_image("covid", seed=0, index=3, size=192)
    turn = transforms.RandomRotation(degrees=20)
    matrix = turn.sample(np.random.default_rng(5), 1, film.shape)[0]
    angle = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
    noise = np.random.default_rng(3).normal(0, 20, film.shape)
    pictures = {
        "原图": film,
        "亮度 × 1.4": transforms.RandomBrightness().apply(film, 1.4),
        "对比度 × 0.5": transforms.RandomContrast().apply(film, 0.5),
        "伽马 1.6": transforms.RandomGamma().apply(film, 1.6),
        "模糊 σ = 2.5 像素": transforms.GaussianBlur().apply(film, 2.5),
        "噪声 σ = 20 级灰度": transforms.to_uint8(film + noise),
        f"旋转 {angle:.0f}°": turn.apply(film, matrix),
        "左右翻转：L 成了反字": transforms.RandomHorizontalFlip().apply(film, 1.0),
    }
    with drawing(path, 7.4, 4.4, title="同一张模体，七种增强（augmentation）", demo=True) as sheet:
        for axes, (name, picture) in zip(sheet.subplots(2, 4).flat, pictures.items(), strict=True):
            show(axes, picture)
            axes.set_title(name, fontsize=9.5)


@figure()
def planted_mark(path: Path) -> None:
    """A healthy film and one with a nodule as the shortcut recipe trains on them; nodule and mark circled."""
    from paddle_cxr.data.phantom import draw
    from paddle_cxr.data.sources.planted_mark import with_mark
    from paddle_cxr.plots.gallery import show
    from paddle_cxr.plots.segmentation import draw_outline
    from paddle_cxr.plots.style import ORANGE, SKY, drawing

    healthy, ill = draw("normal", seed=0, index=0, size=64), draw("nodule", seed=0, index=1, size=64)
    with drawing(path, 6.4, 3.2, title="种下的记号（橙色的圈里）：只有结节的片子有", demo=True) as sheet:
        left, right = sheet.subplots(1, 2)
        show(left, healthy.image)
        left.set_title("正常 NORMAL", fontsize=9.5)
        show(right, with_mark(ill.image))
        draw_outline(right, ill.lesion_mask > 0, SKY, "-")
        right.plot(3.5, 59.5, marker="o", markersize=26, markerfacecolor="none", markeredgecolor=ORANGE,
                   markeredgewidth=2, clip_on=False)
        right.set_title("结节 NODULE（蓝线圈出结节）", fontsize=9.5)


@figure(reads=EVALUATED, after="第 3 课第四节的四条命令")
def shortcut_tables(path: Path) -> None:
    """The confusion matrices of one model on the same patients with the mark in three places."""
    from paddle_cxr.plots.style import drawing

    titles = ("与训练一样：\n结节带记号", "换一家医院：\n谁也不带记号", "再换一家：\n正常带记号")
    names = ("正常", "结节")
    with drawing(path, 8, 3.3, title="同一个模型，同样的患者，只换记号", demo=True) as sheet:
        for axes, file, title in zip(sheet.subplots(1, 3), EVALUATED, titles, strict=True):
            counts = np.array(json.loads(Path(file).read_text(encoding="utf-8"))["evaluation"]["confusion_matrix"])
            axes.imshow(counts, cmap="Blues", vmin=0, vmax=counts.sum(axis=1).max())
            for (row, column), count in np.ndenumerate(counts):
                axes.text(column, row, count, ha="center", va="center",
                          color="white" if count > counts.sum(axis=1).max() / 2 else "black")
            axes.set_title(title, fontsize=10)
            axes.set_xticks(range(2), names)
            axes.set_yticks(range(2), names)
            axes.set_xlabel("预测")
            axes.set_ylabel("真实")
            axes.grid(visible=False)
