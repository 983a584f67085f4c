"""Predicted masks over radiographs, with the true ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paddle_cxr.plots.gallery import show
from paddle_cxr.plots.style import DEMO_LINE, GREEN, GREY, ORANGE, drawing, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_EXAMPLES = 48
_CELL = 2.5  # inches a picture


@dataclass(frozen=True)
class Segmented:
    """A radiograph with a predicted mask.

    Attributes:
        image: uint8 ``[h, w]`` or ``[h, w, 3]``, as published.
        truth: bool ``[h, w]``, what somebody drew, or None where nobody did.
        predicted: bool ``[h, w]``.
        name: what is segmented, to be shown.
        file: the image's path or name.
        scores: name → value, NaN for one that is undefined.
    """

    image: np.ndarray
    truth: np.ndarray | None
    predicted: np.ndarray
    name: str
    file: str
    scores: dict[str, float]


def plot_segmentations(examples: Sequence[Segmented], path: str | Path, *, title: str = "分割结果（segmentation）",
                       demo: bool = False, line: str = DEMO_LINE) -> Path:
    """Radiographs with the outlines of what was drawn and of what was predicted; at most ``MAX_EXAMPLES``.

    Args:
        examples: in the order in which they are shown; at least one.
        path: PNG to write.
        title, demo, line: as in every figure.

    Raises:
        UserError: the file cannot be written; ValueError: no example.
    """
    if not examples:
        raise ValueError("no example to draw")
    shown = examples[:MAX_EXAMPLES]
    across = min(len(shown), 4 if len(shown) <= 16 else 6)
    down = math.ceil(len(shown) / across)
    known = any(example.truth is not None for example in shown)
    legend = "绿实线：真实（truth）　" * known + "橙虚线：预测（prediction）"
    with drawing(path, max(6, across * _CELL), down * (_CELL + 0.6) + 0.8, title=f"{title}\n{legend}", demo=demo,
                 line=line) as figure:
        cells = list(figure.subplots(down, across, squeeze=False).flat)
        for axes in cells:
            axes.set_axis_off()
        for axes, example in zip(cells, shown, strict=False):
            _draw(axes, example)
    return Path(path)


def _draw(axes: Axes, example: Segmented) -> None:
    show(axes, example.image)
    if example.truth is not None:
        draw_outline(axes, example.truth, GREEN, "-")
    draw_outline(axes, example.predicted, ORANGE, "--")
    scores = "  ".join(f"{name} {'无定义' if math.isnan(value) else format(value, '.3g')}"
                       for name, value in example.scores.items())
    axes.set_title(f"{example.name}\n{scores}" if scores else example.name, fontsize=8.5)
    axes.set_axis_on()
    axes.set_xlabel(shorten(example.file, 38), loc="left", fontsize=7, color=GREY)


def draw_outline(axes: Axes, mask: np.ndarray, colour: str, dashes: str) -> None:
    """The border of a mask over a picture that is drawn already, closed at the picture's edge too."""
    if not mask.any():
        return
    height, width = mask.shape
    axes.contour(np.arange(-1, width + 1), np.arange(-1, height + 1), np.pad(mask, 1).astype(float), levels=[0.5],
                 colors=[colour], linewidths=1.3, linestyles=[dashes])
    # A contour at the very edge would widen the view to its padding.
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
