"""VinDr-CXR (Nguyen et al., Scientific Data 9, 2022, arXiv:2012.15029)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from paddle_cxr.data.findings import FindingBox, FindingsRecord, FindingsSource
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.data.sources.findings_layout import (
    Absent,
    SharedLabels,
    check_boxes_fit,
    choose_findings,
    images_below,
    spellings,
    usable_records,
)
from paddle_cxr.data.sources.layout import open_root, why_missing
from paddle_cxr.data.sources.tables import header_of, read_rows
from paddle_cxr.data.sources.vindr_kaggle import FINDINGS as IN_KAGGLE
from paddle_cxr.data.sources.vindr_kaggle import TABLE as KAGGLE
from paddle_cxr.data.sources.vindr_kaggle import read_votes
from paddle_cxr.errors import UserError
from paddle_cxr.registry import register

LOCAL = (
    ClassInfo("Aortic enlargement", "主动脉增宽", "Aortic enlargement"),
    ClassInfo("Atelectasis", "肺不张", "Atelectasis"),
    ClassInfo("Calcification", "钙化", "Calcification"),
    ClassInfo("Cardiomegaly", "心影增大", "Cardiomegaly"),
    ClassInfo("Clavicle fracture", "锁骨骨折", "Clavicle fracture"),
    ClassInfo("Consolidation", "实变", "Consolidation"),
    ClassInfo("Edema", "肺水肿", "Pulmonary edema", ("Oedema",)),
    ClassInfo("Emphysema", "肺气肿", "Emphysema"),
    ClassInfo("Enlarged PA", "肺动脉增宽", "Enlarged pulmonary artery"),
    ClassInfo("ILD", "间质性肺病", "Interstitial lung disease"),
    ClassInfo("Infiltration", "浸润影", "Infiltration"),
    ClassInfo("Lung Opacity", "肺部阴影", "Lung opacity"),
    ClassInfo("Lung cavity", "肺空洞", "Lung cavity"),
    ClassInfo("Lung cyst", "肺囊肿", "Lung cyst"),
    ClassInfo("Mediastinal shift", "纵隔移位", "Mediastinal shift"),
    ClassInfo("Nodule/Mass", "结节或肿块", "Nodule or mass"),
    ClassInfo("Pleural effusion", "胸腔积液", "Pleural effusion", ("Effusion", "pleural_effusion")),
    ClassInfo("Pleural thickening", "胸膜增厚", "Pleural thickening"),
    ClassInfo("Pneumothorax", "气胸", "Pneumothorax"),
    ClassInfo("Pulmonary fibrosis", "肺纤维化", "Pulmonary fibrosis", ("Fibrosis",)),
    ClassInfo("Rib fracture", "肋骨骨折", "Rib fracture"),
    ClassInfo("Other lesion", "其他病灶", "Other lesion"),
)
"""The 22 findings that are boxed."""

GLOBAL = (
    ClassInfo("COPD", "慢性阻塞性肺疾病", "Chronic obstructive pulmonary disease"),
    ClassInfo("Lung tumor", "肺肿瘤", "Lung tumour"),
    ClassInfo("Pneumonia", "肺炎", "Pneumonia"),
    ClassInfo("Tuberculosis", "结核", "Tuberculosis"),
    ClassInfo("Other disease", "其他疾病", "Other disease", ("Other diseases",)),  # the two tables differ
    ClassInfo("No finding", "未见异常", "No finding"),
)
"""Diagnoses of the whole film."""

FINDINGS = (*LOCAL, *GLOBAL)

_NAME, _DATASET = "VinDrCxr", "VinDr-CXR"
_SPLITS = ("train", "test")
_CORNERS = ("x_min", "y_min", "x_max", "y_max")
_LABELS = {"1": 1, "1.0": 1, "0": 0, "0.0": 0}
_Boxes = Mapping[str, tuple[FindingBox, ...]]
_Votes = Mapping[str, Sequence[Sequence[int]]]  # image → reader → label of each finding


@register("findings")
class VinDrCxr(FindingsSource):
    """18,000 PA films from two hospitals in Hanoi, read by radiologists: 22 boxed findings and 6 diagnoses.

    Published on PhysioNet (physionet.org/content/vindr-cxr); credentialed health data license, not to be passed on.
    Below ``root`` lie::

        annotations/image_labels_train.csv  annotations/image_labels_test.csv
        annotations/annotations_train.csv   annotations/annotations_test.csv     the boxes, in pixels of the DICOM
        train/000434271f63a053c4128a0ba6352c7f.dicom …                           test/….dicom

    The images may have been converted (``train/<image_id>.png`` or ``.jpg``), in the same size: the boxes are refused
    for a smaller one.  A split whose tables or images are not there is left out.  There are no patient ids.

    What Kaggle gave out of it (VinBigData Chest X-ray Abnormalities Detection) is read too: ``train.csv`` with the
    boxes of three readers a film beside ``train/``.  A reader who boxed no such finding calls it absent, 14 findings
    and ``No finding`` are known, and there is no published division (the films of Kaggle's test set have no labels).

    Three radiologists each read a training film by themselves, five agreed on a test film's labels.  ``readers`` says
    what three votes make of a label; boxes are kept from all of them, so one finding may have several boxes for one
    place, and their union is its mask.  Where a finding is voted absent though somebody boxed it, its place counts as
    unknown.

    Args:
        root: the folder, or an archive of it.
        findings: use these only.
        readers: a training label is 1 where the ``majority``, ``any`` or ``all`` of the film's readers say so.
        absent: what to do about images that the tables name and the disk lacks: ``error`` or ``skip``.

    Raises:
        UserError: no tables, a column missing, an unknown finding, a label that is neither 0 nor 1, a box that is no
            four numbers, an absent image.
    """

    def __init__(self, root: str, findings: tuple[str, ...] | None = None,
                 readers: Literal["majority", "any", "all"] = "majority", absent: Absent = "error") -> None:
        notices: list[str] = []
        folder = open_root(root, notices, "annotations", KAGGLE)
        of_kaggle = not (folder / "annotations").is_dir() and (folder / KAGGLE).is_file()
        known = [info for info in FINDINGS if info.name in IN_KAGGLE] if of_kaggle else FINDINGS
        chosen = choose_findings(known, findings, _NAME)
        records: list[FindingsRecord] = []
        there: list[bool] = []
        for split, votes, boxes in (_kaggle if of_kaggle else _published)(folder, chosen, notices):
            # By name without extension: .dicom as published, or whatever it was converted to.
            places = {name.rpartition(".")[0]: f"{split}/{place}"
                      for name, place in images_below(folder / split, 0).items()}
            shared = SharedLabels(chosen)
            for image, readings in votes.items():
                there.append(image in places)
                records.append(FindingsRecord(
                    places.get(image, f"{split}/{image}.dicom"), 0, None, None if of_kaggle else split,
                    labels=shared.of([_verdict(one, readers) for one in zip(*readings, strict=True)]),
                    boxes=boxes.get(image, ()), view="PA"))
        notices.append(f"{_DATASET} 没有患者编号（patient_id）：训练集内部只能按图像划分")
        super().__init__("vindr-cxr", folder, chosen,
                         usable_records(records, there, absent, folder, _NAME, notices), notices)

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """Absent or empty root."""
        return why_missing(str(arguments.get("root", "")))

    def annotated(self, index: int, finding: str) -> bool:
        """Present and boxed by a reader, or absent and boxed by none; where readers disagree, nobody knows."""
        record = self.records[index]
        boxed = any(box.finding == finding for box in record.boxes)
        return record.labels.get(finding) == int(boxed)

    def mask(self, index: int, finding: str, shape: tuple[int, int]) -> np.ndarray:
        """The inside of the boxes; refuses an image smaller than they."""
        check_boxes_fit(self.records[index].boxes, shape, self.locate(index), "请用原来的 DICOM，或按原尺寸转换的图")
        return super().mask(index, finding, shape)


def _published(folder: Path, findings: Sequence[ClassInfo], notices: list[str]) -> Iterator[tuple[str, _Votes, _Boxes]]:
    """Split, votes and boxes, of the release on PhysioNet."""
    tables = folder / "annotations"
    splits = [split for split in _SPLITS if (tables / f"image_labels_{split}.csv").is_file()]
    if not splits:
        raise UserError(f"{tables} 里没有 image_labels_train.csv 或 image_labels_test.csv（{folder} 里也没有 Kaggle 的 "
                        f"{KAGGLE}），不像 {_DATASET}；请检查 {_NAME}.root，数据下载方法见 docs/data.md")
    for split in splits:
        if (folder / split).is_dir():
            yield (split, _votes(tables / f"image_labels_{split}.csv", findings),
                   _boxes(tables / f"annotations_{split}.csv", findings, notices))
        else:
            notices.append(f"{folder} 里没有 {split} 文件夹：只用其他部分")


def _kaggle(folder: Path, findings: Sequence[ClassInfo], notices: list[str]) -> Iterator[tuple[str, _Votes, _Boxes]]:
    """The same of what Kaggle gave out: its training films."""
    if not (folder / "train").is_dir():
        raise UserError(f"{folder} 里有 {KAGGLE}，没有 train 文件夹（<image_id>.dicom 或转成的 PNG）；请解压下载的图像")
    notices.append(f"{folder}：按 Kaggle（VinBigData）的 {KAGGLE} 读取，只有其中的 {len(IN_KAGGLE)} 种征象")
    yield "train", read_votes(folder / KAGGLE, findings, _DATASET), _boxes(folder / KAGGLE, findings, notices)


def _votes(table: Path, findings: Sequence[ClassInfo]) -> _Votes:
    """Image → its readers' labels."""
    columns = _columns(table, findings)
    votes: dict[str, list[list[int]]] = defaultdict(list)
    for where, (image, *cells) in read_rows(table, ("image_id", *columns), _DATASET):
        for column, cell in zip(columns, cells, strict=True):
            if cell not in _LABELS:
                raise UserError(f"{where}：{column} 的标签 {cell!r} 不是 0 或 1")
        votes[image].append([_LABELS[cell] for cell in cells])
    return votes


def _columns(table: Path, findings: Sequence[ClassInfo]) -> list[str]:
    """The findings' columns, as this table writes them."""
    header = header_of(table)
    return [next((column for column in header if info.matches(column)), info.name) for info in findings]


def _verdict(votes: Sequence[int], readers: str) -> int:
    needed = {"any": 1, "majority": len(votes) // 2 + 1, "all": len(votes)}[readers]
    return int(sum(votes) >= needed)


def _boxes(table: Path, findings: Sequence[ClassInfo], notices: list[str]) -> _Boxes:
    """Image → its boxes, of all readers; said where there is no table."""
    if not table.is_file():
        notices.append(f"没有 {table}：没有标注框（box）")
        return {}
    names = spellings(findings)
    boxes: dict[str, tuple[FindingBox, ...]] = {}
    for where, (image, name, *corners) in read_rows(table, ("image_id", "class_name", *_CORNERS), _DATASET):
        if name.lower() not in names or not any(corners):  # not asked for; no corners where nothing was found
            continue
        left, top, right, bottom = _numbers(corners, where)
        boxes[image] = (*boxes.get(image, ()), FindingBox(names[name.lower()], left, top, right - left, bottom - top))
    return boxes


def _numbers(corners: Sequence[str], where: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(cell) for cell in corners)
    except ValueError:
        numbers = (np.nan,) * 4
    if not np.isfinite(numbers).all() or numbers[2] <= numbers[0] or numbers[3] <= numbers[1]:
        raise UserError(f"{where}：标注框（box）应是四个数 {'、'.join(_CORNERS)}，右下大于左上，"
                        f"现在是 {'、'.join(corners)}")
    return numbers
