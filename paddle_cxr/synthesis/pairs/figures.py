"""Figures of a pairs run: the waterfall from reports to pairs, and contact sheets of drawings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from paddle_cxr.plots.gallery import show
from paddle_cxr.plots.quality import SYNTHETIC_IMAGES, Dropped, plot_dropped
from paddle_cxr.plots.style import BLUE, DEMO_LINE, GREEN, GREY, ORANGE, drawing, shorten

_SHOWN = 24  # pictures on a contact sheet
_ACROSS, _CELL, _COLUMNS = 6, 2.0, 30  # cells a row, inches a cell, columns of text a line


class Sheet(NamedTuple):
    """A drawing on a contact sheet.

    Attributes:
        image: its file, below the output folder.
        id: the pair's.
        text: what is said of it: the findings, or why it did not pass.
        stage: that it did not pass.
    """

    image: str
    id: str
    text: str
    stage: str = ""


def draw_figures(folder: Path, steps: Sequence[tuple[str, int]], accepted: Sequence[Sheet], refused: Sequence[Sheet],
                 *, demo: bool) -> None:
    """Write ``waterfall.png``, ``accepted.png`` and ``rejected.png`` into the output folder.

    Args:
        steps: see :func:`plot_waterfall`.
        accepted, refused: all drawings of either kind; some of them are shown, from the first to the last.
        demo: phantoms are among them.

    Raises:
        UserError: a file cannot be written.
    """
    line = DEMO_LINE if demo else SYNTHETIC_IMAGES
    plot_waterfall(steps, folder / "waterfall.png", line=line)
    _plot_accepted(spread(accepted), len(accepted), folder, line)
    dropped = [Dropped(_pixels(folder / one.image), one.id, one.stage, one.text) for one in spread(refused)]
    plot_dropped(dropped, len(refused), folder / "rejected.png", line=line)


def plot_waterfall(steps: Sequence[tuple[str, int]], path: Path, *, line: str) -> Path:
    """What each filter leaves of the first drawings, what drawing again wins back, and the pairs.

    SynCXR (arXiv 2410.13523) draws again whatever its filters refuse.

    Args:
        steps: (name, pairs): all reports, those left after each step, those won back, and all accepted.
        path: PNG to write; line: what is said below it.

    Raises:
        UserError: the file cannot be written.
    """
    *left, (redrawn, won), (name, pairs) = steps
    total = max(left[0][1], 1)
    rows = [(label, 0, count, BLUE) for label, count in left]
    rows += [(redrawn, pairs - won, won, GREEN), (name, 0, pairs, BLUE)]
    with drawing(path, 8, 0.55 * len(rows) + 1.2, title="从报告到图文对（waterfall）", demo=True, line=line) as figure:
        axes = figure.subplots()
        for place, (_, start, count, colour) in enumerate(rows):
            axes.barh(place, count, left=start, color=colour, height=0.6)
            lost = left[place - 1][1] - count if 0 < place < len(left) else 0
            axes.barh(place, lost, left=count, color=ORANGE, height=0.6)
            text = f"{'+' if colour == GREEN else ''}{count:,}" + (f"（−{lost:,}）" if lost else "")
            axes.text(start + count + lost + total * 0.015, place, text, va="center")
        axes.set_yticks(range(len(rows)), [label for label, *_ in rows])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.3 * total)  # room for the numbers
        axes.set_xticks(np.linspace(0, total, 3) if total > 1 else [0, 1])
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("对数（蓝：留下；橙：这一步没通过；绿：重画后收下）")
        axes.grid(axis="y", visible=False)
    return path


def spread(cells: Sequence[Sheet]) -> Sequence[Sheet]:
    """At most :data:`_SHOWN` of them, evenly from the first to the last."""
    if len(cells) <= _SHOWN:
        return cells
    return [cells[round(place * (len(cells) - 1) / (_SHOWN - 1))] for place in range(_SHOWN)]


def _plot_accepted(cells: Sequence[Sheet], total: int, folder: Path, line: str) -> None:
    title, file = f"收下的图（accepted）：{len(cells)} / {total} 张", folder / "accepted.png"
    if not cells:
        with drawing(file, 6, 1.5, title=title, demo=True, line=line) as figure:
            figure.text(0.5, 0.5, "一张也没有", ha="center", va="center", color=GREY, fontsize=12)
        return
    across = min(len(cells), _ACROSS)
    down = math.ceil(len(cells) / across)
    with drawing(file, max(5, across * _CELL), down * (_CELL + 0.45) + 0.4, title=title, demo=True, line=line
                 ) as figure:
        grid = list(figure.subplots(down, across, squeeze=False).flat)
        for axes, cell in zip(grid, cells, strict=False):
            show(axes, _pixels(folder / cell.image))
            axes.set_title(shorten(cell.id, _COLUMNS), fontsize=7.5)
            axes.set_xlabel(shorten(cell.text, _COLUMNS), fontsize=7, color=GREY)
        for axes in grid[len(cells):]:
            axes.set_axis_off()


def _pixels(file: Path) -> np.ndarray:
    """A drawing as the figures show it, uint8 ``[224, 224]``: whole ones would fill the memory."""
    from PIL import Image

    with Image.open(file, formats=("PNG",)) as picture:
        return np.array(picture.convert("L").resize((224, 224)))
