"""How similar good and bad images are to known-bad ones: does the threshold separate them?"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from paddle_cxr.plots.style import BLUE, GREY, ORANGE, drawing, shorten
from paddle_cxr.synthesis.similarity import suggest_threshold

_BINS = 50


def plot_similarity(good: np.ndarray, bad: np.ndarray, threshold: float, encoder: str, path: str | Path, *,
                    demo: bool = False) -> Path:
    """Distributions of the similarity of good and of bad images to the known-bad ones, with the threshold.

    The paper's 0.5 is for RAD-DINO.  With another encoder both distributions lie elsewhere; the dashed line shows where
    they are separated best.

    Args:
        good: float ``[N]``, N ≥ 1: of images that are to be kept, to the bank.
        bad: float ``[M]``, M ≥ 1: of the bank's members to the other members.
        threshold: in use; what is over it is dropped.
        encoder: its title.
        path: PNG to write.

    Raises:
        UserError: no good or no bad images; the file cannot be written.
    """
    good, bad = np.asarray(good, np.float64), np.asarray(bad, np.float64)
    suggested = suggest_threshold(good, bad)
    everything = np.concatenate([good, bad, [threshold]])
    low, high = everything.min(), everything.max()
    margin = max(0.02 * (high - low), 1e-3)  # also where all values are the same
    bins = np.linspace(low - margin, high + margin, _BINS + 1)
    title = f"与已知坏图的相似度（cosine similarity）：{shorten(encoder, 30)}"
    with drawing(path, 7.2, 4.6, title=title, demo=demo) as figure:
        axes = figure.subplots()
        for values, name, effect, colour in ((good, "好图", "误删", BLUE), (bad, "坏图之间", "抓到", ORANGE)):
            label = f"{name} {len(values)} 张：{effect} {np.mean(values > threshold):.1%}"
            axes.hist(values, bins, weights=np.full(len(values), 100 / len(values)), color=colour, alpha=0.6,
                      label=label)
        axes.axvline(threshold, color="black", linewidth=1.5, label=f"阈值（threshold）{threshold:g}")
        axes.axvline(suggested, color=GREY, linewidth=1.5, linestyle="--", label=f"分得最开之处 {suggested:.3f}")
        axes.set_xlabel("与最相似的一张坏图的余弦相似度")
        axes.set_ylabel("占该组图像的 %")
        axes.margins(y=0.35)  # room for the legend
        axes.set_xlim(bins[0], bins[-1])
        axes.legend(loc="upper left", fontsize=9, ncols=2)
    return Path(path)
