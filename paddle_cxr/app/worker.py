"""One thread and one bounded queue for a model: parallel users wait in line, and never for another model."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from paddle_cxr.app.texts import Refusal

T = TypeVar("T")


class Worker:
    """Runs work in a thread of its own, in the order it came.

    A model is used by this thread alone: two threads at once would share its buffers and the cores.

    Args:
        name: of the thread.
        waiting: pieces of work taken at the same time, the one that runs included.
        seconds: that one caller waits at most.
    """

    def __init__(self, name: str, waiting: int, seconds: float) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=f"app-{name}")
        self._places = threading.BoundedSemaphore(waiting)
        self._seconds = seconds

    def __call__(self, work: Callable[..., T], *arguments: Any) -> T:
        """``work(*arguments)``, whose exceptions pass through.

        Raises:
            Refusal: the queue is full, or the answer took too long.
        """
        if not self._places.acquire(blocking=False):
            raise Refusal("busy")
        future = self._pool.submit(work, *arguments)
        # Freed when the work is done or was cancelled, and not when its caller has given up.
        future.add_done_callback(lambda _: self._places.release())
        try:
            return future.result(self._seconds)
        except concurrent.futures.TimeoutError:
            if future.done():  # the work itself raised it
                raise
            future.cancel()
            raise Refusal("too_long", seconds=round(self._seconds)) from None

    def close(self) -> None:
        """Take no more work; what waits is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
