"""What a pair is, and a data set of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from paddle_cxr.data.records import Record, Source


@dataclass(frozen=True)
class PairRecord(Record):
    """One image with its report; ``label`` is 0 throughout, a pair has no class.

    Attributes:
        id: of the pair, unique in its source.
        findings, impression: the report's sections; at least one has text.
        entities: ``({"id": …, "type": …}, …)``, where known.
        labels: finding → 1 present, 0 absent, None unknown; empty where the source says nothing.
        view: ``PA``, ``AP`` …, or empty.
        side: where the findings lie, ``left``, ``right`` or ``bilateral``; None without any, or where unknown.
    """

    id: str = ""
    findings: str = ""
    impression: str = ""
    entities: tuple[dict[str, str], ...] = ()
    labels: dict[str, int | None] = field(default_factory=dict)
    view: str = ""
    side: str | None = None

    @property
    def prompt(self) -> str:
        """What an image is drawn for: the IMPRESSION, as RoentGen was trained, or the FINDINGS where there is none."""
        return self.impression or self.findings


class PairSource(Source):
    """A source of pairs; ``records`` are :class:`PairRecord`.

    Attributes:
        weights: float64 [N], how much more often than others each pair is to be drawn in training, as
            :class:`paddle_cxr.data.sampler.MicroBatchSampler` takes them; None for all alike.
        shares: part → its share of what is drawn, where the pairs are mixed in proportions
            (:func:`paddle_cxr.data.pairs.mixed.part_weights` makes weights of them for any of the records); else empty.
    """

    records: list[PairRecord]
    weights: np.ndarray | None = None

    def __init__(self, name: str, root: str | Path, records: Sequence[PairRecord]) -> None:
        super().__init__(name, root, (), records)
        self.shares: dict[str, float] = {}

    def fingerprint(self) -> str:
        """As of other sources, over the reports too."""
        return fingerprint_of(super().fingerprint(), self.records)


def fingerprint_of(images: str, records: Sequence[PairRecord]) -> str:
    """16 hex digits over what names the images, and the reports."""
    digest = hashlib.sha256(images.encode())
    for record in records:
        digest.update(json.dumps([record.id, record.findings, record.impression, record.labels]).encode())
    return digest.hexdigest()[:16]
