"""The device that a local model of a synthesis stage runs on, and what to do when its memory is not enough."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from paddle_cxr.errors import UserError


def use_device(wanted: str) -> None:
    """Set Paddle's device; each rank that a launcher started takes the GPU that it was given.

    Args:
        wanted: ``auto``, ``cpu``, ``gpu`` or ``gpu:N``.

    Raises:
        UserError: no such device.
    """
    from paddle_cxr.engine.distributed import World, select_device

    rank, size = (int(os.environ.get(name, default)) for name, default in (("PADDLE_TRAINER_ID", 0),
                                                                            ("PADDLE_TRAINERS_NUM", 1)))
    select_device(wanted, World(rank, size))


@contextlib.contextmanager
def enough_memory(key: str, way_out: str) -> Iterator[None]:
    """Say what to do about a batch that the memory cannot hold; Paddle raises both of these for it.

    Args:
        key: YAML path of the batch size.
        way_out: what to change, in Chinese.

    Raises:
        UserError: where the memory was not enough.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error).lower():
            raise
        raise UserError(f"{key}：内存或显存不够（out of memory）；{way_out}") from None
