"""Work shared out among processes, its results in the order of the tasks."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Literal, TypeVar

from paddle_cxr.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")

_LEAD = 4  # tasks a worker may be ahead of the consumer, so that a slow disk does not fill the memory


def in_order(work: Callable[[Any, Task], Result], tasks: Iterable[Task], workers: int,
             prepare: Callable[..., Any], arguments: tuple = (), method: Literal["fork", "spawn"] = "spawn"
             ) -> Iterator[Result]:
    """Yield ``work(tools, task)`` for every task, in order; ``tools = prepare(*arguments)`` is made once a process.

    Args:
        workers: processes; with 1 the work is done in this one.
        method: how processes start.  ``fork`` needs no pickling and no main module, but a copy of a process in which
            Paddle or a BLAS has started threads may hang.

    Raises:
        UserError: the system ended a process.  What ``prepare`` and ``work`` raise comes through.
    """
    if workers <= 1:
        tools = prepare(*arguments)
        for task in tasks:
            yield work(tools, task)
        return
    if method not in multiprocessing.get_all_start_methods():
        method = "spawn"
    with ProcessPoolExecutor(workers, multiprocessing.get_context(method), _start, (prepare, arguments)) as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                with _ctrl_c_later():
                    pending.append(pool.submit(_do, work, task))
                if len(pending) > _LEAD * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool:
            raise UserError("工作进程被系统终止，多半是内存不足；请关闭其他程序或减少进程数") from None
        finally:
            for future in pending:
                future.cancel()


@contextlib.contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Hold back Ctrl-C: processes that start inside inherit that, and need not fear it before :func:`_start`."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    held: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    # The mask is this thread's and its children's.  Another thread (a BLAS has some) may get the signal meanwhile, and
    # Python would still raise it here, between starting a process and telling it what to do.
    handler = signal.signal(signal.SIGINT, lambda number, _: held.append(number)) if main else None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if main:
            signal.signal(signal.SIGINT, handler if handler is not None else signal.default_int_handler)
        if held:
            signal.raise_signal(signal.SIGINT)


_tools: Any = None
_failure: Exception | None = None


def _start(prepare: Callable[..., Any], arguments: tuple) -> None:
    global _tools, _failure
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; only the parent has something to say
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _tools = prepare(*arguments)
    except Exception as error:  # raised here it would break the pool, which hides what it says
        _failure = error


def _end_with_parent() -> None:
    """A worker whose parent was killed would otherwise wait for its next task for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(work: Callable[[Any, Task], Result], task: Task) -> Result:
    if _failure is not None:
        raise _failure
    return work(_tools, task)
