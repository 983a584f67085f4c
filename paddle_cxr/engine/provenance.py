"""Which images a run was trained on, so that no later evaluation takes them for new ones unawares."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from paddle_cxr.data.labelled import LabelledData, part_of
from paddle_cxr.evaluation.report import write_table

TRAINED_ON = "train_files.csv"


def write_trained_on(folder: Path, data: LabelledData, positions: np.ndarray) -> None:
    """Record which files a run trains on, so that a later evaluation can tell whether it sees them again."""
    classes = [info.name for info in data.classes]  # pairs have none
    records = [data.source.records[position] for position in positions]
    write_table(folder / TRAINED_ON, ["file", "bytes", "label", "patient_id"], (
        [data.source.own_path(int(position)), _size(data, position), classes[record.label] if classes else "",
         record.patient_id or ""]
        for position, record in zip(positions, records, strict=True)))


def trained_on(weights: Path, data: LabelledData) -> int | None:
    """How many of ``data``'s images (same file, or same patient) the run behind ``weights`` was trained on.

    ``weights`` is a checkpoint folder of the run or a file in it; None where no record lies beside it.
    """
    around = [folder / TRAINED_ON for folder in weights.resolve().parents[:3]]
    file = next((file for file in around if file.is_file()), None)
    if file is None:
        return None
    with open(file, encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    files = {(row["file"], row["bytes"]) for row in rows}
    patients = {row["patient_id"] for row in rows} - {""}
    # By its own path, so that what was learned in a mixture is found elsewhere; by the mixture's, as once recorded.
    return sum(any((path, str(_size(data, i))) in files for path in {data.source.own_path(i), record.path})
               or record.patient_id in patients for i, record in enumerate(data.source.records))


def say_overlap(weights: Path, data: LabelledData, say: Callable[[str], None]) -> int | None:
    """:func:`trained_on`, said to the user."""
    overlap = trained_on(weights, data)
    if overlap is None:
        say("权重旁没有训练文件的记录（train_files.csv），无法核对这些图是否用于训练过它")
    elif overlap:
        say(f"!! 其中 {overlap} 张（或同一患者的图）用于训练过这份权重：这个结果不代表在新数据上的表现")
    return overlap


def say_seen(data: LabelledData, positions: np.ndarray, train: np.ndarray, start: Path | None,
             say: Callable[[str], None]) -> dict[str, Any]:
    """How many of the images at ``positions`` this run, or the one its weights started from, was trained on; says so.

    Args:
        train: positions this run is trained on.
        start: the weights it started from, None where no run made them.
    """
    overlap = len(np.intersect1d(positions, train))
    before = 0 if start is None else trained_on(start, part_of(data, positions))
    if overlap:
        say(f"!! 评估的 {len(positions)} 张里有 {overlap} 张用于训练：这个结果不代表在新数据上的表现")
    if before:
        say(f"!! 评估的 {len(positions)} 张里有 {before} 张（或同一患者的图）起点训练时已经看过")
    return {"also_trained_on": overlap, "also_pretrained_on": before}


def _size(data: LabelledData, position: int) -> int:
    file = Path(data.source.locate(int(position)))
    return file.stat().st_size if file.is_file() else -1
