"""SIIM-ACR Pneumothorax Segmentation Challenge 2019."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from paddle_cxr.data.findings import FindingsRecord, FindingsSource
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.data.sources.findings_layout import Absent, images_below, usable_records
from paddle_cxr.data.sources.layout import inside, open_root, why_missing
from paddle_cxr.data.sources.rle import draw_runs, read_runs
from paddle_cxr.data.sources.tables import find_table, read_rows
from paddle_cxr.errors import UserError
from paddle_cxr.registry import register

PNEUMOTHORAX = ClassInfo("Pneumothorax", "气胸", "Pneumothorax")
SIZE = 1024
"""Side of every published image in pixels; the masks are encoded for it."""

_NAME, _DATASET = "SIIMACRPneumothorax", "SIIM-ACR Pneumothorax"
_TABLES = ("train-rle.csv", "stage_2_train.csv")
_IMAGES = ("dicom-images-train", "dicom-images-test", "stage_2_images", "images")
_DEPTH = 2  # dicom-images-train/<study>/<series>/<image>.dcm
_NONE = "-1"


@register("findings")
class SIIMACRPneumothorax(FindingsSource):
    """12,047 frontal films of ChestX-ray14 with the pneumothoraces outlined by radiologists.

    Published by SIIM, the ACR and the STR for a Kaggle challenge.  Below ``root`` lie, as unpacked::

        train-rle.csv  or  stage_2_train.csv       ImageId, EncodedPixels: a row an outline, -1 for no pneumothorax
        dicom-images-train/<study>/<series>/<ImageId>.dcm
        dicom-images-test/…                        whose outlines only stage_2_train.csv holds

    PNG copies named by ImageId may take the place of the DICOM tree.  The first table's header says `` EncodedPixels``,
    with a blank.  An image of several rows has several outlines; its mask is all of them.  They are run-length encoded
    (:mod:`paddle_cxr.data.sources.rle`) for 1024 × 1024 pixels, the size of every image.  Every label and place is
    known.  Neither the tables nor the DICOM files tell patients apart (``PatientID`` is the image's own), so a split
    may have one patient on both sides, and a notice says so.

    Args:
        root: the folder, or an archive of it.
        table: the table inside ``root``; by default the first of the two that is there.
        images: the folder of the images inside ``root``; by default all of ``dicom-images-train``,
            ``dicom-images-test``, ``stage_2_images`` and ``images``.
        absent: what to do about images that the table names and the disk lacks: ``error`` or ``skip``.

    Raises:
        UserError: no table, a column missing, runs that are none (naming file and line), an image both with and without
            pneumothorax, an absent image, a mask asked for an image of another size.
    """

    def __init__(self, root: str, table: str | None = None, images: str | None = None,
                 absent: Absent = "error") -> None:
        notices = [f"{_DATASET} 没有患者编号（patient_id）：只能按图像划分，同一患者的图像可能落在不同子集，结果会偏高"]
        folder = open_root(root, notices, *_TABLES, *_IMAGES)
        file = find_table(folder, _TABLES if table is None else (inside(table, f"{_NAME}.table"),), _DATASET, _NAME)
        self._runs = _runs(file)
        places = _places(folder, images)
        stems = {Path(name).stem: place for name, place in places.items()}
        records = [FindingsRecord(stems.get(image, f"{inside(image, file.name)}.dcm"), 0,
                                  extra={"image_id": image}, labels={PNEUMOTHORAX.name: int(bool(runs))})
                   for image, runs in self._runs.items()]
        unlisted = [image for image in stems if image not in self._runs]
        if unlisted:
            notices.append(f"{file}：{len(unlisted)} 张图不在表中，没有使用（例如 {unlisted[0]}）")
        there = [image in stems for image in self._runs]
        super().__init__("siim-acr-pneumothorax", folder, (PNEUMOTHORAX,),
                         usable_records(records, there, absent, folder, _NAME, notices), notices)

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """Absent or empty root."""
        return why_missing(str(arguments.get("root", "")))

    def annotated(self, index: int, finding: str) -> bool:
        """Every image is."""
        return finding == PNEUMOTHORAX.name

    def mask(self, index: int, finding: str, shape: tuple[int, int]) -> np.ndarray:
        """All outlines of an image, bool ``[1024, 1024]``; empty without a pneumothorax."""
        if tuple(shape) != (SIZE, SIZE):
            raise UserError(f"{self.locate(index)}：图像为 {shape[1]}×{shape[0]}，而掩膜（mask）按 {SIZE}×{SIZE} 编码；"
                            "请用原来大小的图")
        mask = np.zeros(shape, bool)
        for runs in self._runs[self.records[index].extra["image_id"]]:
            mask |= draw_runs(runs, shape)
        return mask

    def fingerprint(self) -> str:
        """As of other sources, over the outlines too."""
        digest = hashlib.sha256(super().fingerprint().encode())
        for record in self.records:
            for runs in self._runs[record.extra["image_id"]]:
                digest.update(runs.tobytes())
        return digest.hexdigest()[:16]


def _runs(table: Path) -> dict[str, list[np.ndarray]]:
    """ImageId → the runs of each of its outlines, none without a pneumothorax."""
    found: dict[str, list[np.ndarray]] = {}
    for where, (image, text) in read_rows(table, ("ImageId", "EncodedPixels"), _DATASET):
        runs = [] if text == _NONE else [read_runs(text, SIZE * SIZE, where)]
        if image in found and bool(found[image]) != bool(runs):
            raise UserError(f"{where}：{image} 既有气胸的轮廓，又有 -1（没有气胸）；请重新下载 {table.name}")
        found.setdefault(image, []).extend(runs)
    return found


def _places(folder: Path, chosen: str | None) -> Mapping[str, str]:
    """File name → path below ``folder``."""
    names = _IMAGES if chosen is None else (inside(chosen, f"{_NAME}.images"),)
    there = [name for name in names if os.path.isdir(folder / name)]
    if not there:
        raise UserError(f"{folder} 里没有图像文件夹 {' 或 '.join(names)}；请解压下载的图像，或设 {_NAME}.images")
    return {name: f"{one}/{place}" for one in reversed(there)
            for name, place in images_below(folder / one, _DEPTH).items()}
