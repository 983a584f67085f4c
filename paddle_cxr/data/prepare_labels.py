"""What ``prepare_data.py`` says of labels: one class an image, or findings, each present, absent or unknown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

from paddle_cxr.data.findings import FindingsRecord, FindingsSource
from paddle_cxr.data.records import Record, Source
from paddle_cxr.errors import UserError

_SHOWN = 30  # findings in a line for people; all of them are in report.json


class Labels(Protocol):
    """Labels of a source's records.

    Attributes:
        columns: of the lists.
    """

    columns: tuple[str, ...]

    def cells(self, record: Record) -> list[object]:
        """A record's labels, one a column."""

    def name(self, record: Record) -> str:
        """A record's labels for people."""

    def agree(self, one: Record, other: Record) -> bool:
        """Whether the labels of two copies of an image may both be right."""

    def counts(self, records: Sequence[Record]) -> dict[str, Any]:
        """How many records have which label."""

    def check_left(self, records: Sequence[Record]) -> None:
        """Raise :class:`UserError` where ``records``, the usable ones, cannot be what the recipe means."""


def labels_of(source: Source) -> Labels:
    """How the labels of ``source`` are told."""
    return _Findings(source) if isinstance(source, FindingsSource) else _Classes(source)


class _Classes:
    """One class an image; counts are {class: images}."""

    columns = ("label",)

    def __init__(self, source: Source) -> None:
        self._source = source

    def cells(self, record: Record) -> list[object]:
        return [self.name(record)]

    def name(self, record: Record) -> str:
        return self._source.classes[record.label].name

    def agree(self, one: Record, other: Record) -> bool:
        return one.label == other.label

    def counts(self, records: Sequence[Record]) -> dict[str, Any]:
        number = Counter(record.label for record in records)
        return {info.name: number[label] for label, info in enumerate(self._source.classes)}

    def check_left(self, records: Sequence[Record]) -> None:
        """A class that lost all its images would silently become one the model never sees."""
        left, had = self.counts(records), self._source.counts()
        gone = [f"{name}（原有 {had[name]} 张）" for name in had if had[name] and not left[name]]
        if gone:
            raise UserError(f"数据 {self._source.root} 检查后，类别 {'、'.join(gone)} 一张可用的图像也没有剩下；"
                            "请修复这些图像，或从 Global.classes 中去掉该类")


class _Findings:
    """Several findings an image; counts are {finding: {present, absent, unknown}}."""

    def __init__(self, source: FindingsSource) -> None:
        self.columns = tuple(info.name for info in source.findings)

    def cells(self, record: Record) -> list[object]:
        return ["" if label is None else label for label in self._labels(record)]

    def name(self, record: Record) -> str:
        labels = self._labels(record)
        present = [name for name, label in zip(self.columns, labels, strict=True) if label == 1]
        return "|".join(present) or ("?" if all(label is None for label in labels) else "-")

    def agree(self, one: Record, other: Record) -> bool:
        return all(None in pair or pair[0] == pair[1]
                   for pair in zip(self._labels(one), self._labels(other), strict=True))

    def counts(self, records: Sequence[Record]) -> dict[str, Any]:
        words = {1: "present", 0: "absent", None: "unknown"}
        number = Counter((name, words[label]) for record in records
                         for name, label in zip(self.columns, self._labels(record), strict=True))
        return {name: {word: number[name, word] for word in words.values()} for name in self.columns}

    def check_left(self, records: Sequence[Record]) -> None:
        """Findings that nobody has left are counted, not refused: many data sets have rare ones."""

    def _labels(self, record: Record) -> list[int | None]:
        assert isinstance(record, FindingsRecord)
        return [record.labels.get(name) for name in self.columns]


def counts_text(counts: dict[str, Any]) -> str:
    """Counts of either kind for people, on one line; empty where there are no labels."""
    shown = [f"{name} {one}" if isinstance(one, int) else f"{name} {one['present']}/{one['absent']}/{one['unknown']}"
             for name, one in list(counts.items())[:_SHOWN]]
    return "，".join(shown) + (f" … 共 {len(counts)} 种" if len(counts) > _SHOWN else "")
