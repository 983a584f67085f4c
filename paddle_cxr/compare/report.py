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
            "p", "p_holm", "demo_data"]


def write_report(folder: Path, recipe: ComparisonRecipe, results: Results, runs: Sequence[Run],
                 seconds: dict[str, float]) -> Path:
    """Write ``compare.md``, ``compare.csv``, ``runs.csv`` and the figures into ``folder``; returns the page.

    Raises:
        UserError: a file cannot be written.
    """
    write_table(folder / "compare.csv", _COLUMNS, ([*_row(cell), int(results.demo)] for cell in results.cells))
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
    return "" if value is None or value == "" else f"{value:.6g}"


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


def _reference(recipe: ComparisonRecipe) -> str | None:
    return next((arm.zh for arm in recipe.Arms.values() if arm.reference), None)


def _method(recipe: ComparisonRecipe, name: str) -> str:
    return NO_PRETRAINING if name == NONE else recipe.Methods[name].zh or name


def _task(recipe: ComparisonRecipe, task: str, point: str) -> str:
    """``微调（fine-tuning），fraction=0.01``."""
    return (recipe.Tasks[task].zh or task) + (f"，{point}" if point else "")


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
    yield from _baseline(recipe, results)
    yield "## 说明"
    yield ""
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
    order = [*recipe.Methods, NONE]  # what was not pretrained comes last
    rows = sorted(dict.fromkeys((cell.method, cell.arm) for cell in results.cells), key=lambda row: order.index(row[0]))
    found = {(cell.method, cell.arm, cell.task, setting(cell)): cell for cell in results.cells}
    heads = [f"{_task(recipe, task, point)}：{recipe.Tasks[task].metric}" for task, point in columns]
    yield "| 方法 | 数据 | " + " | ".join(heads) + " |"
    yield "|" + " --- |" * (len(heads) + 2)
    for method, arm in rows:
        cells = [cell_text(found.get((method, arm, *column))) for column in columns]
        yield f"| {_method(recipe, method)} | {_arm(recipe, arm)} | " + " | ".join(cells) + " |"
    yield ""
    reference = _reference(recipe)
    star = "" if reference is None else (
        f"；* 与参照组“{reference}”的差别在 Holm 校正后 p < {SIGNIFICANT}"
        f"（配对自助法，重抽测试图像和训练种子 {recipe.Significance.resamples} 次；只有一个种子时，不含种子的偶然）")
    yield f"平均 ± 标准差（几个训练种子）{star}。"
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
    yield f"## 与“{_reference(recipe)}”的差别"
    yield ""
    yield "| 方法 | 数据 | 任务 | 差别 | 95% 置信区间 | p | p（Holm） |"
    yield "|" + " --- |" * 7
    for cell in cells:
        found = cell.difference
        span = f"[{found.ci95[0]:+.3f}, {found.ci95[1]:+.3f}]" if found.ci95 else "—"
        yield (f"| {_method(recipe, cell.method)} | {_arm(recipe, cell.arm)} | "
               f"{_task(recipe, cell.task, setting(cell))} | {found.value:+.3f} | {span} | "
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
    appeared = total = incomplete = 0
    for method, task, point in dict.fromkeys((cell.method, cell.task, setting(cell)) for cell in results.cells):
        cells = {cell.arm: cell for cell in results.cells
                 if (cell.method, cell.task, setting(cell)) == (method, task, point)}
        if method == NONE:
            continue
        if not all(name in cells for name in order):
            incomplete += 1
            continue
        means = [cells[name].mean for name in order]
        same = all(low < high for low, high in zip(means, means[1:], strict=False))
        appeared, total = appeared + same, total + 1
        yield (f"- {_method(recipe, method)}，{_task(recipe, task, point)}："
               + ("出现了" if same else f"没有出现，这里是 {_order(recipe, [cells[name] for name in order])}")
               + _chance(recipe, [cells[name] for name in order]))
    yield ""
    yield (f"共 {total} 处，{appeared} 处出现了这个次序，{total - appeared} 处没有"
           + (f"；另有 {incomplete} 处缺结果，没有判断。" if incomplete else "。"))
    yield ""


def _baseline(recipe: ComparisonRecipe, results: Results) -> Iterator[str]:
    """Whether pretraining was worth it at all, said plainly."""
    without = [cell for cell in results.cells if cell.method == NONE]
    if not without:
        return
    yield f"## 与“{NO_PRETRAINING}”比"
    yield ""
    for base in without:
        others = [cell for cell in results.cells
                  if cell.method != NONE and (cell.task, cell.point) == (base.task, base.point)]
        lower = [f"{_method(recipe, cell.method)} {_arm(recipe, cell.arm)}（{cell_text(cell).rstrip(' *')}）"
                 for cell in others if cell.mean <= base.mean]
        yield (f"- {_task(recipe, base.task, setting(base))}：不预训练 {cell_text(base)}，{len(others)} 组预训练里 "
               f"{len(others) - len(lower)} 组更高" + (f"；不高的：{'、'.join(lower)}" if lower else ""))
    yield ""


def _order(recipe: ComparisonRecipe, cells: Sequence[Cell]) -> str:
    """Arms by rising mean: ``合成 < 真实 = 混合``."""
    ranked = sorted(cells, key=lambda cell: cell.mean)
    signs = [" = " if low.mean == high.mean else " < " for low, high in zip(ranked, ranked[1:], strict=False)]
    return "".join(f"{_arm(recipe, cell.arm)}{sign}" for cell, sign in zip(ranked, [*signs, ""], strict=True))


def _chance(recipe: ComparisonRecipe, cells: Sequence[Cell]) -> str:
    """Which of them differ from the reference by more than chance; empty where nothing was tested."""
    tested = [cell for cell in cells if cell.p is not None]
    if not tested:
        return ""
    beyond = [f"{_arm(recipe, cell.arm)}{'更高' if cell.difference.value > 0 else '更低'}" for cell in tested
              if cell.p < SIGNIFICANT]
    return "；显著的差别：" + ("、".join(beyond) if beyond else "没有，名次可能是偶然")
