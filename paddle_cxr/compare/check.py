"""Reading the recipe of every run before the first one starts: a mistake in the last would show after days."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from paddle_cxr.compare.plan import Run
from paddle_cxr.engine.jobs import job_named
from paddle_cxr.errors import UserError
from paddle_cxr.files import write_text


def check_recipes(runs: Sequence[Run]) -> list[str]:
    """Check every run's recipe as the run itself will.  Nothing is written, and Paddle is not loaded.

    Returns:
        Which data sets are not there, one line each.

    Raises:
        UserError: a mistake in a recipe, naming the run, the recipe it starts from and the key.
    """
    absent: dict[str, None] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.yaml"
        for run in runs:
            recipe = run.recipe()
            write_text(file, yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False))
            load = job_named(recipe["Global"]["task"]).load
            try:
                load(file, for_data=False)
            except UserError as error:
                raise UserError(f"{run.id}（{run.base}）：{_plain(error)}") from None
            try:
                load(file)
            except UserError as error:
                absent[_plain(error).partition("；")[0]] = None
    return list(absent)


def _plain(error: UserError) -> str:
    """Without the place in the file, which is gone by then."""
    return str(error.__cause__ or error)


def unequal_steps(runs: Sequence[Run]) -> list[str]:
    """A line for every method whose arms need not take equally many optimiser steps, and so are hard to compare."""
    notices = []
    for method in dict.fromkeys(run.method for run in runs if run.task is None):
        arms = {run.arm: _steps(run.recipe()) for run in runs if run.task is None and run.method == method}
        if len(arms) < 2:
            continue
        settings = next(iter(arms.values()))
        if len(set(map(str, arms.values()))) > 1:
            reason = "各组的轮数、批大小、samples_per_epoch 或 early_stop 不同"
        elif settings["samples_per_epoch"] is None:
            reason = "没有写 DataLoader.Train.sampler.samples_per_epoch，数据多的组步数多"
        elif settings["early_stop"] is not None:
            reason = "有早停（Global.early_stop），各组会停在不同的步数"
        else:
            continue
        notices.append(f"{method} 的优化步数各组可能不等：{reason}")
    return notices


def _steps(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What decides how many steps a pretraining takes."""
    sampler = recipe["DataLoader"]["Train"]["sampler"]
    return {"epochs": recipe["Global"].get("epochs"), "early_stop": recipe["Global"].get("early_stop"),
            **{key: sampler.get(key) for key in ("batch_size", "samples_per_epoch", "drop_last")}}
