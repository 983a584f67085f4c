"""Figures made of radiographs: worst mistakes, one prediction with its Grad-CAM, and a sheet of samples."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paddle_cxr.data.records import ClassInfo
from paddle_cxr.plots.style import BLUE, DEMO_LINE, GREEN, GREY, ORANGE, RED, bilingual, drawing, shorten, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_CELL = 2.3  # inches a picture in a grid
_CAPTION = 34  # columns of a line under one


@dataclass(frozen=True)
class Example:
    """One evaluated image.

    Attributes:
        image: uint8 or float 0 … 1, ``[H, W]`` or ``[H, W, 3]``.
        file: its path or name.
        label: true class number.
        probabilities: float ``[K]``.
    """

    image: np.ndarray
    file: str
    label: int
    probabilities: np.ndarray


def plot_mistakes(examples: Sequence[Example], classes: Sequence[ClassInfo], path: str | Path, *,
                  demo: bool = False) -> Path:
    """The misclassified images, in the order given (see ``worst_mistakes``), with truth, prediction and file.

    Args:
        examples: the images; empty when there is no mistake, and the figure says so.
        classes: the classes, in label order.
        path: PNG to write.

    Raises:
        UserError: the file cannot be written.
    """
    title = "错得最严重的图像（worst mistakes）"
    if not examples:
        with drawing(path, 6, 1.5, title=title, demo=demo) as figure:
            figure.text(0.5, 0.55, "没有判错的图像", ha="center", va="center", color=GREEN, fontsize=12)
        return Path(path)
    with _grid(path, len(examples), 0.55, title, demo) as cells:
        for axes, example in zip(cells, examples, strict=False):
            predicted = int(np.argmax(example.probabilities))
            show(axes, example.image)
            lines = ((f"真实：{classes[example.label].zh}（{example.probabilities[example.label]:.1%}）", GREEN),
                     (f"预测：{classes[predicted].zh}（{example.probabilities[predicted]:.1%}）", RED),
                     (shorten(example.file, 28), GREY))
            for number, (text, colour) in enumerate(lines):
                axes.annotate(text, (0.5, 1), xycoords="axes fraction", xytext=(0, 29 - 13 * number),
                              textcoords="offset points", ha="center", fontsize=9 if number < 2 else 8, color=colour)
    return Path(path)


def plot_samples(images: Sequence[np.ndarray], labels: Sequence[int], classes: Sequence[ClassInfo], path: str | Path,
                 *, title: str = "训练样本（数据增强之后）", demo: bool = False) -> Path:
    """A sheet of samples as the model sees them, with their labels.

    Args:
        images: uint8 or float, ``[H, W]`` or ``[H, W, 3]`` each; float outside 0 … 1 (normalised) is stretched.
        labels: class number of each; classes: the classes, in label order.
        path: PNG to write.
        title: line above the figure.

    Raises:
        UserError: the file cannot be written.
    """
    with _grid(path, len(images), 0.3, title, demo) as cells:
        for axes, image, label in zip(cells, images, labels, strict=False):
            show(axes, image)
            axes.set_title(classes[label].zh, fontsize=10)
    return Path(path)


def plot_prediction(image: np.ndarray, heat: np.ndarray | None, probabilities: np.ndarray, classes: Sequence[ClassInfo],
                    file: str, path: str | Path, *, title: str = "", demo: bool = False) -> Path:
    """One prediction explained: the radiograph, its Grad-CAM, and the probability of every class.

    Args:
        image: uint8 or float 0 … 1, ``[H, W]`` or ``[H, W, 3]``.
        heat: float ``[H', W']`` in 0 … 1 from :func:`paddle_cxr.evaluation.gradcam.grad_cam`; stretched over the image;
            None where there is none (an exported model has no gradients), and the figure goes without.
        probabilities: float ``[K]``; classes: the K classes, in label order.
        file: the image's path or name, shown shortened.
        path: PNG to write.
        title: what is predicted; by default the most probable class.

    Raises:
        UserError: the file cannot be written.
    """
    best = int(np.argmax(probabilities))
    title = title or f"预测：{bilingual(classes[best])}，概率 {probabilities[best]:.1%}"
    ratios = [1, 0.85] if heat is None else [1, 1, 0.85]
    with drawing(path, 11.2 if heat is not None else 7.4, 4.25, title=title, demo=demo) as figure:
        left, *middle, right = figure.subplots(1, len(ratios), width_ratios=ratios)
        show(left, image)
        left.set_title(shorten(file, 44), fontsize=10)
        if heat is not None:
            _explain(figure, left, middle[0], image, heat, classes[best].zh)
        _bars(right, probabilities, classes, best)
    return Path(path)


def _explain(figure: Figure, left: Axes, middle: Axes, image: np.ndarray, heat: np.ndarray, name: str) -> None:
    show(middle, image)
    hot = _overlay(middle, heat, picture(image).shape[:2])
    # The bar takes its room from both pictures, which so stay of one size.
    bar = figure.colorbar(hot, ax=[left, middle], shrink=0.7, ticks=[0, 1], pad=0.02)
    bar.ax.set_yticklabels(["低", "高"])
    bar.outline.set_visible(False)
    bar.ax.grid(visible=False)
    bar.ax.tick_params(length=0)
    for axes in (left, middle):
        axes.set_anchor("N")  # the bar has moved it
    middle.set_title(f"Grad-CAM：“{name}”的依据", fontsize=10)
    middle.set_xlabel("热图是模型关注之处，不等于病灶", fontsize=9, color=GREY)


def _overlay(axes: Axes, heat: np.ndarray, shape: tuple[int, int]) -> AxesImage:
    # Opaque where the map is hot, clear where it is cold: the radiograph stays visible.
    height, width = shape
    return axes.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=np.clip(heat, 0, 1) * 0.65,
                       interpolation="bilinear", extent=(-0.5, width - 0.5, height - 0.5, -0.5))


def _bars(axes: Axes, probabilities: np.ndarray, classes: Sequence[ClassInfo], best: int) -> None:
    axes.barh(range(len(classes)), probabilities, color=[ORANGE if k == best else BLUE for k in range(len(classes))],
              height=0.55)
    for k, value in enumerate(probabilities):
        axes.text(value + 0.02, k, f"{value:.1%}", va="center", fontsize=9)
    axes.set_yticks(range(len(classes)), [bilingual(info, lines=True) for info in classes], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.2)  # room for "100.0%"
    axes.set_xticks([0, 0.5, 1], ["0", "50%", "100%"])
    axes.set_xlabel("概率（probability）")
    axes.set_title("各类概率", fontsize=10)
    axes.grid(axis="y", visible=False)


@contextlib.contextmanager
def _grid(path: str | Path, count: int, text: float, title: str, demo: bool, line: str = DEMO_LINE
          ) -> Iterator[list[Axes]]:
    """A drawing of ``count`` square cells, each with ``text`` inches of height for its lines."""
    columns = min(count, 4 if count <= 16 else 6)
    rows = math.ceil(count / columns)
    with drawing(path, max(5, columns * _CELL), rows * (_CELL + text) + 0.4, title=title, demo=demo, line=line
                 ) as figure:
        cells = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes in cells:
            axes.set_axis_off()
        yield cells


def show(axes: Axes, image: np.ndarray) -> None:
    """Draw a radiograph without axes, grey as it is."""
    axes.imshow(picture(image), cmap="gray", vmin=0, vmax=255)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_anchor("N")  # pictures of one row share their upper edge, and so do the lines above them
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)


def picture(image: np.ndarray) -> np.ndarray:
    """``image`` as uint8; float of 0 … 1 is scaled by 255, other float stretched from its minimum to its maximum."""
    if image.dtype == np.uint8:
        return image
    low, high = float(image.min()), float(image.max())
    if low < 0 or high > 1:
        image = (image - low) / max(high - low, 1e-12)
    return np.rint(image * 255).astype(np.uint8)


def plot_sheet(images: Sequence[np.ndarray], captions: Sequence[str], path: str | Path, *, title: str,
               names: Sequence[str] = (), demo: bool = False, line: str = DEMO_LINE) -> Path:
    """A contact sheet: images with a few lines under each.

    Args:
        images: uint8, ``[H, W]`` or ``[H, W, 3]`` each, some dozens at most; without any, the figure says so.
        captions: one an image; long ones are wrapped, and cut after four lines.
        path: PNG to write.
        title: line above the figure.
        names: one an image, shown above it; or none.
        demo: add ``line`` below.
        line: what is said there of the images' origin.

    Raises:
        UserError: the file cannot be written.
    """
    if not images:
        with drawing(path, 6, 1.5, title=title, demo=demo, line=line) as figure:
            figure.text(0.5, 0.5, "没有可以显示的图像", ha="center", va="center", color=GREY, fontsize=12)
        return Path(path)
    with _grid(path, len(images), 0.95 if names else 0.75, title, demo, line) as cells:
        for place, (axes, image, caption) in enumerate(zip(cells, images, captions, strict=False)):
            show(axes, image)
            if names:
                axes.set_title(shorten(names[place], _CAPTION), fontsize=7.5)
            axes.text(0, -0.04, wrapped(caption, _CAPTION, 4), transform=axes.transAxes, va="top", fontsize=7)
    return Path(path)
