"""Pre-training from a recipe to a finished output folder; see :mod:`paddle_cxr.engine.jobs`.

    model/             weights, and the text tower's configuration and vocabulary: what fine-tuning starts from
    metrics.json       retrieval and zero-shot classification on the validation subset
    similarity.png     every image against every text
    attention_N.png    where each word of a report looks (GLoRIA)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from tqdm import tqdm

from paddle_cxr import plots
from paddle_cxr.data.labelled import LabelledData
from paddle_cxr.engine import checkpoint
from paddle_cxr.engine.distributed import World, wait_for_all
from paddle_cxr.engine.optimizer import check_optimizer
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.engine.provenance import write_trained_on
from paddle_cxr.engine.run import circumstances, fit, foretell, open_folder, progress_of
from paddle_cxr.evaluation.prompts import read_prompts
from paddle_cxr.files import write_json
from paddle_cxr.models.text_encoder import check_paddlenlp, check_text_folder
from paddle_cxr.recipe import Loaded
from paddle_cxr.registry import build
from paddle_cxr.registry import check as check_component
from paddle_cxr.tasks.pairs import load_pairs
from paddle_cxr.tasks.pretraining.report import Report
from paddle_cxr.tasks.pretraining.schema import PretrainingRecipe
from paddle_cxr.tasks.pretraining.task import PretrainingTask, with_text
from paddle_cxr.tasks.pretraining.texts import Texts, check_variety, cut_notice
from paddle_cxr.tasks.pretraining.towers import METHODS, build_towers, check_vocabulary, save_text_tower
from paddle_cxr.weights import load_weights, save_weights

MODEL = "model"


def check(recipe: PretrainingRecipe) -> None:
    """Check what can be checked before the slow part, reading the images; raises UserError."""
    check_optimizer(recipe.Optimizer)
    loss = build("vision_language_loss", recipe.Loss, "Loss")
    loss.check(METHODS[recipe.Arch.name].compared, recipe.Arch.name)
    check_component("arch", recipe.Arch.image, "Arch.image", {"class_num": 0, "in_channels": 1})
    if recipe.ZeroShot.prompts:
        read_prompts(recipe.ZeroShot.prompts)


def run(loaded: Loaded, world: World, say: Callable[[str], None]) -> None:
    """Pre-train, evaluate and write everything into ``Global.output_dir``."""
    folder = open_folder(loaded, loaded.recipe.Global.output_dir, world)
    try:
        task = prepare(loaded, world, folder.say)
        if world.is_main:
            write_trained_on(folder.path, task.data, task.train)
        latest = checkpoint.find(folder.checkpoints / "latest")
        if latest is not None:
            check_vocabulary(load_weights(latest)[1], task.tokenizer, latest)
        state, kept = fit(task, loaded.recipe, folder, world)
        results = {"history": {"epochs": state.epoch, "seconds": round(state.seconds, 1), "best": state.best},
                   "weights": str(kept.relative_to(folder.path))}
        if task.validation is not None:
            results |= _evaluate(loaded, task, folder, world)
        if world.is_main:
            _write(loaded, task, folder, results)
            plots.plot_training_curves(state.history, folder.path / "curves.png", demo=task.data.source.demo)
            folder.say(f"全部结果写在 {folder.path}")
        wait_for_all(world)
    finally:
        folder.close()


def dry_run(loaded: Loaded, world: World, say: Callable[[str], None]) -> None:
    """Build everything, run two steps and say what a whole run would take.  Nothing is written."""
    task = prepare(loaded, world, say)
    foretell(task, loaded, world, say, loaded.recipe.Arch.name, len(task.train))


def read_data(loaded: Loaded, say: Callable[[str], None], world: World) -> tuple[LabelledData, Texts]:
    """Decode the recipe's images and gather their texts."""
    with tqdm(desc="读图", disable=not (world.is_main and sys.stderr.isatty()), leave=False) as bar:
        data = load_pairs(loaded, say, progress_of(bar))
    wait_for_all(world)
    return data, Texts(data.source.records, loaded.recipe.DataLoader.Text)


def prepare(loaded: Loaded, world: World, say: Callable[[str], None]) -> PretrainingTask:
    """Data, model and task; says what the user should know of them.

    Raises:
        UserError: no pair with a text, all texts alike, what a component has to say.
    """
    recipe = loaded.recipe
    tower = recipe.Arch.text
    check_paddlenlp()  # before the images are read, which may take hours
    if tower.folder is not None:
        check_text_folder(tower.folder, tower.max_tokens, tower.frozen_layers)
    data, texts = read_data(loaded, say, world)
    subset = data.positions(recipe.DataLoader.Train.subset)
    train = with_text(texts, subset, recipe, recipe.DataLoader.Train.subset)
    say(f"数据：{data.source.name}，{len(data.images)} 对，训练 {len(train)} 对"
        + (f"，另有 {len(subset) - len(train)} 对没有文字，略去" if len(train) < len(subset) else ""))
    corpus = [texts.whole[position] for position in train]
    if notice := check_variety(corpus, recipe.Loss.get("same_text", "exclude")):
        say(notice)
    paddle.seed(recipe.Global.seed)  # a fresh model is the same on every rank and in every run with this seed
    model, tokenizer, notices = build_towers(recipe.Arch, recipe.Global.image_shape[0], corpus)
    task = PretrainingTask(loaded, data, texts, model, tokenizer, world)
    if task.cut:
        notices.append(cut_notice(task.cut, tokenizer, recipe.DataLoader.Text))
    if task.validation is not None and len({texts.whole[position] for position in task.validation}) == 1:
        notices.append(f"!! 验证集 {len(task.validation)} 对只有一种文字：检索（retrieval）总是 1，选不出最好的一轮，"
                       "也不能早停；请改 DataLoader.Split 或 DataLoader.Eval.subset")
    for line in notices:
        say(line)
    return task


def _evaluate(loaded: Loaded, task: PretrainingTask, folder: RunFolder, world: World) -> dict[str, Any]:
    report = Report(loaded.recipe, task.model, task.tokenizer, task.data, task.texts, task.validation, world)
    overlap = len(np.intersect1d(task.validation, task.train))
    if overlap:
        folder.say(f"!! 评估的 {len(task.validation)} 对里有 {overlap} 对用于训练：结果不代表在新数据上的表现")
    return {"evaluation": {"subset": loaded.recipe.DataLoader.Eval.subset, "also_trained_on": overlap}
            | report.write(folder)}


def _write(loaded: Loaded, task: PretrainingTask, folder: RunFolder, results: dict[str, Any]) -> None:
    """The model and ``metrics.json``."""
    recipe, data = loaded.recipe, task.data
    save_model(folder.path / MODEL, task)
    folder.say(f"模型写在 {folder.path / MODEL}；微调分类器：-o Arch.pretrained={folder.path / MODEL}")
    write_json(folder.path / "metrics.json", {
        "demo_data": data.source.demo, "architecture": recipe.Arch.name,
        "dataset": {"name": data.source.name, "fingerprint": data.source.fingerprint(), "train": len(task.train),
                    "texts": len({task.texts.whole[position] for position in task.train}), "texts_cut": task.cut},
        **results, **circumstances(recipe.Global.seed)})


def save_model(folder: Path, task: PretrainingTask) -> None:
    """Write the model's folder: weights, and what it takes to use them."""
    save_weights(folder, {name: tensor.numpy() for name, tensor in task.model.state_dict().items()}, task.meta())
    save_text_tower(folder, task.model, task.tokenizer)
