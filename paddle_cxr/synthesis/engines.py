"""Where map-like work runs: in processes of this machine, or on a Ray cluster; what comes out is the same.

    chunks = (rows[i:i + 200] for i in range(0, len(rows), 200))
    for done in engine_of(recipe.Global)(work, chunks, workers, prepare, arguments):
        …                                                     # work(tools, chunk), in the order of the chunks

``prepare(*arguments)`` makes the tools (a writer, a generator, a judge …) once in every process; ``work`` is a function
of a module, so that another process can import it, and what it returns depends on the chunk alone.  A chunk that says
what to do (numbers, texts, paths) travels better than one that carries pictures.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal

from pydantic import Field

from paddle_cxr.cpu import available_cores
from paddle_cxr.processes import in_order
from paddle_cxr.schema import Section

Engine = Callable[..., Iterator[Any]]
EngineName = Literal["local", "ray"]


class EngineKeys(Section):
    """The keys of ``Global`` in every recipe whose stages may run on Ray."""

    engine: EngineName = Field("local", description="在哪里运行：local = 本机的进程；ray = Ray 集群，结果相同")
    ray_address: str | None = Field(None, min_length=1,
                                    description="Ray 集群：auto、host:port 或 ray://host:port；null：环境变量 "
                                                "RAY_ADDRESS，没有就在本机启动 Ray")
    ray_num_cpus: float = Field(1, gt=0, description="engine: ray：每个工作进程占几个 CPU 核")
    ray_num_gpus: float = Field(0, ge=0, description="engine: ray：每个工作进程占几个 GPU；0 就看不到 GPU，"
                                                     "0.5 表示两个进程共用一个")


def engine_named(name: EngineName, ray_address: str | None = None, ray_num_cpus: float = 1, ray_num_gpus: float = 0
                 ) -> Engine:
    """The function that runs work on engine ``name``; called like :func:`~paddle_cxr.processes.in_order`.

    On Ray the number of workers may be ``"auto"``: as many as there is room for.
    """
    if name == "local":
        return in_order
    from paddle_cxr.synthesis.ray_engine import in_order_on_ray

    return functools.partial(in_order_on_ray, address=ray_address, num_cpus=ray_num_cpus, num_gpus=ray_num_gpus)


def engine_of(settings: EngineKeys) -> Engine:
    """The engine a recipe asks for."""
    return engine_named(settings.engine, settings.ray_address, settings.ray_num_cpus, settings.ray_num_gpus)


def workers_for(settings: EngineKeys, wanted: int | Literal["auto"], many: bool, ranks: int = 1
                ) -> int | Literal["auto"]:
    """Processes for a component; on Ray possibly ``"auto"``, as many as there is room for.

    Args:
        wanted: ``Global.workers`` of the recipe.
        ranks: programs that share this machine's cores.
        many: whether the component is made to be made in each of several processes of one machine.  Others are a model
            that fills its device, or the client of a server: one of them is enough here.  On Ray who asks for several
            workers, or gives each a GPU, means several devices.
    """
    if settings.engine == "ray":
        return wanted if wanted != "auto" or many or settings.ray_num_gpus else 1
    if not many:
        return 1
    return max(1, available_cores() // ranks) if wanted == "auto" else wanted
