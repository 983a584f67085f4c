"""VinDr-CXR as Kaggle gave it out (VinBigData Chest X-ray Abnormalities Detection, 2021): one table, of boxes alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from paddle_cxr.data.records import ClassInfo
from paddle_cxr.data.sources.findings_layout import spellings
from paddle_cxr.data.sources.tables import read_rows
from paddle_cxr.errors import UserError

TABLE = "train.csv"
FINDINGS = ("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD",
            "Infiltration", "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion", "Pleural thickening",
            "Pneumothorax", "Pulmonary fibrosis", "No finding")
"""What its table tells; the rarer findings are "Other lesion" there, and the diagnoses are not given."""


def read_votes(table: Path, findings: Sequence[ClassInfo], dataset: str) -> dict[str, list[list[int]]]:
    """Image → for each of its readers whether every finding is present: a reader says so by a row.

    Raises:
        UserError: a column missing, a class that the table does not have.
    """
    names = {name.lower() for name in FINDINGS}
    wanted = spellings(findings)
    said: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for where, (image, reader, name) in read_rows(table, ("image_id", "rad_id", "class_name"), dataset):
        if name.lower() not in names:
            raise UserError(f"{where}：不认识的 class_name {name!r}；{dataset} 的 {table.name} 有 "
                            f"{'、'.join(FINDINGS)}")
        said[image][reader].add(wanted.get(name.lower(), ""))
    return {image: [[int(info.name in of_reader) for info in findings] for of_reader in readers.values()]
            for image, readers in said.items()}
