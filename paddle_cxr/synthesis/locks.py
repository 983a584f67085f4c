"""Locks on files, for programs that share an output folder; a killed program's locks are released by the system."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from paddle_cxr.files import writing_to


class Taken(Exception):
    """Another program holds the lock."""


@contextlib.contextmanager
def locked(file: Path, wait: Callable[[], object] | None = None) -> Iterator[None]:
    """Hold the lock on ``file`` for the block.

    Args:
        file: is made, and stays.
        wait: called where another program holds the lock, before waiting for it; without, :class:`Taken` is raised.

    Raises:
        Taken: see ``wait``.
        UserError: the file cannot be written.
    """
    with writing_to(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        stream = open(file, "w")
    with stream:
        try:
            import fcntl

            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if wait is None:
                    raise Taken(str(file)) from None
                wait()
                fcntl.flock(stream, fcntl.LOCK_EX)
        except (ImportError, OSError):  # Windows, or a file system without locks: two programs are the user's care
            pass
        yield
