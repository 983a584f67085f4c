"""Evaluating a trained segmenter on any subset of any data set: what ``tools/eval.py`` does for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from paddle_cxr import cpu
from paddle_cxr.engine.continuing import dump
from paddle_cxr.engine.distributed import World, select_device
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.engine.provenance import say_chosen_before, say_overlap
from paddle_cxr.engine.run import circumstances, kept_weights
from paddle_cxr.files import write_json, write_text
from paddle_cxr.recipe import Loaded
from paddle_cxr.tasks.segmentation.data import load_segmentation
from paddle_cxr.tasks.segmentation.models import open_segmenter
from paddle_cxr.tasks.segmentation.report import WRITTEN, evaluate_on
from paddle_cxr.tasks.start import weights_of


def trained_weights(loaded: Loaded) -> Path:
    """The weights to use: ``Global.checkpoint``, or those the run in ``Global.output_dir`` kept."""
    settings = loaded.recipe.Global
    if settings.checkpoint:
        return weights_of(settings.checkpoint, "Global.checkpoint")
    run = Path(settings.output_dir)
    return kept_weights(run if settings.fold is None else run / f"fold{settings.fold}", settings.keep)


def evaluate(loaded: Loaded) -> None:
    """Evaluate and write ``<output_dir>/eval_<subset>/``."""
    recipe = loaded.recipe
    for line in [*loaded.notices, *select_device(recipe.Global.device, World())[1], cpu.describe()]:
        print(line)
    weights = trained_weights(loaded)
    segmenter, notices = open_segmenter(recipe, weights)
    for line in notices:
        print(line)
    fold = recipe.Global.fold
    subset = "val" if fold is not None else recipe.DataLoader.Eval.subset  # a fold's held-out patients
    data = load_segmentation(loaded, print, only=subset, fold=fold, masks=False)
    source = data.images.source
    folder = RunFolder(Path(recipe.Global.output_dir) / (f"eval_{subset}" if fold is None else f"eval_fold{fold}"))
    try:
        folder.forget(*WRITTEN)
        write_text(folder.path / "config.yaml", dump(recipe))
        folder.say(f"权重：{weights}")
        folder.say(f"子集 {subset}，{len(data.annotated)} 张：")
        found = evaluate_on(recipe, segmenter, data, np.arange(len(data.annotated)), folder, World())
        overlap = say_overlap(weights, data.images, folder.say)
        chosen = say_chosen_before(weights, data.images, folder.say)
        write_json(folder.path / "metrics.json", {
            "evaluation": {"subset": subset, "also_trained_on": overlap} | chosen | found, "demo_data": source.demo,
            "architecture": segmenter.meta.get("architecture"),
            "checkpoint": {"path": str(weights), "epoch": segmenter.meta.get("epoch"),
                           "demo_data": segmenter.meta.get("demo_data")},
            "dataset": {"name": source.name, "fingerprint": source.fingerprint()}} | circumstances(recipe.Global.seed))
        folder.say(f"评估结果写在 {folder.path}")
    finally:
        folder.close()
