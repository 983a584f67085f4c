"""COVID-19 Radiography Database as findings, with its lung masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from paddle_cxr.data.sources.classes_as_findings import ClassesAsFindings
from paddle_cxr.data.sources.layout import why_missing
from paddle_cxr.data.sources.mask_file import read_any_mask
from paddle_cxr.errors import UserError
from paddle_cxr.registry import register

LUNG = "lung"
IMAGE_SIZE, MASK_SIZE = (299, 299), (256, 256)
"""(height, width) of the images and of the lung masks, as published: the masks were drawn on images made smaller."""


@register("findings")
class CovidRadiographyFindings(ClassesAsFindings):
    """:class:`CovidRadiography` as findings, and the masks of ``lung`` (no finding, and not among them).

    The masks lie in ``<class>/masks`` under their image's name and have 256 × 256 pixels, the images 299 × 299; they
    are made as large as the image, each pixel taken from the mask pixel it falls into.  A mask of its image's size is
    used as it is; any other size is refused.

    Args:
        root: folder, or the archive as downloaded.
        classes: class names, those of the folders.
        negative: the class, or classes, that show none of the findings.
        aliases: class → other names of its folder.
        names: class → Chinese name, for figures.

    Raises:
        UserError: as :class:`CovidRadiography` and :class:`ClassesAsFindings`.
    """

    def __init__(self, root: str, classes: tuple[str, ...] = ("Normal", "Lung_Opacity", "Viral Pneumonia", "COVID"),
                 negative: str | tuple[str, ...] = "Normal", aliases: dict[str, list[str]] | None = None,
                 names: dict[str, str] | None = None) -> None:
        chinese = {"Normal": "正常", "Lung_Opacity": "肺部阴影", "Viral Pneumonia": "病毒性肺炎", "COVID": "新冠肺炎"}
        known = {name: zh for name, zh in chinese.items() if name in classes}
        super().__init__({"name": "CovidRadiography", "root": root}, classes, negative, aliases,
                         {**known, **(names or {})}, {"mask": LUNG})

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """Absent or empty root."""
        return why_missing(str(arguments.get("root", "")))

    def mask(self, index: int, finding: str, shape: tuple[int, int]) -> np.ndarray:
        """The lungs, or nothing for a finding that is absent; bool ``[H, W]``."""
        path = self.mask_file(index, finding)
        return super().mask(index, finding, shape) if path is None else _fitted(path, tuple(shape))


def _fitted(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    mask = read_any_mask(path)
    if mask.shape == shape:
        return mask
    if (mask.shape, shape) == (MASK_SIZE, IMAGE_SIZE):
        (height, width), (rows, columns) = MASK_SIZE, IMAGE_SIZE
        return mask[_places(rows, height)][:, _places(columns, width)]
    raise UserError(f"掩膜 {path}：大小 {mask.shape[1]}×{mask.shape[0]}，而图像是 {shape[1]}×{shape[0]}；"
                    "应与图像相同，或如发布者那样掩膜 256×256、图像 299×299")


def _places(new: int, old: int) -> np.ndarray:
    """Which of ``old`` pixels the centre of each of ``new`` falls into, along one side of the same length."""
    return (2 * np.arange(new) + 1) * old // (2 * new)
