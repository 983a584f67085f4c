"""Lesson 10: GLoRIA."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lesson_figures import figure

GRID, SIDE = 6, 96


@figure()
def attention_by_formula(path: Path) -> None:
    """GLoRIA's two softmaxes on made-up features: each region is what it shows, each word what it names."""
    from paddle_cxr.data.phantom import Finding, draw
    from paddle_cxr.plots.gallery import show
    from paddle_cxr.plots.style import drawing

    film = draw([Finding("pneumothorax", "right", severity=1.0)], seed=10, index=2, size=SIDE)
    finding, lungs = film.masks[0], film.lung_mask > 0
    shares = np.stack([_share(mask) for mask in (finding, lungs & ~finding, ~(lungs | finding))], axis=1)  # [R, 3]
    words = ("pneumothorax", "lungs", "is")
    products = 8 * shares  # s: [R, W]; the vector of word i is 8 where region vectors have the share of i, 0 elsewhere
    of_words = np.exp(products) / np.exp(products).sum(axis=1, keepdims=True)
    looks = np.exp(4 * of_words)
    looks /= looks.sum(axis=0)
    title = "两次 softmax：每个词分到哪些区域（特征是造出来的，只看公式怎样分）"
    with drawing(path, 8.4, 2.8, title=title, demo=True) as sheet:
        places = sheet.subplots(1, 1 + len(words))
        show(places[0], film.image)
        places[0].set_title("原图，6×6 个区域", fontsize=9)
        for line in range(1, GRID):
            for draw_line in (places[0].axhline, places[0].axvline):
                draw_line(line * SIDE / GRID - 0.5, color="white", linewidth=0.5, alpha=0.5)
        for axes, (number, word) in zip(places[1:], enumerate(words), strict=True):
            show(axes, film.image)
            share = looks[:, number].reshape(GRID, GRID).repeat(SIDE // GRID, 0).repeat(SIDE // GRID, 1)
            share /= share.max()
            axes.imshow(share, cmap="inferno", vmin=0, vmax=1.2, alpha=0.65 * share)
            axes.set_title(f"“{word}”：最多的一格 {looks[:, number].max():.2f}", fontsize=9)


def _share(mask: np.ndarray) -> np.ndarray:
    """How much of each region a mask covers, ``[R]``."""
    step = SIDE // GRID
    return mask.reshape(GRID, step, GRID, step).mean(axis=(1, 3)).ravel()


@figure(reads="output/gloria_phantom/attention_4.png", after="python tools/train.py -c configs/gloria_phantom.yaml")
def gloria_words(path: Path) -> None:
    """Where the words of one report look in a trained model, as the training drew it, made smaller."""
    from PIL import Image

    from paddle_cxr.files import write_atomic

    drawn = Image.open("output/gloria_phantom/attention_4.png").convert("RGB")
    smaller = drawn.resize((900, round(900 * drawn.height / drawn.width)), Image.Resampling.LANCZOS).quantize(128)
    write_atomic(path, lambda temporary: smaller.save(temporary, format="PNG", optimize=True))
