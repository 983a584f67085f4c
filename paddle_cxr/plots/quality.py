"""The figure of quality control: how many images, or image–report pairs, each step leaves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from paddle_cxr.plots.style import BLUE, DEMO_LINE, GREEN, ORANGE, drawing


def plot_waterfall(steps: Sequence[tuple[str, int]], path: str | Path, *, title: str = "质量控制之后还剩多少张图",
                   unit: str = "图像数", line: str = "") -> Path:
    """How many are left after each step: blue is left, orange what the step dropped, green what it won back.

    SynCXR (arXiv 2410.13523) gives 213,384 → 211,936 → 206,424 for MIMIC-CXR, and draws again what its filters refuse.

    Args:
        steps: (label, how many are left), the first one all; more than before where a step draws again.
        path: PNG to write.
        title: line above; unit: what is counted.
        line: of the images' origin, below, where they are not real.

    Raises:
        UserError: the file cannot be written.
    """
    total = max(steps[0][1], 1)
    changes = [0, *(left - before for (_, before), (_, left) in zip(steps, steps[1:], strict=False))]
    with drawing(path, 8, 0.6 * len(steps) + 1.2, title=title, demo=bool(line), line=line or DEMO_LINE) as figure:
        axes = figure.subplots()
        for row, ((_, left), change) in enumerate(zip(steps, changes, strict=True)):
            axes.barh(row, left - max(change, 0), color=BLUE, height=0.6)
            axes.barh(row, abs(change), left=left - max(change, 0), color=GREEN if change > 0 else ORANGE, height=0.6)
            axes.text(max(left, left - change) + 0.015 * total, row, f"{left:,}{_told(left, change, row)}", va="center")
        axes.set_yticks(range(len(steps)), [label for label, _ in steps])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.36 * total)  # room for the numbers
        axes.set_xticks(np.linspace(0, steps[0][1], 3) if steps[0][1] > 1 else [0, 1])
        axes.xaxis.set_major_formatter("{x:,.0f}")
        green = "；绿：重画后收下" if max(changes) > 0 else ""
        axes.set_xlabel(f"{unit}（蓝：留下；橙：这一步去掉{green}）")
        axes.grid(axis="y", visible=False)
    return Path(path)


def _told(left: int, change: int, row: int) -> str:
    """The change, and of what was dropped also the share of what there was before."""
    if not row:
        return ""
    if change > 0:
        return f"（+{change:,}）"
    return f"（−{-change:,}，{-change / max(left - change, 1):.2%}）"
