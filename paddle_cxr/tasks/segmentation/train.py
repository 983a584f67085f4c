"""One training of a segmenter: data in, a finished output folder out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from tqdm import tqdm

from paddle_cxr import plots
from paddle_cxr.engine.distributed import World, wait_for_all
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.engine.provenance import CHOSEN_ON, say_chosen, say_seen, write_trained_on
from paddle_cxr.engine.run import circumstances, fit, progress_of
from paddle_cxr.errors import UserError
from paddle_cxr.files import write_json
from paddle_cxr.recipe import Loaded
from paddle_cxr.tasks.findings_rules import chooses_epoch
from paddle_cxr.tasks.segmentation.data import SegmentationData, load_segmentation
from paddle_cxr.tasks.segmentation.models import Segmenter
from paddle_cxr.tasks.segmentation.report import evaluate_on
from paddle_cxr.tasks.segmentation.task import SegmentationTask
from paddle_cxr.tasks.start import weights_of


def read_data(loaded: Loaded, say: Callable[[str], None], world: World, fold: int | None = None) -> SegmentationData:
    """Decode the recipe's annotated images and their masks."""
    with tqdm(desc="读图", disable=not (world.is_main and sys.stderr.isatty()), leave=False) as bar:
        data = load_segmentation(loaded, say, progress_of(bar), fold=fold)
    wait_for_all(world)
    return data


def train_run(loaded: Loaded, data: SegmentationData, folder: RunFolder, world: World) -> None:
    """Train (or continue), evaluate the kept weights, write every artefact."""
    recipe, source = loaded.recipe, data.images.source
    task = SegmentationTask(loaded, data, world)
    folder.say(f"数据：{source.name}，{len(data.annotated)} 张，训练 {len(task.train)} 张")
    for notice in task.notices:
        folder.say(notice)
    section = recipe.DataLoader
    subset = section.Test.subset if section.Test else section.Eval.subset
    positions = _positions(data, subset, required=section.Test is not None)  # better now than after training
    if world.is_main:
        write_trained_on(folder.path, data.images, task.train)
        write_trained_on(folder.path, data.images, _chosen_on(task), CHOSEN_ON)
    state, kept = fit(task, recipe, folder, world)
    results: dict[str, Any] = {
        "demo_data": source.demo, "architecture": recipe.Arch.name, "image_encoder": recipe.Arch.encoder,
        "dataset": {"name": source.name, "fingerprint": source.fingerprint(), "train": len(task.train)},
        "history": {"epochs": state.epoch, "seconds": round(state.seconds, 1), "best": state.best},
        "weights": str(kept.relative_to(folder.path)), **circumstances(recipe.Global.seed)}
    if len(positions):
        task.model.eval()
        segmenter = Segmenter(task.model, data.findings, data.images.preprocess, kept, task.meta())
        folder.say(f"在子集 {subset}（{len(positions)} 张）上：")
        found = evaluate_on(recipe, segmenter, data, positions, folder, world)
        results["evaluation"] = {"subset": subset, **_seen_before(task, positions, folder.say)} | found
    if world.is_main:
        plots.plot_training_curves(state.history, folder.path / "curves.png", demo=source.demo)
        folder.image("curves", folder.path / "curves.png", state.epoch)
        write_json(folder.path / "metrics.json", results)  # last: it says that the run is complete
        folder.say(f"全部结果写在 {folder.path}")
    wait_for_all(world)


def _seen_before(task: SegmentationTask, positions: np.ndarray, say: Callable[[str], None]) -> dict[str, Any]:
    """How many of the evaluated images trained this model, or the one it starts from, or chose its epoch; says so."""
    images, start = task.data.images, task.recipe.Model.checkpoint
    seen = say_seen(images, positions, task.train, weights_of(start) if isinstance(start, str) else None, say)
    return seen | say_chosen(images, positions, _chosen_on(task), "最好的一轮", say)


def _chosen_on(task: SegmentationTask) -> np.ndarray:
    """The positions on which the best epoch is chosen, if any."""
    return task.validation if chooses_epoch(task.recipe.Global) else np.zeros(0, np.int64)


def _positions(data: SegmentationData, subset: str, *, required: bool) -> np.ndarray:
    """The images of a subset; none where it was not asked for and is not there: a run may train on everything."""
    try:
        return data.images.positions(subset)
    except UserError:
        if required:
            raise
        return np.zeros(0, np.int64)
