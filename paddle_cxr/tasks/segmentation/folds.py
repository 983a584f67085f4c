"""Cross-validation of a segmenter: every patient is predicted once, by a model that did not train on them."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from paddle_cxr.data.findings import FindingsSource
from paddle_cxr.data.labelled import fold_subsets
from paddle_cxr.data.stamp import fold_stamps
from paddle_cxr.engine.continuing import claim_for_folds, note_data, set_changed_folds_aside
from paddle_cxr.engine.distributed import World, wait_for_all
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.engine.run import circumstances, open_folder
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.per_image import PER_IMAGE
from paddle_cxr.evaluation.report import number_text, write_table
from paddle_cxr.files import write_json
from paddle_cxr.recipe import Loaded
from paddle_cxr.registry import build
from paddle_cxr.tasks.segmentation.report import say_summary
from paddle_cxr.tasks.segmentation.scoring import AREAS, METRICS, Scores, summarise
from paddle_cxr.tasks.segmentation.train import read_data, train_run


def cross_validate(loaded: Loaded, world: World, say: Callable[[str], None]) -> None:
    """Train and evaluate every fold (or ``Global.fold``); a finished one is not run again.

    One that was begun with other data, or another division into folds, is renamed and done again.
    When all are done their held-out images are pooled, and the intervals are over all patients.

    Raises:
        UserError: the tables of the folds do not hold every annotated image once.
    """
    settings = loaded.recipe.Global
    source = build("findings", loaded.recipe.DataLoader.Source, "DataLoader.Source")
    stamps = fold_stamps(source, (fold_subsets(source, settings.folds, fold, settings.seed)
                                  for fold in range(settings.folds)))
    if world.is_main:
        claim_for_folds(loaded.recipe, say)
        set_changed_folds_aside(Path(settings.output_dir), stamps, say)
    wait_for_all(world)
    for fold in [settings.fold] if settings.fold is not None else range(settings.folds):
        if _finished(loaded, fold):
            say(f"第 {fold} 折已完成，跳过")
            continue
        one = one_fold(loaded, fold)
        folder = open_folder(one, one.recipe.Global.output_dir, world)
        try:
            if world.is_main:
                note_data(folder.path, stamps[fold])
            data = read_data(loaded, folder.say, world, fold)
            train_run(one, data, folder, world)
        finally:
            folder.close()
    done = [fold for fold in range(settings.folds) if _finished(loaded, fold)]
    if len(done) < settings.folds:
        say(f"已完成 {len(done)}/{settings.folds} 折；全部完成后才写汇总")
    elif world.is_main:
        _pool(loaded, source)
    wait_for_all(world)


def one_fold(loaded: Loaded, fold: int) -> Loaded:
    """The run of one fold as a recipe of its own: the held-out patients are ``val``, looked at once, at the end."""
    recipe = loaded.recipe.model_copy(deep=True)
    recipe.Global.folds = recipe.Global.fold = None
    recipe.Global.resume = "auto"  # what the recipe says of it has been decided for the whole folder
    recipe.Global.output_dir = f"{loaded.recipe.Global.output_dir}/fold{fold}"
    recipe.DataLoader.Train.subset, recipe.DataLoader.Eval.subset = "train", "val"
    recipe.DataLoader.Test = None
    return Loaded(recipe, loaded.origins, [f"交叉验证：第 {fold} 折（共 {loaded.recipe.Global.folds} 折，从 0 数）"])


def _folder(loaded: Loaded, fold: int) -> Path:
    return Path(loaded.recipe.Global.output_dir) / f"fold{fold}"


def _finished(loaded: Loaded, fold: int) -> dict[str, Any] | None:
    """``metrics.json`` of a finished fold, or None."""
    try:
        found = json.loads((_folder(loaded, fold) / "metrics.json").read_text(encoding="utf-8"))
        return found if "evaluation" in found else None
    except (OSError, ValueError):
        return None


def _pool(loaded: Loaded, source: FindingsSource) -> None:
    """Write the figures of all folds together."""
    settings, metric = loaded.recipe.Global, loaded.recipe.Metric
    folder = RunFolder(settings.output_dir)
    try:
        rows = _rows(loaded)
        _check_complete(loaded, source, rows)
        write_table(folder.path / PER_IMAGE, list(rows[0]), [list(row.values()) for row in rows])
        scores = _scores(settings.findings, rows)
        patients = [row["patient_id"] or f"?{row['file']}" for row in rows]
        known = any(row["patient_id"] for row in rows)
        found = summarise(scores, settings.findings, patients if known else None, metric.bootstrap, metric.seed)
        folds = [_finished(loaded, fold) for fold in range(settings.folds)]
        folder.say(f"{settings.folds} 折合在一起（每位患者由没有见过他的模型预测一次）：")
        say_summary(found, folder.say)
        by_fold = {key: [one["evaluation"][key] for one in folds] for key in METRICS if key in found}
        folder.say("各折 Dice：" + "，".join(map(number_text, by_fold["dice"])))
        dataset = {key: value for key, value in folds[0]["dataset"].items() if key != "train"}
        write_json(folder.path / "metrics.json", {
            "demo_data": folds[0]["demo_data"], "architecture": loaded.recipe.Arch.name,
            "image_encoder": loaded.recipe.Arch.encoder, "dataset": dataset,
            "evaluation": {"subset": f"{settings.folds} folds", "images": len(set(scores.positions.tolist())),
                           "findings": list(settings.findings), "threshold": metric.threshold, "by_fold": by_fold}
            | found, **circumstances(settings.seed)})
        folder.say(f"全部结果写在 {folder.path}")
    finally:
        folder.close()


def _rows(loaded: Loaded) -> list[dict[str, str]]:
    """The tables of all folds, one under the other; raises :class:`UserError` for one that is gone or damaged."""
    rows: list[dict[str, str]] = []
    for fold in range(loaded.recipe.Global.folds):
        table = _folder(loaded, fold) / PER_IMAGE
        try:
            with open(table, encoding="utf-8", newline="") as file:
                found = list(csv.DictReader(file))
            _scores(loaded.recipe.Global.findings, found)
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise UserError(f"{table} 读不了（{type(error).__name__}）；请删去它所在的文件夹，重新运行") from None
        rows += found
    columns = dict.fromkeys(name for row in rows for name in row)  # a fold may lack the column of millimetres
    return [{name: row.get(name, "") for name in columns} for row in rows]


def _check_complete(loaded: Loaded, source: FindingsSource, rows: list[dict[str, str]]) -> None:
    """Every annotation was predicted once; raises :class:`UserError`."""
    found = Counter((row["file"], row["finding"]) for row in rows)
    wanted = {(record.path, name) for index, record in enumerate(source.records)
              for name in loaded.recipe.Global.findings if source.annotated(index, name)}
    # Images that cannot be read may have been left out; that they have been is known only after reading all.
    absent = wanted - found.keys() if loaded.recipe.DataLoader.on_error == "error" else ()
    more = [one for one, times in found.items() if times > 1 or one not in wanted]
    if absent or more:
        raise UserError(f"{loaded.recipe.Global.output_dir}：各折合起来，{len(absent)} 处标注没有预测过，"
                        f"{len(more)} 处预测了几次或已不在数据里，不写汇总；数据变了，"
                        "请用 -o Global.resume=false 重新训练")


def _scores(findings: list[str], rows: list[dict[str, str]]) -> Scores:
    """The pooled table as scores; an image's number is its place among all."""
    files = {name: number for number, name in enumerate(dict.fromkeys(row["file"] for row in rows))}
    return Scores(np.array([files[row["file"]] for row in rows]),
                  np.array([findings.index(row["finding"]) for row in rows]),
                  np.array([[int(row[name]) for name in AREAS] for row in rows]),
                  np.array([[float(row.get(name) or "nan") for name in METRICS] for row in rows]))
