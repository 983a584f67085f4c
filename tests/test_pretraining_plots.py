"""Figures of image–text models: every glyph shows, nothing is cut, what is marked is what should be."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from paddle_cxr import plots
from paddle_cxr.plots import style
from paddle_cxr.plots.pretraining import MAX_WORDS, telling_words

TEXTS = [
    "There are moderate patchy ground-glass opacities in the peripheral lower zones of both lungs, with consolidation.",
    "双肺野清晰，未见实质性病变。心影大小正常。双侧肋膈角锐利，未见胸腔积液。",
    "Small left pleural effusion.", "右侧见少量气胸（pneumothorax），可见脏层胸膜线，其外无肺纹理，" * 12,
    "No acute cardiopulmonary abnormality; cost $5 and $6.", "心影增大（中度）。",
]
WORDS = ["There", "is", "a", "moderate", "left", "pleural", "effusion", ",", "with", "consolidation", "左肺", "下野",
         "胸腔", "积液", "electroencephalographically", "。", "small", "right", "apical", "no"]


def film(index: int, height: int = 96, width: int = 96) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (height, width), dtype=np.uint8)


def matrix(rows: int, columns: int) -> np.ndarray:
    scores = np.random.default_rng(0).normal(size=(rows, columns)) * 0.2
    scores[np.arange(rows), np.arange(rows) % columns] += 0.6
    return scores


def draw_matrix(path: Path, rows: int, columns: int, **options: object) -> Path:
    return plots.plot_similarity_matrix(matrix(rows, columns), [f"IM-{i:04d} 气胸.png" for i in range(rows)],
                                        [TEXTS[i % len(TEXTS)] for i in range(columns)], path,
                                        text_of=np.arange(rows) % columns, **options)


def draw_words(path: Path, count: int, shape: tuple[int, int] = (96, 96), **options: object) -> Path:
    attention = np.random.default_rng(0).dirichlet(np.full(49, 0.2), count).reshape(count, 7, 7)
    return plots.plot_word_attention(film(0, *shape), WORDS[:count], attention, path, **options)


def draw_texts(path: Path, count: int, shown: int = 5, **options: object) -> Path:
    examples = [plots.TextHits(film(i, 96, 60 + 40 * i), TEXTS[i], 1 if i < shown else 37, TEXTS[:shown],
                               np.linspace(0.9, -0.2, shown)) for i in range(count)]
    return plots.plot_texts_of_images(examples, path, **options)


def draw_images(path: Path, count: int, shown: int = 5, **options: object) -> Path:
    examples = [plots.ImageHits(TEXTS[i], i + 1, [film(j, 96, 70 + 20 * j) for j in range(shown)],
                                np.linspace(12.5, 3, shown), [j == i for j in range(shown)]) for i in range(count)]
    return plots.plot_images_of_texts(examples, path, **options)


FIGURES: dict[str, Callable[..., Path]] = {
    "matrix of 6": lambda path, **options: draw_matrix(path, 6, 6, **options),
    "matrix of 24": lambda path, **options: draw_matrix(path, 24, 24, **options),
    "matrix of 1": lambda path, **options: draw_matrix(path, 1, 1, **options),
    "wide matrix": lambda path, **options: draw_matrix(path, 5, 30, **options),
    "large matrix": lambda path, **options: draw_matrix(path, 150, 100, **options),
    "words": lambda path, **options: draw_words(path, 7, text=TEXTS[0], **options),
    "too many words": lambda path, **options: draw_words(path, 20, text=TEXTS[3], **options),
    "one word, flat film": lambda path, **options: draw_words(path, 1, (60, 120), **options),
    "texts of images": lambda path, **options: draw_texts(path, 2, **options),
    "own text not among them": lambda path, **options: draw_texts(path, 5, 2, **options),
    "images of texts": lambda path, **options: draw_images(path, 2, **options),
    "own image not among them": lambda path, **options: draw_images(path, 6, 1, **options),
}


@pytest.fixture
def nothing_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when anything drawn reaches over the edge of its figure."""
    save = matplotlib.figure.Figure.savefig

    def checked(figure: matplotlib.figure.Figure, *args: object, **kwargs: object) -> None:
        save(figure, *args, **kwargs)
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert box.x0 > -0.01 and box.y0 > -0.01 and box.x1 < width + 0.01 and box.y1 < height + 0.01, box

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", checked)


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.usefixtures("nothing_cut")
def test_every_figure_with_every_glyph(tmp_path: Path, figure: str) -> None:
    path = tmp_path / "图" / "a.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a missing glyph, a layout that could not be made
        assert FIGURES[figure](path, demo=True, line=style.SYNTHETIC_LINE) == path
    with Image.open(path) as image:
        assert image.format == "PNG" and 400 < image.width < 1500 and 300 < image.height < 1500


@pytest.mark.parametrize("figure", ["matrix of 6", "words", "texts of images", "images of texts"])
def test_demo_line(tmp_path: Path, figure: str) -> None:
    demo, real = (np.asarray(Image.open(FIGURES[figure](tmp_path / f"{demo}.png", demo=demo)).convert("RGB"))
                  for demo in (True, False))
    red = [int(style.RED[i:i + 2], 16) for i in (1, 3, 5)]
    assert demo.shape[0] - real.shape[0] >= 30  # pixels that the demo figure is taller
    assert (np.abs(demo[-33:].astype(int) - red).sum(axis=2) < 60).sum() > 100


def texts_of(monkeypatch: pytest.MonkeyPatch, draw: Callable[[], object]) -> dict[str, str]:
    """Every text of a figure and its colour."""
    found = {}
    save = matplotlib.figure.Figure.savefig

    def noted(figure: matplotlib.figure.Figure, *args: object, **kwargs: object) -> None:
        save(figure, *args, **kwargs)
        found.update({one.get_text(): one.get_color() for one in figure.findobj(matplotlib.text.Text)})

    with monkeypatch.context() as patch:
        patch.setattr(matplotlib.figure.Figure, "savefig", noted)
        draw()
    return found


def test_the_own_text_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = texts_of(monkeypatch, lambda: plots.plot_texts_of_images(
        [plots.TextHits(film(0), " own\n", 2, ["wrong", "own"], [0.75, 0.5])], tmp_path / "a.png"))
    assert found["own"] == found["✓ 2．0.50"] == style.GREEN and found["wrong"] == found["1．0.75"] == "black"
    found = texts_of(monkeypatch, lambda: plots.plot_texts_of_images(
        [plots.TextHits(film(0), "own", 37, ["wrong"], [0.75])], tmp_path / "a.png"))
    assert found["own"] == found["自己：第 37 名"] == style.GREEN


def test_the_own_image_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = texts_of(monkeypatch, lambda: plots.plot_images_of_texts(
        [plots.ImageHits("query", 2, [film(0), film(1)], [0.75, 0.5], [False, True])], tmp_path / "a.png"))
    assert found["✓ 2．0.50"] == style.GREEN and found["1．0.75"] == "black" and "自己的图像排第 2 名" in found


def test_words_share_a_scale_and_are_titles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    draw = matplotlib.axes.Axes.imshow
    monkeypatch.setattr(matplotlib.axes.Axes, "imshow", lambda axes, data, *args, **options: (
        seen.append((np.shape(data), options.get("vmin"), options.get("vmax"))) or draw(axes, data, *args, **options)))
    attention = np.stack([np.full((2, 3), 0.1), np.full((2, 3), 0.4)])
    found = texts_of(monkeypatch, lambda: plots.plot_word_attention(
        film(0), ["左肺", "effusion"], attention, tmp_path / "a.png", text="左肺 effusion"))
    assert {"左肺", "effusion", "原图"} <= set(found)
    assert [one for one in seen if one[0] == (2, 3)] == [((2, 3), 0, 0.4)] * 2


@settings(max_examples=60)
@given(st.text(alphabet="ab 肺。'-", max_size=60), st.integers(2, 12), st.integers(1, 3))
def test_wrapped_lines_fit_and_begin_as_the_text_does(text: str, width: int, most: int) -> None:
    lines = style.wrapped(text, width, most).split("\n")
    assert len(lines) <= most and all(style.columns(line.rstrip()) <= width for line in lines)
    whole, shown = text.replace(" ", ""), "".join(lines).replace(" ", "")
    assert shown == whole or (shown.endswith("…") and whole.startswith(shown[:-1]))


def test_the_telling_words() -> None:
    peaks = np.array([0.1, 0.9, 0.5, 0.7, 0.2])
    attention = np.zeros((5, 2, 2))
    attention[:, 1, 0] = peaks
    words = ["there", ".", "肺", "effusion", "b"]
    assert telling_words(words, attention, 2) == [2, 3]  # in the order of the text, without the full stop
    assert telling_words(words, attention) == [2, 3, 4] and MAX_WORDS == 12  # "there" says nothing
    assert telling_words(["The", ".", "in"], attention[:3]) == [0, 2]  # where there is nothing else
    assert telling_words(["。", "，"], attention[:2]) == [0, 1]
    assert telling_words(["No", "未", "left", "的"], attention[:4]) == [0, 1, 2]


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="belong together"):
        plots.plot_similarity_matrix(matrix(2, 2), ["a"], ["b", "c"], tmp_path / "a.png")
    for words, attention in ((["a"], np.ones((2, 3, 3))), ([], np.ones((0, 3, 3))), (["a"], np.ones((1, 9)))):
        with pytest.raises(ValueError, match="does not belong"):
            plots.plot_word_attention(film(0), words, attention, tmp_path / "a.png")
    for plot in (plots.plot_texts_of_images, plots.plot_images_of_texts):
        with pytest.raises(ValueError, match="no example"):
            plot([], tmp_path / "a.png")
