"""Figures of a pairs run: the waterfall from reports to pairs, and contact sheets of drawings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from paddle_cxr.plots.gallery import plot_sheet
from paddle_cxr.plots.quality import plot_waterfall
from paddle_cxr.plots.style import DEMO_LINE, SYNTHETIC_IMAGES

SHOWN = 24  # pictures on a contact sheet
_SIDE = 224  # pixels of a picture there


class Sheet(NamedTuple):
    """A drawing on a contact sheet.

    Attributes:
        image: its file, below the output folder.
        name: of it: the pair's id, and the stage that it did not pass.
        text: what is said of it: the findings, or why it did not pass.
    """

    image: str
    name: str
    text: str


@dataclass
class Spread:
    """Some of a long row of things, evenly from its beginning to its end; what is not needed is not kept.

    Attributes:
        total: things seen so far.
    """

    total: int = 0
    _kept: list[Sheet] = field(default_factory=list)
    _stride: int = 1

    def add(self, sheet: Sheet) -> None:
        if self.total % self._stride == 0:
            self._kept.append(sheet)
            if len(self._kept) > 16 * SHOWN:
                del self._kept[1::2]
                self._stride *= 2
        self.total += 1

    @property
    def shown(self) -> Sequence[Sheet]:
        """At most :data:`SHOWN` of them."""
        if len(self._kept) <= SHOWN:
            return self._kept
        return [self._kept[place] for place in np.linspace(0, len(self._kept) - 1, SHOWN).astype(int)]


def draw_figures(folder: Path, steps: Sequence[tuple[str, int]], accepted: Spread, refused: Spread, *, demo: bool
                 ) -> None:
    """Write ``waterfall.png``, ``accepted.png`` and ``rejected.png`` into the output folder.

    Args:
        steps: see :func:`~paddle_cxr.plots.quality.plot_waterfall`; the last one counts those won by drawing again.
        accepted, refused: the drawings of either kind.
        demo: phantoms are among them.

    Raises:
        UserError: a file cannot be written.
    """
    line = DEMO_LINE if demo else SYNTHETIC_IMAGES
    plot_waterfall(steps, folder / "waterfall.png", title="从报告到图文对（waterfall）", unit="对数", line=line)
    for name, what, drawings in (("accepted", "收下的图", accepted), ("rejected", "没有通过的图", refused)):
        shown = drawings.shown
        plot_sheet([_pixels(folder / one.image) for one in shown], [one.text for one in shown], folder / f"{name}.png",
                   title=f"{what}（{name}）：{len(shown)} / {drawings.total} 张", names=[one.name for one in shown],
                   demo=True, line=line)


def _pixels(file: Path) -> np.ndarray:
    """A drawing as the figures show it, uint8 ``[224, 224]``: whole ones would fill the memory.

    Grey where it is gone: who deletes refused drawings to save room shall still get a summary.
    """
    from PIL import Image

    try:
        with Image.open(file, formats=("PNG",)) as picture:
            return np.array(picture.convert("L").resize((_SIDE, _SIDE)))
    except Exception:  # of many classes, as Pillow's readers raise them
        return np.full((_SIDE, _SIDE), 128, np.uint8)
