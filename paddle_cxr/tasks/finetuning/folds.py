"""Cross-validation of fine-tuning: each fold is tested once, by a network that neither learnt nor chose on it.

Fold k is ``test``, the next one ``val`` (it chooses the epoch and the thresholds), the others ``train``.  Every fold is
a run of its own in ``fold<k>``; a finished one is not run again.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from paddle_cxr.data.labelled import LabelledData, prove_disjoint
from paddle_cxr.data.records import Source
from paddle_cxr.data.splits import fold_notice, fold_of
from paddle_cxr.data.stamp import fold_stamps
from paddle_cxr.engine.continuing import claim_for_folds, note_data, set_changed_folds_aside
from paddle_cxr.engine.distributed import World, wait_for_all
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.engine.run import circumstances, open_folder
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.per_image import PER_IMAGE, read_per_image
from paddle_cxr.evaluation.report import number_text
from paddle_cxr.files import write_json
from paddle_cxr.recipe import Loaded
from paddle_cxr.tasks.findings_schema import TestSection
from paddle_cxr.tasks.finetuning.report import say_metrics, write_report


def cross_validate(loaded: Loaded, data: LabelledData, world: World, say: Callable[[str], None]) -> None:
    """Train and test every fold (or the one of ``Global.fold``); then write the figures over all of them.

    A fold that was begun with other data, or another division into folds, is renamed and done again.

    Raises:
        UserError: the tables of the folds do not hold every image once.
    """
    from paddle_cxr.tasks.finetuning.run import train_run

    settings = loaded.recipe.Global
    stamps = fold_stamps(data.source, (fold_subsets(data.source, settings.folds, fold, settings.seed)
                                       for fold in range(settings.folds)))
    if world.is_main:
        claim_for_folds(loaded.recipe, say)
        set_changed_folds_aside(Path(settings.output_dir), stamps, say)
    wait_for_all(world)
    if notice := fold_notice(data.source.records, settings.folds):
        say(notice)
    for fold in [settings.fold] if settings.fold is not None else range(settings.folds):
        if _finished(loaded, fold) is not None:
            say(f"第 {fold} 折已完成，跳过")
            continue
        one, part = one_fold(loaded, data, fold)
        folder = open_folder(one, one.recipe.Global.output_dir, world)
        try:
            if world.is_main:
                note_data(folder.path, stamps[fold])
            prove_disjoint(part.source, part.subsets, folder.say)
            train_run(one, part, folder, world)
        finally:
            folder.close()
    done = [fold for fold in range(settings.folds) if _finished(loaded, fold) is not None]
    if len(done) < settings.folds:
        say(f"已完成 {len(done)}/{settings.folds} 折；全部完成后才写汇总")
    elif world.is_main:
        _summarise(loaded, data)
    wait_for_all(world)


def one_fold(loaded: Loaded, data: LabelledData, fold: int) -> tuple[Loaded, LabelledData]:
    """The run of one fold as a recipe of its own, and the data divided for it."""
    settings = loaded.recipe.Global
    recipe = loaded.recipe.model_copy(deep=True)
    recipe.Global.folds = recipe.Global.fold = None
    recipe.Global.resume = "auto"  # what the recipe says of it has been decided for the whole folder
    recipe.Global.output_dir = f"{settings.output_dir}/fold{fold}"
    recipe.DataLoader.Train.subset, recipe.DataLoader.Eval.subset = "train", "val"
    recipe.DataLoader.Test = TestSection(subset="test")
    part = copy.copy(data)
    part.subsets = fold_subsets(data.source, settings.folds, fold, settings.seed)
    notice = f"交叉验证：第 {fold} 折（共 {settings.folds} 折，从 0 数）测试，第 {(fold + 1) % settings.folds} 折验证"
    return Loaded(recipe, loaded.origins, [notice]), part


def fold_subsets(source: Source, folds: int, fold: int, seed: int) -> list[str]:
    """The subset of every record when ``fold`` is tested."""
    names = {fold: "test", (fold + 1) % folds: "val"}
    return [names.get(one, "train") for one in fold_of(source.records, folds, seed)]


def _finished(loaded: Loaded, fold: int) -> dict[str, Any] | None:
    """What a finished fold's ``metrics.json`` says of its evaluation, or None."""
    file = Path(loaded.recipe.Global.output_dir) / f"fold{fold}" / "metrics.json"
    try:
        return json.loads(file.read_text(encoding="utf-8"))["evaluation"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _summarise(loaded: Loaded, data: LabelledData) -> None:
    """The figures over all images, each scored by the network that had not seen it, and their mean over the folds."""
    recipe = loaded.recipe
    folder = RunFolder(recipe.Global.output_dir)
    try:
        findings, names = data.source.findings, [one.name for one in data.source.findings]
        place = {record.path: number for number, record in enumerate(data.source.records)}
        labels, scores = np.full((2, len(place), len(names)), np.nan)
        tested = np.zeros(len(place), int)
        for fold in range(recipe.Global.folds):
            files, answers, values = read_per_image(folder.path / f"fold{fold}" / PER_IMAGE, names)
            try:
                rows = [place[file] for file in files]
            except KeyError as error:
                raise UserError(f"{folder.path / f'fold{fold}' / PER_IMAGE}：数据集里没有 {error.args[0]}；"
                                "数据变了，请用 -o Global.resume=false 重新训练") from None
            labels[rows], scores[rows] = answers, values
            np.add.at(tested, rows, 1)
        if (tested != 1).any():
            raise UserError(f"{folder.path}：各折合起来，{int((tested == 0).sum())} 张图没有测试过，"
                            f"{int((tested > 1).sum())} 张测试了几次，不写汇总；数据变了，"
                            "请用 -o Global.resume=false 重新训练")
        positions = np.flatnonzero(~np.isnan(scores).any(axis=1))
        metrics = write_report(folder.path, data, positions, findings, labels[positions], scores[positions], None,
                               recipe.Metric)
        of_folds = [_finished(loaded, fold)["macro_auc"] for fold in range(recipe.Global.folds)]
        known = [value for value in of_folds if value is not None]
        folder.say(f"{recipe.Global.folds} 折合并（{len(positions)} 张，每张由没见过它的模型打分）：")
        say_metrics(metrics, folder.say)
        folder.say(f"  各折宏平均 AUC：{'，'.join(number_text(value) for value in of_folds)}"
                   + (f"；平均 {np.mean(known):.4f} ± {np.std(known, ddof=1):.4f}" if len(known) > 1 else ""))
        write_json(folder.path / "metrics.json", {
            "demo_data": data.source.demo, "architecture": recipe.Model.arch, "parent": recipe.Model.checkpoint,
            "finetune": recipe.Finetune.model_dump(),
            "dataset": {"name": data.source.name, "fingerprint": data.source.fingerprint()},
            "evaluation": {"subset": "folds", "folds": recipe.Global.folds, "images": len(positions),
                           "macro_auc_of_folds": of_folds} | metrics,
            **circumstances(recipe.Global.seed)})
        folder.say(f"全部结果写在 {folder.path}")
    finally:
        folder.close()
