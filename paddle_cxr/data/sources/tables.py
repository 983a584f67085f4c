"""Reading the tables of public data sets row by row: some have 380,000 rows, and some are broken in known ways."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path

from paddle_cxr.errors import UserError, did_you_mean

_MAX_LINE = 1_000_000  # characters; a file without line ends is one line


def find_table(folder: Path, names: Sequence[str], dataset: str, component: str) -> Path:
    """The first of ``names`` (glob patterns) in ``folder``, plain or as ``.gz``; of several matches the last by name.

    Raises:
        UserError: none of them is there.
    """
    for name in names:
        with contextlib.suppress(OSError):  # longer than names may be: not there
            if found := sorted((*folder.glob(name), *folder.glob(f"{name}.gz"))):
                return found[-1]
    raise UserError(f"{folder} 里没有 {' 或 '.join(names)}，不像 {dataset}；请检查 {component}.root，"
                    "数据下载方法见 docs/data.md")


def read_cells(file: Path) -> Iterator[tuple[str, list[str]]]:
    """("file:line", cells, blanks cut off) of each row of a CSV (``.gz`` too), header included; blank rows left out.

    Rows may differ in length.  Bytes that are not UTF-8 are replaced: they stand in reports, which are not read here.

    Raises:
        UserError: no such file, no CSV, a broken archive.
    """
    with _readable(file), _open(file) as stream:
        reader = csv.reader(iter(lambda: stream.readline(_MAX_LINE), ""))
        line = 1  # a quoted cell may span lines, and people look for the one the row starts on
        for cells in reader:
            where, line = f"{file}:{line}", reader.line_num + 1
            if any(cells):
                yield where, [cell.strip() for cell in cells]


def read_rows(file: Path, columns: Sequence[str], dataset: str, optional: Sequence[str] = ()
              ) -> Iterator[tuple[str, tuple[str, ...]]]:
    """("file:line", cells) of two or more columns of a table, row by row; ``optional`` ones are empty where absent.

    Args:
        columns: needed; their cells come first, in this order, then those of ``optional``.
        dataset: what the file should belong to, for messages.

    Raises:
        UserError: as :func:`read_cells`; a column missing, a row of another length than the header.
    """
    rows = read_cells(file)
    _, header = next(rows, (str(file), []))
    for name in columns:
        if name not in header:
            raise UserError(f"{file}:1：表头没有列 {name!r}{did_you_mean(name, header)}"
                            f"（有：{'、'.join(header[:40]) or '空'}），不像 {dataset} 的文件")
    # An absent column is looked for one past the end, where an empty cell is put.
    places = [header.index(name) if name in header else len(header) for name in (*columns, *optional)]
    chosen = itemgetter(*places)
    for where, cells in rows:
        while len(cells) > len(header) and not cells[-1]:  # commas at the end: some releases have them, some not
            cells.pop()
        if len(cells) != len(header):
            raise UserError(f"{where}：有 {len(cells)} 列，而表头有 {len(header)} 列")
        cells.append("")
        yield where, chosen(cells)


def header_of(file: Path) -> list[str]:
    """Column names of a table (``.gz`` too)."""
    return next(read_cells(file), ("", []))[1]


def _open(file: Path) -> io.TextIOBase:
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return open(file, encoding="utf-8-sig", errors="replace", newline="")


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise UserError(f"无法读取 {file}（{error}）；可能没有下载完整，请重新下载") from None
