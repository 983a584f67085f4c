"""What ``tools/prepare_data.py`` does: the data set of a recipe, of classes or of findings, checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from paddle_cxr.config import Origins, apply_overrides, explained
from paddle_cxr.data.prepare import prepare, summary
from paddle_cxr.data.prepare_source import open_to_check
from paddle_cxr.engine.jobs import job_named
from paddle_cxr.errors import UserError
from paddle_cxr.recipe import CLASSIFICATION, Loaded, task_of
from paddle_cxr.registry import build
from paddle_cxr.schema import PrepareSection, Section, checked

FINDINGS_TASKS = ("zero_shot", "grounding", "finetuning", "segmentation")
_KEY, _SOURCE = "Prepare.", "DataLoader.Source"


class _OwnSection(Section):
    """What a recipe of findings does not hold: it is said on the command line."""

    Prepare: PrepareSection = Field(default_factory=PrepareSection)


def prepare_data(config: str | Path, overrides: Sequence[str]) -> str:
    """Check a recipe's data set and write lists and a report; returns a summary for people.

    Raises:
        UserError: a mistake in the recipe, a task whose data this does not check, what is wrong with the data.
    """
    task = task_of(config, overrides)
    if task == CLASSIFICATION:
        loaded = _load(task, config, overrides)
        with explained(loaded.origins):
            source, absent = open_to_check("source", loaded.recipe.DataLoader.Source, _SOURCE, classes=loaded.classes)
            return summary(prepare(source, _split(loaded), **loaded.recipe.Prepare.model_dump(), absent=absent))
    if task not in FINDINGS_TASKS:
        raise UserError(f"Global.task：prepare_data 检查有类别或征象（finding）的数据"
                        f"（任务 {'、'.join((CLASSIFICATION, *FINDINGS_TASKS))}），不检查 {task} 的；"
                        "图文对（pairs）在训练时检查")
    own = _own(overrides)
    loaded = _load(task, config, [one for one in overrides if not one.startswith(_KEY)])
    with explained(loaded.origins):
        source, absent = open_to_check("findings", loaded.recipe.DataLoader.Source, _SOURCE)
        return summary(prepare(source, _split(loaded), **own.model_dump(), absent=absent))


def _load(task: str, config: str | Path, overrides: Sequence[str]) -> Loaded:
    return job_named(task).load(config, [*overrides, "fallback=null"])  # phantoms have no files to check


def _split(loaded: Loaded) -> Any:
    return build("split", loaded.recipe.DataLoader.Split, "DataLoader.Split")


def _own(overrides: Sequence[str]) -> PrepareSection:
    """The ``Prepare.`` keys of the command line."""
    raw: dict[str, Any] = {"Prepare": {}}
    origins: Origins = {}
    apply_overrides(raw, [one for one in overrides if one.startswith(_KEY)], origins)
    with explained(origins):
        return checked(raw, _OwnSection).Prepare
