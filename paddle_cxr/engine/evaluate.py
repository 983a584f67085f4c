"""Evaluating a trained classifier on any subset or any folder: what ``tools/eval.py`` does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from paddle_cxr import cpu
from paddle_cxr.data.labelled import LabelledData, open_source
from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.engine.continuing import dump
from paddle_cxr.engine.crossval import one_fold
from paddle_cxr.engine.distributed import World, select_device
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.engine.provenance import say_overlap
from paddle_cxr.engine.run import describe_run, kept_weights, load_data
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.report import WRITTEN, say_summary, write_report
from paddle_cxr.files import write_json, write_text
from paddle_cxr.recipe import Loaded
from paddle_cxr.registry import build
from paddle_cxr.tasks.classification import predict_all
from paddle_cxr.tasks.models import build_model
from paddle_cxr.weights import apply_weights, load_weights


def evaluate(loaded: Loaded) -> None:
    """Evaluate and write ``<output_dir>/eval_<subset>/`` (or ``…_without_<hidden part>/``)."""
    subsets = None
    if loaded.recipe.Global.fold is not None:  # the patients that this fold held out
        notices = loaded.notices
        loaded, subsets = one_fold(loaded, open_source(loaded), loaded.recipe.Global.fold)
        loaded.notices[:0] = notices
    for line in [*loaded.notices, *select_device(loaded.recipe.Global.device, World())[1], cpu.describe()]:
        print(line)
    weights = checkpoint_path(loaded)
    model, meta, notices = load_trained(loaded, weights)
    subset = loaded.recipe.DataLoader.Eval.subset
    hide = loaded.recipe.DataLoader.Eval.hide
    name = f"eval_{subset}" if hide == "nothing" else f"eval_{subset}_without_{hide}"
    for line in notices:
        print(line)
    data = load_data(loaded, print, World(), subsets, only=subset)
    folder = RunFolder(Path(loaded.recipe.Global.output_dir) / name)
    try:
        folder.forget(*WRITTEN)
        write_text(folder.path / "config.yaml", dump(loaded.recipe))
        folder.say(f"权重：{weights}")
        results = _evaluate(loaded, model, data, weights, folder)
        results["checkpoint"] = {"path": str(weights), "epoch": meta.get("epoch"), "demo_data": meta.get("demo_data")}
        write_json(folder.path / "metrics.json", results)
        folder.say(f"评估结果写在 {folder.path}")
    finally:
        folder.close()


def _evaluate(loaded: Loaded, model: Any, data: LabelledData, weights: Path, folder: RunFolder) -> dict[str, Any]:
    positions = np.arange(len(data.labels))
    section = loaded.recipe.DataLoader.Eval
    labels, probabilities = predict_all(model, data, positions, section, World())
    metric = build("metric", loaded.recipe.Metric, "Metric")
    metrics = write_report(folder.path, data, positions, labels, probabilities, metric)
    folder.say(f"子集 {section.subset}，{len(positions)} 张：")
    say_summary(metrics, folder.say)
    overlap = say_overlap(weights, data, folder.say)
    return describe_run(loaded, data, {section.subset: positions}) | {
        "evaluation": {"subset": section.subset, "images": len(positions), "also_trained_on": overlap,
                       "counts": data.counts(positions)} | metrics}


def checkpoint_path(loaded: Loaded) -> Path:
    """The weights to use: ``Global.checkpoint``, or those the run in ``Global.output_dir`` kept."""
    settings = loaded.recipe.Global
    if settings.checkpoint:
        path = Path(settings.checkpoint)
        if not os.path.exists(path):
            raise UserError(f"Global.checkpoint：找不到 {path}")
        return kept_weights(path, settings.keep) if os.path.isdir(path / "checkpoints") else path
    return kept_weights(Path(settings.output_dir), settings.keep)


def load_trained(loaded: Loaded, weights: Path) -> tuple[Any, dict[str, Any], list[str]]:
    """Build the recipe's model with trained weights, and take the pre-processing it was trained with.

    Returns:
        The model in evaluation mode, what is recorded beside its weights, and notices for the user.

    Raises:
        UserError: other architecture or classes than the recipe's, damaged file.
    """
    state, meta = load_weights(weights)
    recipe = loaded.recipe
    wanted = [info.name for info in loaded.classes]
    trained = _trained_classes(meta, weights) or wanted
    if trained != wanted:
        raise UserError(f"{weights}：训练时的类别是 {'、'.join(trained)}，配方 Global.classes 是 {'、'.join(wanted)}；"
                        "请用训练时的配方")
    notices = _adopt_preprocessing(recipe, meta, weights)
    model, _ = build_model(recipe, load_start=False)
    apply_weights(model, state, meta, path=weights)
    model.eval()
    return model, meta, notices


def _trained_classes(meta: dict[str, Any], weights: Path) -> list[str]:
    try:
        return [str(info["name"]) for info in meta.get("classes", [])]
    except (TypeError, KeyError):
        raise UserError(f"{weights} 的 model.json 损坏：classes 不是类别的列表；请换一个检查点（checkpoint）") from None


def _adopt_preprocessing(recipe: Any, meta: dict[str, Any], weights: Path) -> list[str]:
    """A model must see what it was trained on: where the recipe differs, the recorded values win, loudly."""
    recorded = meta.get("preprocess")
    if not recorded:
        return []
    try:
        Preprocess.from_dict(recorded)
    except (UserError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{weights} 的 model.json 损坏：preprocess 不可用（{error}）；"
                        "请换一个检查点（checkpoint）") from None
    section = recipe.DataLoader.preprocess
    now = section.model_dump() | {"image_shape": list(recipe.Global.image_shape)}
    different = [key for key, value in recorded.items() if key in now and _plain(now[key]) != _plain(value)]
    if not different:
        return []
    shape = recorded.get("image_shape")
    if shape:
        recipe.Global.image_shape = tuple(shape)
    for key, value in recorded.items():
        if key in type(section).model_fields:
            setattr(section, key, value)
    return [f"!! 配方的预处理与训练时不同（{'、'.join(different)}），按权重旁 model.json 的记录处理"]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
