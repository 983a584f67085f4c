"""Training a segmenter from a recipe to a finished output folder; see :mod:`paddle_cxr.engine.jobs`.

    checkpoints/      the weights, with what it takes to use them
    metrics.json      Dice, IoU and HD95 with 95 % intervals, on the test subset where the recipe names one
    per_image.csv     the same for every image and finding
    examples.png, worst_cases.png
"""

from __future__ import annotations

from collections.abc import Callable

import paddle

from paddle_cxr import cpu
from paddle_cxr.engine.distributed import World
from paddle_cxr.engine.optimizer import check_optimizer
from paddle_cxr.engine.run import foretell, open_folder
from paddle_cxr.recipe import Loaded
from paddle_cxr.registry import build
from paddle_cxr.tasks.findings_rules import check_test_subset, chooses_epoch
from paddle_cxr.tasks.models import freeze
from paddle_cxr.tasks.segmentation import losses  # noqa: F401  registers them
from paddle_cxr.tasks.segmentation.folds import cross_validate
from paddle_cxr.tasks.segmentation.models import build_segmenter, settle
from paddle_cxr.tasks.segmentation.schema import SegmentationRecipe
from paddle_cxr.tasks.segmentation.task import SegmentationTask
from paddle_cxr.tasks.segmentation.train import read_data, train_run


def check(recipe: SegmentationRecipe) -> None:
    """Check what can be checked before the slow part, reading the images.

    Raises:
        UserError: a wrong component, no starting point, another encoder.
    """
    section, settings = recipe.DataLoader, recipe.Global
    if chooses_epoch(settings) and not settings.folds:  # folds divide the images themselves
        check_test_subset(section.Eval.subset, section.Test and section.Test.subset, "最好的一轮")
    check_optimizer(recipe.Optimizer)
    build("segmentation_loss", recipe.Loss, "Loss")
    recipe = recipe.model_copy(deep=True)
    settle(recipe)
    if recipe.Arch.name == "UNet":  # PaddleSeg's are built with their weights, which takes as long as the real thing
        with paddle.LazyGuard():
            model, _ = build_segmenter(recipe, load_start=False)
        freeze(model, recipe.Global.freeze)


def run(loaded: Loaded, world: World, say: Callable[[str], None]) -> None:
    """Train, evaluate and write everything into ``Global.output_dir``; one run a fold where there are folds."""
    loaded.notices += settle(loaded.recipe)
    if loaded.recipe.Global.folds:
        for line in [*loaded.notices, cpu.describe()]:
            say(line)
        cross_validate(loaded, world, say)
        return
    folder = open_folder(loaded, loaded.recipe.Global.output_dir, world)
    try:
        train_run(loaded, read_data(loaded, folder.say, world), folder, world)
    finally:
        folder.close()


def dry_run(loaded: Loaded, world: World, say: Callable[[str], None]) -> None:
    """Build everything, run two steps and say what a whole run would take.  Nothing is written."""
    settings = loaded.recipe.Global
    for line in settle(loaded.recipe):
        say(line)
    fold = (settings.fold or 0) if settings.folds else None
    task = SegmentationTask(loaded, read_data(loaded, say, world, fold), world)
    foretell(task, loaded, world, say, loaded.recipe.Arch.name, len(task.train))
