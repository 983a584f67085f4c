"""Fine-tuning from a recipe to a finished output folder; see :mod:`paddle_cxr.engine.jobs`.

    model/            the whole network: weights, findings, pre-processing, thresholds (tools/predict.py reads it)
    train_files.csv   the images that were trained on;  chosen_files.csv: those that thresholds and epoch come from
    metrics.json      the figures on DataLoader.Test's subset, under ``evaluation``
    per_image.csv     its labels and scores;  roc.png, curves.png
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from paddle_cxr import cpu, plots
from paddle_cxr.data.findings import label_matrix
from paddle_cxr.data.labelled import LabelledData
from paddle_cxr.data.transforms import build_transforms
from paddle_cxr.engine import checkpoint
from paddle_cxr.engine.distributed import World, wait_for_all
from paddle_cxr.engine.optimizer import check_optimizer
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.engine.provenance import CHOSEN_ON, say_chosen, say_seen, write_trained_on
from paddle_cxr.engine.run import circumstances, fit, foretell, open_folder
from paddle_cxr.errors import UserError
from paddle_cxr.files import write_json
from paddle_cxr.recipe import Loaded
from paddle_cxr.tasks.findings_rules import check_test_subset, chooses_epoch
from paddle_cxr.tasks.finetuning.data import check_validation, read_data, training_positions
from paddle_cxr.tasks.finetuning.features import TowerFeatures
from paddle_cxr.tasks.finetuning.folds import cross_validate, one_fold
from paddle_cxr.tasks.finetuning.report import chosen_thresholds, say_metrics, write_report
from paddle_cxr.tasks.finetuning.schema import FinetuningRecipe
from paddle_cxr.tasks.finetuning.start import build_classifier, settle
from paddle_cxr.tasks.finetuning.task import FinetuningTask, LinearProbeTask
from paddle_cxr.tasks.start import MODEL, weights_of
from paddle_cxr.weights import load_weights, save_weights


def check(recipe: FinetuningRecipe) -> None:
    """Check what can be checked before the slow part, reading the images; raises UserError."""
    section = recipe.DataLoader
    if not recipe.Global.folds:  # which divide the images themselves; tools/eval.py may well evaluate Test's subset
        check_test_subset(section.Eval.subset, section.Test and section.Test.subset,
                          "阈值和最好的一轮" if chooses_epoch(recipe.Global) else "阈值")
    settle(recipe)
    check_optimizer(recipe.Optimizer)
    build_transforms(recipe.DataLoader.Train.transform_ops, "DataLoader.Train.transform_ops")


def run(loaded: Loaded, world: World, say: Callable[[str], None]) -> None:
    """Train, evaluate and write everything into ``Global.output_dir``."""
    loaded.notices += settle(loaded.recipe)
    if loaded.recipe.Global.folds:
        for line in [*loaded.notices, cpu.describe()]:
            say(line)
        cross_validate(loaded, read_data(loaded, say, world), world, say)
        return
    folder = open_folder(loaded, loaded.recipe.Global.output_dir, world)
    try:
        train_run(loaded, read_data(loaded, folder.say, world), folder, world)
    finally:
        folder.close()


def dry_run(loaded: Loaded, world: World, say: Callable[[str], None]) -> None:
    """Build everything, run two steps and say what a whole run would take.  Nothing is written."""
    for line in settle(loaded.recipe):
        say(line)
    data = read_data(loaded, say, world)
    if loaded.recipe.Global.folds:
        loaded, data = one_fold(loaded, data, loaded.recipe.Global.fold or 0)
    task = prepare(loaded, data, world, say)
    foretell(task, loaded, world, say, loaded.recipe.Model.arch, len(task.train))


def prepare(loaded: Loaded, data: LabelledData, world: World, say: Callable[[str], None]) -> FinetuningTask:
    """Model and task; says what the user should know of them.

    Raises:
        UserError: nothing to learn, nothing to choose an epoch by, what a component has to say.
    """
    recipe = loaded.recipe
    findings = data.source.findings
    labels = label_matrix(data.source.records, [one.name for one in findings])
    train = training_positions(data, recipe.DataLoader.Train.subset, recipe.Finetune, findings, labels, say)
    if recipe.DataLoader.Test:
        data.positions(recipe.DataLoader.Test.subset)  # better now than after training
    settings = recipe.Global
    if chooses_epoch(settings):
        check_validation(data, recipe.DataLoader.Eval.subset, labels)
    paddle.seed(settings.seed)  # a fresh last layer is the same on every rank and in every run with this seed
    network, notices = build_classifier(recipe, len(findings))
    if recipe.Finetune.mode == "linear_probe" and recipe.DataLoader.Train.transform_ops:
        notices.append("!! Finetune.mode: linear_probe 的特征只算一次，不做数据增强："
                       "略去 DataLoader.Train.transform_ops")
    for line in notices:
        say(line)
    arguments = (loaded, data, findings, labels, train, network, world)
    if recipe.Finetune.mode == "all":
        return FinetuningTask(*arguments)
    section = recipe.DataLoader
    folder = Path(section.cache.folder) if section.cache.mode == "disk" else None
    return LinearProbeTask(*arguments, features=TowerFeatures(
        network, data, section.Eval.sampler.batch_size, world, folder, say))


def train_run(loaded: Loaded, data: LabelledData, folder: RunFolder, world: World) -> dict[str, Any]:
    """Train (or continue), evaluate the kept weights, write every artefact; returns what ``metrics.json`` holds."""
    recipe = loaded.recipe
    task = prepare(loaded, data, world, folder.say)
    if world.is_main:
        write_trained_on(folder.path, data, task.train)
    _check_tower(task, folder)
    state, kept = fit(task, recipe, folder, world)
    task.finish()
    thresholds = _thresholds(task)
    results = {
        "demo_data": data.source.demo, "architecture": recipe.Model.arch, "parent": recipe.Model.checkpoint,
        "finetune": recipe.Finetune.model_dump(),
        "dataset": {"name": data.source.name, "fingerprint": data.source.fingerprint(), "train": len(task.train),
                    "positives": {one.name: int(number) for one, number in zip(
                        task.findings, (task.labels[task.train] == 1).sum(axis=0), strict=True)}},
        "history": {"epochs": state.epoch, "seconds": round(state.seconds, 1), "best": state.best},
        "weights": str(kept.relative_to(folder.path))}
    chosen_on, what = _chosen(task, thresholds)
    if world.is_main:
        write_trained_on(folder.path, data, chosen_on, CHOSEN_ON)
    results |= _evaluate(task, thresholds, folder, chosen_on, what) | circumstances(recipe.Global.seed)
    if world.is_main:
        plots.plot_training_curves(state.history, folder.path / "curves.png", demo=data.source.demo)
        folder.image("curves", folder.path / "curves.png", state.epoch)
        _save_model(folder.path / MODEL, task, thresholds)
        write_json(folder.path / "metrics.json", results)
        folder.say(f"模型写在 {folder.path / MODEL}，全部结果写在 {folder.path}")
    wait_for_all(world)
    return results


def _check_tower(task: FinetuningTask, folder: RunFolder) -> None:
    """A linear probe's checkpoint is the last layer alone; it goes on with the tower it was trained on."""
    latest = checkpoint.find(folder.checkpoints / "latest")
    if latest is not None and isinstance(task, LinearProbeTask) and load_weights(latest)[1].get("tower") != task.tower:
        raise UserError(f"{folder.path} 里未完成的训练用的是另一份起点权重；Model.checkpoint 的内容变了，"
                        "请用 -o Global.resume=false 从头训练（旧结果会改名保留）")


def positions_or_none(data: LabelledData, subset: str) -> np.ndarray | None:
    """A subset's positions; None where it has none: a run without validation may train on everything."""
    try:
        return data.positions(subset)
    except UserError:
        return None


def _thresholds(task: FinetuningTask) -> list[float] | None:
    """From the validation subset, where there is one."""
    positions = positions_or_none(task.data, task.recipe.DataLoader.Eval.subset)
    return None if positions is None else chosen_thresholds(task.labels[positions], task.scores(positions))


def _chosen(task: FinetuningTask, thresholds: list[float] | None) -> tuple[np.ndarray, str]:
    """The positions on which something was chosen, and what."""
    epoch = chooses_epoch(task.recipe.Global)
    cuts = thresholds is not None and not np.isnan(thresholds).all()
    if not (epoch or cuts):
        return np.zeros(0, np.int64), ""
    what = "最好的一轮和阈值" if epoch and cuts else "阈值" if cuts else "最好的一轮"
    return task.data.positions(task.recipe.DataLoader.Eval.subset), what


def _evaluate(task: FinetuningTask, thresholds: list[float] | None, folder: RunFolder, chosen_on: np.ndarray,
              what: str) -> dict[str, Any]:
    section = task.recipe.DataLoader
    subset = section.Test.subset if section.Test else section.Eval.subset
    positions = positions_or_none(task.data, subset)
    if positions is None:
        return {}
    scores = task.scores(positions)  # every rank has its share in it
    if not task.world.is_main:
        return {}
    metrics = write_report(folder.path, task.data, positions, task.findings, task.labels[positions], scores,
                           thresholds, task.recipe.Metric)
    folder.image("roc", folder.path / "roc.png", 0)
    folder.say(f"在子集 {subset}（{len(positions)} 张）上：")
    say_metrics(metrics, folder.say)
    chosen = say_chosen(task.data, positions, chosen_on, what, folder.say)
    start = task.recipe.Model.checkpoint
    seen = say_seen(task.data, positions, task.train, weights_of(start) if isinstance(start, str) else None, folder.say)
    return {"evaluation": {"subset": subset, "images": len(positions), **seen, **chosen,
                           "thresholds_from": section.Eval.subset if thresholds else None} | metrics}


def _save_model(folder: Path, task: FinetuningTask, thresholds: list[float] | None) -> None:
    """Write the whole network, whatever part of it was trained."""
    cuts = thresholds or [np.nan] * len(task.findings)
    save_weights(folder, {name: tensor.numpy() for name, tensor in task.network.state_dict().items()},
                 task.network_meta() | {"thresholds": {one.name: None if np.isnan(cut) else cut
                                                       for one, cut in zip(task.findings, cuts, strict=True)}})
