"""Pairs listed in a file: the toolkit's own ``pairs.jsonl``, or a table."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from paddle_cxr.data.lines import json_lines
from paddle_cxr.data.pairs.absent import AbsentImages, OnError
from paddle_cxr.data.pairs.labelled import TEXT_FROM
from paddle_cxr.data.pairs.record import PairRecord, PairSource
from paddle_cxr.data.pairs.sections import FINDINGS, IMPRESSION, split_sections
from paddle_cxr.data.pairs.views import FrontalViews
from paddle_cxr.data.sources.layout import header_of, inside, known_patient, read_table
from paddle_cxr.data.sources.list_file import published_split
from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.registry import check_type, register

_REPORT = "report"
_TEXTS = ("impression", "findings", _REPORT)
_NUMBERS = ("id", "patient_id")  # JSON may write them as numbers
_COLUMNS = ("id", "image", *_TEXTS, "patient_id", "view", "split")
_ORIGIN = ("source", "writer", "generator", TEXT_FROM)


@register("pairs")
class PairsFile(PairSource):
    """Pairs listed in a file: ``pairs.jsonl`` as the toolkit writes it, or a CSV or TSV with a header.

    Of each line ``image`` (relative to ``root``) is needed, and ``impression``, ``findings`` or both, or else
    ``report``: a whole report as it was written, of which the sections FINDINGS and IMPRESSION (in Chinese 影像所见 and
    诊断意见, see :func:`paddle_cxr.data.pairs.sections.split_sections`) are taken.  A line without any text is left out
    and counted in ``notices``.  ``id`` (without one: the image), ``patient_id``, ``view`` and ``split`` are used where
    present, in JSONL ``entities``, ``labels`` and ``side`` too.  A table's other columns, who made a synthetic pair and
    ``text_from`` (what kind of text it is) are kept in ``Record.extra``; a generator with phantom in its title makes it
    a demo.

    Args:
        file: the list.
        root: the folder the image paths are relative to; the list's own without.
        columns: other names of columns (or JSON keys), e.g. ``{image: filename, report: text}``.
        frontal_only: use frontal views (PA, AP, Frontal) only; pairs of another or no known view are counted.
        on_error: about images that are not there (supplied by the program: the recipe's ``DataLoader.on_error``).

    Raises:
        UserError: naming file and line: no such file or image, no JSON object, a value of another type, a path leading
            out of ``root``, an id that was there before, an unknown split; or a table without the columns.
    """

    def __init__(self, file: str, root: str | None = None, columns: dict[str, str] | None = None,
                 frontal_only: bool = False, *, on_error: OnError = "error") -> None:
        self.notices: list[str] = []
        reason = self.missing(file=file)
        if reason:
            raise UserError(f"{reason}；请检查图文对（pairs）的 file")
        path = Path(file)
        folder = path.parent if root is None else Path(root)
        names = _column_names(columns)
        rows = _json_rows(path) if path.suffix.lower() == ".jsonl" else _table_rows(path, names, columns or {})
        views, absent = FrontalViews(frontal_only), AbsentImages(on_error)
        records = views.of(_with_text(_unique(_pairs(rows, names, folder, absent)), path, self.notices))
        views.note(path, self.notices)
        absent.note(path, self.notices)
        if not records:
            hint = "；frontal_only 只留正位，要有 view 列" if frontal_only else ""
            raise UserError(f"{path} 里一个图文对也没有（{'；'.join(self.notices) or '列表是空的'}）{hint}")
        self.demo = any("phantom" in record.extra.get("generator", "") for record in records)
        super().__init__(folder.resolve().name, folder, records)

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """Absent list."""
        file = Path(str(arguments.get("file", "")))
        return None if os.path.isfile(file) else f"找不到图文对列表（pairs）{file}"


def _column_names(columns: Mapping[str, str] | None) -> dict[str, str]:
    for key in columns or {}:
        if key not in _COLUMNS:
            raise UserError(f"图文对（pairs）的 columns：没有 {key!r} 这一项{did_you_mean(key, _COLUMNS)}"
                            f"（可用：{'、'.join(_COLUMNS)}）")
    return {**{name: name for name in _COLUMNS}, **(columns or {})}


_Row = tuple[str, dict[str, Any], dict[str, str]]  # "file:line", what is read, what is kept as it is


def _json_rows(path: Path) -> Iterator[_Row]:
    for where, _, row in json_lines(path, "对带 image 的图文"):
        yield where, row, {key: row[key] for key in _ORIGIN if isinstance(row.get(key), str)}


def _table_rows(path: Path, names: Mapping[str, str], chosen: Mapping[str, str]) -> Iterator[_Row]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    header = header_of(path, delimiter)
    absent = [key for key in ("image", *chosen) if names[key] not in header]
    if absent or not any(names[key] in header for key in _TEXTS):
        key = absent[0] if absent else "impression"
        raise UserError(f"{path}:1：表头没有列 {names[key]!r}{did_you_mean(names[key], header)}"
                        f"（有：{'、'.join(header)}）；可用 columns: {{{key}: 列名}} 指定")
    for where, row in read_table(path, delimiter):
        read = {name: text for name, text in row.items() if name in names.values()}
        yield where, read, {name: text for name, text in row.items() if name not in read and text}


def _pairs(rows: Iterator[_Row], names: Mapping[str, str], root: Path, absent: AbsentImages
           ) -> Iterator[tuple[str, PairRecord]]:
    for where, row, extra in rows:
        texts = {key: check_type(row.get(name), str | None, f"{where} 的 {name}") or "" for key, name in names.items()
                 if key not in _NUMBERS}
        numbers = {key: check_type(row.get(names[key]), str | int | None, f"{where} 的 {names[key]}")
                   for key in _NUMBERS}
        path = inside(texts["image"], where)
        if not absent.has(root / path, where):
            continue
        findings, impression = _sections(texts)
        yield where, PairRecord(
            path, 0, known_patient(_written(numbers["patient_id"])), published_split(texts["split"].strip(), where),
            extra=extra, id=_written(numbers["id"]) or path, findings=findings, impression=impression,
            entities=_entities(row.get("entities"), where), labels=_labels(row.get("labels"), where),
            view=texts["view"], side=check_type(row.get("side"), str | None, f"{where} 的 side") or None)


def _written(number: str | int | None) -> str | None:
    return None if number is None else str(number)


def _sections(texts: Mapping[str, str]) -> tuple[str, str]:
    """FINDINGS and IMPRESSION: those given, or else those of the whole report."""
    findings, impression = texts["findings"].strip(), texts["impression"].strip()
    if not (findings or impression) and texts[_REPORT].strip():
        found = split_sections(texts[_REPORT])
        findings, impression = found.get(FINDINGS, ""), found.get(IMPRESSION, "")
    return findings, impression


def _entities(value: Any, where: str) -> tuple[dict[str, str], ...]:
    entities = value or []
    if not isinstance(entities, list) or not all(
            isinstance(one, dict) and isinstance(one.get("id"), str) and isinstance(one.get("type"), str)
            for one in entities):
        raise UserError(f"{where}：entities 应为 [{{\"id\": …, \"type\": …}}, …]")
    return tuple({"id": one["id"], "type": one["type"]} for one in entities)


def _labels(value: Any, where: str) -> dict[str, int | None]:
    """Finding → 0, 1 or None; NaN, which some programs write for unknown, is None too."""
    labels = {} if value is None else check_type(value, dict[str, int | float | None], f"{where} 的 labels")
    wrong = [name for name, label in labels.items()
             if label not in (0, 1, None) and not (isinstance(label, float) and math.isnan(label))]
    if wrong:
        raise UserError(f"{where}：labels 的 {wrong[0]!r} 应为 0、1 或 null，现在是 {labels[wrong[0]]!r}")
    return {name: int(label) if label in (0, 1) else None for name, label in labels.items()}


def _unique(found: Iterator[tuple[str, PairRecord]]) -> Iterator[PairRecord]:
    seen: dict[str, str] = {}
    for where, record in found:
        first = seen.setdefault(record.id, where)
        if first != where:
            raise UserError(f"{where}：编号（id）{record.id!r} 在 {first} 已经有了；请删去一行或改编号")
        yield record


def _with_text(records: Iterator[PairRecord], path: Path, notices: list[str]) -> Iterator[PairRecord]:
    silent = 0
    for record in records:
        if record.prompt:
            yield record
        else:
            silent += 1
    if silent:
        notices.append(f"{path}：略过 {silent} 行没有报告文字的图像")
