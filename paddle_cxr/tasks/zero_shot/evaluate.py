"""Zero-shot classification of any subset of any findings: what ``tools/eval.py`` does for it.

    metrics.json      under ``evaluation``: AUC, average precision, and at validation thresholds F1 and accuracy
    per_image.csv     labels and margins of every image
    roc.png           a curve a finding;  auc.png: AUC with intervals;  scores.png: where the margins lie
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from paddle_cxr import cpu
from paddle_cxr.data.findings import DividedFindings, label_matrix, open_divided
from paddle_cxr.data.labelled import LabelledData
from paddle_cxr.engine.continuing import dump
from paddle_cxr.engine.distributed import World, select_device
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.engine.provenance import say_overlap
from paddle_cxr.engine.run import circumstances, progress_of
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.prompts import FindingPrompts, prompt_texts, prompts_for
from paddle_cxr.files import write_json, write_text
from paddle_cxr.recipe import Loaded
from paddle_cxr.tasks.pretrained import Pretrained, open_pretrained, read_settings, with_input_of
from paddle_cxr.tasks.zero_shot.prompts import asked_findings, known_as, read_section
from paddle_cxr.tasks.zero_shot.report import WRITTEN, Scored, write_report
from paddle_cxr.tasks.zero_shot.schema import ZeroShotRecipe
from paddle_cxr.tasks.zero_shot.scoring import PromptScorer, score_images
from paddle_cxr.tasks.zero_shot.seen import averages_of


def evaluate(loaded: Loaded) -> None:
    """Evaluate and write ``<output_dir>/eval_<subset>/``."""
    loaded = replace(loaded, recipe=with_input_of(loaded.recipe, read_settings(loaded.recipe.Model.checkpoint)))
    recipe = loaded.recipe
    for line in [*loaded.notices, *select_device(recipe.Global.device, World())[1], cpu.describe()]:
        print(line)
    # Everything that may be wrong is found before the output folder is touched, and a mistake in a file before the
    # images are read.
    read_section(recipe.Prompts, recipe.Global.seed)
    pretrained = open_pretrained(recipe.Model.checkpoint)
    subset, chosen_on = recipe.DataLoader.Eval.subset, recipe.DataLoader.Eval.threshold_subset
    divided = open_divided(loaded, print)
    prompts = read_section(recipe.Prompts, recipe.Global.seed, divided.source.findings)
    prompts = prompts_for(asked_findings(recipe.Metric.findings, divided.source), prompts, known_as(recipe.Prompts),
                          recipe.Prompts.missing == "skip", print)
    names = [one.name for one in prompts]
    averages = averages_of(recipe.Metric, names, pretrained.settings.folder.parent)
    scorer = PromptScorer(pretrained, prompts, recipe.Prompts, recipe.DataLoader.Eval.sampler.batch_size)
    _check_subsets(divided, subset, chosen_on, names)
    data = _decode(divided, subset)
    validating = None if chosen_on is None else _decode(divided, chosen_on)
    folder = RunFolder(Path(recipe.Global.output_dir) / f"eval_{subset}")
    try:
        folder.forget(*WRITTEN)
        write_text(folder.path / "config.yaml", dump(recipe))
        for line in [*pretrained.notices, *_notices(recipe, prompts, scorer)]:
            folder.say(line)
        validation = None if validating is None else _score(recipe, pretrained, scorer, validating, names)
        scored = _score(recipe, pretrained, scorer, data, names)
        found = {"also_trained_on": say_overlap(pretrained.settings.folder, data, folder.say)}
        found |= write_report(recipe, prompts, scored, validation, averages, pretrained, folder)
        write_json(folder.path / "metrics.json", _results(pretrained, data, found) | circumstances(recipe.Global.seed))
        folder.say(f"评估结果写在 {folder.path}")
    finally:
        folder.close()


def _check_subsets(divided: DividedFindings, subset: str, chosen_on: str | None, names: list[str]) -> None:
    """Refuse a subset without images, or without a label to compare with, before any image is read."""
    records = [divided.source.records[index] for index in divided.members(subset)]
    if np.isnan(label_matrix(records, names)).all():
        raise UserError(f"子集 {subset} 的 {len(records)} 张图没有征象 {'、'.join(names)} 的标签，无法评估；"
                        "请检查 Metric.findings 和数据")
    if chosen_on is None:
        return
    try:
        divided.members(chosen_on)
    except UserError as error:
        raise UserError(f"DataLoader.Eval.threshold_subset：{error}；没有验证集时写 null，"
                        "就不选阈值，也没有 F1 和准确率") from None


def _decode(divided: DividedFindings, subset: str) -> LabelledData:
    with tqdm(desc=f"读图（{subset}）", disable=not sys.stderr.isatty(), leave=False) as bar:
        return divided.decode(subset, print, progress_of(bar))


def _notices(recipe: ZeroShotRecipe, prompts: tuple[FindingPrompts, ...], scorer: PromptScorer) -> list[str]:
    compared = "正、负提示词相比" if prompts[0].negative else "各征象互相比较"
    return [f"提示词（prompt）：{known_as(recipe.Prompts)}，{len(prompts)} 种征象 {len(prompt_texts(prompts))} 句，"
             f"{compared}，ensemble {recipe.Prompts.ensemble}，similarity {recipe.Prompts.similarity}",
            *scorer.notices]


def _score(recipe: ZeroShotRecipe, pretrained: Pretrained, scorer: PromptScorer, data: LabelledData,
           names: list[str]) -> Scored:
    with tqdm(total=len(data.images), desc="零样本", disable=not sys.stderr.isatty(), leave=False) as bar:
        margins = score_images(scorer, pretrained, data, recipe.DataLoader.Eval.sampler.batch_size, bar.update)
    return Scored(data, label_matrix(data.source.records, names), margins,
                  data.groups(np.arange(len(data.images))))


def _results(pretrained: Pretrained, data: LabelledData, found: dict[str, Any]) -> dict[str, Any]:
    return {"evaluation": found, "architecture": pretrained.settings.arch.name,
            "demo_data": data.source.demo or bool(pretrained.meta.get("demo_data")),
            "checkpoint": str(pretrained.settings.folder),
            "dataset": {"name": data.source.name, "fingerprint": data.source.fingerprint()}}
