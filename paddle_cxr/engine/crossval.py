"""Cross-validation: k patient-grouped folds, each a run of its own, resumable fold by fold."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from paddle_cxr import plots
from paddle_cxr.data.labelled import LabelledData, fold_subsets, open_source, prove_disjoint
from paddle_cxr.data.records import Source
from paddle_cxr.data.stamp import fold_stamps
from paddle_cxr.engine.continuing import claim_for_folds, note_data, set_changed_folds_aside
from paddle_cxr.engine.distributed import World, wait_for_all
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.engine.run import describe_run, load_data, open_folder, train_run
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation import summarise_folds
from paddle_cxr.evaluation.report import number_text
from paddle_cxr.files import write_json, write_text
from paddle_cxr.recipe import Loaded

SHOWN = {"accuracy": "准确率", "balanced_accuracy": "平衡准确率", "macro_f1": "宏平均 F1", "macro_auc": "宏平均 AUC"}


def cross_validate(loaded: Loaded, world: World, say: Callable[[str], None]) -> dict[str, Any]:
    """Train and evaluate every fold (or the one of ``Global.fold``); a finished fold is not run again.

    One that was begun with other data, or another division into folds, is renamed and done again.
    Each fold's held-out patients are evaluated once, with the weights ``Global.keep`` names.

    Returns:
        Mean, s.d. and per-fold metrics, as written to ``metrics.json`` (only when all folds are done).

    Raises:
        UserError: the folds did not evaluate as many images as there are.
    """
    settings = loaded.recipe.Global
    if world.is_main:
        claim_for_folds(loaded.recipe, say)
    wait_for_all(world)
    data = load_data(loaded, say, world, subsets=_undivided(loaded))
    stamps = fold_stamps(data.source, (fold_subsets(data.source, settings.folds, fold, settings.seed)
                                       for fold in range(settings.folds)))
    if world.is_main:
        set_changed_folds_aside(Path(settings.output_dir), stamps, say)
    wait_for_all(world)
    chosen = [settings.fold] if settings.fold is not None else range(settings.folds)
    for fold in chosen:
        _run_fold(loaded, data, fold, stamps[fold], world, say)
    done = {fold: metrics for fold in range(settings.folds) if (metrics := _finished(loaded, fold)) is not None}
    if len(done) < settings.folds:
        say(f"已完成 {len(done)}/{settings.folds} 折；全部完成后才写汇总")
        return {}
    return _summarise(loaded, data, done) if world.is_main else {}


def _undivided(loaded: Loaded) -> list[str]:
    """Folds divide the whole data set, so the recipe's own ``Split`` is not asked."""
    return ["all"] * len(open_source(loaded).records)


def _run_fold(loaded: Loaded, data: LabelledData, fold: int, stamp: str, world: World, say: Callable[[str], None]
              ) -> None:
    if _finished(loaded, fold) is not None:
        say(f"第 {fold} 折已完成，跳过")
        return
    one, subsets = one_fold(loaded, data.source, fold)
    part = copy.copy(data)
    part.subsets = subsets
    folder = open_folder(one, one.recipe.Global.output_dir, world)
    try:
        if world.is_main:
            note_data(folder.path, stamp)
        prove_disjoint(part.source, part.subsets, folder.say)
        train_run(one, part, folder, world)
    finally:
        folder.close()


def one_fold(loaded: Loaded, source: Source, fold: int) -> tuple[Loaded, list[str]]:
    """The run of one fold as a recipe of its own, and the subset (``train`` or ``val``) of every record.

    Its output folder is ``fold<number>`` within the recipe's; the held-out patients are ``val``.
    """
    settings = loaded.recipe.Global
    recipe = loaded.recipe.model_copy(deep=True)
    recipe.Global.folds = recipe.Global.fold = None
    recipe.Global.resume = "auto"  # what the recipe says of it has been decided for the whole folder
    recipe.Global.output_dir = f"{settings.output_dir}/fold{fold}"
    recipe.DataLoader.Train.subset, recipe.DataLoader.Eval.subset = "train", "val"
    subsets = fold_subsets(source, settings.folds, fold, settings.seed)
    notice = f"交叉验证：第 {fold} 折（共 {settings.folds} 折，从 0 数）"
    return Loaded(recipe, loaded.origins, [notice]), subsets


def _finished(loaded: Loaded, fold: int) -> dict[str, Any] | None:
    """The evaluation of a finished fold, or None."""
    file = Path(loaded.recipe.Global.output_dir) / f"fold{fold}" / "metrics.json"
    try:
        return json.loads(file.read_text(encoding="utf-8"))["evaluation"]
    except (OSError, ValueError, KeyError):
        return None


def _summarise(loaded: Loaded, data: LabelledData, done: dict[int, dict[str, Any]]) -> dict[str, Any]:
    folds = [done[fold] for fold in sorted(done)]
    evaluated = sum(metrics["images"] for metrics in folds)
    if evaluated != len(data.labels):
        raise UserError(f"{loaded.recipe.Global.output_dir}：各折共评估 {evaluated} 张图，数据里有 "
                        f"{len(data.labels)} 张，不写汇总；数据变了，请用 -o Global.resume=false 重新训练")
    summary = summarise_folds(folds)
    folder = RunFolder(loaded.recipe.Global.output_dir)
    lines = ["| 折 | 图像数 | " + " | ".join(SHOWN.values()) + " |", "|" + " --- |" * (len(SHOWN) + 2)]
    for fold, metrics in sorted(done.items()):
        cells = " | ".join(number_text(metrics[key]) for key in SHOWN)
        lines.append(f"| {fold} | {metrics['images']} | {cells} |")
    lines.append("| 平均 ± 标准差 | | " + " | ".join(
        f"{number_text(summary[key]['mean'])} ± {number_text(summary[key]['sd'])}" for key in SHOWN) + " |")
    table = "\n".join(lines)
    write_text(folder.path / "folds.md", table + "\n")
    for line in lines:
        folder.say(line)
    results = describe_run(loaded, data, {"all": np.arange(len(data.labels))}) | {
        "folds": folds, "summary": summary}
    plots.plot_cross_validation(summary, data.classes, folder.path / "folds.png", demo=data.source.demo)
    write_json(folder.path / "metrics.json", results)
    folder.close()
    return results
