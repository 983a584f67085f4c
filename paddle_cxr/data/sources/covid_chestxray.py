"""covid-chestxray-dataset (Cohen et al. 2020): a GitHub repository of ``metadata.csv`` and ``images/``."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from paddle_cxr.data.image import EXTENSIONS
from paddle_cxr.data.records import ClassInfo, Record, Source
from paddle_cxr.data.sources.layout import inside, known_patient, open_root, read_table, why_missing
from paddle_cxr.errors import UserError
from paddle_cxr.registry import register

_FRONTAL_VIEWS = ("PA", "AP", "AP Supine", "AP Erect")
_KEPT = ("offset", "sex", "age", "survival", "view", "date", "location", "clinical_notes", "license", "finding")


@register("source")
class CovidChestXray(Source):
    """Images of ``metadata.csv``, one row an image.

    The finding is a path from general to special, ``Pneumonia/Viral/COVID-19``; an image belongs to the class that its
    most special part names, by class name or alias.  So with classes COVID (alias COVID-19) and PNEUMONIA,
    ``Pneumonia/Viral/SARS`` is PNEUMONIA.  Rows of no class, other views, CT and volumes are left out and counted.

    Args:
        root: the repository's folder, or an archive of it.
        views: the views used; by default every frontal one.
        classes: the classes (supplied by the program).

    Raises:
        UserError: no ``metadata.csv``, a column missing, an image missing (with its line), nothing left.
    """

    def __init__(self, root: str, views: tuple[str, ...] = _FRONTAL_VIEWS, *, classes: tuple[ClassInfo, ...]) -> None:
        self.notices: list[str] = []
        folder = open_root(root, self.notices, "metadata.csv")
        path = folder / "metadata.csv"
        left_out: Counter[str] = Counter()
        records: dict[str, Record] = {}
        for where, row in read_table(path):
            # The first releases wrote Patientid and had neither modality nor folder.
            row = {name.lower(): text for name, text in row.items()}
            _check_columns(path, row)
            reason, label = _choose(row, views, classes)
            if reason:
                left_out[reason] += 1
                continue
            image = inside(f"{row.get('folder') or 'images'}/{row['filename']}", where)
            if image in records:
                left_out["重复的行"] += 1
                continue
            if not os.path.isfile(folder / image):
                raise UserError(f"{where}：找不到图像 {folder / image}；下载不完整时请重新 git clone")
            extra = {name: row[name] for name in _KEPT if row.get(name)}
            records[image] = Record(image, label, known_patient(row["patientid"]), extra=extra)
        if left_out:
            counts = "、".join(f"{reason} {number}" for reason, number in left_out.most_common())
            self.notices.append(f"{path}：略过 {sum(left_out.values())} 行（{counts}）")
        if not records:
            raise UserError(f"{path}：没有一行属于 Global.classes 中的类别；请检查 views 和各类的 aliases")
        super().__init__("covid-chestxray-dataset", folder, classes, list(records.values()))

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """Absent or empty root."""
        return why_missing(str(arguments.get("root", "")))


def _check_columns(path: object, row: Mapping[str, str]) -> None:
    for name in ("patientid", "finding", "view", "filename"):
        if name not in row:
            raise UserError(f"{path}:1：表头没有列 {name!r}，不像 covid-chestxray-dataset 的 metadata.csv")


def _choose(row: Mapping[str, str], views: Sequence[str], classes: Sequence[ClassInfo]) -> tuple[str, int]:
    """``("", label)`` for a row to use, else the reason why it is left out."""
    if row.get("modality", "X-ray") not in ("X-ray", ""):
        return f"成像方式 {row['modality']}", -1
    if row["view"] not in views:
        return f"体位 {row['view'] or '空'}", -1
    if not row["filename"].lower().endswith(EXTENSIONS):
        return "不是图像文件", -1
    for part in reversed([row["finding"], *re.split("[/,]", row["finding"])]):
        for label, info in enumerate(classes):
            if info.matches(part):
                return "", label
    return f"诊断 {row['finding'] or '空'}", -1
