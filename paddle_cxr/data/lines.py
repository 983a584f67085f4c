"""Reading files of lines that may be anybody's, line by line: JSON Lines, tables, texts.

Such a file may be larger than memory, and one without line ends is one line: no line is read beyond a limit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paddle_cxr.errors import UserError

MAX_LINE = 10_000_000  # bytes; a report has thousands


def read_lines(file: Path, what: str) -> Iterator[tuple[str, str]]:
    """("file:line", text) of each line of a UTF-8 file, with its end; a byte order mark at the beginning is left out.

    Args:
        what: a line of the file is, for messages.

    Raises:
        UserError: with file and line: a line longer than :data:`MAX_LINE`, not UTF-8; a file that cannot be read.
    """
    for where, raw in _raw_lines(file, what):
        yield where, decoded(raw, where)


def json_lines(file: Path, what: str) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """("file:line", the line as it is, object) of each line of a ``.jsonl``; blank lines are left out.

    Raises:
        UserError: as :func:`read_lines`, and for a line that is no JSON object.
    """
    for where, raw in _raw_lines(file, what):
        text = decoded(raw, where)
        if not text.strip():
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            cut = "，这一行可能没有写完" if not raw.endswith(b"\n") else ""
            raise UserError(f"{where}：不是有效的 JSON{cut}；请删去或修好这一行") from None
        if not isinstance(value, dict):
            raise UserError(f"{where}：应是一个 JSON 对象（object），即一{what}；请删去或修好这一行")
        yield where, raw, value


def decoded(raw: bytes, where: str) -> str:
    """A line as text; raises :class:`UserError` with its place for what is not UTF-8."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}：第 {error.start + 1} 个字节起不是 UTF-8；请另存为 UTF-8 编码") from None


def _raw_lines(file: Path, what: str) -> Iterator[tuple[str, bytes]]:
    try:
        with open(file, "rb") as stream:
            number = 0
            while raw := stream.readline(MAX_LINE + 1):
                number += 1
                if len(raw) > MAX_LINE:
                    raise UserError(f"{file}:{number}：这一行超过 {MAX_LINE // 10**6} MB，不像是一{what}；请检查换行")
                yield f"{file}:{number}", raw
    except OSError as error:
        raise UserError(f"无法读取 {file}：{error.strerror or error}") from None
