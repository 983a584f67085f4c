"""Files of lines that are only ever appended to: after a crash, a full disk or kill -9 every line in them is whole."""

from __future__ import annotations

import os
from pathlib import Path

from paddle_cxr.files import writing_to


def append_lines(file: Path, text: str) -> None:
    """Write whole lines and wait until the disk has them; see :func:`append_bytes`."""
    append_bytes(file, text.encode("utf-8", "backslashreplace"))


def append_bytes(file: Path, data: bytes) -> None:
    """Write ``data`` and wait until the disk has it.

    Raises:
        UserError: the disk is full; what was written of ``data`` is taken back.
    """
    rest = memoryview(data)
    # Unbuffered: on a full disk, closing would write what a buffer still holds behind the lines that were taken back.
    with writing_to(file), open(file, "ab", buffering=0) as stream:
        before = stream.tell()
        try:
            while rest:
                rest = rest[stream.write(rest):]
            os.fsync(stream.fileno())
        except BaseException:  # a full disk, Ctrl-C: no half line
            stream.truncate(before)
            raise


def cut_broken_end(file: Path) -> None:
    """Remove a last line without its end: the program was killed while writing it.

    Raises:
        UserError: the file cannot be written.
    """
    if not file.exists():
        return
    with writing_to(file), open(file, "r+b") as stream:
        end = stream.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            stream.seek(start)
            newline = stream.read(end - start).rfind(b"\n")
            if newline >= 0:
                stream.truncate(start + newline + 1)
                return
            end = start
        stream.truncate(0)
