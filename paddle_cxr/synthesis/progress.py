"""How far a stage that works on images is."""

from __future__ import annotations

import time

from paddle_cxr.engine.output import RunFolder


class Progress:
    """A bar on a terminal, and every ten seconds a line in the log.

    Args:
        folder: its log.
        what: the stage's name; mark: what stands between it and the numbers in the log.
        total: images to do.
    """

    def __init__(self, folder: RunFolder, what: str, total: int, mark: str = " ") -> None:
        self.folder, self.what, self.mark, self.total, self.done = folder, what, mark, total, 0
        self.started = self.noted = time.monotonic()
        self.bar = folder.progress(total, 0, what)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def add(self, count: int) -> None:
        """Some more images are done."""
        self.done += count
        self.bar.update(count)
        now = time.monotonic()
        if now - self.noted >= 10 or self.done == self.total:
            self.noted, rate = now, self.done / max(now - self.started, 1e-3)
            self.folder.note(f"{self.what}{self.mark}{self.done}/{self.total} 张，{rate:.1f} 张/秒，"
                             f"剩余约 {(self.total - self.done) / rate:.0f} 秒")
