"""Evaluating a pre-trained model on any subset of any pairs: what ``tools/eval.py`` does for it."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from paddle_cxr import cpu
from paddle_cxr.config import explained
from paddle_cxr.engine.continuing import dump
from paddle_cxr.engine.distributed import World, select_device
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.engine.run import circumstances
from paddle_cxr.files import write_json, write_text
from paddle_cxr.recipe import Loaded
from paddle_cxr.tasks.pairs import load_pairs
from paddle_cxr.tasks.pretraining.recipe import load
from paddle_cxr.tasks.pretraining.report import Report
from paddle_cxr.tasks.pretraining.run import MODEL
from paddle_cxr.tasks.pretraining.texts import Texts
from paddle_cxr.tasks.pretraining.towers import read_trained


def evaluate(arguments: argparse.Namespace) -> int:
    """Evaluate and write ``<output_dir>/eval_<subset>/``; returns the exit code."""
    loaded = load(arguments.config, arguments.override)
    with explained(loaded.origins):
        _evaluate_to_folder(loaded)
    return 0


def _evaluate_to_folder(loaded: Loaded) -> None:
    recipe = loaded.recipe
    for line in [*loaded.notices, *select_device(recipe.Global.device, World())[1], cpu.describe()]:
        print(line)
    weights = Path(recipe.Global.checkpoint or Path(recipe.Global.output_dir) / MODEL)
    model, tokenizer = read_trained(recipe.Arch, recipe.Global.image_shape[0], weights)
    subset = recipe.DataLoader.Eval.subset
    data = load_pairs(loaded, print, only=subset)
    folder = RunFolder(Path(recipe.Global.output_dir) / f"eval_{subset}")
    try:
        folder.say(f"权重：{weights}")
        texts = Texts(data.source.records, recipe.DataLoader.Text)
        report = Report(recipe, model, tokenizer, data, texts, np.arange(len(data.images)), World())
        results = {"evaluation": {"subset": subset} | report.write(folder), "architecture": recipe.Arch.name,
                   "demo_data": data.source.demo, "checkpoint": str(weights),
                   "dataset": {"name": data.source.name, "fingerprint": data.source.fingerprint()}}
        write_text(folder.path / "config.yaml", dump(recipe))
        write_json(folder.path / "metrics.json", results | circumstances(recipe.Global.seed))
        folder.say(f"评估结果写在 {folder.path}")
    finally:
        folder.close()
