"""One thread and one bounded queue for a model: parallel users wait in line, and never for another model."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from paddle_cxr.app.texts import Refusal

T = TypeVar("T")


@dataclass(eq=False)  # each is its own, whatever it holds
class _Place:
    """One caller's item among those that wait to be computed together, and where its result goes."""

    item: Any
    result: concurrent.futures.Future = field(default_factory=concurrent.futures.Future)


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
        self._together: deque[_Place] = deque()

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

    def together(self, many: Callable[[Sequence[Any]], Sequence[T]], item: Any) -> T:
        """``many([item])[0]``, computed at once with the items of all other callers that wait.

        The first whose turn comes has everybody's computed; the others then find their result.  For a model this is
        quicker than one after another, and one caller alone loses nothing by it.  Where ``many`` raises, each item is
        tried by itself, so that nobody gets another's error.

        Args:
            many: computes a list of items; the same at every call.

        Raises:
            Refusal: as above.
        """
        place = _Place(item)
        self._together.append(place)
        try:
            return self(self._turn, many, place)
        finally:  # refused or too late: nobody waits for it
            with contextlib.suppress(ValueError):
                self._together.remove(place)

    def _turn(self, many: Callable[[Sequence[Any]], Sequence[T]], place: _Place) -> T:
        if not place.result.done():
            _fill(many, self._taken())
        return place.result.result(0)  # not there only where its caller gave up just now: it must not stop the others

    def _taken(self) -> list[_Place]:
        """All that wait; callers come and go meanwhile."""
        places = []
        with contextlib.suppress(IndexError):
            while True:
                places.append(self._together.popleft())
        return places

    def close(self) -> None:
        """Take no more work; what waits is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _fill(many: Callable[[Sequence[Any]], Sequence[Any]], places: list[_Place]) -> None:
    """Compute the results of ``places``; where that raises, of each by itself."""
    try:
        results = many([place.item for place in places])
    except Exception as error:
        if len(places) == 1:
            places[0].result.set_exception(error)
            return
        for place in places:
            _fill(many, [place])
    else:
        for place, result in zip(places, results, strict=True):
            place.result.set_result(result)
