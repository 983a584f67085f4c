"""The output folder of a run: its log, history, VisualDL scalars and progress bar."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from paddle_cxr.files import remove_leftovers, write_text, writing_to


class RunFolder:
    """Writes what a run leaves behind.  On ranks other than 0 nothing is written or printed.

    Attributes:
        path: the folder.
        is_main: whether this rank writes.
    """

    def __init__(self, path: str | Path, is_main: bool = True) -> None:
        self.path = Path(path)
        self.is_main = is_main
        self._log = None
        self._visualdl = None
        if is_main:
            with writing_to(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                remove_leftovers(self.path)
                self._log = open(self.path / "log.txt", "a", encoding="utf-8", buffering=1)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def forget(self, *written: str) -> None:
        """Delete what an earlier evaluation left here, so that no file of it lies beside those of the next one.

        ``metrics.json`` goes first: where it is, an evaluation is complete.  ``log.txt`` goes on, ``config.yaml`` may
        be the recipe that was just read, and a file of another name is not ours.

        Args:
            written: names of the other files that the task writes, or glob patterns of them.

        Raises:
            UserError: no permission.
        """
        if not self.is_main:
            return
        for pattern in ("metrics.json", *written):
            for file in self.path.glob(pattern):
                with writing_to(file):
                    file.unlink()

    def say(self, text: str) -> None:
        """Print a line and keep it, with the time, in ``log.txt``."""
        if not self.is_main:
            return
        tqdm.write(text)
        with writing_to(self.path / "log.txt"):
            self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def note(self, text: str) -> None:
        """Keep a line in ``log.txt`` only (the terminal shows the progress bar instead)."""
        if not self.is_main:
            return
        if not sys.stderr.isatty():
            print(text, flush=True)
        with writing_to(self.path / "log.txt"):
            self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write ``history.csv`` anew, one row an epoch."""
        if not self.is_main:
            return
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path / "history.csv", text.getvalue())

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Send scalars to VisualDL (``visualdl --logdir 输出目录``)."""
        if self.is_main:
            for tag, value in values.items():
                self._writer().add_scalar(tag, float(value), step)

    def embedding(self, write: Callable[[Any], object]) -> None:
        """Let ``write`` add an embedding projection to VisualDL's log."""
        if self.is_main:
            write(self._writer())

    def image(self, tag: str, file: Path, step: int) -> None:
        """Send a figure to VisualDL."""
        if self.is_main:
            with Image.open(file) as picture:
                self._writer().add_image(tag, np.asarray(picture.convert("RGB")), step)

    def pr_curve(self, tag: str, labels: np.ndarray, scores: np.ndarray, step: int) -> None:
        """Send a precision-recall curve to VisualDL.

        Args:
            labels: 0 or 1, [N].
            scores: predicted probability of 1, [N].
        """
        if not self.is_main:
            return
        from visualdl.component.base_component import pr_curve_raw

        # Counted here, because add_pr_curve of VisualDL 2.5.3 uses np.float, which numpy 1.24 removed.
        found = scores[None] >= np.linspace(0, 1, 101)[:, None]  # [thresholds, N]
        tp, fp = (found & (labels == 1)).sum(axis=1), (found & (labels == 0)).sum(axis=1)
        fn, tn = (labels == 1).sum() - tp, (labels == 0).sum() - fp
        counts = {"tp": tp, "fp": fp, "tn": tn, "fn": fn, "precision": tp / np.maximum(tp + fp, 1),
                  "recall": tp / np.maximum(tp + fn, 1)}
        record = pr_curve_raw(tag=tag, step=step, walltime=round(time.time() * 1000),
                              **{name: value.tolist() for name, value in counts.items()})
        self._writer()._get_file_writer().add_record(record)

    def _writer(self) -> Any:
        if self._visualdl is None:
            from visualdl import LogWriter

            self._visualdl = LogWriter(logdir=str(self.path / "visualdl"))
        return self._visualdl

    def progress(self, total: int, initial: int, text: str) -> tqdm:
        """A progress bar with ETA; drawn only on a terminal and only by rank 0."""
        silent = not (self.is_main and sys.stderr.isatty())
        return tqdm(total=total, initial=initial, desc=text, disable=silent, leave=False, dynamic_ncols=True)

    def close(self) -> None:
        if self._visualdl is not None:
            self._visualdl.close()
            self._visualdl = None
        if self._log is not None:
            self._log.close()
            self._log = None
