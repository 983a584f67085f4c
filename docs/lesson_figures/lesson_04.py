"""Lesson 4: an evaluation that doctors would believe."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lesson_figures import figure


@figure()
def roc_pairs(path: Path) -> None:
    """AUC twice: as the pairs won among four images, and as the area under their ROC curve."""
    from paddle_cxr.evaluation.metrics import roc_curve
    from paddle_cxr.plots.style import BLUE, GREEN, GREY, ORANGE, RED, drawing

    positive, scores = np.array([False, False, True, True]), np.array([0.1, 0.6, 0.6, 0.8])
    with drawing(path, 8, 3.7, title="AUC 的两个意思，一个数：0.875", demo=False) as sheet:
        left, right = sheet.subplots(1, 2)
        heights = np.where(positive, 1.0, 0.0)
        for a in np.flatnonzero(positive):
            for b in np.flatnonzero(~positive):
                won = scores[a] > scores[b]
                left.plot(scores[[b, a]], heights[[b, a]], color=GREEN if won else ORANGE,
                          linestyle="-" if won else "--", zorder=1)
        left.scatter(scores, heights, s=70, c=[BLUE if one else RED for one in positive], zorder=2)
        for x, y in zip(scores, heights, strict=True):
            left.annotate(f"{x:g}", (x, y), xytext=(0, 9 if y else -17), textcoords="offset points", ha="center")
        left.plot([], [], color=GREEN, label="阳性更高：3 对，各算 1")
        left.plot([], [], color=ORANGE, linestyle="--", label="打平：1 对，算一半")
        left.set_yticks([0, 1], ["阴性", "阳性"])
        left.set(xlim=(0, 1), ylim=(-0.35, 1.75), xlabel="分数", title="四对里赢了三对半")
        left.legend(loc="upper left", fontsize=9)
        false, true = roc_curve(positive, scores)
        right.fill_between(false, true, color=BLUE, alpha=0.2)
        right.plot(false, true, color=BLUE, marker="o")
        right.plot([0, 1], [0, 1], color=GREY, linestyle="--")
        right.text(0.58, 0.45, "面积 0.875", ha="center", color=BLUE)
        right.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.05), xlabel="假阳性率（1 − 特异度）", ylabel="真阳性率（灵敏度）",
                  title="ROC 曲线")


@figure()
def bootstrap(path: Path) -> None:
    """Resampled accuracies: 150 images with four mistakes; a thousand images of a hundred patients, both ways."""
    from paddle_cxr.evaluation.bootstrap import resamples
    from paddle_cxr.plots.style import BLUE, ORANGE, drawing

    def accuracies(right: np.ndarray, unit: np.ndarray) -> np.ndarray:
        return np.concatenate([drawn @ right / drawn.sum(axis=1) for drawn in resamples(unit, 1000, seed=0)])

    with drawing(path, 8, 3.5, title="自助法（bootstrap）：重抽一千次的准确率", demo=False) as sheet:
        left, right = sheet.subplots(1, 2)
        found = accuracies(np.r_[np.ones(146), np.zeros(4)], np.arange(150))
        left.hist(found, bins=(np.arange(134, 152) - 0.5) / 150, color=BLUE, alpha=0.8)
        for edge in np.percentile(found, [2.5, 97.5]):
            left.axvline(edge, color=ORANGE, linewidth=2)
            left.annotate(f"{edge:.4f}", (edge, left.get_ylim()[1]), xytext=(4, -12), textcoords="offset points",
                          color="black", fontsize=9)
        left.set(title="150 张，错 4 张", xlabel="准确率", ylabel="次数")
        truth, patient = np.repeat(np.arange(100) < 80, 10).astype(float), np.repeat(np.arange(100), 10)
        for name, unit, colour in (("抽图（太窄）", np.arange(1000), ORANGE), ("抽人", patient, BLUE)):
            right.hist(accuracies(truth, unit), bins=np.arange(65.5, 95.5) / 100, color=colour, alpha=0.65, label=name)
        right.set(title="100 人各 10 张，同一人同对同错", xlabel="准确率")
        right.legend()


@figure()
def gradcam_cells(path: Path) -> None:
    """How much of a film one cell of the last feature map covers, beside the lesion it would have to point at."""
    from paddle_cxr.data.phantom import draw
    from paddle_cxr.plots.gallery import show
    from paddle_cxr.plots.segmentation import draw_outline
    from paddle_cxr.plots.style import ORANGE, SKY, drawing

    film = draw("covid", seed=1, index=3, size=224)
    maps = (("64² 的输入，layer4", 2), ("64² 的输入，layer3", 4), ("224² 的输入，layer4", 7))
    with drawing(path, 7.6, 3, title="热图的一格有多大（病灶是橙色的轮廓）", demo=True) as sheet:
        for axes, (name, cells) in zip(sheet.subplots(1, 3), maps, strict=True):
            show(axes, film.image)
            draw_outline(axes, film.lesion_mask > 0, ORANGE, "-")
            for edge in np.arange(1, cells) * 224 / cells - 0.5:
                axes.axhline(edge, color=SKY, linewidth=1.2)
                axes.axvline(edge, color=SKY, linewidth=1.2)
            axes.set_title(f"{name}：{cells} × {cells} 格", fontsize=9.5)
