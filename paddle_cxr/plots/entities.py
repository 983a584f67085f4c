"""Figures of report corpora: which entities they mention how often, and how unevenly.

Reference: SynCXR (arXiv 2410.13523), whose figures show the most frequent entities of real reports by type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paddle_cxr.plots.style import COLOURS, GREY, SYNTHETIC_LINE, drawing, line_style, shorten
from paddle_cxr.synthesis.entities import TYPES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TYPE_LABELS = {"abnormality": "异常（abnormality）", "non-abnormality": "非异常（non-abnormality）",
               "disease": "疾病（disease）", "non-disease": "非疾病（non-disease）", "anatomy": "解剖部位（anatomy）"}
_LABEL = 46  # columns of an entity's name
_TITLE = 30  # columns of a corpus's name


@dataclass(frozen=True)
class CorpusFigures:
    """What the figures show of one corpus.

    Attributes:
        name: as in the recipe.
        mark: whether it is real or synthetic, in words.
        synthetic: whether any of its reports is.
        reports: how many there are.
        counts: type → int64 [N] reports that mention each of the N entities that occur, in descending order.
        labels: type → names of the most frequent entities, in the same order.
        gini: type → Gini coefficient of ``counts``, None where no entity occurs.
    """

    name: str
    mark: str
    synthetic: bool
    reports: int
    counts: Mapping[str, np.ndarray]
    labels: Mapping[str, Sequence[str]]
    gini: Mapping[str, float | None]


def plot_top_entities(corpora: Sequence[CorpusFigures], type_: str, top: int, path: str | Path) -> Path:
    """The long tail: the ``top`` most frequent entities of a type with their counts, a column of bars a corpus.

    Every corpus has its own scale and its own order: what is compared is how steeply the bars fall.

    Raises:
        UserError: the file cannot be written.
    """
    rows = max(min(top, len(corpus.counts[type_])) for corpus in corpora)
    title = f"最常见的 {top} 个实体：{TYPE_LABELS[type_]}"
    with drawing(path, 6 * len(corpora), 1.7 + 0.19 * max(rows, 8), title=title, **_mark(corpora)) as figure:
        for number, (corpus, axes) in enumerate(zip(corpora, _axes(figure, 1, len(corpora)), strict=True)):
            counts = corpus.counts[type_][:top]
            names = [shorten(label, _LABEL) for label in corpus.labels[type_][:top]]
            axes.barh(range(len(counts)), counts, color=COLOURS[number % len(COLOURS)], height=0.75)
            for place, count in enumerate(counts):
                axes.text(count, place, f" {count}", va="center", fontsize=7)
            axes.set_yticks(range(len(names)), names, fontsize=7.5)
            axes.set_ylim(max(rows, 8) - 0.4, -0.6)  # the most frequent on top, equal bars in all columns
            axes.set_xlim(0, 1.12 * max(counts, default=1))
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(visible=False, axis="y")
            axes.set_xlabel("提到它的报告数")
            gini = corpus.gini[type_]
            axes.set_title(f"{corpus_title(corpus)}\n{corpus.reports} 份报告，{len(corpus.counts[type_])} 个实体，"
                           + (f"Gini {gini:.2f}" if gini is not None else "没有提到"), fontsize=10)
    return Path(path)


def plot_ranks(corpora: Sequence[CorpusFigures], path: str | Path) -> Path:
    """Rank against frequency, both logarithmic: a long tail falls steeply, a balanced corpus is flat.

    Raises:
        UserError: the file cannot be written.
    """
    def draw(axes: Axes, corpus: CorpusFigures, type_: str, style: Mapping[str, str]) -> None:
        counts = corpus.counts[type_]
        ranks, shares = np.arange(1, len(counts) + 1), 100 * counts / counts.sum()
        axes.loglog(ranks, shares, **style)
        for share, marker in ((0.1, "o"), (0.5, "^")):  # where the head ends, where the tail begins
            rank = max(1, round(share * len(counts)))
            axes.plot(rank, shares[rank - 1], marker=marker, color=style["color"], markersize=6)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")  # 0.01, not a formula
        axes.set_xlabel("名次（rank）")
        axes.set_ylabel("占该类型全部提及的 %")

    note = "●：前 10 % 的实体（head）到此为止\n▲：后 50 % 的实体（tail）从此开始\n线越平，分布越均衡"
    return _by_type(corpora, path, "实体频率与名次（rank–frequency）", draw, note)


def plot_lorenz(corpora: Sequence[CorpusFigures], path: str | Path) -> Path:
    """Lorenz curves: the Gini coefficient is twice the area between a curve and the diagonal.

    Raises:
        UserError: the file cannot be written.
    """
    def draw(axes: Axes, corpus: CorpusFigures, type_: str, style: Mapping[str, str]) -> None:
        rising = corpus.counts[type_][::-1]
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
        axes.plot(np.linspace(0, 1, len(rising) + 1), np.r_[0, np.cumsum(rising)] / rising.sum(),
                  label=f"Gini {corpus.gini[type_]:.3f}", **style)
        axes.set_xlabel("实体的比例，从罕见到常见")
        axes.set_ylabel("提及的比例")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.04)
        axes.legend(loc="upper left", fontsize=8.5)

    note = "点线：所有实体同样常见（Gini = 0）\n离点线越远，越集中在少数实体上"
    return _by_type(corpora, path, "洛伦兹曲线（Lorenz curve）", draw, note)


def plot_types(corpora: Sequence[CorpusFigures], path: str | Path) -> Path:
    """For each type: mentions a report, and how many different entities occur.

    Raises:
        UserError: the file cannot be written.
    """
    panels: dict[str, Callable[[CorpusFigures, str], float]] = {
        "平均每份报告提到几个实体": lambda corpus, type_: corpus.counts[type_].sum() / max(corpus.reports, 1),
        "出现过多少个不同的实体": lambda corpus, type_: len(corpus.counts[type_]),
    }
    columns = max(11, 4 * len(corpora))
    with drawing(path, columns, 5, title="各类型的实体（entities by type）", **_mark(corpora)) as figure:
        width = 0.8 / len(corpora)
        for axes, (title, value) in zip(_axes(figure, 1, 2), panels.items(), strict=True):
            for number, corpus in enumerate(corpora):
                places = np.arange(len(TYPES)) + (number - (len(corpora) - 1) / 2) * width
                values = [value(corpus, type_) for type_ in TYPES]
                bars = axes.bar(places, values, width, color=COLOURS[number % len(COLOURS)],
                                label=corpus_title(corpus))
                axes.bar_label(bars, [f"{one:.2f}" if isinstance(one, float) else str(one) for one in values],
                               fontsize=8)
            labels = [TYPE_LABELS[type_].replace("（", "\n（") for type_ in TYPES]
            axes.set_xticks(range(len(TYPES)), labels, fontsize=8)
            axes.set_title(title)
            axes.set_ylim(0, axes.get_ylim()[1] * (1.05 + 0.12 * len(corpora)))  # room for the legend
            axes.grid(visible=False, axis="x")
            axes.legend(loc="upper right", fontsize=9)
    return Path(path)


def _by_type(corpora: Sequence[CorpusFigures], path: str | Path, title: str,
             draw: Callable[[Axes, CorpusFigures, str, Mapping[str, str]], None], note: str) -> Path:
    """A panel a type with a line a corpus; the sixth place explains them."""
    with drawing(path, 11, 7, title=title, **_mark(corpora)) as figure:
        *panels, last = _axes(figure, 2, 3)
        for axes, type_ in zip(panels, TYPES, strict=True):
            axes.set_title(TYPE_LABELS[type_])
            for number, corpus in enumerate(corpora):
                if len(corpus.counts[type_]):
                    draw(axes, corpus, type_, line_style(number))
            if not axes.lines:
                axes.text(0.5, 0.5, "没有提到", ha="center", va="center", color=GREY, transform=axes.transAxes)
        last.axis("off")
        for number, corpus in enumerate(corpora):
            last.plot([], [], label=f"{corpus_title(corpus)}\n{corpus.reports} 份报告", **line_style(number))
        last.legend(loc="upper left", fontsize=9.5, title=note, title_fontsize=9, alignment="left", borderaxespad=0)
    return Path(path)


def corpus_title(corpus: CorpusFigures) -> str:
    """Name and mark on two lines: shortened as one, the names of two corpora could look the same."""
    return f"{shorten(corpus.name, _TITLE)}\n{corpus.mark}"


def _axes(figure: Figure, rows: int, columns: int) -> list[Axes]:
    return list(figure.subplots(rows, columns, squeeze=False).flat)


def _mark(corpora: Sequence[CorpusFigures]) -> dict[str, object]:
    return {"demo": any(corpus.synthetic for corpus in corpora), "line": SYNTHETIC_LINE}
