"""Figures of quality control: how many images each filter leaves, and what the dropped ones look like."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paddle_cxr.plots.gallery import show
from paddle_cxr.plots.style import BLUE, DEMO_LINE, GREY, ORANGE, columns, drawing, shorten

SYNTHETIC_IMAGES = "合成图像（synthetic），不是真实病例"
_LINE, _LINES = 26, 4  # columns of a line of reasons under a picture, and lines


def plot_waterfall(stages: Sequence[tuple[str, int]], path: str | Path, *, title: str = "质量控制之后还剩多少张图",
                   line: str = "") -> Path:
    """How many images are left after each filter: blue is kept, orange is what that filter dropped.

    SynCXR (arXiv 2410.13523) gives 213,384 → 211,936 → 206,424 for MIMIC-CXR.

    Args:
        stages: (label, images left), the first one all images; never growing.
        path: PNG to write.
        title: line above; line: of the images' origin, below, where they are not real.

    Raises:
        UserError: the file cannot be written.
    """
    first = max(stages[0][1], 1)
    with drawing(path, 8, 0.62 * len(stages) + 1.1, title=title, demo=bool(line), line=line or DEMO_LINE) as figure:
        axes = figure.subplots()
        before = stages[0][1]
        for row, (_, left) in enumerate(stages):
            axes.barh(row, left, color=BLUE, height=0.6)
            axes.barh(row, before - left, left=left, color=ORANGE, height=0.6)
            lost = f"（−{before - left:,}，{(before - left) / max(before, 1):.2%}）" if row else ""
            axes.text(before + 0.015 * first, row, f"{left:,}{lost}", va="center")
            before = left
        axes.set_yticks(range(len(stages)), [label for label, _ in stages])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.36 * first)  # room for the numbers
        axes.set_xticks(np.linspace(0, stages[0][1], 3) if stages[0][1] > 1 else [0, 1])
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("图像数（蓝：留下；橙：这一步去掉）")
        axes.grid(axis="y", visible=False)
    return Path(path)


@dataclass(frozen=True)
class Dropped:
    """One image of a contact sheet: uint8 ``[H, W]`` or ``[H, W, 3]``, its file, which filter, and why."""

    image: np.ndarray
    file: str
    stage: str
    reason: str


def plot_dropped(dropped: Sequence[Dropped], total: int, path: str | Path, *, line: str = "") -> Path:
    """A contact sheet of dropped images, each with the filter that dropped it and why.

    Args:
        dropped: those to show, some dozens at most; empty where none were dropped, and the figure says so.
        total: how many were dropped in all.
        path: PNG to write; line: of the images' origin, below, where they are not real.

    Raises:
        UserError: the file cannot be written.
    """
    title = f"被去掉的图像（dropped）：{len(dropped)} / {total} 张"
    if not dropped:
        with drawing(path, 6, 1.5, title=title, demo=bool(line), line=line or DEMO_LINE) as figure:
            figure.text(0.5, 0.5, "没有可以显示的图像", ha="center", va="center", color=GREY, fontsize=12)
        return Path(path)
    across = min(len(dropped), 6)
    down = math.ceil(len(dropped) / across)
    with drawing(path, max(5, 2.0 * across), 2.75 * down + 0.4, title=title, demo=bool(line),
                 line=line or DEMO_LINE) as figure:
        cells = list(figure.subplots(down, across, squeeze=False).flat)
        for axes, one in zip(cells, dropped, strict=False):
            show(axes, one.image)
            axes.set_title(shorten(f"{one.stage}：{one.file}", _LINE), fontsize=7.5)
            axes.set_xlabel(_wrapped(one.reason), fontsize=6.5, color=GREY)
        for axes in cells[len(dropped):]:
            axes.set_axis_off()
    return Path(path)


def _wrapped(text: str) -> str:
    """``text`` in lines of ``_LINE`` columns, at most ``_LINES`` of them."""
    lines, line = [], ""
    for word in _words(text):
        if line and columns(line + word) > _LINE:
            lines.append(line)
            line = word.lstrip()
        else:
            line += word
    lines.append(line)
    if len(lines) > _LINES:
        lines = [*lines[:_LINES - 1], shorten(lines[_LINES - 1] + "…", _LINE)]
    return "\n".join(lines)


def _words(text: str) -> list[str]:
    """Pieces that a line may end after: Chinese characters one by one, other words whole but for very long ones."""
    pieces: list[str] = []
    for char in text:
        wide = columns(char) == 2
        if wide or not pieces or pieces[-1][-1:].isspace() or columns(pieces[-1][-1:]) == 2:
            pieces.append(char)
        else:
            pieces[-1] += char
    return [part for piece in pieces for part in (textwrap.wrap(piece, _LINE - 1, drop_whitespace=False) or [piece])]
