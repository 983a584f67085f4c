"""RSNA Pneumonia Detection Challenge 2018 (Shih et al., Radiology: Artificial Intelligence 1(1), 2019)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from paddle_cxr.data.findings import FindingBox, FindingsRecord, FindingsSource
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.data.sources.boxes import box_of
from paddle_cxr.data.sources.findings_layout import (
    Absent,
    check_boxes_fit,
    choose_findings,
    images_below,
    usable_records,
)
from paddle_cxr.data.sources.layout import inside, open_root, why_missing
from paddle_cxr.data.sources.tables import find_table, read_rows
from paddle_cxr.errors import UserError
from paddle_cxr.registry import register

PNEUMONIA = ClassInfo("Pneumonia", "肺炎", "Pneumonia", ("Lung Opacity",))
NORMAL = ClassInfo("Normal", "正常", "Normal")
CLASSES = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")

_NAME, _DATASET = "RSNAPneumonia", "RSNA Pneumonia Detection Challenge"
_LABELS, _DETAILS = ("stage_2_train_labels.csv", "*train_labels.csv"), "*detailed_class_info.csv"
_MAPPINGS = "pneumonia-challenge-dataset-mappings_2018.json"
_IMAGES = ("stage_2_train_images", "train_images", "images")
_MAX_MAPPINGS = 200_000_000  # bytes; published: 26 MB


@register("findings")
class RSNAPneumonia(FindingsSource):
    """26,684 frontal films of ChestX-ray14, read again by radiologists: opacities suspicious of pneumonia, with boxes.

    Published by the RSNA for a Kaggle challenge.  Below ``root`` lie, as unpacked::

        stage_2_train_labels.csv           patientId,x,y,width,height,Target: a row a box, one without numbers for none
        stage_2_detailed_class_info.csv    patientId,class: Normal, No Lung Opacity / Not Normal, Lung Opacity
        stage_2_train_images/<patientId>.dcm           or PNG or JPEG copies of the same size
        pneumonia-challenge-dataset-mappings_2018.json (optional, from RSNA's site) the films' names in ChestX-ray14

    ``Pneumonia`` is the challenge's Target.  ``Normal`` (with the second table) is 1 for a normal film, 0 for one with
    opacities or with anything else; the class itself is in ``extra["class"]``.  The place of every opacity is known,
    and a film of Target 0 has none.  Boxes are in pixels of the films as published, whatever their shape.

    The ``patientId`` names a film, not a patient: several are of one patient.  Only the mappings tell; without them a
    split cannot keep patients apart, and a notice says so.  With them a patient has the id that :class:`ChestXray14`
    gives, so that a model trained there is found to know the films here.  The films of ``stage_2_test_images`` have no
    labels.

    Args:
        root: the folder, or an archive of it.
        findings: use these only.
        images: the folder of the films inside ``root``; by default ``stage_2_train_images``, ``train_images`` or
            ``images``.
        absent: what to do about films that the table names and the disk lacks: ``error`` or ``skip``.

    Raises:
        UserError: a table or column missing, a Target that is neither 0 nor 1 or not the same in a film's rows, a
            Target of 1 without a box or of 0 with one, another class, two classes for a film, an absent film.
    """

    cohort = "chestxray14"

    def __init__(self, root: str, findings: tuple[str, ...] | None = None, images: str | None = None,
                 absent: Absent = "error") -> None:
        notices: list[str] = []
        folder = open_root(root, notices, *_LABELS[:1], *_IMAGES)
        films = _image_folder(folder, images)
        boxes = _boxes(find_table(folder, _LABELS, _DATASET, _NAME))
        classes = _classes(folder, boxes, notices)
        patients = _patients(folder, notices)
        chosen = choose_findings((PNEUMONIA, NORMAL) if classes else (PNEUMONIA,), findings, _NAME)
        names = {info.name for info in chosen}
        below = films.relative_to(folder).as_posix()  # of several names where images says so
        places = {Path(name).stem: f"{below}/{place}" for name, place in images_below(films, 0).items()}
        records = []
        for film, its in boxes.items():
            its_class = classes.get(film)
            known = {PNEUMONIA.name: int(bool(its)),
                     NORMAL.name: None if its_class is None else int(its_class == "Normal")}
            records.append(FindingsRecord(
                places.get(film, f"{below}/{inside(film, folder.name)}.dcm"), 0, patients.get(film),
                extra={"class": its_class} if its_class else {},
                labels={name: label for name, label in known.items() if name in names},
                boxes=its if PNEUMONIA.name in names else ()))
        if patients and (strange := sum(record.patient_id is None for record in records)):
            notices.append(f"{folder / _MAPPINGS}：没有 {strange} 张图的患者编号（patient_id）")
        there = [film in places for film in boxes]
        super().__init__("rsna-pneumonia", folder, chosen,
                         usable_records(records, there, absent, folder, _NAME, notices), notices)

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """Absent or empty root."""
        return why_missing(str(arguments.get("root", "")))

    def mask(self, index: int, finding: str, shape: tuple[int, int]) -> np.ndarray:
        """The inside of the boxes; refuses an image smaller than they are, a copy that was made smaller."""
        check_boxes_fit(self.records[index].boxes, shape, self.locate(index), "请用原来大小的图")
        return super().mask(index, finding, shape)


def _image_folder(folder: Path, chosen: str | None) -> Path:
    names = _IMAGES if chosen is None else (inside(chosen, f"{_NAME}.images"),)
    for name in names:
        if os.path.isdir(folder / name):
            return folder / name
    raise UserError(f"{folder} 里没有图像文件夹 {' 或 '.join(names)}；请解压下载的图像，或设 {_NAME}.images")


def _boxes(table: Path) -> dict[str, tuple[FindingBox, ...]]:
    """Film → its boxes, none for Target 0."""
    boxes: dict[str, tuple[FindingBox, ...]] = {}
    columns = ("patientId", "x", "y", "width", "height", "Target")
    for where, (film, *numbers, target) in read_rows(table, columns, _DATASET):
        if target not in ("0", "1"):
            raise UserError(f"{where}：Target 应为 0 或 1，现在是 {target!r}")
        earlier = boxes.get(film)
        if target == "1":
            if earlier == ():
                raise UserError(f"{where}：{film} 的 Target 前面是 0，这里是 1；请重新下载 {table.name}")
            boxes[film] = (*(earlier or ()), box_of(PNEUMONIA.name, numbers, where))
        elif any(numbers):
            raise UserError(f"{where}：Target 是 0，却有标注框（box）{'、'.join(numbers)}")
        elif earlier:
            raise UserError(f"{where}：{film} 的 Target 前面是 1，这里是 0；请重新下载 {table.name}")
        else:
            boxes[film] = ()
    return boxes


def _classes(folder: Path, boxes: dict[str, tuple[FindingBox, ...]], notices: list[str]) -> dict[str, str]:
    """Film → one of :data:`CLASSES`; the table repeats a film's for every box."""
    found = sorted(folder.glob(_DETAILS))
    if not found:
        notices.append(f"{folder} 里没有 stage_2_detailed_class_info.csv：不分“正常”与“不正常但没有肺部阴影”")
        return {}
    classes: dict[str, str] = {}
    for where, (film, name) in read_rows(found[-1], ("patientId", "class"), _DATASET):
        if name not in CLASSES:
            raise UserError(f"{where}：class 是 {name!r}，应为 {'、'.join(CLASSES)} 之一")
        if classes.setdefault(film, name) != name:
            raise UserError(f"{where}：{film} 有两个 class（{classes[film]} 和 {name}）；请重新下载 {found[-1].name}")
        if film in boxes and bool(boxes[film]) != (name == "Lung Opacity"):
            raise UserError(f"{where}：{film} 的 class 是 {name}，与 Target {int(bool(boxes[film]))} 不符")
    return classes


def _patients(folder: Path, notices: list[str]) -> dict[str, str]:
    """Film → patient of ChestX-ray14, whose file names begin with its number; written as that data set's table does."""
    file = folder / _MAPPINGS
    if not file.is_file():
        notices.append(f"{folder} 里没有 {_MAPPINGS}：patientId 是图的编号，同一患者的几张图无法归在一起，"
                       "划分后同一患者可能落在不同子集，结果会偏高（下载方法见 docs/data.md）")
        return {}
    rows = _json(file)
    try:
        return {str(row["subset_img_id"]): str(row["img_id"]).partition("_")[0].lstrip("0") for row in rows}
    except (TypeError, KeyError):
        raise UserError(f"{file}：应是一列含 subset_img_id 和 img_id 的对象；请重新下载") from None


def _json(file: Path) -> Any:
    if file.stat().st_size > _MAX_MAPPINGS:
        raise UserError(f"{file}：超过 {_MAX_MAPPINGS // 10**6} MB，不像 {_DATASET} 的文件；请重新下载")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"无法读取 {file}（{error}）；可能没有下载完整，请重新下载") from None
