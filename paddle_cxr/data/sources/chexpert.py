"""CheXpert (Irvin et al., AAAI 2019, arXiv:1901.07031)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from paddle_cxr.data.findings import FindingsRecord, FindingsSource
from paddle_cxr.data.sources.chexpert_labels import COMPETITION, OBSERVATIONS, Blank, LabelPolicy, Uncertain
from paddle_cxr.data.sources.findings_layout import Absent, SharedLabels, choose_findings, files_there, usable_records
from paddle_cxr.data.sources.layout import inside, list_images, open_root, subfolders, why_missing
from paddle_cxr.data.sources.tables import header_of, read_rows
from paddle_cxr.errors import UserError
from paddle_cxr.registry import register

_NAME, _DATASET = "CheXpert", "CheXpert"
# Split → names of its table: as in the release, and those under which the radiologists' labels came later.
_TABLES = {"train": ("train.csv",), "val": ("valid.csv", "val_labels.csv"),
           "test": ("test.csv", "test_labels.csv", "groundtruth.csv")}
_PREFIX = re.compile(r"\ACheXpert[^/]*/", re.IGNORECASE)  # CheXpert-v1.0-small/train/… in the tables
_PATIENT = re.compile(r"(?:\A|/)(patient[0-9]+)/")


@register("findings")
class CheXpert(FindingsSource):
    """224,316 films of 65,240 patients at Stanford; 14 observations mined from reports (train) or read (val, test).

    Published by the Stanford AIMI center (stanfordaimi.azurewebsites.net; the small version also on Kaggle); research
    use agreement, not to be passed on.  Below ``root`` lie, of ``CheXpert-v1.0`` or ``CheXpert-v1.0-small``::

        train.csv  valid.csv                           (and test_labels.csv, test.csv or groundtruth.csv)
        train/patient00001/study1/view1_frontal.jpg …  valid/…  test/…

    The paths in the tables begin with the release's own folder, ``CheXpert-v1.0-small/train/…``, which is left out:
    ``root`` is that folder, or the one that holds it.  Tables that are not there are left out.  The patient is in the
    path.  The 234 validation and 668 test films were read by radiologists, so no cell of theirs is -1 or empty.

    A table with a column ``Study`` instead of ``Path`` speaks of studies (``groundtruth.csv`` of the test set:
    ``CheXpert-v1.0/test/patient64741/study1``); its labels are those of every image in the study's folder.

    Args:
        root: the folder, or an archive of it.
        findings: ``all`` 14, ``competition`` (Atelectasis, Cardiomegaly, Consolidation, Edema, Pleural Effusion), or a
            list.
        uncertain: what -1 means: ``unknown`` (U-Ignore), ``positive`` (U-Ones) or ``negative`` (U-Zeros).
        uncertain_of: finding → what -1 means for it, e.g. ``{Atelectasis: positive, Edema: positive}``.
        blank: what an empty cell means: ``negative``, as in the paper, or ``unknown``.
        frontal_only: leave out lateral films; they are counted.
        absent: what to do about images that a table names and the disk lacks: ``error`` or ``skip``; a study without
            images counts as one.

    Raises:
        UserError: no table, a column missing, an unknown finding, a cell or a path of another kind, an absent image.
    """

    def __init__(self, root: str, findings: Literal["all", "competition"] | tuple[str, ...] = "all",
                 uncertain: Uncertain = "unknown", uncertain_of: dict[str, Uncertain] | None = None,
                 blank: Blank = "negative", frontal_only: bool = True, absent: Absent = "error") -> None:
        notices: list[str] = []
        folder = _release(open_root(root, notices, "train.csv", "valid.csv"))
        wanted = {"all": None, "competition": COMPETITION}[findings] if isinstance(findings, str) else findings
        chosen = choose_findings(OBSERVATIONS, wanted, _NAME)
        policy = LabelPolicy(uncertain, uncertain_of, blank, _NAME)
        shared, names = SharedLabels(chosen), [info.name for info in chosen]
        records, lateral = [], 0
        for split, table in _tables(folder).items():
            for where, place, (*cells, side, position, sex, age) in _rows(folder, table, names):
                view = _view(place, side, position)
                if frontal_only and view == "LATERAL":
                    lateral += 1
                    continue
                labels = shared.of([policy.label(name, cell, where)
                                    for name, cell in zip(names, cells, strict=True)])
                records.append(FindingsRecord(
                    place, 0, _patient(place, where), split, labels=labels, view=view,
                    extra={key: text for key, text in (("sex", sex), ("age", age)) if text}))
        if lateral:
            notices.append(f"{folder}：只用正位（frontal），略过侧位 {lateral} 张")
        there = files_there(folder, (record.path for record in records), _DATASET)
        super().__init__("chexpert", folder, chosen,
                         usable_records(records, there, absent, folder, _NAME, notices), notices)

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """Absent or empty root."""
        return why_missing(str(arguments.get("root", "")))


def _release(folder: Path) -> Path:
    """The folder with the tables: ``folder``, or one in it."""
    names = [name for some in _TABLES.values() for name in some]
    for one in (folder, *subfolders(folder)):
        if any((one / name).is_file() for name in names):
            return one
    raise UserError(f"{folder} 里没有 train.csv、valid.csv 或 test_labels.csv，不像 {_DATASET}；请检查 {_NAME}.root，"
                    "数据下载方法见 docs/data.md")


def _tables(folder: Path) -> dict[str, Path]:
    """Split → table, of those that are there."""
    found = {split: next((folder / name for name in names if (folder / name).is_file()), None)
             for split, names in _TABLES.items()}
    return {split: table for split, table in found.items() if table is not None}


def _rows(folder: Path, table: Path, names: Sequence[str]) -> Iterator[tuple[str, str, list[str]]]:
    """("file:line", path of an image below ``folder``, cells) of each image that a table speaks of.

    Cells are those of ``names``, then side, position, sex and age.
    """
    header = header_of(table)
    by_study = "Study" in header and "Path" not in header
    columns = ("Study" if by_study else "Path", *names)
    for where, (path, *cells) in read_rows(table, columns, _DATASET, ("Frontal/Lateral", "AP/PA", "Sex", "Age")):
        place = _place(folder, path, where)
        for image in _images_of(folder, place) if by_study else (place,):
            yield where, image, cells


def _images_of(folder: Path, study: str) -> list[str]:
    """Paths below ``folder`` of a study's images; the study's own where there is none, so that it counts as absent."""
    images = list_images(folder / study)[0] if os.path.isdir(folder / study) else []
    return [f"{study}/{image.name}" for image in images] or [study]


def _place(folder: Path, path: str, where: str) -> str:
    """``CheXpert-v1.0-small/valid/patient64541/…`` → the path below ``folder``."""
    place = inside(_PREFIX.sub("", path, count=1), where)
    if place.startswith("valid/") and not (folder / "valid").is_dir():  # CheXlocalize names the folder so
        return f"val/{place.removeprefix('valid/')}"
    return place


def _view(place: str, side: str, position: str) -> str:
    """PA, AP, FRONTAL (either) or LATERAL; the test set's table has no columns for it, so the file name must tell."""
    lateral = side.lower() == "lateral" if side else "_lateral." in place.rpartition("/")[2]  # .jpg, or what it became
    return "LATERAL" if lateral else position or "FRONTAL"


def _patient(place: str, where: str) -> str:
    match = _PATIENT.search(place)
    if not match:
        raise UserError(f"{where}：路径 {place!r} 里没有患者编号（应为 train/patient00001/study1/view1_frontal.jpg）")
    return match.group(1)
