"""The reports of MIMIC-CXR by study: from the folder of text files, its zip, or a table of their sections."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from paddle_cxr.data.pairs.sections import FINDINGS, IMPRESSION, split_sections
from paddle_cxr.errors import UserError

ZIP, TABLE = "mimic-cxr-reports.zip", "mimic_cxr_sectioned.csv"
_MAX_REPORT = 1_000_000  # bytes; a report has a thousand
_MAX_LINE = 1_000_000  # characters of a table's line
_THREADS = 8  # reading waits for the disk, most of all for one on the network
_AT_ONCE = 1024  # reports


class Study(NamedTuple):
    """A study as the file names write it: ``10000032``, ``50414267``."""

    subject: str
    study: str

    @property
    def folder(self) -> str:
        """Of its images, below the data set's folder; with ``.txt`` its report's file."""
        return f"files/p{self.subject[:2]}/p{self.subject}/s{self.study}"


class ReportText(NamedTuple):
    """Its sections as text; empty where the report has none of the two."""

    findings: str = ""
    impression: str = ""


Tick = Callable[[int], object]


def read_reports(place: Path, studies: Sequence[Study], tick: Tick) -> dict[str, ReportText]:
    """Study → report, for those of ``studies`` that have one.

    Args:
        place: the folder with ``files`` in it (or ``files`` itself), ``mimic-cxr-reports.zip``, or the table
            ``mimic_cxr_sectioned.csv`` (columns study, impression, findings, last_paragraph) that
            ``create_section_files.py`` of the data set's authors writes, which is the fastest.
        tick: told how many more studies are done.

    Raises:
        UserError: nothing of the kind, or a broken file.
    """
    if place.suffix.lower() == ".zip":
        return dict(_from_zip(place, studies, tick))
    if place.is_file():
        return dict(_from_table(place, {study.study for study in studies}, tick))
    for folder in (place, place / "mimic-cxr-reports", place.parent):
        if (folder / "files").is_dir() and (folder != place.parent or place.name == "files"):
            return dict(_from_folder(folder, studies, tick))
    raise UserError(f"{place} 里没有 MIMIC-CXR 的报告（应为 files/p10/p10000032/s50414267.txt）；"
                    f"请用 reports 指向报告的文件夹、{ZIP} 或 {TABLE}")


def _from_folder(folder: Path, studies: Sequence[Study], tick: Tick) -> Iterator[tuple[str, ReportText]]:
    base = str(folder)
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(studies), _AT_ONCE):
            part = studies[start:start + _AT_ONCE]
            files = pool.map(_read_file, [f"{base}/{study.folder}.txt" for study in part])
            yield from _known(part, files)
            tick(len(part))


def _read_file(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_REPORT)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"无法读取报告 {path}：{error.strerror or error}") from None


def _from_zip(file: Path, studies: Sequence[Study], tick: Tick) -> Iterator[tuple[str, ReportText]]:
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename.rpartition("/")[2]: info for info in archive.infolist()}

            def read(study: Study) -> bytes | None:
                info = members.get(f"s{study.study}.txt")
                if info is None:
                    return None
                with archive.open(info) as stream:
                    return stream.read(_MAX_REPORT)

            for start in range(0, len(studies), _AT_ONCE):
                part = studies[start:start + _AT_ONCE]
                yield from _known(part, map(read, part))
                tick(len(part))
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:  # or a password
        raise UserError(f"无法读取报告的压缩包 {file}（{error}）；请重新下载") from None


def _known(studies: Iterable[Study], files: Iterable[bytes | None]) -> Iterator[tuple[str, ReportText]]:
    for study, raw in zip(studies, files, strict=True):
        if raw is not None:
            sections = split_sections(raw.decode("utf-8", errors="replace"))
            yield study.study, ReportText(sections.get(FINDINGS, ""), sections.get(IMPRESSION, ""))


def _from_table(file: Path, wanted: set[str], tick: Tick) -> Iterator[tuple[str, ReportText]]:
    names = ("study", "findings", "impression", "last_paragraph")
    for name, findings, impression, last in read_columns(file, names):
        study = name.removeprefix("s")
        if study in wanted:
            text = findings if findings or impression else last
            yield study, ReportText(" ".join(text.split()), " ".join(impression.split()))
            tick(1)


def read_columns(file: Path, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Cells of two or more columns of a CSV (``.gz`` too), row by row: the tables here are too large to read whole.

    Raises:
        UserError: a column missing, a row of another length, no CSV, no UTF-8, a broken archive.
    """
    with _readable(file), _open(file) as stream:
        rows = csv.reader(iter(lambda: stream.readline(_MAX_LINE), ""))
        header = next(rows, [])
        absent = [name for name in names if name not in header]
        if absent:
            raise UserError(f"{file}:1：表头没有列 {absent[0]!r}（有：{'、'.join(header[:20])}），"
                            "不像 MIMIC-CXR-JPG 的文件")
        chosen = itemgetter(*(header.index(name) for name in names))
        for cells in rows:
            if len(cells) != len(header):
                if not cells:
                    continue
                raise UserError(f"{file}:{rows.line_num}：有 {len(cells)} 列，而表头有 {len(header)} 列")
            yield chosen(cells)


def _open(file: Path) -> io.TextIOBase:
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8-sig", newline="")
    return open(file, encoding="utf-8-sig", newline="")


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"无法读取 {file}（{error}）；可能没有下载完整，请重新下载") from None
