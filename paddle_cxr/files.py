"""Writing files so that a crash, a full disk or kill -9 never leaves half of one."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from paddle_cxr.errors import UserError


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn "no space" and "no permission" while writing ``path`` into one clear line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"无法写入 {path}：{error.strerror or error}；请检查磁盘空间和权限，"
                        "或用 -o Global.output_dir=… 换一个目录") from error


def write_atomic(path: str | Path, write: Callable[[Path], None]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, then rename it into place.

    Raises :class:`UserError` when the disk is full or the folder cannot be written; the old file then stays whole.
    """
    path = Path(path)
    # The suffix stays last: matplotlib and PIL choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of :func:`write_atomic` that a killed program left anywhere below ``folder``."""
    for file in folder.rglob(".*.tmp*"):
        if re.fullmatch(r"\..*\.\d+\.tmp(\.\w+)?", file.name):
            file.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text atomically; bytes of a file name that are not UTF-8 are written as ``\\udc…``."""
    return write_atomic(path, lambda temporary: temporary.write_text(text, "utf-8", errors="backslashreplace"))


def write_json(path: str | Path, value: Any) -> Path:
    """Write JSON (UTF-8, indented, NaN refused so that any reader can parse it) atomically."""
    return write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")
