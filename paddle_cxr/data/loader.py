"""Batches as tensors, prepared beside the model's work or in turn with it."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import paddle

from paddle_cxr.cpu import available_cores
from paddle_cxr.data.dataset import Key, LabelledImages, collate
from paddle_cxr.data.sampler import EvalSampler, MicroBatchSampler
from paddle_cxr.errors import UserError

_MOST_WORKERS = 8
_PREFETCH = 2  # batches a worker may be ahead
_SHARED_MEMORY = "/dev/shm"


class Batch(NamedTuple):
    """images: uint8 ``[n, H, W]`` or ``[n, H, W, 3]``; labels, positions: int64 ``[n]``; on the current device."""

    images: paddle.Tensor
    labels: paddle.Tensor
    positions: paddle.Tensor


class Loader:
    """Iterates over the batches of ``sampler``; see :func:`make_loader`."""

    def __init__(self, dataset: LabelledImages, sampler: MicroBatchSampler | EvalSampler, num_workers: int) -> None:
        self.dataset, self.sampler, self.num_workers = dataset, sampler, num_workers

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        return self._with_workers() if self.num_workers else self._in_turn()

    def _in_turn(self) -> Iterator[Batch]:
        for keys in self.sampler:
            yield Batch(*map(paddle.to_tensor, collate([self.dataset[key] for key in keys])))

    def _with_workers(self) -> Iterator[Batch]:
        reader = paddle.io.DataLoader(
            _Guarded(self.dataset), batch_sampler=self.sampler, collate_fn=_collate_or_failure,
            num_workers=self.num_workers, prefetch_factor=_PREFETCH, use_shared_memory=self._fits_shared_memory())
        for batch in reader:
            if len(batch) == len(_Failure._fields):
                _raise(*batch)
            yield Batch(*batch)

    def _fits_shared_memory(self) -> bool:
        """Containers often grant 64 MiB, and a worker that runs over is killed by SIGBUS without a word."""
        try:
            free = shutil.disk_usage(_SHARED_MEMORY).free
        except OSError:
            return False
        picture = int(np.prod(self.dataset.images.shape[1:]))
        largest = self.sampler.batch_size * picture
        return free > 2 * largest * self.num_workers * _PREFETCH


def make_loader(dataset: LabelledImages, sampler: MicroBatchSampler | EvalSampler,
                num_workers: int | Literal["auto"] = "auto") -> Loader:
    """Batches of ``dataset`` in the order of ``sampler``, the same whatever ``num_workers`` is.

    Args:
        dataset: the pictures.
        sampler: yields the keys of one batch at a time; call its ``set_epoch`` before each pass.
        num_workers: processes that prepare batches while the model works; 0 prepares them in turn; ``auto`` is 0 on a
            CPU (its cores are busy with the model) and up to 8, one core left free, on a GPU.

    Returns:
        an iterable of :class:`Batch`, with a length.

    Raises:
        UserError: a negative number of workers; while iterating, whatever went wrong in a worker.
    """
    if num_workers == "auto":
        on_cpu = paddle.device.get_device().startswith("cpu")
        num_workers = 0 if on_cpu else max(0, min(_MOST_WORKERS, available_cores() - 1))
    if num_workers < 0:
        raise UserError(f"num_workers 应为 auto 或不小于 0 的整数，现在是 {num_workers}")
    return Loader(dataset, sampler, num_workers)


# --- errors out of workers ------------------------------------------------------------------------------------------
# Paddle raises a worker's exception in a background thread: the loop sees only "blocking queue is killed", or, in
# some versions, waits for ever.  So a worker returns its error in place of the batch, and the loop raises it.

class _Failure(NamedTuple):
    """What a worker returns instead of a batch: two arrays, where a batch has three."""

    text: np.ndarray  # UTF-8, uint8
    by_user: np.ndarray  # 1: a UserError's line; 0: a traceback


class _Guarded:
    """``dataset``, returning exceptions instead of raising them."""

    def __init__(self, dataset: LabelledImages) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, key: Key) -> Any:
        try:
            return self._dataset[key]
        except UserError as error:
            text, by_user = str(error), 1
        except Exception:
            text, by_user = traceback.format_exc(), 0
        return _Failure(np.frombuffer(text.encode(), np.uint8), np.array([by_user], np.uint8))


def _collate_or_failure(samples: Sequence[Any]) -> list[np.ndarray]:
    for sample in samples:
        if isinstance(sample, _Failure):
            return list(sample)
    return collate(samples)


def _raise(text: paddle.Tensor, by_user: paddle.Tensor) -> None:
    message = text.numpy().tobytes().decode()
    if by_user.item():
        raise UserError(message)
    raise RuntimeError(f"error in a data worker:\n{message}")
