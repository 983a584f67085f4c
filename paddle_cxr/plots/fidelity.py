"""The fidelity figures side by side, and the generated images that lie closest to training images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from paddle_cxr.plots.gallery import show
from paddle_cxr.plots.style import BLUE, DEMO_LINE, GREY, RED, drawing, shorten
from paddle_cxr.synthesis.fidelity.report import Measure, Row, measured, text_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SYNTHETIC_IMAGES = "含合成图像（synthetic），不是真实病例；仅供教学与研究"
_BETTER = {"-": "越小越好", "+": "越大越好", "": "与真实图接近为好"}
_PAIRS_A_LINE = 4
_ENGLISH = re.compile(r"[^a-z/]+")  # of a mark "模体（phantom）" only this fits above a small picture


class Closest(NamedTuple):
    """The images of one set that lie closest to training images.

    Attributes:
        name, mark: of the set.
        pairs: (image, training image, cosine), the closest first; images uint8 ``[H, W]``.
    """

    name: str
    mark: str
    pairs: list[tuple[np.ndarray, np.ndarray, float]]


def plot_fidelity(rows: Sequence[Row], encoder: str, path: str | Path, *, demo: bool) -> Path:
    """Every measure as a panel of bars, one a set; dashed: the real images' own value.

    Args:
        rows: the real images' own row first.
        encoder: its title.
        path: PNG to write; demo: phantoms had a part in it.

    Raises:
        UserError: the file cannot be written.
    """
    panels = [measure for measure in measured(rows) if measure.key != "frechet_all"]
    columns = 3
    lines = -(-len(panels) // columns)
    height = lines * (0.95 + 0.36 * len(rows)) + 0.5
    title = f"合成图像的逼真程度（fidelity），编码器 {shorten(encoder, 40)}"
    line = _origin([row.mark for row in rows], demo)
    with drawing(path, 12.5, height, title=title, demo=bool(line), line=line) as figure:
        axes = figure.subplots(lines, columns, squeeze=False)
        for place, one in enumerate(axes.flat):
            if place < len(panels):
                _bars(one, panels[place], rows, names=place % columns == 0)
            else:
                one.set_axis_off()
    return Path(path)


def _origin(marks: Sequence[str], demo: bool) -> str:
    """The line below a figure; none where all images are real, as those of two hospitals."""
    return DEMO_LINE if demo else SYNTHETIC_IMAGES if any("synthetic" in mark for mark in marks) else ""


def _bars(axes: Axes, measure: Measure, rows: Sequence[Row], names: bool) -> None:
    values = [row[measure.key].value for row in rows]
    for number, row in enumerate(rows):
        figure = row[measure.key]
        if figure.value is None:
            axes.annotate(f"—  {shorten(figure.why, 30)}", (0, number), xytext=(4, 0), textcoords="offset points",
                          va="center", fontsize=8, color=GREY)
            continue
        axes.barh(number, figure.value, height=0.6, color=BLUE if number else GREY)
        if figure.low is not None and figure.high is not None:
            axes.plot([figure.low, figure.high], [number, number], color="black", linewidth=1)
        reach = max(figure.value, figure.high or 0, 0)
        axes.annotate(text_of(figure._replace(low=None), measure), (reach, number), xytext=(4, 0),
                      textcoords="offset points", va="center", fontsize=9,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8})
    if values[0] is not None:
        axes.axvline(values[0], color=GREY, linewidth=1, linestyle="--")
    known = [end for row in rows for end in row[measure.key][:3] if end is not None]
    low, high = min([0, *known]), max([0, *known])
    axes.set_xlim(1.05 * low, (high or 1) + 0.3 * ((high - low) or 1))  # room for the number behind the longest bar
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [f"{shorten(row.name, 22)}\n{shorten(row.mark, 26)}" for row in rows] if names
                    else [""] * len(rows), fontsize=9)
    axes.set_title(f"{measure.title}：{_BETTER[measure.better]}", fontsize=10)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="x", labelsize=8)


def plot_closest(sets: Sequence[Closest], threshold: float, path: str | Path, *, demo: bool) -> Path:
    """Pairs side by side: an image on the left, the most similar training image on the right.

    Args:
        sets: the held-out real images first: so close comes by itself.
        threshold: cosine over which an image counts as too close.
        path: PNG to write; demo: phantoms had a part in it.

    Raises:
        UserError: the file cannot be written.
    """
    lines = [(one, start) for one in sets for start in range(0, len(one.pairs), _PAIRS_A_LINE)]
    title = f"与训练图最像的（每对左：本图，右：最近的训练图）；余弦 > {threshold:.4f} 算太近"
    origin = _origin([one.mark for one in sets], demo)
    with drawing(path, 12, 1.8 * len(lines) + 0.4, title=title, demo=bool(origin), line=origin) as figure:
        axes = figure.subplots(len(lines), 2 * _PAIRS_A_LINE, squeeze=False)
        for (one, start), row in zip(lines, axes, strict=True):
            mark = _ENGLISH.sub(" ", one.mark).strip()
            for cell in row:
                cell.set_axis_off()
            for number, (image, training, similarity) in enumerate(one.pairs[start:start + _PAIRS_A_LINE]):
                left, right = row[2 * number:2 * number + 2]
                show(left, image)
                show(right, training)
                over = similarity > threshold
                left.set_title(f"{shorten(one.name, 12)} {mark}", fontsize=8, color=GREY)
                right.set_title(f"{similarity:.4f}{'（太近）' if over else ''}", fontsize=9,
                                color=RED if over else GREY)
    return Path(path)
