"""What all figures share: the Chinese font, colours, size, the demo line, and saving."""

from __future__ import annotations

import contextlib
import textwrap
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from paddle_cxr.data.records import ClassInfo
from paddle_cxr.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FONT_FILE = Path(__file__).with_name("fonts") / "CXRSansSC-Regular.otf"
FONT_FAMILY = "CXR Sans SC"
DPI = 110
DEMO_LINE = "内置模体（phantom），非临床结果"
DEMO_MODEL_LINE = "用模体（phantom）预训练的模型，非临床结果"
SYNTHETIC_LINE = "含合成/仿真报告（synthetic），不是真实病例"
SYNTHETIC_IMAGES = "合成图像（synthetic），不是真实病例"
_DEMO_STRIP = 0.3  # inches

# Okabe & Ito 2008: told apart with every common colour blindness.
BLUE, ORANGE, GREEN, PURPLE, SKY, RED = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)
LINES = ("-", "--", "-.", ":")
GREY = "#767676"

_STYLE = {
    # A glyph that one family lacks is taken from the next.  The minus sign is in the font: axes.unicode_minus may stay.
    "font.family": [FONT_FAMILY, "DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "axes.axisbelow": True,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "text.parse_math": False,  # a "$" in a file name is a dollar sign
}


def add_font() -> None:
    """Make the shipped font known to matplotlib under ``FONT_FAMILY``; calling it again does nothing."""
    from matplotlib import font_manager

    if not any(entry.name == FONT_FAMILY for entry in font_manager.fontManager.ttflist):
        font_manager.fontManager.addfont(FONT_FILE)


def use_chinese_font() -> None:
    """Let your own matplotlib figures (in a notebook, say) show Chinese; calling it again does nothing.

    Puts the shipped font before the families in ``rcParams["font.family"]`` and changes nothing else.  The figures of
    this package do not need it.
    """
    import matplotlib

    add_font()
    others = [family for family in matplotlib.rcParams["font.family"] if family != FONT_FAMILY]
    matplotlib.rcParams["font.family"] = [FONT_FAMILY, *others]


@contextlib.contextmanager
def drawing(path: str | Path, width: float, height: float, *, title: str, demo: bool, line: str = DEMO_LINE
            ) -> Iterator[Figure]:
    """A figure in the toolkit's style, written to ``path`` (PNG) when the block ends well.

    Args:
        path: where to write, atomically.
        width, height: inches; times ``DPI`` they are pixels.
        title: line above everything.
        demo: add ``line`` below, in a strip of its own: the figure gets that much taller.
        line: what is said there.

    Raises:
        UserError: the file cannot be written.
    """
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    add_font()
    # From matplotlib's own defaults, so that a user's style sheet does not make labels unreadable; undone afterwards.
    with matplotlib.style.context(["default", _STYLE]):
        strip = _DEMO_STRIP if demo else 0.0
        figure = Figure(figsize=(width, height + strip), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, fontsize=13)
        below = strip / (height + strip)
        figure.get_layout_engine().set(rect=(0, below, 1, 1 - below), w_pad=0.06, h_pad=0.06)
        if demo:
            figure.text(0.5, below / 2, line, ha="center", va="center", color=RED, fontsize=11)
        yield figure
        write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=DPI))


def line_style(number: int) -> dict[str, str]:
    """Colour and dashes of line ``number``: when the colours are used up, the next dashes begin."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": LINES[number // len(COLOURS) % len(LINES)]}


def bilingual(info: ClassInfo, *, lines: bool = False) -> str:
    """A class as a label: Chinese with English behind it (or below it), or one of them where they are the same."""
    if info.zh == info.en or not info.en:
        return info.zh
    return f"{info.zh}\n{info.en}" if lines else f"{info.zh}（{info.en}）"


def shorten(text: str, width: int) -> str:
    """``text`` with its middle replaced by "…" to fit ``width`` columns; a Chinese character takes two."""
    if columns(text) <= width:
        return text
    head, tail = "", ""
    for step in range(len(text)):
        # Grow the head and the tail in turn: both the folder and the file's number stay readable.
        longer = (head + text[len(head)], tail) if step % 2 else (head, text[len(text) - 1 - len(tail)] + tail)
        if columns("…".join(longer)) > width:
            break
        head, tail = longer
    return f"{head}…{tail}"


def columns(text: str) -> int:
    """Width of ``text`` in columns of a fixed-width font, where Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def wrapped(text: str, width: int, most: int) -> str:
    """``text`` in lines of ``width`` columns, at most ``most`` of them, the rest cut off.

    A Chinese character takes two columns.
    """
    lines, line = [], ""
    for word in _words(text, width):
        if line and columns(line + word) > width:
            lines.append(line)
            line = word.lstrip()
        else:
            line += word
    lines.append(line)
    if len(lines) > most:
        last = lines[most - 1].rstrip()
        while columns(last + "…") > width:
            last = last[:-1].rstrip()
        lines = [*lines[:most - 1], last + "…"]
    return "\n".join(lines)


def _words(text: str, width: int) -> list[str]:
    """Pieces that a line may end after: Chinese characters one by one, other words whole but for very long ones."""
    pieces: list[str] = []
    for char in text:
        wide = columns(char) == 2
        if wide or not pieces or pieces[-1][-1:].isspace() or columns(pieces[-1][-1:]) == 2:
            pieces.append(char)
        else:
            pieces[-1] += char
    return [part for piece in pieces for part in (textwrap.wrap(piece, width - 1, drop_whitespace=False) or [piece])]
