"""The private folder of a page: uploads, pictures, what Gradio puts aside.  Nothing in it stays much over an hour."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paddle_cxr.errors import UserError
from paddle_cxr.synthesis.locks import Taken, locked

KEPT = 3600.0  # seconds
_PREFIX = "paddle_cxr_app_"
_LOCK = ".lock"
_EVERY = 300.0  # seconds


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that only this user can read, swept while it is open and deleted at the end.

    Gradio reads its place from the environment.  It also must not report to its makers that it was started.
    """
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
    remove_left_over()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
    gradios, os.environ["GRADIO_TEMP_DIR"] = os.environ.get("GRADIO_TEMP_DIR"), str(folder)
    # An upload goes to the system's temporary folder first, and stays there when its sender goes away half-way.
    systems, tempfile.tempdir = tempfile.tempdir, str(folder)
    closed = threading.Event()
    try:
        with locked(folder / _LOCK):  # while this process lives, nobody takes the folder for left over
            threading.Thread(target=_sweep, args=(folder, closed), name="app-sweep", daemon=True).start()
            yield folder
    finally:
        closed.set()
        tempfile.tempdir = systems
        if gradios is None:
            del os.environ["GRADIO_TEMP_DIR"]
        else:
            os.environ["GRADIO_TEMP_DIR"] = gradios
        shutil.rmtree(folder, ignore_errors=True)


def remove_left_over() -> None:
    """Delete the folders of pages that were killed: they hold what people uploaded."""
    if os.name != "posix":  # no locks: an open page's folder would look like these
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            with locked(folder / _LOCK):
                pass
        except (Taken, UserError):  # a page that is open, or somebody else's
            continue
        shutil.rmtree(folder, ignore_errors=True)


def remove_older(folder: Path, seconds: float) -> None:
    """Delete the files below ``folder`` that were written ``seconds`` ago or earlier, and folders left empty since.

    Gradio has a sweep of its own, which ends for good when an upload comes while it looks.
    """
    limit = time.time() - seconds
    for place, folders, files in os.walk(folder, topdown=False):
        for name in (*files, *folders):
            path = Path(place) / name
            try:
                if path.lstat().st_mtime > limit or path == folder / _LOCK:
                    continue
                path.rmdir() if name in folders else path.unlink()
            except OSError:  # gone already, or a folder that is not empty
                continue


def _sweep(folder: Path, closed: threading.Event) -> None:
    while not closed.wait(_EVERY):
        remove_older(folder, KEPT)
