"""Reading report corpora one report at a time: this project's JSONL, a CSV, or a folder of text files.

A corpus is untrusted and may be larger than memory: lines are decoded one by one, and what is not UTF-8, not JSON or
not a report is refused with its file and line.
"""

from __future__ import annotations

import csv
import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddle_cxr.data.lines import json_lines, read_lines
from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.synthesis.entities import TYPES, Key

SECTIONS = ("findings", "impression")
_REPORT = "份带 findings 或 impression 的报告"  # what a line is, for messages
_ID_COLUMNS = ("id", "uid", "study_id", "study", "report_id")
# "FINDINGS:" at the start of a line, as in MIMIC-CXR's text files; any other capitals and a colon end a section.
_HEADING = re.compile(r"^[ \t]*([A-Z][A-Z /()&-]{2,40}):", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Report:
    """One report of a corpus.

    Attributes:
        where: ``file:line``, or the file, for messages.
        id: its own id, else ``where``.
        findings, impression: the texts; either may be empty.
        entities: what it mentions, or None where the corpus does not say.
        writer: who wrote a synthetic report; empty for a real one.
    """

    where: str
    id: str
    findings: str
    impression: str
    entities: frozenset[Key] | None = None
    writer: str = ""

    @property
    def texts(self) -> tuple[str, str]:
        return self.findings, self.impression


def read_corpus(path: str) -> Iterator[Report]:
    """The reports of a corpus, in order.

    Args:
        path: a ``.jsonl`` file with ``findings`` / ``impression`` (and ``entities``, ``writer`` where it has them), a
            ``.csv`` file with columns of these names, a folder of ``.txt`` files (any depth), or a pattern such as
            ``reports/shard*/reports.jsonl``.

    Raises:
        UserError: no such file, another kind of file, not UTF-8, a broken line; with file and line.
    """
    for file in _files(path):
        reader = {".jsonl": _jsonl, ".csv": _csv, ".txt": _text}[file.suffix.lower()]
        yield from reader(file)


def check_corpus(path: str) -> None:
    """Raise :class:`UserError` where :func:`read_corpus` would at once, without reading any report."""
    _files(path)


def _files(path: str) -> list[Path]:
    place = Path(path)
    if place.is_dir():
        found = sorted(place.rglob("*.txt"))
        if not found:
            raise UserError(f"语料（corpus）文件夹 {path} 里没有 .txt 文件；JSONL 或 CSV 语料请写到文件名")
        return found
    found = [place] if place.is_file() else [Path(name) for name in sorted(glob.glob(path, recursive=True))]
    if not found:
        nearby = [str(other) for other in sorted(place.parent.glob("*"))] if place.parent.is_dir() else []
        raise UserError(f"找不到语料（corpus）{path}{did_you_mean(path, nearby)}；"
                        "合成的语料要先用 tools/synthesize.py 写出来")
    for file in found:
        if file.suffix.lower() not in (".jsonl", ".csv", ".txt"):
            raise UserError(f"语料（corpus）应为 .jsonl、.csv、.txt 文件或 .txt 的文件夹，现在是 {file}")
    return found


def _jsonl(file: Path) -> Iterator[Report]:
    for where, _, record in json_lines(file, _REPORT):
        if not any(section in record for section in SECTIONS):
            raise UserError(f"{where}：应是带 findings 或 impression 的 JSON 对象")
        findings, impression, writer = (_string(record.get(key), key, where) for key in (*SECTIONS, "writer"))
        id_ = record.get("id")
        yield Report(where, where if id_ is None else str(id_), findings, impression,
                     _entities(record.get("entities"), where), writer)


def _string(value: Any, key: str, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{where}：{key} 应为文字，现在是 {type(value).__name__}")
    return value.strip()


def _entities(value: Any, where: str) -> frozenset[Key] | None:
    if value is None:
        return None
    try:
        keys = frozenset((entity["id"], entity["type"]) for entity in value)
    except (TypeError, KeyError):
        keys = frozenset({("", "")})
    if not all(isinstance(id_, str) and id_ and type_ in TYPES for id_, type_ in keys):
        raise UserError(f"{where}：entities 应为 [{{\"id\": …, \"type\": …}}, …]，type 是 {'、'.join(TYPES)} 之一")
    return keys


def _csv(file: Path) -> Iterator[Report]:
    line = 1
    # Strict: else a quote that is never closed swallows the reports after it.
    reader = csv.reader((text for _, text in read_lines(file, _REPORT)), strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if not set(SECTIONS) & set(header):
            raise UserError(f"{file}:1：表头没有 findings 或 impression 列（有：{'、'.join(header) or '空'}）")
        if twice := [name for name in (*SECTIONS, "writer") if header.count(name) > 1]:
            raise UserError(f"{file}:1：表头里 {twice[0]} 列出现了两次；请改名或删去一列")
        id_column = next((name for name in _ID_COLUMNS if name in header), None)
        line = reader.line_num + 1  # a quoted cell may span lines; people look for the line it starts on
        for cells in reader:
            where, line = f"{file}:{line}", reader.line_num + 1
            if not any(cells):
                continue
            if len(cells) != len(header):
                raise UserError(f"{where}：有 {len(cells)} 列，而表头有 {len(header)} 列")
            row = dict(zip(header, map(str.strip, cells), strict=True))
            yield Report(where, row.get(id_column or "") or where, row.get("findings", ""), row.get("impression", ""),
                         writer=row.get("writer", ""))
    except csv.Error as error:
        raise UserError(f"{file}:{line}：从这一行起不是有效的 CSV（{error}），多半是引号没有闭合，"
                        "或格子里的引号没有写成两个") from None


def _text(file: Path) -> Iterator[Report]:
    """One file, one report; without headings all of it is FINDINGS."""
    text = "".join(text for _, text in read_lines(file, _REPORT))
    parts = _HEADING.split(text)  # [before, heading, body, heading, body, …]
    sections = list(zip(parts[1::2], parts[2::2], strict=True))
    # An addendum has the same headings again.
    named = {name: "\n".join(body.strip() for heading, body in sections if heading == name.upper()).strip()
             for name in SECTIONS}
    if not any(named.values()):
        named = {"findings": text.strip(), "impression": ""}
    yield Report(str(file), str(file), **named)
