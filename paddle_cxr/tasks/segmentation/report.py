"""What a trained segmenter is worth on a subset: figures with intervals, a table of every image, the worst cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paddle_cxr import plots
from paddle_cxr.engine.distributed import World
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.evaluation.per_image import PER_IMAGE
from paddle_cxr.evaluation.report import write_table
from paddle_cxr.plots.segmentation import Segmented, plot_segmentations
from paddle_cxr.tasks.segmentation.data import SegmentationData
from paddle_cxr.tasks.segmentation.models import Segmenter, probabilities_of
from paddle_cxr.tasks.segmentation.schema import SegmentationRecipe
from paddle_cxr.tasks.segmentation.scoring import AREAS, METRICS, PRESENT, Scores, masks_at_full_size, score, summarise

WRITTEN = (PER_IMAGE, "examples.png", "worst_cases.png")
"""The files of a report."""
NAMES = {"dice": "Dice", "dice_present": "Dice（真实掩膜不空的图）", "iou": "IoU", "hd95": "HD95（像素）",
         "hd95_mm": "HD95（毫米）"}
EMPTY = {"both_empty": "真实和预测都空", "missed": "漏掉（预测为空）", "false": "多报（真实为空）"}


def evaluate_on(recipe: SegmentationRecipe, segmenter: Segmenter, data: SegmentationData, positions: np.ndarray,
                folder: RunFolder, world: World) -> dict[str, Any]:
    """Score the images at ``positions``, write ``per_image.csv`` and the figures (rank 0).

    Returns:
        What ``metrics.json`` holds under ``evaluation``.
    """
    settings = recipe.Metric
    scores = score(segmenter, data, positions, settings.threshold, recipe.DataLoader.Eval.sampler.batch_size, world)
    found = summarise(scores, data.findings, groups_of(data, scores), settings.bootstrap, settings.seed)
    if world.is_main:
        write_per_image(folder.path, data, scores)
        say_summary(found, folder.say)
        _draw(segmenter, data, scores, settings.threshold, settings.figures, folder.path)
    return {"images": len(positions), "findings": list(data.findings), "threshold": settings.threshold} | found


def groups_of(data: SegmentationData, scores: Scores) -> list[str] | None:
    """The patient of every row of ``scores``, or None where the data set knows no patients."""
    return data.images.groups(scores.positions)


def write_per_image(folder: Path, data: SegmentationData, scores: Scores) -> None:
    """One row an (image, finding), as :class:`~paddle_cxr.compare.results` and paired tests read it."""
    columns = [name for name in METRICS if name != "hd95_mm" or not np.isnan(scores.of(name)).all()]
    present = scores.present()
    records = data.images.source.records
    write_table(folder / PER_IMAGE, ["file", "patient_id", "finding", *columns, PRESENT, *AREAS], (
        [records[position].path, records[position].patient_id or "", data.findings[finding],
         *[_cell(values[METRICS.index(name)]) for name in columns], _cell(there), *areas]
        for position, finding, areas, values, there in zip(scores.positions, scores.findings, scores.areas,
                                                           scores.values, present, strict=True)))


def _cell(value: float) -> str:
    """Every digit, so that the means can be computed again; empty where undefined."""
    return "" if math.isnan(value) else repr(float(value))


def say_summary(found: dict[str, Any], say: Callable[[str], None]) -> None:
    """Print the figures a person looks for first."""
    for name, one in found["per_finding"].items():
        cells = [f"{title} {_text(one[key], one[f'{key}_ci95'])}" for key, title in NAMES.items() if key in one]
        empty = [f"{title} {one[key]}" for key, title in EMPTY.items() if one[key]]
        say(f"  {name}（{one['images']} 张）：{'，'.join(cells)}" + (f"；{'，'.join(empty)}" if empty else ""))
    if len(found["per_finding"]) > 1:
        say("  各征象平均：" + "，".join(f"{title} {_text(found[key], found[f'{key}_ci95'])}"
                                   for key, title in NAMES.items() if key in found))


def _text(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return "无定义"
    return f"{value:.4g}" + (f" [{interval[0]:.4g}, {interval[1]:.4g}]" if interval else "")


def _draw(segmenter: Segmenter, data: SegmentationData, scores: Scores, threshold: float, count: int, folder: Path
          ) -> None:
    """``examples.png``: from the worst to the best, evenly spread; ``worst_cases.png``."""
    if not count or not len(scores.positions):
        return
    order = np.argsort(scores.of("dice"), kind="stable")
    spread = order[np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).astype(int))]
    for chosen, file, title in ((spread, "examples.png", "分割结果：按 Dice 从低到高均匀取样"),
                                (order[:count], "worst_cases.png", "Dice 最低的例子（worst cases）")):
        examples = [_example(segmenter, data, scores, int(row), threshold) for row in chosen]
        plot_segmentations(examples, folder / file, title=title, demo=data.images.source.demo)


def _example(segmenter: Segmenter, data: SegmentationData, scores: Scores, row: int, threshold: float) -> Segmented:
    """One scored row, predicted again: keeping the masks of all would take memory."""
    position, finding = int(scores.positions[row]), data.findings[scores.findings[row]]
    source = data.images.source
    image = source.read(position)
    maps = probabilities_of(segmenter.model, segmenter.preprocess, np.asarray(data.images.images[position])[None])[0]
    found = masks_at_full_size(maps[segmenter.findings.index(finding)], segmenter.preprocess, image.shape[:2],
                               threshold)
    values = {"Dice": float(scores.of("dice")[row]), "HD95": float(scores.of("hd95")[row])}
    return Segmented(image, source.mask(position, finding, image.shape[:2]), found, display_name(data, finding),
                     source.records[position].path, values)


def display_name(data: SegmentationData, finding: str) -> str:
    """Chinese and English name where the source knows them, else the key."""
    if finding == "lung":
        return "肺（lung）"
    known = next((info for info in data.images.source.findings if info.name == finding), None)
    return plots.style.bilingual(known) if known else finding
