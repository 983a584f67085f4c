"""Decoding all pictures of a source on all cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import numpy as np

from paddle_cxr.cpu import available_cores
from paddle_cxr.data.image import MissingReader
from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.data.records import Source
from paddle_cxr.errors import UserError

_CHUNK = 16  # pictures per message between processes
_WORTH_PROCESSES = 64  # fewer pictures are decoded sooner than processes are started


class Picture(NamedTuple):
    """Picture ``index`` of a source: its ``pixels``, or the ``error`` (one line naming the file)."""

    index: int
    pixels: np.ndarray | None
    error: str | None


def decode_all(source: Source, preprocess: Preprocess, workers: int | None = None,
               indices: Sequence[int] | None = None) -> Iterator[Picture]:
    """Read and resize the pictures of ``source``, in order; unreadable files come as errors, not exceptions.

    Args:
        workers: processes; None for one per available core.
        indices: the pictures; None for all.

    Raises:
        MissingReader: a package is not installed, which says nothing against the files.
    """
    indices = range(len(source.records)) if indices is None else indices
    total = len(indices)
    workers = available_cores() if workers is None else workers
    if workers <= 1 or total < _WORTH_PROCESSES:
        for index in indices:
            yield _decode(source, preprocess, index)
        return
    # Processes and not threads: drawing phantoms and stretching 16-bit films is numpy under Python's lock.
    # Forked, so that a source of any kind (and a notebook without a main module) needs no pickling.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    with ProcessPoolExecutor(workers, multiprocessing.get_context(method), _start_worker, (source, preprocess)) as pool:
        chunks = (indices[start:start + _CHUNK] for start in range(0, total, _CHUNK))
        pending: deque[Future[list[Picture]]] = deque()
        try:
            for chunk in chunks:
                pending.append(pool.submit(_decode_chunk, chunk))
                if len(pending) > 4 * workers:  # a bounded lead, so that a slow disk does not fill the memory
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        except BrokenProcessPool:
            raise UserError("解码图像的进程被系统终止，多半是内存不足；请关闭其他程序或换用内存更大的机器") from None
        finally:
            for future in pending:
                future.cancel()


def _decode(source: Source, preprocess: Preprocess, index: int) -> Picture:
    try:
        return Picture(index, preprocess.geometry(source.read(index)), None)
    except MissingReader:
        raise
    except (UserError, OSError) as error:
        where, line = source.locate(index), str(error)
        return Picture(index, None, line if where in line else f"{where}：{line}")


_worker_job: tuple[Source, Preprocess] | None = None


def _start_worker(source: Source, preprocess: Preprocess) -> None:
    global _worker_job
    _worker_job = (source, preprocess)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; only the parent has something to say
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would otherwise wait for its next chunk for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _decode_chunk(indices: Sequence[int]) -> list[Picture]:
    assert _worker_job is not None
    return [_decode(*_worker_job, index) for index in indices]
