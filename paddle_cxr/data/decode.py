"""Decoding all pictures of a source on all cores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from paddle_cxr.cpu import available_cores
from paddle_cxr.data.image import MissingReader
from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.data.records import Source
from paddle_cxr.errors import UserError
from paddle_cxr.processes import in_order

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
    if total < _WORTH_PROCESSES:
        workers = 1
    chunks = (indices[start:start + _CHUNK] for start in range(0, total, _CHUNK))
    # Processes and not threads: drawing phantoms and stretching 16-bit films is numpy under Python's lock.
    # Forked, so that a source of any kind (and a notebook without a main module) needs no pickling.
    for pictures in in_order(_decode_chunk, chunks, workers, _Reader, (source, preprocess), method="fork"):
        yield from pictures


class _Reader(NamedTuple):
    source: Source
    preprocess: Preprocess


def _decode_chunk(reader: _Reader, indices: Sequence[int]) -> list[Picture]:
    return [_decode(*reader, index) for index in indices]


def _decode(source: Source, preprocess: Preprocess, index: int) -> Picture:
    try:
        return Picture(index, preprocess.geometry(source.read(index)), None)
    except MissingReader:
        raise
    except (UserError, OSError) as error:
        where, line = source.locate(index), str(error)
        return Picture(index, None, line if where in line else f"{where}：{line}")
