"""Evaluating a pre-trained model on any subset of any pairs: what ``tools/eval.py`` does for it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from paddle_cxr import cpu
from paddle_cxr.engine.continuing import dump
from paddle_cxr.engine.distributed import World, select_device
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.engine.provenance import say_overlap
from paddle_cxr.engine.run import circumstances
from paddle_cxr.errors import UserError
from paddle_cxr.files import write_json, write_text
from paddle_cxr.recipe import Loaded
from paddle_cxr.tasks.pairs import load_pairs
from paddle_cxr.tasks.pretrained import PretrainedSettings, read_settings
from paddle_cxr.tasks.pretraining.figures import WRITTEN
from paddle_cxr.tasks.pretraining.report import Report
from paddle_cxr.tasks.pretraining.run import MODEL, check
from paddle_cxr.tasks.pretraining.schema import PretrainingRecipe
from paddle_cxr.tasks.pretraining.texts import Texts
from paddle_cxr.tasks.pretraining.towers import read_trained


def evaluate(loaded: Loaded) -> None:
    """Evaluate and write ``<output_dir>/eval_<subset>/``."""
    recipe = loaded.recipe
    for line in [*loaded.notices, *select_device(recipe.Global.device, World())[1], cpu.describe()]:
        print(line)
    weights = Path(recipe.Global.checkpoint or Path(recipe.Global.output_dir) / MODEL)
    if not os.path.exists(weights):
        raise UserError(f"找不到预训练模型 {weights}；请先训练，或用 -o Global.checkpoint=… 指定一次训练的输出目录")
    settings = read_settings(weights)
    for line in as_trained(recipe, settings):
        print(line)
    check(recipe)
    model, tokenizer = read_trained(recipe.Arch, recipe.Global.image_shape[0], settings.folder)
    subset = recipe.DataLoader.Eval.subset
    data = load_pairs(loaded, print, only=subset)
    folder = RunFolder(Path(recipe.Global.output_dir) / f"eval_{subset}")
    try:
        folder.say(f"权重：{settings.folder}")
        texts = Texts(data.source.records, recipe.DataLoader.Text)
        report = Report(recipe, model, tokenizer, data, texts, np.arange(len(data.images)), World())
        folder.forget(*WRITTEN)
        write_text(folder.path / "config.yaml", dump(recipe))
        overlap = say_overlap(settings.folder, data, folder.say)
        results = {"evaluation": {"subset": subset, "also_trained_on": overlap} | report.write(folder),
                   "architecture": recipe.Arch.name, "demo_data": data.source.demo, "checkpoint": str(settings.folder),
                   "dataset": {"name": data.source.name, "fingerprint": data.source.fingerprint()}}
        write_json(folder.path / "metrics.json", results | circumstances(recipe.Global.seed))
        folder.say(f"评估结果写在 {folder.path}")
    finally:
        folder.close()


def as_trained(recipe: PretrainingRecipe, settings: PretrainedSettings) -> list[str]:
    """Let a model see what it was trained on: where the recipe says otherwise, the training's values win, loudly.

    Temperatures, or the layers that are summed, leave no trace in the shapes of the weights: with others the scores
    would be wrong, and nothing would say so.

    Raises:
        UserError: weights of the other method.
    """
    if settings.arch.name != recipe.Arch.name:
        raise UserError(f"网络结构不符（architecture）：{settings.folder} 是 {settings.arch.name} 的权重，"
                        f"配方的 Arch.name 是 {recipe.Arch.name}；请改 Arch.name 或换权重")
    different = [f"Arch.{key}" for key, value in settings.arch if getattr(recipe.Arch, key) != value]
    recipe.Arch = settings.arch
    for name, section, value in (("Global.image_shape", recipe.Global, settings.image_shape),
                                 ("DataLoader.preprocess", recipe.DataLoader, settings.preprocess)):
        key = name.rpartition(".")[2]
        if getattr(section, key) != value:
            different.append(name)
            setattr(section, key, value)
    return [f"!! 配方的 {'、'.join(different)} 与训练时不同，按权重旁 model.json 的记录处理"] if different else []
