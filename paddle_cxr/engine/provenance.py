"""Which images a run was trained on or chose on, so that no later evaluation takes them for new ones unawares."""

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
CHOSEN_ON = "chosen_files.csv"
_CHECKPOINTS, _MODEL = "checkpoints", "model"  # where a run keeps its weights


def write_trained_on(folder: Path, data: LabelledData, positions: np.ndarray, name: str = TRAINED_ON) -> None:
    """Record which files a run trains on, so that a later evaluation can tell whether it sees them again.

    Args:
        name: of the file; :data:`CHOSEN_ON` for those on which thresholds or the best epoch are chosen.
    """
    classes = [info.name for info in data.classes]  # pairs have none
    records = [data.source.records[position] for position in positions]
    origins = [data.source.origin(int(position)) for position in positions]
    write_table(folder / name, ["file", "bytes", "label", "patient_id", "cohort"], (
        [path, _size(data, position), classes[record.label] if classes else "", record.patient_id or "", cohort]
        for position, record, (cohort, path) in zip(positions, records, origins, strict=True)))


def trained_on(weights: Path, data: LabelledData, say: Callable[[str], None], name: str = TRAINED_ON) -> int | None:
    """How many of ``data``'s images (same file, or same patient) the run behind ``weights`` was trained on.

    An id means the same patient within a cohort (:class:`paddle_cxr.data.records.Source`): many data sets have a
    patient "1".  A record that names no cohorts, as it was once written, may mean any.

    Args:
        weights: a folder of weights of the run, or a file in it.
        say: is told of a record that cannot be read, and of ids met in another cohort, which are not counted.
        name: as of :func:`write_trained_on`.

    Returns:
        The number; None where no record lies beside the weights, or none that can be read: an evaluation that is done
        must not end for it.
    """
    file = _record_of(weights, name)
    if file is None:
        return None
    try:
        files, cohorts_of = _read(file)
    except UserError as error:
        say(f"!! 没有使用训练文件的记录：{error}")
        return None
    seen, elsewhere = 0, 0
    for index, record in enumerate(data.source.records):
        cohort, own_path = data.source.origin(index)
        cohorts = cohorts_of.get(_cell(record.patient_id or ""), set())
        # By its own path, so that what was learned in a mixture is found elsewhere; by the mixture's, as once recorded.
        size = str(_size(data, index))
        if cohorts & {_cell(cohort), ""} or any((_cell(path), size) in files for path in (own_path, record.path)):
            seen += 1
        elif cohorts:
            elsewhere += 1
    if elsewhere:
        say(f"有 {elsewhere} 张的患者编号（patient_id）在训练数据里也有，但那是另一个数据集的编号，没有算作训练过的；"
            "如果其实是同一批患者，这个结果不代表在新数据上的表现")
    return seen


def _read(file: Path) -> tuple[set[tuple[str, str]], dict[str, set[str]]]:
    """Path and size of every image trained on, and patient → cohorts; raises UserError for what is no such record."""
    files, cohorts_of = set(), {}
    columns, optional = ("file", "bytes", "patient_id"), ("cohort",)
    for _, (path, size, patient, cohort) in read_rows(file, columns, "训练文件的记录", optional):
        files.add((path, size))
        if patient:
            cohorts_of.setdefault(patient, set()).add(cohort)
    return files, cohorts_of


def _cell(text: str) -> str:
    """As a table gives it back."""
    return text.strip()


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


def say_chosen(data: LabelledData, positions: np.ndarray, chosen_on: np.ndarray, what: str,
               say: Callable[[str], None]) -> dict[str, Any]:
    """How many of the images at ``positions`` this run chose something on; says so.

    Args:
        chosen_on: positions it chose on; what: it chose, for the message.
    """
    overlap = len(np.intersect1d(positions, chosen_on))
    if overlap:
        say(f"!! 评估的 {len(positions)} 张里有 {overlap} 张也用来选{what}，这个结果偏乐观；"
            "要另外的测试集，请写 DataLoader.Test")
    return {"also_chosen_on": overlap}


def say_chosen_before(weights: Path, data: LabelledData, say: Callable[[str], None]) -> dict[str, Any]:
    """How many of ``data``'s images the run behind ``weights`` chose thresholds or its best epoch on; says so."""
    overlap = trained_on(weights, data, say, CHOSEN_ON)
    if overlap is None:
        say(f"权重旁没有记录阈值和最好的一轮是在哪些图上选的（{CHOSEN_ON}），无法核对这些图是否参加过选择")
    elif overlap:
        say(f"!! 其中 {overlap} 张（或同一患者的图）用来选过这份权重的阈值或最好的一轮，这个结果偏乐观；"
            "请评估没有参加选择的子集，例如 test")
    return {"also_chosen_on": overlap}


def _record_of(weights: Path, name: str) -> Path | None:
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
    return next((run / name for run in runs if os.path.isfile(run / name)), None)


def _size(data: LabelledData, position: int) -> int:
    return file_size(data.source.locate(int(position)))
