"""Where a model sees a finding: heat maps over radiographs, with what somebody drew there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paddle_cxr.evaluation.overlap import stretched
from paddle_cxr.plots.gallery import show
from paddle_cxr.plots.style import DEMO_LINE, GREEN, GREY, SKY, drawing, shorten, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_EXAMPLES = 12
_CELL = 2.4  # inches a picture
_LINE = 40  # columns above one


@dataclass(frozen=True)
class Grounded:
    """A radiograph on which a model was asked where a finding is.

    Attributes:
        image: uint8 ``[h, w]`` or ``[h, w, 3]``, as published.
        heat: float ``[h, w]``, warm where the model sees the finding; NaN where it was not shown the image.
        truth: bool ``[h, w]``, where somebody drew it.
        threshold: what of the map counts as found, or None.
        name: of the finding, to be shown.
        prompt: the sentence that was looked for.
        scores: name → value, shown as they are.
    """

    image: np.ndarray
    heat: np.ndarray
    truth: np.ndarray
    threshold: float | None
    name: str
    prompt: str
    scores: dict[str, float]


def plot_grounding(examples: Sequence[Grounded], path: str | Path, *,
                   title: str = "征象在图上哪里（zero-shot grounding）", demo: bool = False, line: str = DEMO_LINE
                   ) -> Path:
    """Each radiograph with the outline of what was drawn, and again under the model's map; at most ``MAX_EXAMPLES``.

    The colours of a map reach from its own smallest to its own largest value: they show where it is warm, and not how
    sure the model is.

    Args:
        examples: at least one; of more the first are shown.
        path: PNG to write.
        title, demo, line: as in every figure.

    Raises:
        UserError: the file cannot be written; ValueError: no example.
    """
    if not examples:
        raise ValueError("no example to draw")
    shown = examples[:MAX_EXAMPLES]
    across = min(2, len(shown))
    down = math.ceil(len(shown) / across)
    legend = "绿线：真实位置；蓝虚线：超过阈值；白十字：最热的一点；颜色：每张热图自己的最小到最大"
    with drawing(path, 2 * across * _CELL + 0.4, down * (_CELL + 0.45) + 1,
                 title="\n".join([title, wrapped(legend, 48 * across, 4)]), demo=demo, line=line) as figure:
        cells = figure.subplots(down, 2 * across, squeeze=False)
        for axes in cells.flat:
            axes.set_axis_off()
        for place, example in enumerate(shown):
            row, column = divmod(place, across)
            _draw(cells[row, 2 * column], cells[row, 2 * column + 1], example)
    return Path(path)


def _draw(left: Axes, right: Axes, example: Grounded) -> None:
    for axes in (left, right):
        show(axes, example.image)
    _overlay(right, example.heat)
    for axes in (left, right):
        _outline(axes, example.truth, GREEN, "-")
    if example.threshold is not None:
        with np.errstate(invalid="ignore"):
            _outline(right, example.heat >= example.threshold, SKY, "--")
    hottest = np.unravel_index(np.nanargmax(example.heat), example.heat.shape)
    right.plot(hottest[1], hottest[0], "+", color="white", markersize=11, markeredgewidth=2)
    # Lines no wider than a picture: the layout would push the pictures apart.
    words = [shorten(example.name, _LINE), wrapped(example.prompt, _LINE, 2)]
    left.set_title("\n".join(words), fontsize=7.5, loc="left")
    values = [f"{name} {value:.2f}" for name, value in example.scores.items()]
    right.set_title("\n".join("   ".join(values[place:place + 2]) for place in range(0, len(values), 2)), fontsize=7.5,
                    loc="left", color=GREY)


def _overlay(axes: Axes, heat: np.ndarray) -> None:
    """The map in colour over the film: clear where it is cold, and where the model saw nothing."""
    share = np.nan_to_num(stretched(heat))
    axes.imshow(share, cmap="inferno", vmin=0, vmax=1, alpha=np.where(np.isnan(heat), 0, 0.15 + 0.5 * share))


def _outline(axes: Axes, mask: np.ndarray, colour: str, dashes: str) -> None:
    """The border of a mask, closed at the picture's edge too."""
    if not mask.any():
        return
    padded = np.pad(mask, 1).astype(float)
    places = [np.arange(-1, side + 1) for side in mask.shape]
    axes.contour(places[1], places[0], padded, levels=[0.5], colors=[colour], linewidths=1.4, linestyles=[dashes])
    # A contour at the very edge would widen the view to its padding.
    axes.set_xlim(-0.5, mask.shape[1] - 0.5)
    axes.set_ylim(mask.shape[0] - 0.5, -0.5)

