"""Looking inside an image–text model: similarity matrix, word-to-region attention, retrieval examples.

Every figure takes ``demo`` and ``line`` as :func:`~paddle_cxr.plots.style.drawing` does: where the images or the
texts are not real, ``demo=True`` says so below the figure in the words of ``line`` (phantoms, if not given).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from paddle_cxr.plots.gallery import picture, show
from paddle_cxr.plots.style import DEMO_LINE, GREEN, GREY, ORANGE, drawing, shorten, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_WORDS = 12
MAX_EXAMPLES = 5
_TICKS = 45  # labels an axis of the matrix has room for
_VALUES = 12  # up to so many rows and columns the cells show their numbers
# Words that stand for nothing on a film; "no" does.
_EMPTY_WORDS = frozenset("""a an the is are was were be been being has have had of in on at to for from by with as and
    or it its this that these those there which 的 见 可 为 呈 及 与 和 在 之 其""".split())

Hits = TypeVar("Hits")


# --- similarity matrix --------------------------------------------------------------------------------------------

def plot_similarity_matrix(scores: np.ndarray, image_names: Sequence[str], text_names: Sequence[str],
                           path: str | Path, *, text_of: Sequence[int] | None = None,
                           title: str = "图文相似度矩阵（similarity matrix）", demo: bool = False,
                           line: str = DEMO_LINE) -> Path:
    """How well every image fits every text: after good pretraining the pairs' own cells are the darkest of their rows.

    Args:
        scores: float ``[N, M]``, of images (rows) and texts (columns); some dozens at most are worth looking at.
        image_names: N row labels; text_names: M column labels, the texts themselves (shown shortened).
        path: PNG to write.
        text_of: which column is each image's own; None: the diagonal.
        title, demo, line: as in every figure.

    Raises:
        UserError: the file cannot be written; ValueError: labels that do not belong to the scores.
    """
    scores = np.asarray(scores, np.float64)
    own = np.arange(len(scores)) if text_of is None else np.asarray(text_of)
    if scores.shape != (len(image_names), len(text_names)) or len(own) != len(scores):
        raise ValueError(f"scores {scores.shape}, {len(image_names)} images, {len(text_names)} texts and {len(own)} "
                         "pairs do not belong together")
    rows, across = scores.shape
    cell = min(0.6 if max(rows, across) <= _VALUES else 0.36, 8.4 / max(rows, across))  # inches
    with drawing(path, max(6.5, across * cell + 3.6), max(4, rows * cell + 2.8), title=title, demo=demo,
                 line=line) as figure:
        axes = figure.subplots()
        image = axes.imshow(scores, cmap="Blues", aspect="auto")
        _mark_pairs(axes, scores, own)
        if max(rows, across) <= _VALUES:
            _write_values(axes, scores)
        axes.set_title("橙框：本来成对的图文；圆点：该图像得分最高的文本", fontsize=9, color=GREY)
        _name_ticks(axes, image_names, text_names)
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, shrink=0.8, label="图文相似度（score）")
        bar.outline.set_visible(False)
        bar.ax.grid(visible=False)
    return Path(path)


def _mark_pairs(axes: Axes, scores: np.ndarray, own: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    cells = max(scores.shape)  # in a matrix of many cells the marks are finer
    for row, column in enumerate(own):
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=ORANGE, clip_on=False,
                                 linewidth=min(2.0, 0.7 + 10 / cells)))
    best = scores.argmax(axis=1)
    shift = 0.32 if cells <= _VALUES else 0  # beside the number
    axes.plot(best + shift, np.arange(len(scores)) - shift, "o", color=ORANGE,
              markersize=min(6, 1 + 80 / cells), markeredgecolor="white", markeredgewidth=0.5)


def _write_values(axes: Axes, scores: np.ndarray) -> None:
    low, high = scores.min(), scores.max()
    for (row, column), value in np.ndenumerate(scores):
        dark = value - low > 0.55 * (high - low)
        axes.text(column, row, f"{round(value, 2) + 0.0:.2f}", ha="center", va="center", fontsize=8,
                  color="white" if dark else "black")


def _name_ticks(axes: Axes, image_names: Sequence[str], text_names: Sequence[str]) -> None:
    rows, across = (range(0, len(names), math.ceil(len(names) / _TICKS)) for names in (image_names, text_names))
    axes.set_yticks(rows, [shorten(_tidy(image_names[place]), 34) for place in rows], fontsize=7.5)
    # A file's name says most at both ends, a report at its beginning.
    axes.set_xticks(across, [wrapped(_tidy(text_names[place]), 38, 1) for place in across], fontsize=7.5, rotation=60,
                    ha="right", rotation_mode="anchor")
    axes.set_ylabel("图像（image）")
    axes.set_xlabel("文本（text）")


# --- word-to-region attention -------------------------------------------------------------------------------------

def plot_word_attention(image: np.ndarray, words: Sequence[str], attention: np.ndarray, path: str | Path, *,
                        text: str = "", title: str = "每个词关注图上哪里（word-to-region attention）",
                        demo: bool = False, line: str = DEMO_LINE) -> Path:
    """Where each word looks: the film, and the film again with the map of every word over it, in one colour scale.

    Of more than ``MAX_WORDS`` words those that :func:`telling_words` picks are shown, and the figure says so.

    Args:
        image: uint8 or float 0 … 1, ``[H, W]`` or ``[H, W, 3]``.
        words: the W words, English or Chinese, in the order of the text.
        attention: float ``[W, h, w]``, ≥ 0, what each word gives to each region; stretched over the image.
        path: PNG to write.
        text: the sentence the words come from, shown below the title.
        title, demo, line: as in every figure.

    Raises:
        UserError: the file cannot be written; ValueError: no words, or maps that do not belong to them.
    """
    attention = np.asarray(attention, np.float64)
    if attention.ndim != 3 or len(attention) != len(words) or not len(words):
        raise ValueError(f"attention {attention.shape} does not belong to {len(words)} words")
    chosen = telling_words(words, attention)
    every = len(telling_words(words, attention, len(words)))
    left_out = f"（{every} 个词中的 {len(chosen)} 个）" if len(chosen) < every else ""
    across = min(len(chosen) + 1, 5)
    down = math.ceil((len(chosen) + 1) / across)
    quoted = [wrapped(_tidy(text), 20 * across + 10, 2)] if text.strip() else []
    with drawing(path, max(6, 2.1 * across + 1), 2.4 * down + 0.5 + 0.4 * len(quoted),
                 title="\n".join([title + left_out, *quoted]), demo=demo, line=line) as figure:
        cells = figure.subplots(down, across, squeeze=False)
        for axes in cells.flat:
            axes.set_axis_off()
        show(cells.flat[0], image)
        cells.flat[0].set_title("原图", fontsize=11, color=GREY)
        _draw_words(figure, cells, image, [words[number] for number in chosen], attention[chosen])
    return Path(path)


def telling_words(words: Sequence[str], attention: np.ndarray, count: int = MAX_WORDS) -> list[int]:
    """Numbers of at most ``count`` words, in order: those whose map has the highest peak.

    Punctuation is left out, and so are articles, prepositions and the like, unless there is nothing else.

    Args:
        words: W words, attention: float ``[W, h, w]``.
    """
    spoken = [number for number, word in enumerate(words) if any(map(str.isalnum, word))]
    telling = [number for number in spoken if words[number].lower() not in _EMPTY_WORDS]
    kept = telling or spoken or list(range(len(words)))
    peaks = np.asarray(attention).reshape(len(words), -1).max(axis=1)
    return sorted(sorted(kept, key=lambda number: -peaks[number])[:count])


def _draw_words(figure: Figure, cells: np.ndarray, image: np.ndarray, words: Sequence[str], maps: np.ndarray) -> None:
    height, width = picture(image).shape[:2]
    peak = float(maps.max()) or 1.0
    for axes, word, heat in zip(cells.flat[1:], words, maps, strict=False):
        show(axes, image)
        # Opaque where the word looks, clear elsewhere: the radiograph stays visible.
        hot = axes.imshow(heat, cmap="inferno", vmin=0, vmax=peak, alpha=np.clip(heat / peak, 0, 1) * 0.7,
                          interpolation="bilinear", extent=(-0.5, width - 0.5, height - 0.5, -0.5))
        axes.set_title(shorten(_tidy(word), 20), fontsize=12)
    bar = figure.colorbar(hot, ax=list(cells.flat), shrink=min(1, 0.5 + 0.2 * len(cells)), pad=0.02,
                          label=f"注意力（attention），所有区域平均 {maps.mean():.2g}")
    bar.outline.set_visible(False)
    bar.ax.grid(visible=False)


# --- retrieval examples -------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class TextHits:
    """An image and the texts that fit it best.

    Attributes:
        image: uint8 ``[H, W]``.
        own: the image's own text; white space makes no difference.
        rank: of its own text among all, 1 = first.
        texts, scores: the best texts, best first (five, say), and their scores.
    """

    image: np.ndarray
    own: str
    rank: int
    texts: Sequence[str]
    scores: Sequence[float]


@dataclass(frozen=True)
class ImageHits:
    """A text and the images that fit it best.

    Attributes:
        text: the query.
        rank: of the best image that carries the text, 1 = first.
        images, scores: the best images, best first (five, say), and their scores.
        own: for each of them whether the text is its own.
    """

    text: str
    rank: int
    images: Sequence[np.ndarray]
    scores: Sequence[float]
    own: Sequence[bool]


def plot_texts_of_images(examples: Sequence[TextHits], path: str | Path, *,
                         title: str = "由图像检索文本（image → text）", demo: bool = False,
                         line: str = DEMO_LINE) -> Path:
    """Images with the texts the model finds for each, the image's own text in green; at most ``MAX_EXAMPLES`` images.

    Raises:
        UserError: the file cannot be written; ValueError: no example.
    """
    with _rows(path, examples, 10.8, 2.3, title, demo, line) as (figure, shown):
        cells = figure.subplots(len(shown), 2, squeeze=False, width_ratios=[1, 3.9])
        for (left, right), example in zip(cells, shown, strict=True):
            show(left, example.image)
            right.set_axis_off()
            own, texts = _tidy(example.own), [_tidy(text) for text in example.texts]
            lines = [(f"{'✓ ' if text == own else ''}{place}．{score:.2f}", text)
                     for place, (text, score) in enumerate(zip(texts, example.scores, strict=True), 1)]
            if own not in texts:
                lines.append((f"自己：第 {example.rank} 名", own))
            for place, (label, text) in enumerate(lines):
                y, colour = 1 - place / max(len(lines), 6), GREEN if text == own else "black"
                right.text(0, y, label, va="top", fontsize=8.5, color=colour, transform=right.transAxes)
                right.text(0.13, y, wrapped(text, 116, 2), va="top", fontsize=8.5, color=colour,
                           transform=right.transAxes)
    return Path(path)


def plot_images_of_texts(examples: Sequence[ImageHits], path: str | Path, *,
                         title: str = "由文本检索图像（text → image）", demo: bool = False,
                         line: str = DEMO_LINE) -> Path:
    """Texts with the images the model finds for each, those that carry the text framed green.

    At most ``MAX_EXAMPLES`` texts are drawn.

    Raises:
        UserError: the file cannot be written; ValueError: no example.
    """
    with _rows(path, examples, 12, 2.1, title, demo, line) as (figure, shown):
        across = max(len(example.images) for example in shown)
        cells = figure.subplots(len(shown), across + 1, squeeze=False, width_ratios=[1.3] + [1] * across)
        for (first, *others), example in zip(cells, shown, strict=True):
            for axes in (first, *others):
                axes.set_axis_off()
            first.text(0, 1, f"自己的图像排第 {example.rank} 名", va="top", fontsize=8.5, transform=first.transAxes,
                       color=GREEN if any(example.own) else GREY)
            first.text(0, 0.88, wrapped(_tidy(example.text), 40, 9), va="top", fontsize=8.5,
                       transform=first.transAxes)
            hits = zip(example.images, example.scores, example.own, strict=True)
            for place, (axes, (image, score, own)) in enumerate(zip(others, hits, strict=False), 1):
                show(axes, image)
                axes.set_axis_on()
                axes.spines[:].set(visible=own, color=GREEN, linewidth=3)
                axes.set_title(f"{'✓ ' if own else ''}{place}．{score:.2f}", fontsize=9,
                               color=GREEN if own else "black")
    return Path(path)


@contextlib.contextmanager
def _rows(path: str | Path, examples: Sequence[Hits], width: float, height: float, title: str, demo: bool, line: str
          ) -> Iterator[tuple[Figure, Sequence[Hits]]]:
    """A drawing with ``height`` inches for each example, and those that are shown."""
    if not examples:
        raise ValueError("no example to draw")
    shown = examples[:MAX_EXAMPLES]
    with drawing(path, width, height * len(shown) + 0.5, title=title, demo=demo, line=line) as figure:
        yield figure, shown


def _tidy(text: str) -> str:
    """``text`` on one line."""
    return " ".join(text.split())
