"""Data-parallel ranks: who we are, starting CPU ranks, and the few exchanges the engine needs.

On GPUs the user starts ``python -m paddle.distributed.launch``.  On a CPU the tool itself starts one gloo rank per
share of the cores: two single-thread processes train faster than one process with two threads (benchmarks/).  The
result does not depend on the number of ranks, because the global batch is always cut into the same micro-batches.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paddle_cxr import cpu
from paddle_cxr.cli import EXIT_INTERRUPTED
from paddle_cxr.errors import UserError
from paddle_cxr.quiet import without_noise

_SHARING = "PADDLE_CXR_SHARED_CORES"  # set where the ranks were started here and share this machine's cores
_PATIENCE = 4.0  # seconds for a failing rank to say why


@dataclass(frozen=True)
class World:
    """This process among the data-parallel ranks."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def launched() -> bool:
    """Whether a launcher (Paddle's or :func:`start_cpu_ranks`) has already made ranks."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1


def choose_cpu_ranks(ranks: int | str, micro_batches: int | str) -> int:
    """Number of gloo ranks for a CPU: as asked, or the most that the cores allow and that divide the micro-batches."""
    if isinstance(ranks, int):
        return ranks
    if isinstance(micro_batches, str):
        return 1
    cores = cpu.available_cores()
    return max(n for n in range(1, micro_batches + 1) if micro_batches % n == 0 and n <= cores)


def start_cpu_ranks(size: int) -> None:
    """Make this process rank 0 of ``size`` gloo ranks: start the others with the same command line.

    Must be called before Paddle is imported, as it shares the cores out among the ranks (OpenMP threads).
    """
    cpu.prepare(threads=max(1, cpu.available_cores() // size))
    if size == 1:
        return
    ports = _free_ports(size + 1)
    endpoints = [f"127.0.0.1:{port}" for port in ports[:size]]
    shared = {
        "PADDLE_TRAINERS_NUM": str(size),
        "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
        "PADDLE_MASTER": f"127.0.0.1:{ports[size]}",
        "PADDLE_DISTRI_BACKEND": "gloo",
        _SHARING: "1",
    }
    for rank in range(1, size):
        env = os.environ | shared | _rank_variables(rank, endpoints)
        child = subprocess.Popen([sys.executable, *sys.argv], env=env, preexec_fn=_die_with_parent, text=True,
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        threading.Thread(target=_watch, args=(child,), daemon=True).start()
    os.environ.update(shared | _rank_variables(0, endpoints))


@contextlib.contextmanager
def bound_to_cores(world: World) -> Iterator[None]:
    """Give each rank that :func:`start_cpu_ranks` started its own share of the cores, for the time of training.

    Ranks that wander between cores lose their caches: bound, a ResNet-50 step took 6 % less time on an idle machine
    and up to 20 % less on a busy one.  Done after the images are decoded, which uses all cores.
    """
    if _SHARING not in os.environ or not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = sorted(os.sched_getaffinity(0))
    try:
        if len(cores) >= world.size:
            first, last = (len(cores) * rank // world.size for rank in (world.rank, world.rank + 1))
            os.sched_setaffinity(0, cores[first:last])
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _rank_variables(rank: int, endpoints: list[str]) -> dict[str, str]:
    return {"PADDLE_TRAINER_ID": str(rank), "PADDLE_GLOBAL_RANK": str(rank), "PADDLE_LOCAL_RANK": str(rank),
            "PADDLE_RANK_IN_NODE": str(rank), "PADDLE_CURRENT_ENDPOINT": endpoints[rank]}


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for item in sockets:
        item.bind(("127.0.0.1", 0))
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


def _die_with_parent() -> None:
    """In the child, before exec: be killed when rank 0 is (Linux), and leave Ctrl-C to rank 0."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    except (OSError, AttributeError):
        pass  # not Linux: a lost rank 0 then ends the others through the broken connection


def _watch(child: subprocess.Popen) -> None:
    """End rank 0 when another rank fails, with that rank's message: rank 0 would wait for it in vain."""
    _, said = child.communicate()
    if child.returncode not in (0, EXIT_INTERRUPTED):
        time.sleep(_PATIENCE / 2)  # a mistake that both make is told by rank 0, which is then gone before this ends
        said = said.strip() or (f"错误：另一个训练进程（rank）意外退出，返回码 {child.returncode}；"
                                "检查点完好，重新运行同一命令可续训")
        print(said, file=sys.stderr, flush=True)
        os._exit(child.returncode if child.returncode > 0 else 1)


@contextlib.contextmanager
def losing_a_rank() -> Iterator[None]:
    """Keep the broken connection to a rank that ended quiet: the rank that ended says why (see :func:`_watch`)."""
    try:
        yield
    except RuntimeError as error:
        if not launched() or "gloo/transport" not in str(error):
            raise
        if os.environ["PADDLE_TRAINER_ID"] == "0":
            time.sleep(_PATIENCE)
        raise UserError("与另一个训练进程（rank）的连接断开，训练停止；检查点完好，重新运行同一命令可续训") from error


def leave() -> None:
    """End this rank, successfully and at once.  Call last, when everything is written and closed.

    A rank of a fifteen-minute run was once aborted (SIGABRT, without a word) while Python was shutting down, after the
    last line of its log: Paddle's communication threads do not always survive their library's end.  All work is done by
    then, so nothing is lost by not waiting for it.
    """
    if launched():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def connect() -> World:
    """Join the other ranks, if there are any.  Call once, after Paddle is imported."""
    if not launched():
        return World()
    import paddle.distributed as dist

    with without_noise():
        dist.init_parallel_env()
    return World(dist.get_rank(), dist.get_world_size())


def sum_over_ranks(flat: Any, world: World) -> Any:
    """Sum a float tensor over the ranks, in place; every rank gets the sum."""
    if world.size > 1:
        import paddle.distributed as dist

        dist.all_reduce(flat)
    return flat


def gather_arrays(arrays: dict[str, np.ndarray], world: World) -> dict[str, np.ndarray]:
    """Concatenate each rank's arrays along axis 0, in rank order; every rank gets the whole."""
    if world.size == 1:
        return arrays
    import paddle.distributed as dist

    parts: list[dict[str, np.ndarray]] = []
    dist.all_gather_object(parts, arrays)
    return {name: np.concatenate([part[name] for part in parts]) for name in arrays}


def gather_rows(rows: Any, sizes: Sequence[int], world: World) -> Any:
    """Concatenate each rank's rows of a tensor [n, ...], in rank order; every rank gets the whole.

    Args:
        sizes: every rank's n.
    """
    import paddle
    import paddle.distributed as dist

    most = max(sizes)  # what is gathered must have one shape
    missing = most - len(rows)
    if missing:
        rows = paddle.concat([rows, paddle.zeros([missing, *rows.shape[1:]], rows.dtype)])
    parts: list[Any] = []
    dist.all_gather(parts, rows.contiguous())
    return paddle.concat([part[:size] for part, size in zip(parts, sizes, strict=True)])


_meetings = itertools.count()
_ASK_AGAIN = 0.01  # seconds


def wait_for_all(world: World) -> None:
    """Barrier, for as long as it takes: gloo's own gives up after 30 seconds, which decoding or saving may take."""
    if world.size == 1:
        return
    from paddle.base import core

    store = core.create_or_get_global_tcp_store()
    meeting = next(_meetings)
    _count_up(store, f"paddle_cxr/{meeting}/here", world.size)
    # The store lives in rank 0: it may not leave before the others have seen that all are here.
    _count_up(store, f"paddle_cxr/{meeting}/seen", world.size if world.is_main else 0)


def _count_up(store: Any, key: str, wanted: int) -> None:
    """Add 1 to a number that all ranks share, and wait until it is ``wanted``."""
    count = _uninterrupted(store.add, key, 1)
    while count < wanted:  # asked again and again, and not store.wait, so that Ctrl-C ends it
        time.sleep(_ASK_AGAIN)
        count = _uninterrupted(store.add, key, 0)


def _uninterrupted(call: Callable[..., int], *arguments: Any) -> int:
    """``call`` with signals held back: Paddle's store takes a system call that a signal interrupts for a lost line."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        return call(*arguments)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        return call(*arguments)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def select_device(wanted: str, world: World) -> tuple[str, list[str]]:
    """Set Paddle's device.

    Args:
        wanted: ``auto``, ``cpu``, ``gpu`` or ``gpu:N``.
        world: with several ranks on GPUs, each takes the GPU the launcher gave it.

    Returns:
        The device's name as Paddle has it, and notices for the user.

    Raises:
        UserError: a GPU is asked for and there is none, or not that many.
    """
    import paddle

    number = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    if _SHARING in os.environ:  # ranks that were started for the CPU's cores
        number = 0
    notices = []
    if wanted.startswith("gpu:") and world.size > 1:
        raise UserError(f"Global.device：{world.size} 个进程不能都用 {wanted}；请写 gpu，由启动器分配")
    if wanted.startswith("gpu"):
        index = int(wanted.partition(":")[2] or 0)
        if number == 0:
            raise UserError("Global.device：要求用 GPU，但当前 Paddle 没有可用的 GPU；"
                            "请安装 GPU 版 Paddle（见 README），或用 -o Global.device=cpu")
        if index >= number:
            raise UserError(f"Global.device：要求用 gpu:{index}，但只有 {number} 块 GPU（编号 0–{number - 1}）")
    if wanted == "cpu" or number == 0:
        if wanted == "auto":
            notices.append("没有可用的 GPU，使用 CPU")
        return paddle.device.set_device("cpu"), notices
    given = paddle.distributed.ParallelEnv().device_id if world.size > 1 else 0
    return paddle.device.set_device(wanted if ":" in wanted else f"gpu:{given}"), notices
