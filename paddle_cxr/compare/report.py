"""The table (Markdown and CSV), the figures and the sentences of a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from paddle_cxr.compare.plan import NONE, Run
from paddle_cxr.compare.results import Cell, Results
from paddle_cxr.compare.schema import ComparisonRecipe
from paddle_cxr.evaluation.report import write_table
from paddle_cxr.files import write_text

SIGNIFICANT = 0.05
NO_PRETRAINING = "不预训练"
_COLUMNS = ["arm", "method", "task", "setting", "seeds", "mean", "sd", "values", "difference", "ci95_low", "ci95_high",
            "p", "p_holm"]


def write_report(folder: Path, recipe: ComparisonRecipe, results: Results, runs: Sequence[Run],
                 seconds: dict[str, float]) -> Path:
    """Write ``compare.md``, ``compare.csv``, ``runs.csv`` and the figures into ``folder``; returns the page.

    Raises:
        UserError: a file cannot be written.
    """
    write_table(folder / "compare.csv", _COLUMNS, (_row(cell) for cell in results.cells))
    write_table(folder / "runs.csv", ["run", "seconds"], (
        [run.id, round(seconds[run.id], 1) if run.id in seconds else ""] for run in runs))
    figures = _draw(folder, recipe, results)
    return write_text(folder / "compare.md", "\n".join(_page(recipe, results, figures, sum(seconds.values()))) + "\n")


def _row(cell: Cell) -> list[Any]:
    difference = cell.difference
    low, high = difference.ci95 if difference and difference.ci95 else ("", "")
    return [cell.arm, cell.method, cell.task, setting(cell), len(cell.values), _number(cell.mean), _number(cell.sd),
            " ".join(map(_number, cell.values)), _number(difference.value if difference else None), _number(low),
            _number(high), _number(difference.p if difference else None), _number(cell.p)]


def _number(value: Any) -> str:
    return "" if value is None or value == "" else f"{value:.4f}"


def setting(cell: Cell) -> str:
    """The varied keys and their values, ``fraction=0.1``; empty where none varies."""
    return " ".join(f"{key.rsplit('.', 1)[-1]}={value}" for key, value in cell.point.items())


def _draw(folder: Path, recipe: ComparisonRecipe, results: Results) -> list[str]:
    """A figure for every task that varies one number, and one for all others; returns the file names."""
    from paddle_cxr.plots.compare import plot_against_setting, plot_bars

    drawn = []
    for name, task in recipe.Tasks.items():
        cells = [cell for cell in results.cells if cell.task == name]
        numeric = len(task.vary) == 1 and all(isinstance(v, int | float) for v in next(iter(task.vary.values())))
        if not cells:
            continue
        title = f"{task.zh or name}：{task.metric}"
        file = folder / f"{name}.png"
        if numeric:
            key = next(iter(task.vary))
            lines = _lines(recipe, cells)
            plot_against_setting(lines, file, title=title, across=_across(key), metric=task.metric, demo=results.demo)
        else:
            bars = [(f"{_method(recipe, cell.method)} {setting(cell)}".strip(), _arm(recipe, cell.arm), cell.mean,
                     cell.sd) for cell in cells]
            plot_bars(bars, file, title=title, metric=task.metric, demo=results.demo)
        drawn.append(file.name)
    return drawn


def _across(key: str) -> str:
    return "标签比例（label fraction）" if key.endswith("fraction") else key


def _lines(recipe: ComparisonRecipe, cells: Sequence[Cell]) -> dict[str, dict[str, list[tuple[float, float, float]]]]:
    """Method → arm → (setting, mean, s.d.); what was not pretrained is drawn with every method."""
    methods = {cell.method for cell in cells} - {NONE} or {NONE}
    return {_method(recipe, method): {
        _arm(recipe, arm): sorted((float(next(iter(cell.point.values()))), cell.mean, cell.sd or 0.0)
                                  for cell in cells if cell.arm == arm and cell.method in (method, NONE))
        for arm in dict.fromkeys(cell.arm for cell in cells)} for method in recipe.Methods if method in methods
    } or {NO_PRETRAINING: {NO_PRETRAINING: sorted(
        (float(next(iter(cell.point.values()))), cell.mean, cell.sd or 0.0) for cell in cells)}}


def _arm(recipe: ComparisonRecipe, name: str) -> str:
    return NO_PRETRAINING if name == NONE else recipe.Arms[name].zh


def _method(recipe: ComparisonRecipe, name: str) -> str:
    return NO_PRETRAINING if name == NONE else recipe.Methods[name].zh or name


def _page(recipe: ComparisonRecipe, results: Results, figures: Sequence[str], seconds: float) -> Iterator[str]:
    yield "# 对比：" + "、".join(arm.zh for arm in recipe.Arms.values())
    yield ""
    if results.demo:
        yield "> 内置模体（phantom），非临床结果：只说明方法和代码，不说明真实胸片上谁更好。"
        yield ""
    if results.missing:
        yield f"> 还缺 {len(results.missing)} 项：{'、'.join(results.missing[:5])}"
        yield ""
    yield from _table(recipe, results)
    yield from _differences(recipe, results)
    yield from _expected(recipe, results)
    for arm in recipe.Arms.values():
        if arm.note:
            yield f"- {arm.zh}：{arm.note}"
    for notice in results.notices:
        yield f"- {notice}"
    yield f"- 全部运行的时间相加：{seconds / 60:.0f} 分钟；逐项见 runs.csv"
    yield ""
    for file in figures:
        yield f"![{file}]({file})"
        yield ""


def _table(recipe: ComparisonRecipe, results: Results) -> Iterator[str]:
    """A row for every method and arm, a column for every task and setting."""
    columns = list(dict.fromkeys((cell.task, setting(cell)) for cell in results.cells))
    rows = list(dict.fromkeys((cell.method, cell.arm) for cell in results.cells))
    found = {(cell.method, cell.arm, cell.task, setting(cell)): cell for cell in results.cells}
    heads = [f"{recipe.Tasks[task].zh or task} {point} {recipe.Tasks[task].metric}".replace("  ", " ")
             for task, point in columns]
    yield "| 方法 | 数据 | " + " | ".join(heads) + " |"
    yield "|" + " --- |" * (len(heads) + 2)
    for method, arm in rows:
        cells = [cell_text(found.get((method, arm, *column))) for column in columns]
        yield f"| {_method(recipe, method)} | {_arm(recipe, arm)} | " + " | ".join(cells) + " |"
    yield ""
    yield ("平均 ± 标准差（几个种子）；* 与参照组的差别在 Holm 校正后 p < "
           f"{SIGNIFICANT}（配对自助法，重抽测试图像 {recipe.Significance.resamples} 次）。")
    yield ""


def cell_text(cell: Cell | None) -> str:
    """``0.812 ± 0.011 *``; a dash where there is no result."""
    if cell is None:
        return "—"
    star = " *" if cell.p is not None and cell.p < SIGNIFICANT else ""
    return f"{cell.mean:.3f}" + (f" ± {cell.sd:.3f}" if cell.sd is not None else "") + star


def _differences(recipe: ComparisonRecipe, results: Results) -> Iterator[str]:
    cells = [cell for cell in results.cells if cell.difference]
    if not cells:
        return
    reference = next(arm.zh for arm in recipe.Arms.values() if arm.reference)
    yield f"## 与“{reference}”的差别"
    yield ""
    yield "| 方法 | 数据 | 任务 | 差别 | 95% 置信区间 | p | p（Holm） |"
    yield "|" + " --- |" * 7
    for cell in cells:
        found = cell.difference
        span = f"[{found.ci95[0]:+.3f}, {found.ci95[1]:+.3f}]" if found.ci95 else "—"
        yield (f"| {_method(recipe, cell.method)} | {_arm(recipe, cell.arm)} | "
               f"{recipe.Tasks[cell.task].zh or cell.task} {setting(cell)} | {found.value:+.3f} | {span} | "
               f"{_p(found.p)} | {_p(cell.p)} |")
    yield ""


def _p(value: float | None) -> str:
    return "—" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _expected(recipe: ComparisonRecipe, results: Results) -> Iterator[str]:
    """Whether the expected order appeared, said plainly."""
    if recipe.Expected is None:
        return
    order, arms = recipe.Expected.order, recipe.Arms
    yield f"## {recipe.Expected.source}的次序：" + " < ".join(arms[name].zh for name in order)
    yield ""
    appeared = total = 0
    for method, task, point in dict.fromkeys((cell.method, cell.task, setting(cell)) for cell in results.cells):
        means = {cell.arm: cell.mean for cell in results.cells
                 if (cell.method, cell.task, setting(cell)) == (method, task, point)}
        if not all(name in means for name in order):
            continue
        values = [means[name] for name in order]
        same = all(low < high for low, high in zip(values, values[1:], strict=False))
        appeared, total = appeared + same, total + 1
        got = " < ".join(arms[name].zh for name in sorted(order, key=lambda name: means[name]))
        yield (f"- {_method(recipe, method)}，{recipe.Tasks[task].zh or task} {point}：".replace(" ：", "：")
               + ("出现了" if same else f"没有出现，这里是 {got}"))
    yield ""
    yield f"共 {total} 处，{appeared} 处出现了这个次序，{total - appeared} 处没有。"
    yield ""
