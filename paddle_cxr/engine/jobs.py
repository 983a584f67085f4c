"""What ``tools/train.py`` and ``tools/eval.py`` do for each ``Global.task``: how a recipe is read, what is run."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from paddle_cxr.config import explained
from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.recipe import CLASSIFICATION


@dataclass(frozen=True)
class Job:
    """Two modules: reading a recipe must not load Paddle, whose threads are set up after it.

    Attributes:
        recipe: module with ``load(file, overrides) -> Loaded``.
        run: module with ``check(recipe)``, which refuses wrong components before anything slow;
            ``dry_run(loaded, world, say)`` and ``run(loaded, world, say)``; None for a task that only evaluates.
        evaluate: module with ``evaluate(loaded)``, which writes an evaluation; None where there is none.
    """

    recipe: str
    run: str | None
    evaluate: str | None = None

    @property
    def load(self) -> Callable:
        return importlib.import_module(self.recipe).load

    def open(self) -> ModuleType:
        """The module that runs it; imports Paddle."""
        return importlib.import_module(self.run)


JOBS = {
    CLASSIFICATION: Job("paddle_cxr.recipe", "paddle_cxr.engine.classification", "paddle_cxr.engine.evaluate"),
    "diffusion": Job("paddle_cxr.tasks.diffusion.recipe", "paddle_cxr.tasks.diffusion.run"),
    "pretraining": Job("paddle_cxr.tasks.pretraining.recipe", "paddle_cxr.tasks.pretraining.run",
                       "paddle_cxr.tasks.pretraining.evaluate"),
    "finetuning": Job("paddle_cxr.tasks.finetuning.recipe", "paddle_cxr.tasks.finetuning.run",
                      "paddle_cxr.tasks.finetuning.evaluate"),
    "segmentation": Job("paddle_cxr.tasks.segmentation.recipe", "paddle_cxr.tasks.segmentation.run",
                        "paddle_cxr.tasks.segmentation.evaluate"),
    "zero_shot": Job("paddle_cxr.tasks.zero_shot.recipe", None, "paddle_cxr.tasks.zero_shot.evaluate"),
    "grounding": Job("paddle_cxr.tasks.grounding.recipe", None, "paddle_cxr.tasks.grounding.evaluate"),
}


def evaluator(task: str) -> Callable[[argparse.Namespace], int]:
    """What ``tools/eval.py`` does for ``Global.task``; imports Paddle.  Raises UserError where there is none."""
    job = job_named(task)
    if job.evaluate is None:
        able = "、".join(name for name, job in JOBS.items() if job.evaluate)
        raise UserError(f"Global.task：tools/eval.py 不评估 {task}（可以：{able}）；"
                        "画出的图用 tools/analyze.py fidelity 评估")
    work = importlib.import_module(job.evaluate).evaluate

    def evaluate(arguments: argparse.Namespace) -> int:
        loaded = job.load(arguments.config, arguments.override)
        with explained(loaded.origins):
            work(loaded)
        return 0

    return evaluate


def training_job(task: str) -> Job:
    """The job of ``Global.task``; raises :class:`UserError` where there is nothing to train."""
    job = job_named(task)
    if job.run is None:
        raise UserError(f"Global.task：{task} 只评估，不训练；请用 tools/eval.py")
    return job


def job_named(task: str) -> Job:
    """The job of ``Global.task``; raises :class:`UserError` naming those that there are."""
    if task not in JOBS:
        raise UserError(f"Global.task：tools/train.py 不认识任务 {task!r}{did_you_mean(task, JOBS)}"
                        f"（可用：{'、'.join(JOBS)}；合成与分析的配方用 tools/synthesize.py 和 tools/analyze.py）")
    return JOBS[task]
