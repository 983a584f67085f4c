"""NIH ChestX-ray14 (Wang et al., CVPR 2017, arXiv:1705.02315)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from paddle_cxr.data.findings import FindingBox, FindingsRecord, FindingsSource
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.data.sources.boxes import box_of
from paddle_cxr.data.sources.findings_layout import (
    Absent,
    SharedLabels,
    choose_findings,
    images_below,
    spellings,
    usable_records,
)
from paddle_cxr.data.sources.layout import known_patient, open_root, read_text, why_missing
from paddle_cxr.data.sources.tables import find_table, read_cells, read_rows
from paddle_cxr.errors import UserError
from paddle_cxr.registry import register

FINDINGS = (
    ClassInfo("Atelectasis", "肺不张", "Atelectasis"),
    ClassInfo("Cardiomegaly", "心影增大", "Cardiomegaly"),
    ClassInfo("Effusion", "胸腔积液", "Pleural effusion", ("pleural_effusion",)),
    ClassInfo("Infiltration", "浸润影", "Infiltration", ("Infiltrate",)),  # as BBox_List_2017.csv writes it
    ClassInfo("Mass", "肿块", "Mass"),
    ClassInfo("Nodule", "结节", "Nodule"),
    ClassInfo("Pneumonia", "肺炎", "Pneumonia"),
    ClassInfo("Pneumothorax", "气胸", "Pneumothorax"),
    ClassInfo("Consolidation", "实变", "Consolidation"),
    ClassInfo("Edema", "肺水肿", "Pulmonary edema", ("Oedema",)),
    ClassInfo("Emphysema", "肺气肿", "Emphysema"),
    ClassInfo("Fibrosis", "肺纤维化", "Pulmonary fibrosis"),
    ClassInfo("Pleural_Thickening", "胸膜增厚", "Pleural thickening"),
    ClassInfo("Hernia", "疝", "Hernia", ("Hiatal hernia",)),
)

_NAME, _DATASET = "ChestXray14", "NIH ChestX-ray14"
_TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017*.csv")  # v2020 has corrected ages and patient ids
_LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
_BOXES = "BBox_List_2017.csv"
_NOTHING = "no finding"
_SPELLINGS = spellings(FINDINGS)
_DEPTH = 2  # images_001/images/00000001_000.png


@register("findings")
class ChestXray14(FindingsSource):
    """112,120 frontal films of 30,805 patients, 14 findings mined from reports; 984 boxes drawn by a radiologist.

    Published by the NIH Clinical Center (nihcc.app.box.com/v/ChestXray-NIHCC, also on Kaggle); free to use with
    citation.  Below ``root`` lie, as unpacked::

        Data_Entry_2017.csv  or  Data_Entry_2017_v2020.csv
        train_val_list.txt   test_list.txt             the official division by patient
        BBox_List_2017.csv                             880 images, 8 findings
        images_001/images/00000001_000.png …           images_001/… and one images/ are read too

    Every finding is known for every image: what the reports do not name is absent.  ``train_val_list.txt`` is ``train``
    (``Split: {name: Published, val: 0.1}`` takes validation patients out of it).  Where a finding is boxed its place is
    known; where it is present and not boxed, it is not.  The header of ``BBox_List_2017.csv`` says ``Bbox [x,y,w,h]``,
    which is taken apart at its commas, so its cells are read by position; its ``Infiltrate`` is ``Infiltration``.

    Args:
        root: the folder, or an archive of it.
        findings: use these only.
        image_size: side of the images in pixels, where they were resized; the boxes are drawn for 1024.
        absent: what to do about images that the table names and the disk lacks: ``error`` or ``skip``.

    Raises:
        UserError: no table, a column missing, an unknown finding, an image on both lists, an absent image, a box that
            is no four numbers.
    """

    def __init__(self, root: str, findings: tuple[str, ...] | None = None, image_size: int = 1024,
                 absent: Absent = "error") -> None:
        notices: list[str] = []
        folder = open_root(root, notices, "Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
        table = find_table(folder, _TABLES, _DATASET, _NAME)
        chosen = choose_findings(FINDINGS, findings, _NAME)
        if image_size < 1:
            raise UserError(f"{_NAME}.image_size：应是图像的边长（像素），现在是 {image_size}")
        splits, boxes = _splits(folder, notices), _boxes(folder, {info.name for info in chosen}, image_size, notices)
        places, shared = images_below(folder, _DEPTH), SharedLabels(chosen)
        records = []
        for where, (name, cell, patient, age, sex, view) in read_rows(
                table, ("Image Index", "Finding Labels", "Patient ID"), _DATASET,
                ("Patient Age", "Patient Gender", "View Position")):
            present = _present(cell, where)
            records.append(FindingsRecord(
                places.get(name, name), 0, known_patient(patient), splits.get(name),
                extra={key: text for key, text in (("age", age), ("sex", sex)) if text},
                labels=shared.of([int(info.name in present) for info in chosen]),
                boxes=boxes.pop(name, ()), view=view))
        if splits and (without := sum(record.split is None for record in records)):
            notices.append(f"{table}：{without} 张图不在 {' 和 '.join(_LISTS.values())} 里，没有发布者的划分")
        if boxes:
            notices.append(f"{folder / _BOXES}：{len(boxes)} 张有框的图不在 {table.name} 里"
                           f"（例如 {next(iter(boxes))}）")
        there = [record.path.rpartition("/")[2] in places for record in records]
        self._size = image_size
        super().__init__("chestxray14", folder, chosen,
                         usable_records(records, there, absent, folder, _NAME, notices), notices)

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """Absent or empty root."""
        return why_missing(str(arguments.get("root", "")))

    def mask(self, index: int, finding: str, shape: tuple[int, int]) -> np.ndarray:
        """The inside of the boxes; refuses an image of another size than ``image_size``, where they lie elsewhere."""
        if self.records[index].boxes and tuple(shape) != (self._size, self._size):
            raise UserError(f"{self.locate(index)}：图像为 {shape[1]}×{shape[0]}，而标注框（box）按 "
                            f"{self._size}×{self._size} 换算；图像缩放过时，请设 {_NAME}.image_size")
        return super().mask(index, finding, shape)


def _present(cell: str, where: str) -> set[str]:
    """``Effusion|Mass`` → the names of the findings; empty for ``No Finding``."""
    return {_finding(part, where) for part in cell.split("|") if part.strip().lower() != _NOTHING}


def _finding(text: str, where: str) -> str:
    if text.strip().lower() in _SPELLINGS:
        return _SPELLINGS[text.strip().lower()]
    raise UserError(f"{where}：不认识的征象（finding）{text!r}；{_DATASET} 有 "
                    f"{'、'.join(info.name for info in FINDINGS)} 和 No Finding")


def _splits(folder: Path, notices: list[str]) -> dict[str, str]:
    """Image → split, of the official lists; said where one is absent."""
    splits: dict[str, str] = {}
    for split, file in _LISTS.items():
        if not (folder / file).is_file():
            notices.append(f"{folder} 里没有 {file}：缺发布者的划分")
            continue
        for name in read_text(folder / file).split():
            if splits.setdefault(name, split) != split:
                raise UserError(f"{folder / file}：{name} 也在 {_LISTS[splits[name]]} 里；请重新下载这两个列表")
    return splits


def _boxes(folder: Path, wanted: set[str], image_size: int, notices: list[str]) -> dict[str, tuple[FindingBox, ...]]:
    """Image → its boxes, in pixels of the images as they are on disk."""
    file, scale = folder / _BOXES, image_size / 1024
    if not file.is_file():
        notices.append(f"{folder} 里没有 {_BOXES}：没有标注框（box）")
        return {}
    boxes: dict[str, tuple[FindingBox, ...]] = {}
    rows = read_cells(file)
    next(rows, None)  # the header: Image Index,Finding Label,Bbox [x,y,w,h],,,
    for where, cells in rows:
        if len(cells) < 6:
            raise UserError(f"{where}：应有图像、征象和 x、y、w、h 共 6 列，现在有 {len(cells)} 列")
        name, label = cells[0], _finding(cells[1], where)
        if label in wanted:
            box = box_of(label, cells[2:6], where)
            boxes[name] = (*boxes.get(name, ()), FindingBox(label, scale * box.x, scale * box.y, scale * box.width,
                                                            scale * box.height))
    return boxes
