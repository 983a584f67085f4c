"""Figures: Chinese shows without an installed font, nothing is cut, nothing global changes."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib
import matplotlib.figure
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import Image

import paddle_cxr
from paddle_cxr import plots
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation import summarise_folds, with_intervals
from paddle_cxr.plots import style
from paddle_cxr.plots.quality import plot_waterfall

THREE = [ClassInfo("NORMAL", "正常", "Normal"), ClassInfo("PNEUMONIA", "病毒性肺炎", "Viral pneumonia"),
         ClassInfo("COVID", "新冠肺炎", "COVID-19")]
EIGHT = [ClassInfo(en, zh, en) for zh, en in (
    ("正常", "Normal"), ("肺不张", "Atelectasis"), ("心影增大", "Cardiomegaly"), ("胸腔积液", "Effusion"),
    ("气胸", "Pneumothorax"), ("结节", "Nodule"), ("肺水肿", "Oedema"), ("肺炎", "Pneumonia"))]
TWO = [ClassInfo("无名甲", "无名甲", "无名甲"), ClassInfo("b", "乙", "")]  # what a folder of the user's own gives


class Case:
    """Predictions of made-up classes, and pictures to go with them."""

    def __init__(self, classes: list[ClassInfo], samples: int = 120) -> None:
        random = np.random.default_rng(0)
        self.classes = classes
        self.labels = random.integers(0, len(classes), samples)
        logits = random.normal(size=(samples, len(classes))) + 2 * np.eye(len(classes))[self.labels]
        self.probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        self.names = [info.name for info in classes]
        self.metrics = with_intervals(self.labels, self.probabilities, self.names, n=50)
        self.images = [random.integers(0, 256, size, dtype=np.uint8) for size in ((64, 64), (48, 80), (80, 48))]
        self.heat = np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(32, 32)

    def folds(self, count: int) -> dict:
        parts = np.array_split(np.arange(len(self.labels)), count)
        return summarise_folds([with_intervals(self.labels[part], self.probabilities[part], self.names, n=2)
                                for part in parts])

    def examples(self, count: int) -> list[plots.Example]:
        return [plots.Example(self.images[i % 3], f"新冠肺炎/第{i}例$α$_{'很长的文件名' * 5}.png", int(self.labels[i]),
                              self.probabilities[i]) for i in range(count)]


def history(epochs: int) -> list[dict]:
    return [{"epoch": e + 1, "step": 10 * (e + 1), "lr": 3e-4 * 0.55**e, "train_loss": 1.1 * 0.7**e,
             "train_accuracy": 1 - 0.5 * 0.7**e, "val_loss": 1.2 * 0.7**e, "val_accuracy": 0.98 - 0.5 * 0.7**e,
             "val_macro_auc": None if e == 2 else 0.99 - 0.3 * 0.7**e, "val_macro_f1": "", "seconds": 3.5}
            for e in range(epochs)]


LONG_TEXTS = ["Small left effusion with adjacent atelectasis. " * 5, "六问：" + "很长" * 40 + "$x^2$.png", "x" * 300]
FIGURES: dict[str, Callable[[Case, Path, bool], Path]] = {
    "curves": lambda c, path, demo: plots.plot_training_curves(history(8), path, demo=demo),
    "one epoch": lambda c, path, demo: plots.plot_training_curves(history(1), path, demo=demo),
    "cross-validation": lambda c, path, demo: plots.plot_cross_validation(c.folds(5), c.classes, path, demo=demo),
    "one fold": lambda c, path, demo: plots.plot_cross_validation(c.folds(1), c.classes, path, demo=demo),
    "confusion": lambda c, path, demo: plots.plot_confusion_matrix(c.metrics["confusion_matrix"], c.classes, path,
                                                                   demo=demo),
    "roc": lambda c, path, demo: plots.plot_roc(c.labels, c.probabilities, c.metrics, c.classes, path, demo=demo),
    "pr": lambda c, path, demo: plots.plot_precision_recall(c.labels, c.probabilities, c.metrics, c.classes, path,
                                                            demo=demo),
    "calibration": lambda c, path, demo: plots.plot_calibration(c.labels, c.probabilities, c.metrics, path, demo=demo),
    "mistakes": lambda c, path, demo: plots.plot_mistakes(c.examples(5), c.classes, path, demo=demo),
    "no mistakes": lambda c, path, demo: plots.plot_mistakes([], c.classes, path, demo=demo),
    "prediction": lambda c, path, demo: plots.plot_prediction(
        c.images[1], c.heat, c.probabilities[0], c.classes, "病人甲/" + "长" * 60 + ".png", path, demo=demo),
    "samples": lambda c, path, demo: plots.plot_samples(c.images, [0, 1, 1], c.classes, path, demo=demo),
    "sheet": lambda c, path, demo: plots.plot_sheet(c.images, LONG_TEXTS, path, title="样图", demo=demo),
    "sheet with names": lambda c, path, demo: plots.plot_sheet(
        list(c.images) * 4, LONG_TEXTS * 4, path, title="没有通过的图（rejected）：12 / 12 张", names=LONG_TEXTS * 4,
        demo=demo),
    "empty sheet": lambda c, path, demo: plots.plot_sheet([], [], path, title="收下的图", demo=demo),
    "waterfall": lambda c, path, demo: plot_waterfall(
        [("全部（all）", 213_384), ("通过六问（judge）", 211_936), ("不像坏图（similarity）", 206_424)], path,
        line=style.DEMO_LINE if demo else ""),
    "waterfall that rises": lambda c, path, demo: plot_waterfall(
        [("报告（reports）", 200), ("第一次不像坏图（similarity）", 0), ("图文对（pairs）", 200)], path, unit="对数",
        line=style.DEMO_LINE if demo else ""),
}


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    return {"two": Case(TWO), "three": Case(THREE), "eight": Case(EIGHT)}


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
def test_every_figure_with_every_glyph(cases: dict[str, Case], tmp_path: Path, figure: str) -> None:
    per_class = figure not in ("curves", "one epoch", "no mistakes", "calibration")
    for name in ("two", "three", "eight") if per_class else ("three",):
        path = tmp_path / "图" / f"{name}.png"
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # "Glyph 32954 missing from font(s) …", "constrained_layout not applied" …
            assert FIGURES[figure](cases[name], path, name == "three") == path
        with Image.open(path) as image:
            assert image.format == "PNG" and 300 < image.width < 1500 and 150 < image.height < 1500
        assert [file.name for file in path.parent.glob(".*")] == []  # no temporary file left


def test_a_missing_glyph_would_be_noticed(cases: dict[str, Case], tmp_path: Path) -> None:
    case = cases["three"]
    with pytest.warns(UserWarning, match="[Gg]lyph .* missing"):
        plots.plot_samples(case.images[:1], [0], case.classes, tmp_path / "a.png", title="龘")


@pytest.mark.parametrize("figure", ["roc", "mistakes", "prediction", "no mistakes"])
def test_demo_line(cases: dict[str, Case], tmp_path: Path, figure: str) -> None:
    demo, real = (np.asarray(Image.open(FIGURES[figure](cases["three"], tmp_path / f"{demo}.png", demo)).convert("RGB"))
                  for demo in (True, False))
    strip = demo[real.shape[0]:].astype(int)
    red = [int(style.RED[i:i + 2], 16) for i in (1, 3, 5)]
    assert strip.shape[0] >= 30  # pixels that the demo figure is taller
    assert (np.abs(demo[-33:].astype(int) - red).sum(axis=2) < 60).sum() > 100


def test_figures_are_reproducible_bytes(cases: dict[str, Case], tmp_path: Path) -> None:
    first, second = (FIGURES["confusion"](cases["three"], tmp_path / f"{i}.png", True).read_bytes() for i in range(2))
    assert first == second


def test_history_as_read_from_csv(tmp_path: Path) -> None:
    rows = [{key: "" if value is None else str(value) for key, value in row.items()} for row in history(3)]
    from_text = plots.plot_training_curves(rows, tmp_path / "a.png").read_bytes()
    assert from_text == plots.plot_training_curves(history(3), tmp_path / "b.png").read_bytes()
    minimal = [{"epoch": 1, "train_loss": 0.5, "lr": 0.1}, {"epoch": 2, "train_loss": 0.4, "lr": 0.1}]
    assert plots.plot_training_curves(minimal, tmp_path / "c.png").exists()  # trained without validation
    with pytest.raises(UserError, match="history.csv"):
        plots.plot_training_curves([], tmp_path / "d.png")


def test_an_absent_class_is_said_and_not_drawn(tmp_path: Path) -> None:
    labels, probabilities = np.array([0, 1, 0]), np.array([[.8, .1, .1], [.2, .7, .1], [.3, .4, .3]])
    metrics = with_intervals(labels, probabilities, [info.name for info in THREE], n=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.plot_roc(labels, probabilities, metrics, THREE, tmp_path / "roc.png")
        plots.plot_precision_recall(labels, probabilities, metrics, THREE, tmp_path / "pr.png")
        plots.plot_confusion_matrix(metrics["confusion_matrix"], THREE, tmp_path / "confusion.png")
        plots.plot_cross_validation(summarise_folds([metrics]), THREE, tmp_path / "folds.png")


def test_metrics_read_back_from_json_will_do(cases: dict[str, Case], tmp_path: Path) -> None:
    case = cases["three"]
    metrics = json.loads(json.dumps(case.metrics))
    plots.plot_roc(case.labels, case.probabilities, metrics, case.classes, tmp_path / "a.png")
    plots.plot_roc(case.labels, case.probabilities, case.metrics, case.classes, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_no_place_to_write_is_one_clear_line(cases: dict[str, Case], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="无法写入"):
        FIGURES["no mistakes"](cases["three"], tmp_path / "file" / "a.png", False)


@pytest.mark.parametrize("image", [
    np.array([[0, 128], [255, 64]], np.uint8), np.array([[0, 128], [255, 64]], np.float32) / 255,
    np.array([[-1, 0.0], [1, -0.5]], np.float32), np.zeros((2, 2), np.float32)], ids=str)
def test_pictures_become_grey_values(image: np.ndarray) -> None:
    from paddle_cxr.plots.gallery import picture

    grey = picture(image)
    assert grey.dtype == np.uint8 and grey.shape == image.shape
    if image.any():
        assert grey.min() == 0 and grey.max() == 255 and 125 < grey[0, 1] < 130


# --- the font ----------------------------------------------------------------------------------------------------

def test_every_character_of_the_project_is_in_the_font() -> None:
    ours = set(FT2Font(str(style.FONT_FILE)).get_charmap())
    fallback = set(FT2Font(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf").get_charmap())
    package = Path(paddle_cxr.__file__).parent
    files = [*package.rglob("*.py"), *package.rglob("*.yaml"), *(package.parent / "configs").rglob("*.yaml")]
    assert len(files) > 5
    for file in files:
        missing = {char for char in file.read_text(encoding="utf-8") if ord(char) > 127 and ord(char) not in ours
                   and (ord(char) >= 0x2E80 or ord(char) not in fallback)}
        assert not missing, f"{file}: add {missing} to docs/make_font_subset.py"


def test_the_font_holds_everyday_chinese() -> None:
    ours = set(FT2Font(str(style.FONT_FILE)).get_charmap())
    hanzi = [bytes((0xA0 + row, 0xA0 + cell)).decode("gb2312", "ignore") for row in range(16, 88)
             for cell in range(1, 95)]
    assert len(list(filter(None, hanzi))) == 6763
    text = "".join(hanzi) + "，。、：；？！“”‘’（）《》【】—…·％℃±×÷−≤≥≈μ²αβσ→"
    assert [char for char in text if ord(char) not in ours] == []
    assert style.FONT_FILE.stat().st_size < 3e6
    assert "SIL OPEN FONT LICENSE Version 1.1" in style.FONT_FILE.with_name("OFL.txt").read_text()


def test_labels_come_from_the_shipped_font_only() -> None:
    style.add_font()
    style.add_font()
    assert [Path(entry.fname) for entry in font_manager.fontManager.ttflist if entry.name == style.FONT_FAMILY] == [
        style.FONT_FILE]
    assert Path(font_manager.findfont(style.FONT_FAMILY, fallback_to_default=False)) == style.FONT_FILE


def test_use_chinese_font_changes_one_setting_once() -> None:
    with matplotlib.rc_context({"font.family": ["serif"]}):
        before = dict(matplotlib.rcParams)
        plots.use_chinese_font()
        plots.use_chinese_font()
        changed = {key for key, value in matplotlib.rcParams.items() if value != before[key]}
        assert changed == {"font.family"} and matplotlib.rcParams["font.family"] == [style.FONT_FAMILY, "serif"]


def test_nothing_global_is_imported_or_changed(tmp_path: Path) -> None:
    program = f"""
import sys
from paddle_cxr import plots
assert not {{"matplotlib", "paddle"}} & set(sys.modules), "heavy import"
import matplotlib
before = dict(matplotlib.rcParams.copy())
plots.plot_mistakes([], [], {str(tmp_path / 'a.png')!r})
assert "matplotlib.pyplot" not in sys.modules
assert dict(matplotlib.rcParams.copy()) == before
"""
    subprocess.run([sys.executable, "-c", program], check=True,
                   cwd=Path(paddle_cxr.__file__).parent.parent)


@given(st.text(st.sampled_from("ab_/新冠肺炎"), max_size=60), st.integers(1, 40))
def test_shortened_names_fit_and_keep_both_ends(text: str, width: int) -> None:
    short = style.shorten(text, width)
    assert style.columns(short) <= max(width, style.columns(""))
    if short != text:
        head, tail = short.split("…")
        assert text.startswith(head) and text.endswith(tail) and len(head) + len(tail) < len(text)
