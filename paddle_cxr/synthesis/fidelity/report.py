"""The table, the page and ``metrics.json`` of the fidelity figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from paddle_cxr.data.records import ClassInfo
from paddle_cxr.evaluation.report import write_table
from paddle_cxr.files import write_text
from paddle_cxr.synthesis.fidelity.agreement import Agreement


class Figure(NamedTuple):
    """One number of the table.

    Attributes:
        value: None where it could not be had; ``why`` then says why, in a few words.
        low, high: of its 95 % interval, or one standard deviation around it.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    why: str = ""


class Measure(NamedTuple):
    """A column: key in the files, heading, which way is better (``-``, ``+`` or empty), how a value is written."""

    key: str
    title: str
    better: str
    form: str


MEASURES = (
    Measure("frechet", "Fréchet 距离", "-", ".4g"),
    Measure("frechet_all", "Fréchet 距离（全部图）", "-", ".4g"),
    Measure("kid", "核距离 KID", "-", ".3g"),
    Measure("precision", "精确率（precision）", "+", ".3f"),
    Measure("recall", "召回率（recall）", "+", ".3f"),
    Measure("density", "密度（density）", "+", ".3f"),
    Measure("coverage", "覆盖率（coverage）", "+", ".3f"),
    Measure("ms_ssim", "图间 MS-SSIM", "", ".3f"),
    Measure("memorised", "离训练图太近", "-", ".1%"),
    Measure("agreement", "标签一致率", "+", ".1%"),
    Measure("side_agreement", "左右一致率", "+", ".1%"),
)


@dataclass
class Row:
    """A set of images in the table.

    Attributes:
        name, mark: of the set; images: how many can be read; compared: in the distances, 0 where there are none.
        figures: key of a measure → number.
        agreement: what the classifier says, where it was asked.
    """

    name: str
    mark: str
    images: int
    compared: int = 0
    figures: dict[str, Figure] = field(default_factory=dict)
    agreement: Agreement | None = None

    def __getitem__(self, key: str) -> Figure:
        return self.figures.get(key, Figure(why="没有做"))

    def to_json(self, classes: Sequence[ClassInfo]) -> dict[str, Any]:
        """JSON-ready."""
        result: dict[str, Any] = {"name": self.name, "mark": self.mark, "images": self.images,
                                  "compared": self.compared, "figures": {}}
        for key, figure in self.figures.items():
            result["figures"][key] = {"missing": figure.why} if figure.value is None else {
                name: value for name, value in figure._asdict().items() if name != "why" and value is not None}
        if self.agreement:
            result["label_agreement"] = {
                "left_out": self.agreement.left_out, "confusion_matrix": self.agreement.confusion.tolist(),
                "per_class": {info.name: {"count": one.count, "total": one.total, "share": one.share,
                                          "ci95": one.interval and list(one.interval)}
                              for info, one in zip(classes, self.agreement.per_class, strict=True)}}
        return result


def measured(rows: Sequence[Row]) -> list[Measure]:
    """The columns in which some row has a number, or a reason of its own for not having one."""
    return [measure for measure in MEASURES if any(measure.key in row.figures for row in rows)]


def write_tables(folder: Path, rows: Sequence[Row], classes: Sequence[ClassInfo], facts: Mapping[str, str],
                 notices: Sequence[str], figures: Sequence[str]) -> Path:
    """Write ``fidelity.csv`` and ``fidelity.md``; returns the page.

    Args:
        rows: the floor (the other half of the real images) first.
        classes: the classifier's, empty without one.
        facts: what the page says of the circumstances, heading → text.
        notices: what the reader has to know.
        figures: names of the PNG files beside it.

    Raises:
        UserError: a file cannot be written.
    """
    columns = measured(rows)
    write_table(folder / "fidelity.csv", ["set", "mark", "images", "compared", *(
        name for measure in columns for name in (measure.key, f"{measure.key}_low", f"{measure.key}_high"))], (
        [row.name, row.mark, row.images, row.compared, *(
            "" if value is None else f"{value:.6g}" for measure in columns for value in row[measure.key][:3])]
        for row in rows))
    return write_text(folder / "fidelity.md", "\n".join(
        _page(rows, columns, classes, facts, notices, figures)) + "\n")


def _page(rows: Sequence[Row], columns: Sequence[Measure], classes: Sequence[ClassInfo], facts: Mapping[str, str],
          notices: Sequence[str], figures: Sequence[str]) -> list[str]:
    arrows = {"-": " ↓", "+": " ↑", "": ""}
    lines = ["# 合成图像的逼真程度（fidelity）", "",
             "仅供教学与研究，不能用于临床诊断（not for clinical use）。"
             "各指标的意思和陷阱见项目文档 `docs/fidelity.md`。", "",
             *(f"- {heading}：{text}" for heading, text in facts.items()), "",
             *(f"> {notice}" + "\n" for notice in notices),
             "箭头：↓ 越小越好，↑ 越大越好。第一行是真实图的一半对另一半：再好的生成器也只能到这里"
             "（这一行的 MS-SSIM、太近和一致率用全部真实图）。"
             "MS-SSIM 没有好坏方向，要与真实图的接近：比它高是画得单调。", "",
             _line("图像", "来源", "张数", "参与比较", *(m.title + arrows[m.better] for m in columns)),
             "|---|---|" + "---:|" * (len(columns) + 2)]
    lines += [_line(row.name, row.mark, row.images, row.compared or "—", *(text_of(row[m.key], m) for m in columns))
              for row in rows]
    missing = [(row.name, m.title, row[m.key].why) for row in rows for m in columns if row[m.key].value is None]
    reasons = dict.fromkeys(f"- {name}的{title}：{why}" for name, title, why in missing if why)
    lines += ["", *(("没有数值的格子（—）：", "", *reasons, "") if reasons else ())]
    lines += [f"![{name}]({name})\n" for name in figures]
    for row in rows:
        if row.agreement and row.agreement.overall.total:
            lines += _confusion(row, classes)
    return lines


def text_of(figure: Figure, measure: Measure) -> str:
    """A number with its interval, as the tables show it."""
    if figure.value is None:
        return "—"
    value = format(figure.value, measure.form)
    if figure.low is None or figure.high is None:
        return value
    if measure.key == "kid":
        return f"{value} ± {format(figure.high - figure.value, measure.form)}"
    return f"{value}（{format(figure.low, measure.form)}–{format(figure.high, measure.form)}）"


def _confusion(row: Row, classes: Sequence[ClassInfo]) -> list[str]:
    found = row.agreement
    lines = [f"## 标签一致性：{row.name}（{row.mark}）", "",
             f"{found.overall.total} 张有明确的类别" + (f"，{found.left_out} 张没有，未计" if found.left_out else "")
             + "。行：画的是什么；列：分类器看成什么。", "",
             _line("", *(info.zh for info in classes), "一致率（95 % 区间）"), "|---|" + "---:|" * (len(classes) + 1)]
    for info, counts, share in zip(classes, found.confusion, found.per_class, strict=True):
        text = f"{share.share:.1%}（{share.interval[0]:.1%}–{share.interval[1]:.1%}）" if share.total else "—"
        lines.append(_line(f"{info.zh}（{info.en}）", *counts, text))
    return [*lines, ""]


def _line(*cells: Any) -> str:
    return f"| {' | '.join(map(str, cells))} |"
