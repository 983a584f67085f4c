"""Reading a comparison's recipe, and every recipe it names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddle_cxr.compare.schema import ComparisonRecipe
from paddle_cxr.config import Origins, explained, read_recipe
from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.recipe import CLASSIFICATION
from paddle_cxr.synthesis.schema import load_recipe

PRETRAINING = "pretraining"
NONE = "none"
"""Stands for arm and method of a run without pretraining."""
TRAINED = ("finetuning", "segmentation")
EVALUATED = ("zero_shot", "grounding")


@dataclass(frozen=True)
class LoadedComparison:
    """A comparison ready to plan.

    Attributes:
        recipe: the checked sections.
        origins: where each value was written.
        tasks: the ``Global.task`` of every entry of ``Tasks``.
    """

    recipe: ComparisonRecipe
    origins: Origins
    tasks: dict[str, str]


def load(file: str | Path, overrides: Sequence[str] = ()) -> LoadedComparison:
    """Read, override and check a comparison's recipe; the recipes it names must exist and be of a fitting task.

    Raises:
        UserError: any mistake, naming file, line and YAML path.
    """
    recipe, origins = load_recipe(file, overrides, ComparisonRecipe)
    with explained(origins):
        for section, taken in (("Arms", NONE), ("Methods", NONE), ("Tasks", PRETRAINING)):
            if taken in getattr(recipe, section):
                raise UserError(f"{section}.{taken}：这个名字程序自己要用（文件夹名），请换一个，显示名写在 zh")
        _all_different(recipe.Pretraining.seeds, "Pretraining.seeds")
        if sum(arm.reference for arm in recipe.Arms.values()) > 1:
            raise UserError("Arms：只能有一组写 reference: true，其他各组与它比较")
        for i, name in enumerate(recipe.Expected.order if recipe.Expected else []):
            if name not in recipe.Arms:
                raise UserError(f"Expected.order.{i}：Arms 里没有 {name!r}{did_you_mean(name, recipe.Arms)}")
        for name, method in recipe.Methods.items():
            _of_task(method.recipe, f"Methods.{name}.recipe", (PRETRAINING,))
            for key in method.tasks:
                if key not in recipe.Tasks:
                    raise UserError(f"Methods.{name}.tasks.{key}：Tasks 里没有 {key!r}"
                                    f"{did_you_mean(key, recipe.Tasks)}")
        tasks = {name: _task(task, f"Tasks.{name}") for name, task in recipe.Tasks.items()}
    return LoadedComparison(recipe, origins, tasks)


def _task(section: Any, path: str) -> str:
    task = _of_task(section.recipe, f"{path}.recipe", (*TRAINED, *EVALUATED))
    if task in EVALUATED and section.seeds:
        raise UserError(f"{path}.seeds：{task} 只评估，没有随机性，跑几次都一样；请去掉 seeds")
    if task in EVALUATED and section.baseline:
        raise UserError(f"{path}.baseline：没有预训练就没有文本塔，不能做 {task}；请去掉 baseline")
    if task in TRAINED and not section.seeds:
        raise UserError(f"{path}.seeds：{task} 要训练，结果随种子而变；请写种子，如 seeds: [0, 1, 2]")
    _all_different(section.seeds or [None], f"{path}.seeds")
    for key, values in section.vary.items():
        _all_different(values, f"{path}.vary.{key}")
        _all_named_differently(values, f"{path}.vary.{key}")
    return task


def _all_different(values: Sequence[Any], path: str) -> None:
    """What is written twice would be two runs in one folder."""
    if not values or len(set(map(str, values))) < len(values):
        raise UserError(f"{path}：应写几个不同的值，现在是 {values}")


def plain(value: Any) -> str:
    """A varied value as part of a folder's name."""
    return "".join(char if char.isalnum() or char in "._-" else "_" for char in str(value))


def _all_named_differently(values: Sequence[Any], path: str) -> None:
    """Two values of one folder would be one run."""
    named: dict[str, Any] = {}
    for value in values:
        name = plain(value)
        if name in named:
            raise UserError(f"{path}：{named[name]!r} 和 {value!r} 的文件夹名都是 {name}（字母、数字和 . _ - 以外的字符"
                            "写成 _）；请改其中一个")
        named[name] = value


def _of_task(file: str, path: str, wanted: Sequence[str]) -> str:
    if not Path(file).is_file():
        raise UserError(f"{path}：找不到配方 {file}")
    settings = read_recipe(file)[0].get("Global")
    task = settings.get("task", CLASSIFICATION) if isinstance(settings, dict) else None
    if task not in wanted:
        raise UserError(f"{path}：{file} 的 Global.task 是 {task}，这里要 {'、'.join(wanted)} 的配方")
    return str(task)
