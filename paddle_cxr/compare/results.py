"""What the runs of a comparison found: a cell for every arm, method, task and setting."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from paddle_cxr.compare.plan import NONE, Run
from paddle_cxr.compare.schema import ComparisonRecipe
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.per_image import PER_IMAGE
from paddle_cxr.evaluation.significance import (
    Difference,
    Statistic,
    holm,
    macro_auc_statistic,
    mean_statistic,
    paired_bootstrap,
)

_SAME = 1e-6  # the figure made of per_image.csv must be the one in metrics.json
_TOLD = ("patient_id", "truth_pixels")  # columns that come from the data, as the labels do


@dataclass(frozen=True)
class Cell:
    """One figure of the table.

    Attributes:
        arm, method, task: keys in the recipe (``none`` without pretraining).
        point: the values of the keys that are varied.
        values: one a seed, in the order of the runs.
        difference: to the reference arm with the same method, task and setting; None for the reference itself, or
            where nothing can be compared.
        p: of the difference, adjusted for the number of comparisons (Holm).
    """

    arm: str
    method: str
    task: str
    point: dict[str, Any]
    values: tuple[float, ...]
    difference: Difference | None = None
    p: float | None = None

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def sd(self) -> float | None:
        """Standard deviation over the seeds (n - 1 below the line); None for one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Results:
    """All cells, and what must be said of them.

    Attributes:
        cells: in the order of the recipe.
        missing: ids of runs without a result.
        notices: lines the user must see.
        demo: phantoms took part.
    """

    cells: list[Cell]
    missing: list[str]
    notices: list[str]
    demo: bool


@dataclass
class _Group:
    runs: list[Run] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)


def collect(recipe: ComparisonRecipe, runs: Sequence[Run], done: Sequence[str]) -> Results:
    """Read what the finished runs wrote.

    Args:
        runs: of the plan.
        done: ids of those that are finished.

    Raises:
        UserError: a run wrote no figure of that name.
    """
    groups: dict[str, _Group] = {}
    missing, undefined, demo = [], [], False
    for run in runs:
        if run.task is None:
            continue
        if run.id not in done:
            missing.append(run.id)
            continue
        metrics = _metrics(run)
        demo = demo or bool(metrics.get("demo_data"))
        value = _figure(metrics, recipe.Tasks[run.task].metric, run)
        if value is None:
            undefined.append(f"{run.id} 的 {recipe.Tasks[run.task].metric} 没有定义（null），表里不算它")
            continue
        group = groups.setdefault(_name(run.arm, run.method, run.task, run.point), _Group())
        group.runs.append(run)
        group.folders.append(run.results)
        group.values.append(value)
    cells = [Cell(group.runs[0].arm, group.runs[0].method, str(group.runs[0].task), group.runs[0].point,
                  tuple(group.values)) for group in groups.values()]
    cells, notices = _compared(recipe, cells, groups)
    return Results(cells, missing, [*undefined, *notices], demo)


def _metrics(run: Run) -> dict[str, Any]:
    file = run.results / "metrics.json"
    try:
        metrics = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(metrics["evaluation"], dict):
            return metrics
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{file} 读不了，或里面没有 evaluation；请删去 {run.folder}，重新运行同一命令，会重做这一项")


def _figure(metrics: dict[str, Any], name: str, run: Run) -> float | None:
    """None where the figure is there and undefined, as the AUC of a test set without a positive image."""
    found = metrics["evaluation"]
    if name in found and found[name] is None:
        return None
    if not isinstance(found.get(name), int | float):
        numbers = [key for key, value in found.items() if isinstance(value, int | float) and value is not True]
        raise UserError(f"Tasks.{run.task}.metric：{run.folder} 的 metrics.json 里没有 evaluation.{name}"
                        f"（有：{'、'.join(numbers) or '无'}）")
    return float(found[name])


def _name(arm: str, method: str, task: str, point: dict[str, Any]) -> str:
    return json.dumps([arm, method, task, point], default=str)


def _compared(recipe: ComparisonRecipe, cells: list[Cell], groups: dict[str, _Group]
              ) -> tuple[list[Cell], list[str]]:
    """Cells with their difference to the reference arm, and notices."""
    reference = next((name for name, arm in recipe.Arms.items() if arm.reference), None)
    if reference is None:
        return cells, []
    notices: dict[str, None] = {}
    compared = []
    for cell in cells:
        base = groups.get(_name(reference, cell.method, cell.task, cell.point))
        if cell.arm in (reference, NONE) or base is None:
            compared.append(cell)
            continue
        group = groups[_name(cell.arm, cell.method, cell.task, cell.point)]
        try:
            compared.append(replace(cell, difference=_difference(recipe, group, base)))
        except _NotComparable as reason:
            notices[f"{cell.task}：不做显著性检验，{reason}"] = None
            compared.append(cell)
    adjusted = holm([cell.difference.p if cell.difference else None for cell in compared])
    return [replace(cell, p=p) for cell, p in zip(compared, adjusted, strict=True)], list(notices)


class _NotComparable(Exception):
    """Says why, in a few words."""


def _difference(recipe: ComparisonRecipe, group: _Group, base: _Group) -> Difference:
    metric = recipe.Tasks[str(group.runs[0].task)].metric
    tables = [[_Table(folder) for folder in one.folders] for one in (group, base)]
    everything = [*tables[0], *tables[1]]
    if any(table.names != everything[0].names for table in everything):
        raise _NotComparable("各次运行测试的不是同一批图")
    if any(table.truth != everything[0].truth for table in everything):
        raise _NotComparable("各次运行测试的图，标签、患者或真实掩膜的大小不同（数据变过）")
    sides = [[table.statistic(metric, value) for table, value in zip(side, one.values, strict=True)]
             for side, one in zip(tables, (group, base), strict=True)]
    seeds = [[(run.pretraining_seed, run.seed) for run in one.runs] for one in (group, base)]
    return paired_bootstrap(sides[0], sides[1], len(everything[0].names), everything[0].patients,
                            recipe.Significance.resamples, recipe.Significance.seed, paired=seeds[0] == seeds[1])


class _Table:
    """``per_image.csv`` of one run."""

    def __init__(self, folder: Path) -> None:
        self._file = file = folder / PER_IMAGE
        try:
            with open(file, encoding="utf-8-sig", newline="") as stream:
                reader = csv.DictReader(stream)
                self.rows = list(reader)
                self.columns = list(reader.fieldnames or [])
        except OSError:
            raise _NotComparable(f"没有 {file}") from None
        self.names = [(row.get("file"), row.get("finding")) for row in self.rows]
        told = [column for column in self.columns if column.startswith("label:") or column in _TOLD]
        self.truth = [{column: row.get(column) for column in told} for row in self.rows]
        # Rows of one image (grounding has one a finding) are drawn together where the patient is not known.
        self.patients = [row.get("patient_id") or row.get("file") for row in self.rows]

    def statistic(self, metric: str, value: float) -> Statistic:
        """The figure as a function of how the rows are weighted."""
        findings = [column.removeprefix("label:") for column in self.columns if column.startswith("label:")]
        column = metric.removeprefix("mean_")
        if metric == "macro_auc" and findings:
            found = [macro_auc_statistic(self._numbers([f"label:{name}" for name in findings]),
                                         self._numbers([f"score:{name}" for name in findings]))]
        elif column in self.columns:
            values = self._numbers([column])[:, 0]
            kinds = [row.get("finding") or "" for row in self.rows]
            found = [mean_statistic(values, kinds), mean_statistic(values)]
        else:
            raise _NotComparable(f"per_image.csv 里没有 {metric} 的每图数值")
        for one in found:
            if abs(float(one(np.ones((1, len(self.rows))))[0]) - value) <= _SAME:
                return one
        raise _NotComparable(f"per_image.csv 的每图数值算不出 metrics.json 里的 {metric}")

    def _numbers(self, columns: Sequence[str]) -> np.ndarray:
        try:
            return np.array([[float(row[name]) if row[name] else np.nan for name in columns] for row in self.rows])
        except (ValueError, TypeError):  # a word, or a row that is too short
            raise _NotComparable(f"{self._file} 里有读不了的行") from None
