"""How busy the machine is: printed with every figure, as a busy one is not to be quoted."""

from __future__ import annotations

import os

QUIET = 1.5  # load above which a figure is not to be quoted; a benchmark with one busy process itself adds about one


def load() -> float | None:
    """The machine's load average over the last minute, or None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def shown(value: float | None) -> str:
    """A load for people."""
    return "未知" if value is None else f"{value:.1f}"


def print_load(before: float | None) -> None:
    """The load at the beginning and now, and a warning where either is too high for a benchmark of one process."""
    after = load()
    print(f"负载（load average）：开始 {shown(before)}，结束 {shown(after)}")
    if max(before or 0, after or 0) > QUIET:
        print(f"!! 机器忙（负载超过 {QUIET}）：数字偏差，请在安静时重测")
