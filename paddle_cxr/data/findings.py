"""Images on which each finding is present, absent or unknown by itself, with masks or boxes where somebody drew them.

A film may show several findings or none, so a *finding* is no class: its label is 1 (present), 0 (absent) or None
(nobody says; masked in losses and metrics).  This is what zero-shot classification, grounding, fine-tuning and
segmentation are evaluated on; :mod:`paddle_cxr.data.sources` reads the public data sets into it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from paddle_cxr.data.labelled import ALL, LabelledData, View, divide_and_decode, prove_disjoint, split_source
from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.data.records import ClassInfo, Record, Source
from paddle_cxr.errors import UserError
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
        regions: what its masks show that is no finding and has no label (``lung``).
        notices: lines the user must see (images absent from disk, labels that were repaired …).
    """

    records: list[FindingsRecord]
    regions: tuple[str, ...] = ()

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

    def mask_file(self, index: int, finding: str) -> Path | None:
        """The file that :meth:`mask` reads, so that what is kept of a mask is made anew when it changes.

        By default none: boxes, and masks inside a table, are part of the fingerprint.
        """
        return None

    def fingerprint(self) -> str:
        """As of other sources, over the labels and boxes too."""
        digest = hashlib.sha256(super().fingerprint().encode())
        told: dict[int, str] = {}  # many images share one dict of labels, and 190 of them take long to write
        for record in self.records:
            labels = told.get(id(record.labels))
            if labels is None:
                labels = told[id(record.labels)] = json.dumps(record.labels)
            boxes = [[box.finding, box.x, box.y, box.width, box.height] for box in record.boxes]
            digest.update(f"[{labels}, {json.dumps(boxes) if boxes else boxes}]".encode())
        return digest.hexdigest()[:16]


def load_findings(loaded: Loaded, say: Callable[[str], None], progress: Callable[[int, int], None] | None = None,
                  only: str | None = None) -> LabelledData:
    """Open the recipe's data set, divide it and decode the images; ``data.source.records`` hold labels and boxes.

    Args, Raises: as :func:`paddle_cxr.tasks.pairs.load_pairs`.
    """
    section = loaded.recipe.DataLoader
    source = build("findings", section.Source, "DataLoader.Source")
    return divide_and_decode(source, section, _preprocess_of(loaded), only=only, say=say, progress=progress)


@dataclass(frozen=True)
class DividedFindings:
    """A recipe's data set, opened and divided once, so that several subsets can be decoded one by one.

    Attributes:
        loaded: the recipe.
        source: the whole data set.
        subsets: the subset's name of every record.
    """

    loaded: Loaded
    source: FindingsSource
    subsets: list[str]

    def decode(self, subset: str, say: Callable[[str], None], progress: Callable[[int, int], None] | None = None
               ) -> LabelledData:
        """The images of one subset (``all``: every one); arguments and errors as of :func:`load_findings`."""
        members = self.members(subset)
        return divide_and_decode(View(self.source, members), self.loaded.recipe.DataLoader, _preprocess_of(self.loaded),
                                 [subset] * len(members), say=say, progress=progress)

    def members(self, subset: str) -> list[int]:
        """Which records belong to a subset; raises :class:`UserError` where none does."""
        members = [index for index, name in enumerate(self.subsets) if subset in (name, ALL)]
        if not members:
            raise UserError(f"子集 {subset!r} 里没有图像（现有子集：{'、'.join(sorted(set(self.subsets)))}）；"
                            "请改 DataLoader.Split 或 DataLoader.Eval 的子集")
        return members


def open_divided(loaded: Loaded, say: Callable[[str], None]) -> DividedFindings:
    """Open the recipe's data set and divide it; no image is read.  Errors as of :func:`load_findings`."""
    section = loaded.recipe.DataLoader
    source = build("findings", section.Source, "DataLoader.Source")
    for notice in source.notices:
        say(notice)
    subsets = split_source(source, section)
    prove_disjoint(source, subsets, say)
    return DividedFindings(loaded, source, subsets)


def _preprocess_of(loaded: Loaded) -> Preprocess:
    recipe = loaded.recipe
    return Preprocess(image_shape=recipe.Global.image_shape, **recipe.DataLoader.preprocess.model_dump())


class WithLabels(Protocol):
    """A record with ``labels``: a :class:`FindingsRecord`, or a pair's."""

    @property
    def labels(self) -> Mapping[str, int | None]:
        """Finding → 1 present, 0 absent, None unknown."""


def label_matrix(records: Sequence[WithLabels], findings: Sequence[str]) -> np.ndarray:
    """Labels of N records as float64 ``[N, K]``: 1 present, 0 absent, NaN unknown or not named."""
    matrix = np.empty((len(records), len(findings)))
    for row, record in zip(matrix, records, strict=True):  # no list of lists: PadChest has millions of labels
        row[:] = [np.nan if (label := record.labels.get(name)) is None else label for name in findings]
    return matrix
