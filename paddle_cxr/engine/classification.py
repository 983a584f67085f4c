"""Training a classifier: one run, or one a fold; see :mod:`paddle_cxr.engine.jobs`."""

from __future__ import annotations

from collections.abc import Callable

from paddle_cxr import cpu
from paddle_cxr.engine.crossval import cross_validate
from paddle_cxr.engine.distributed import World
from paddle_cxr.engine.run import foretell, load_data, open_folder, train_run
from paddle_cxr.recipe import Loaded
from paddle_cxr.tasks.classification import ClassificationTask
from paddle_cxr.tasks.classification import check_components as check

__all__ = ["check", "dry_run", "run"]


def run(loaded: Loaded, world: World, say: Callable[[str], None]) -> None:
    """Train, evaluate and write everything into ``Global.output_dir``."""
    if loaded.recipe.Global.folds:
        for line in [*loaded.notices, cpu.describe()]:
            say(line)
        cross_validate(loaded, world, say)
        return
    folder = open_folder(loaded, loaded.recipe.Global.output_dir, world)
    try:
        train_run(loaded, load_data(loaded, folder.say, world), folder, world)
    finally:
        folder.close()


def dry_run(loaded: Loaded, world: World, say: Callable[[str], None]) -> None:
    """Build everything, run two steps and say what a whole run would take.  Nothing is written."""
    task = ClassificationTask(loaded, load_data(loaded, say, world), world)
    foretell(task, loaded, world, say, loaded.recipe.Arch["name"], len(task.train))
