"""``tools/doctor.py``: every check in turn, each on its own, within twenty seconds."""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from paddle_cxr import __version__
from paddle_cxr.doctor import data_sets, font, machine, packages, paddle_build, probing, speed
from paddle_cxr.doctor.line import BAD, GOOD, NOTE, Line

SECONDS = 18.0  # for everything
ROOT = Path(__file__).resolve().parents[2]
FAILED = 1  # exit code where something is bad


def examine(root: Path = ROOT, seconds: float = SECONDS) -> Iterator[Line]:
    """Every line.  Paddle comes last to be asked, though not to be told: it gets the time that is left."""
    end = time.monotonic() + seconds
    yield from _guarded("Python", lambda: [packages.python(), packages.required()])
    yield from _guarded("处理器", lambda: [machine.cores(), *machine.threads()])
    yield from _guarded("内存", lambda: [machine.memory()])
    yield from _guarded("显存", machine.graphics_memory)
    yield from _guarded("共享内存", machine.shared_memory)
    yield from _guarded("磁盘", lambda: machine.disks(root))
    yield from _guarded("中文字体", lambda: [font.check()])
    later = [*_guarded("可选的包", packages.optional), *_guarded("数据集", lambda: data_sets.check(root))]
    yield from _guarded("Paddle", lambda: _asked_of_paddle(end))
    yield from later


def _asked_of_paddle(end: float) -> Iterator[Line]:
    told = probing.ask(max(5.0, end - time.monotonic()))
    yield from _guarded("Paddle", lambda: paddle_build.check(told))
    yield from _guarded("速度", lambda: speed.check(told, lambda variable: _without(variable, told, end)))


def _without(variable: str, told: probing.Told, end: float) -> probing.Told | None:
    """The product without a variable, where there is time for another import."""
    left = end - time.monotonic()
    return probing.ask(left, variable) if left > told.seconds else None


def _guarded(name: str, check: Callable[[], Iterable[Line]]) -> Iterator[Line]:
    """What a check finds; should it fail itself, that is one line too, and the others go on."""
    try:
        yield from check()
    except Exception as error:
        yield Line(name, NOTE, f"这一项没有查成（{type(error).__name__}: {error}）", "请把这一行报告给项目")


def doctor(arguments: argparse.Namespace) -> int:
    """Print the lines and a summary, write ``--json``; 1 where something is bad."""
    print(f"paddle_cxr {__version__}，{platform.platform()}；只看，不安装也不改动任何东西\n")
    begin, lines = time.monotonic(), []
    for line in examine():
        print(line, flush=True)
        lines.append(line)
    counts = {state: sum(line.state == state for line in lines) for state in (GOOD, NOTE, BAD)}
    print(f"\n{counts[GOOD]} 项好，{counts[NOTE]} 项注意，{counts[BAD]} 项坏。{_verdict(counts)}")
    if arguments.json:
        _write(arguments.json, lines, counts, time.monotonic() - begin)
    return FAILED if counts[BAD] else 0


def _verdict(counts: dict[str, int]) -> str:
    if counts[BAD]:
        return "先按“坏”的各行的办法做，再运行一次。"
    return "可以开始：python tools/train.py -c configs/resnet18_cpu.yaml"


def _write(file: str, lines: list[Line], counts: dict[str, int], seconds: float) -> None:
    from paddle_cxr.files import write_json

    write_json(file, {"version": __version__, "python": sys.version, "platform": platform.platform(),
                      "seconds": round(seconds, 1), "counts": counts, "lines": [vars(line) for line in lines]})
    print(f"写到 {file}")
