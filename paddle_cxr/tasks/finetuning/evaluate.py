"""Evaluating a fine-tuned network on any subset of any findings: what ``tools/eval.py`` does for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from paddle_cxr import cpu
from paddle_cxr.data.findings import label_matrix
from paddle_cxr.data.labelled import LabelledData, part_of
from paddle_cxr.engine.continuing import dump
from paddle_cxr.engine.distributed import World, select_device
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.engine.provenance import say_chosen_before, say_overlap
from paddle_cxr.engine.run import circumstances
from paddle_cxr.errors import UserError
from paddle_cxr.files import write_json, write_text
from paddle_cxr.recipe import Loaded
from paddle_cxr.tasks.finetuning.data import read_data
from paddle_cxr.tasks.finetuning.folds import one_fold
from paddle_cxr.tasks.finetuning.report import WRITTEN, say_metrics, write_report
from paddle_cxr.tasks.finetuning.schema import FinetuningRecipe
from paddle_cxr.tasks.finetuning.task import scores_of
from paddle_cxr.tasks.finetuning.trained import Trained, open_trained


def evaluate(loaded: Loaded) -> None:
    """Evaluate and write ``<output_dir>/eval_<subset>/``."""
    recipe = loaded.recipe
    for line in [*loaded.notices, *select_device(recipe.Global.device, World())[1], cpu.describe()]:
        print(line)
    trained, notices = open_trained(recipe)
    for line in notices:
        print(line)
    subset = recipe.DataLoader.Eval.subset
    data, output = _images(loaded, subset)
    folder = RunFolder(output / f"eval_{subset}")
    try:
        folder.say(f"权重：{trained.weights}")
        _evaluate(recipe, trained, data, folder)
        folder.say(f"评估结果写在 {folder.path}")
    finally:
        folder.close()


def _images(loaded: Loaded, subset: str) -> tuple[LabelledData, Path]:
    """The images to evaluate, and the folder of the run; a fold's subsets are its own."""
    settings = loaded.recipe.Global
    if settings.fold is None:
        return read_data(loaded, print, World(), only=subset), Path(settings.output_dir)
    one, data = one_fold(loaded, read_data(loaded, print, World()), settings.fold)
    return part_of(data, data.positions(subset)), Path(one.recipe.Global.output_dir)


def _evaluate(recipe: FinetuningRecipe, trained: Trained, data: LabelledData, folder: RunFolder) -> None:
    positions = np.arange(len(data.images))
    names = [one.name for one in trained.findings]
    labels = label_matrix(data.source.records, names)
    if np.isnan(labels).all():
        there = "、".join(one.name for one in data.source.findings)
        raise UserError(f"这 {len(positions)} 张图没有模型所学征象（{'、'.join(names)}）的标签（数据集有：{there}）；"
                        "名字不同时，请换数据集的写法")
    folder.forget(*WRITTEN)
    write_text(folder.path / "config.yaml", dump(recipe))
    scores = scores_of(trained.model, data, positions, recipe, World())
    metrics = write_report(folder.path, data, positions, trained.findings, labels, scores, trained.thresholds,
                           recipe.Metric)
    folder.say(f"子集 {recipe.DataLoader.Eval.subset}，{len(positions)} 张：")
    say_metrics(metrics, folder.say)
    overlap = say_overlap(trained.weights, data, folder.say)
    chosen = say_chosen_before(trained.weights, data, folder.say)
    write_json(folder.path / "metrics.json", {
        "demo_data": data.source.demo, "architecture": trained.meta["architecture"],
        "checkpoint": {"path": str(trained.weights), "demo_data": trained.meta.get("demo_data")},
        "dataset": {"name": data.source.name, "fingerprint": data.source.fingerprint()},
        "evaluation": {"subset": recipe.DataLoader.Eval.subset, "images": len(positions), "also_trained_on": overlap,
                       **chosen, "thresholds_from": "training" if trained.thresholds is not None else None} | metrics,
        **circumstances(recipe.Global.seed)})
