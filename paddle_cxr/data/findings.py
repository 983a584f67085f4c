"""Images on which each finding is present, absent or unknown by itself, with masks or boxes where somebody drew them.

A film may show several findings or none, so a *finding* is no class: its label is 1 (present), 0 (absent) or None
(nobody says; masked in losses and metrics).  This is what zero-shot classification, grounding, fine-tuning and
segmentation are evaluated on; :mod:`paddle_cxr.data.sources` reads the public data sets into it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from paddle_cxr.data.labelled import LabelledData, divide_and_decode
from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.data.records import ClassInfo, Record, Source
from paddle_cxr.recipe import Loaded
from paddle_cxr.registry import build


@dataclass(frozen=True)
class FindingBox:
    """A rectangle somebody drew around a finding.

    Attributes:
        finding: key of the finding.
        x, y, width, height: in pixels of the image as published; (x, y) is the top left corner.  May be fractions.
    """

    finding: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class FindingsRecord(Record):
    """One image with what is known of its findings; ``label`` is 0 throughout, such an image has no class.

    Attributes:
        labels: finding → 1 present, 0 absent, None unknown; a finding that is not named is unknown.
        boxes: every rectangle drawn on it.
        view: ``PA``, ``AP``, ``LATERAL`` …, or empty.
    """

    labels: dict[str, int | None] = field(default_factory=dict)
    boxes: tuple[FindingBox, ...] = ()
    view: str = ""


class FindingsSource(Source):
    """A source of images with findings; ``records`` are :class:`FindingsRecord`.

    Attributes:
        findings: the findings it speaks of, in the publisher's order (``name`` is the key in the labels).
        notices: lines the user must see (images absent from disk, labels that were repaired …).
    """

    records: list[FindingsRecord]

    def __init__(self, name: str, root: str | Path, findings: Sequence[ClassInfo], records: Sequence[FindingsRecord],
                 notices: Sequence[str] = ()) -> None:
        super().__init__(name, root, (), records)
        self.findings = tuple(findings)
        self.notices = list(notices)

    def annotated(self, index: int, finding: str) -> bool:
        """Whether somebody marked where ``finding`` is on image ``index``, or that it is nowhere.

        By default: it has a box, or its label is 0.
        """
        record = self.records[index]
        return record.labels.get(finding) == 0 or any(box.finding == finding for box in record.boxes)

    def mask(self, index: int, finding: str, shape: tuple[int, int]) -> np.ndarray:
        """Where ``finding`` is on image ``index``, bool ``[H, W]``; only asked where :meth:`annotated`.

        By default the inside of its boxes: a pixel belongs to a box when its centre does.

        Args:
            shape: (H, W) of the image as published.

        Raises:
            UserError: a mask that cannot be read, or is of another size than its image.
        """
        inside = np.zeros(shape, bool)
        rows, columns = np.arange(shape[0]) + 0.5, np.arange(shape[1]) + 0.5
        for box in self.records[index].boxes:
            if box.finding == finding:
                down = (rows >= box.y) & (rows < box.y + box.height)
                across = (columns >= box.x) & (columns < box.x + box.width)
                inside |= down[:, None] & across[None, :]
        return inside

    def fingerprint(self) -> str:
        """As of other sources, over the labels and boxes too."""
        digest = hashlib.sha256(super().fingerprint().encode())
        for record in self.records:
            boxes = [[box.finding, box.x, box.y, box.width, box.height] for box in record.boxes]
            digest.update(json.dumps([record.labels, boxes]).encode())
        return digest.hexdigest()[:16]


def load_findings(loaded: Loaded, say: Callable[[str], None], progress: Callable[[int, int], None] | None = None,
                  only: str | None = None) -> LabelledData:
    """Open the recipe's data set, divide it and decode the images; ``data.source.records`` hold labels and boxes.

    Args, Raises: as :func:`paddle_cxr.tasks.pairs.load_pairs`.
    """
    section = loaded.recipe.DataLoader
    source = build("findings", section.Source, "DataLoader.Source")
    preprocess = Preprocess(image_shape=loaded.recipe.Global.image_shape, **section.preprocess.model_dump())
    return divide_and_decode(source, section, preprocess, only=only, say=say, progress=progress)


def label_matrix(records: Sequence[FindingsRecord], findings: Sequence[str]) -> np.ndarray:
    """Labels of N records as float64 ``[N, K]``: 1 present, 0 absent, NaN unknown."""
    return np.array([[np.nan if record.labels.get(name) is None else record.labels[name] for name in findings]
                     for record in records], np.float64).reshape(len(records), len(findings))
