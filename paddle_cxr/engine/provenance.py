"""Which images a run was trained on, so that no later evaluation takes them for new ones unawares."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from paddle_cxr.data.labelled import LabelledData, part_of
from paddle_cxr.data.records import file_size
from paddle_cxr.data.sources.tables import read_rows
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.report import write_table

TRAINED_ON = "train_files.csv"
_CHECKPOINTS, _MODEL = "checkpoints", "model"  # where a run keeps its weights


def write_trained_on(folder: Path, data: LabelledData, positions: np.ndarray) -> None:
    """Record which files a run trains on, so that a later evaluation can tell whether it sees them again."""
    classes = [info.name for info in data.classes]  # pairs have none
    records = [data.source.records[position] for position in positions]
    write_table(folder / TRAINED_ON, ["file", "bytes", "label", "patient_id"], (
        [data.source.own_path(int(position)), _size(data, position), classes[record.label] if classes else "",
         record.patient_id or ""]
        for position, record in zip(positions, records, strict=True)))


def trained_on(weights: Path, data: LabelledData, say: Callable[[str], None]) -> int | None:
    """How many of ``data``'s images (same file, or same patient) the run behind ``weights`` was trained on.

    Args:
        weights: a folder of weights of the run, or a file in it.
        say: is told of a record that cannot be read.

    Returns:
        The number; None where no record lies beside the weights, or none that can be read: an evaluation that is done
        must not end for it.
    """
    file = _record_of(weights)
    if file is None:
        return None
    try:
        rows = [cells for _, cells in read_rows(file, ("file", "bytes", "patient_id"), "训练文件的记录")]
    except UserError as error:
        say(f"!! 没有使用训练文件的记录：{error}")
        return None
    files = {(path, size) for path, size, _ in rows}
    patients = {patient for *_, patient in rows} - {""}
    # By its own path, so that what was learned in a mixture is found elsewhere; by the mixture's, as once recorded.
    # Blanks at the ends do not come back from a table.
    return sum(any((path.strip(), str(_size(data, i))) in files for path in {data.source.own_path(i), record.path})
               or (record.patient_id or "").strip() in patients for i, record in enumerate(data.source.records))


def say_overlap(weights: Path, data: LabelledData, say: Callable[[str], None]) -> int | None:
    """:func:`trained_on`, said to the user."""
    overlap = trained_on(weights, data, say)
    if overlap is None:
        say("权重旁没有可用的训练文件记录（train_files.csv），无法核对这些图是否用于训练过它")
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
    before = 0 if start is None else trained_on(start, part_of(data, positions), say)
    if overlap:
        say(f"!! 评估的 {len(positions)} 张里有 {overlap} 张用于训练：这个结果不代表在新数据上的表现")
    if before:
        say(f"!! 评估的 {len(positions)} 张里有 {before} 张（或同一患者的图）起点训练时已经看过")
    return {"also_trained_on": overlap, "also_pretrained_on": before}


def _record_of(weights: Path) -> Path | None:
    """The record of the run that ``weights`` are of: in the run's folder, or right beside weights that were copied.

    Nowhere else: one further up would be another run's, or a user's file.
    """
    folder = weights.resolve()
    if not os.path.isdir(folder):
        folder = folder.parent
    runs = [folder]
    if folder.parent.name == _CHECKPOINTS:
        runs.append(folder.parent.parent)
    elif folder.name == _MODEL:
        runs.append(folder.parent)
    return next((run / TRAINED_ON for run in runs if os.path.isfile(run / TRAINED_ON)), None)


def _size(data: LabelledData, position: int) -> int:
    return file_size(data.source.locate(int(position)))
