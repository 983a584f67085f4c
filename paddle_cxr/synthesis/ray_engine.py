"""Work shared out on a Ray cluster by Ray Data, its results in the order of the tasks; called like ``in_order``.

    tasks → windows of tasks → ray.data.from_items → map(Worker) on a pool of actors → results, as they come, in order

Ray places the workers, moves the data, and does again what a lost node had in hand; nothing of that is done here.  A
window is what is handed to Ray at once: all tasks where they are small (numbers, texts, paths), a part of them where
they carry pictures, so that neither this process nor the cluster ever holds them all.

Reference: Luan et al., "The Streaming Batch Model for Efficient and Fault-Tolerant Heterogeneous Execution"
(arXiv 2501.12407), which is Ray Data; https://docs.ray.io/en/latest/data/data.html.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import pickle
import socket
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import paddle_cxr
from paddle_cxr.cpu import available_cores
from paddle_cxr.errors import UserError

WINDOW = 2**29  # bytes of tasks handed to Ray at once …
AHEAD = 4  # … but at least so many tasks a worker, or some would have none
MANY = 64  # workers, where Ray decides how many
GLANCE = 10  # seconds without a result, after which it is time to see whether a node is gone

# Read when Ray is imported.  Workers' output is in Ray's log folder; no call starts a Ray that was not asked for.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "1", "RAY_ENABLE_AUTO_CONNECT": "0"}


def in_order_on_ray(work: Callable[[Any, Any], Any], tasks: Iterable[Any], workers: int | Literal["auto"],
                    prepare: Callable[..., Any], arguments: tuple = (), *, address: str | None = None,
                    num_cpus: float = 1, num_gpus: float = 0) -> Iterator[Any]:
    """Yield ``work(tools, task)`` for every task, in order; ``tools = prepare(*arguments)`` is made once a worker.

    ``work`` and ``prepare`` are functions of a module that the workers can import; everything handed over is pickled.

    Args:
        workers: actors, each a process; ``auto``: as many as there is room for.  There are never more.
        address: ``None``: ``RAY_ADDRESS`` if set, else a Ray of its own on this machine; ``auto``, ``host:port`` or
            ``ray://host:port`` is a cluster.
        num_cpus, num_gpus: what Ray keeps free for a worker (a GPU may be shared: 0.5).

    Raises:
        UserError: no Ray, no cluster, no node large enough, or workers that die as they start.  What ``prepare`` and
            ``work`` raise comes through.
    """
    ray = _import_ray()
    job = Job(work, prepare, arguments, num_cpus, num_gpus)
    try:
        for window in _windows(tasks, workers):
            while window:  # once, or once more for every loss that leaves too little room
                _connect(ray, address, workers, job)
                room, count = _places(ray, job), 0
                most = room if workers == "auto" else min(workers, room)
                with contextlib.closing(_delivered(ray, window, most, job)) as outcomes:
                    for result, error, where in outcomes:
                        if error is not None:  # a bug's traceback shows the worker's as its cause
                            raise error from (None if isinstance(error, UserError) else RuntimeError(where))
                        count += 1
                        yield result
                window = window[count:]
    except ray.exceptions.RayError as error:
        ray.shutdown()
        why = _first_line(getattr(error, "cause", error))
        raise UserError(f"Ray：工作进程被终止（{why}）；多半是内存不足，请减少 workers 或增大 "
                        "ray_num_cpus；写好的都已保存，再运行同一条命令就接着做") from error
    except BaseException:  # an error, Ctrl-C, or no more results wanted: the workers end at once
        ray.shutdown()
        raise


@dataclass(frozen=True)
class Job:
    """What every worker does and what it needs."""

    work: Callable[[Any, Any], Any]
    prepare: Callable[..., Any]
    arguments: tuple
    num_cpus: float
    num_gpus: float


class Worker:
    """What an actor of the pool does; made once an actor, where ``prepare`` runs.

    An exception is returned, not raised: raised, Ray would wrap it, and try an actor that cannot start again.
    """

    def __init__(self, job: Job) -> None:
        self.work, self.tools, self.failure = job.work, None, None
        try:
            self.tools = job.prepare(*job.arguments)
        except Exception as error:
            self.failure = error

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        try:
            if self.failure is not None:
                raise self.failure
            outcome = (self.work(self.tools, pickle.loads(row["task"])), None, "")
        except Exception as error:
            outcome = (None, _portable(error), traceback.format_exc())
        return {"outcome": pickle.dumps(outcome, pickle.HIGHEST_PROTOCOL)}


def _portable(error: Exception) -> Exception:
    """The error, or what it says where it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


Outcome = tuple[Any, Exception | None, str]  # result, or exception and where it was raised


def _delivered(ray: Any, window: list[bytes], workers: int, job: Job) -> Iterator[Outcome]:
    """What comes of the tasks of ``window``, in order; ends early when the nodes left have no room for all workers.

    Ray starts the workers of a lost node again on the others.  Where these are full, that waits for ever, and so do the
    tasks that the lost ones had in hand and all that looks for their results, Ray Data among them.  So it runs in an
    actor, which can be given up; that also lets it run through ``ray://``, where Ray Data itself does not.
    """
    # With the head node the whole cluster is lost, so there the actor is as safe as can be.
    relay = ray.remote(num_cpus=0, resources={"node:__internal_head__": 0.001})(Relay).remote(window, workers, job)
    try:
        coming = relay.next.remote()
        while True:
            ready, _ = ray.wait([coming], timeout=GLANCE)
            if ready:
                outcome = ray.get(coming)
                if outcome is None:
                    return
                coming = relay.next.remote()
                yield outcome
            elif _places(ray, job) < workers:
                return
    finally:
        ray.kill(relay)  # and with it the workers


class Relay:
    """Runs a window on Ray Data and hands on what comes of it, one by one, None at the end."""

    def __init__(self, window: list[bytes], workers: int, job: Job) -> None:
        self._outcomes = _mapped(window, workers, job)

    def next(self) -> Outcome | None:
        return next(self._outcomes, None)


def _mapped(window: list[bytes], workers: int, job: Job) -> Iterator[Outcome]:
    data = _import_ray().data
    context = data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    pool = data.ActorPoolStrategy(size=min(workers, len(window)), max_tasks_in_flight_per_actor=2)
    rows = data.from_items([{"task": task} for task in window], override_num_blocks=len(window))
    done = rows.map(Worker, fn_constructor_args=(job,), compute=pool, num_cpus=job.num_cpus, num_gpus=job.num_gpus)
    for row in done.iter_rows():
        yield pickle.loads(row["outcome"])


def _places(ray: Any, job: Job) -> int:
    """How many workers fit on the nodes alive, all together."""
    wanted = [(name, amount) for name, amount in (("CPU", job.num_cpus), ("GPU", job.num_gpus)) if amount]
    rooms = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(min(int(room.get(name, 0) / amount + 1e-9) for name, amount in wanted) for room in rooms)


def _windows(tasks: Iterable[Any], workers: int | Literal["auto"]) -> Iterator[list[bytes]]:
    """Pickled tasks, as many at a time as Ray gets at once."""
    window: list[bytes] = []
    size, least = 0, AHEAD * (MANY if workers == "auto" else workers)
    for task in tasks:
        window.append(pickle.dumps(task, pickle.HIGHEST_PROTOCOL))
        size += len(window[-1])
        if size >= WINDOW and len(window) >= least:
            yield window
            window, size = [], 0
    if window:
        yield window


def _import_ray() -> Any:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError(f"engine: ray 需要 Ray（{_first_line(error)}）：请运行 pip install -e \".[ray]\"，"
                        "或改为 engine: local") from None
    return ray


_connection: tuple[str, int] | None = None  # the address and the processors of the Ray that was connected to here


def _connect(ray: Any, address: str | None, workers: int | Literal["auto"], job: Job) -> None:
    """Connect, or go on with the connection of an earlier stage.

    Raises:
        UserError: no cluster answers, or none of its nodes is large enough for a worker.
    """
    global _connection
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    # Ray on this machine may have more workers than processors, as the local engine may.
    asked = 1 if workers == "auto" else workers
    cpus = max(available_cores(), math.ceil(asked * job.num_cpus)) if address == "local" else 0
    if ray.is_initialized() and _connection not in (None, (address, cpus)):
        ray.shutdown()
    if not ray.is_initialized():
        _knock(address)
        with _importable_here():
            try:
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **_options(address, cpus))
            except Exception as error:  # of any class: that of a start that takes too long is Exception itself
                raise _no_ray(address, error) from None
        _connection = address, cpus
    if not _places(ray, job):
        raise UserError(f"Global.ray_num_cpus、ray_num_gpus：Ray 没有一个节点放得下一个工作进程"
                        f"（CPU {job.num_cpus:g}、GPU {job.num_gpus:g}）")


def _knock(address: str) -> None:
    """Ray would wait minutes for a cluster that is not there, and then end this process."""
    if address in ("local", "auto"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_ray(address, error) from None


def _no_ray(address: str, error: Exception) -> UserError:
    if address == "local":
        return UserError(f"engine: ray：本机的 Ray 没有起来（{_first_line(error)}）；"
                         "机器太忙时过一会儿再试，或改为 engine: local")
    return UserError(f"Global.ray_address：连不上 Ray（{address}：{_first_line(error)}）；请先在主节点运行 "
                     "ray start --head，再检查地址、端口、令牌（RAY_AUTH_TOKEN）和各节点的 Ray、Python 版本")


def _options(address: str, cpus: int) -> dict[str, Any]:
    """For ``ray.init``: a cluster gets this package sent, so that all nodes run the code that is here."""
    if address == "local":
        return {"num_cpus": cpus, "include_dashboard": False}
    return {"runtime_env": {"py_modules": [str(Path(paddle_cxr.__file__).parent)]}}


@contextlib.contextmanager
def _importable_here() -> Iterator[None]:
    """Let the workers of a Ray that starts inside find this package where it is not installed."""
    before = os.environ.get("PYTHONPATH")
    folder = str(Path(paddle_cxr.__file__).parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (folder, before)))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
