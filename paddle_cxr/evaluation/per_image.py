"""``per_image.csv`` of findings: labels and scores of every image, so that figures can be computed again and compared.

    file, patient_id, label:<finding> (1, 0, empty) …, score:<finding> …
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from paddle_cxr.data.records import Record
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.report import write_table

PER_IMAGE = "per_image.csv"


def write_per_image(file: Path, records: Sequence[Record], names: Sequence[str], labels: np.ndarray,
                    scores: np.ndarray) -> None:
    """A row an image; labels and scores are float ``[N, K]``, NaN where a label is unknown."""
    header = ["file", "patient_id", *[f"label:{name}" for name in names], *[f"score:{name}" for name in names]]
    write_table(file, header, (
        [record.path, record.patient_id or "", *["" if np.isnan(label) else int(label) for label in answers],
         *[repr(float(score)) for score in values]]
        for record, answers, values in zip(records, labels, scores, strict=True)))


def read_per_image(file: Path, names: Sequence[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """What :func:`write_per_image` wrote: files, labels and scores float ``[N, K]``; raises :class:`UserError`."""
    try:
        with open(file, encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        labels = [[float(row[f"label:{name}"] or "nan") for name in names] for row in rows]
        scores = [[float(row[f"score:{name}"]) for name in names] for row in rows]
        return [row["file"] for row in rows], np.array(labels), np.array(scores)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{file} 读不了（{type(error).__name__}）；请删去它所在的文件夹，重新运行") from None
