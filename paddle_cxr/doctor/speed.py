"""How fast the processor multiplies matrices, and whether MKL's slow path on AMD processors is avoided."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from paddle_cxr.cpu import available_cores
from paddle_cxr.doctor.line import GOOD, NOTE, Line
from paddle_cxr.doctor.probing import Told

SLOW = 25.0  # GFLOP/s of a core: MKL's slow path reaches 35 on an AMD core, the fast one about 100
BUSY = 0.4  # of what the threads should reach together
GAIN = 1.3  # from here on the setting has made a difference
VARIABLE = "MKL_DEBUG_CPU_TYPE"


def check(told: Told, ask_without: Callable[[str], Told | None]) -> Iterator[Line]:
    """Lines about the speed.

    Args:
        told: the main probe, run with this process's settings.
        ask_without: measures the product without a variable; None where there is no time left for it.
    """
    speed = told.facts.get("gflops")
    if speed is None:
        return
    threads = int(os.environ.get("OMP_NUM_THREADS") or 1)
    core = told.facts["gflops_core"]
    text = f"1024³ 的矩阵乘法 {speed:.0f} GFLOP/s（{threads} 个线程；一个核自己能到 {core:.0f}）"
    facts = {"gflops": speed, "gflops_core": core, "threads": threads}
    if core < SLOW:
        yield Line("速度", NOTE, text, "这个处理器慢：用 resnet18_cpu 一类的小配方，先看 --dry-run 的估计", facts)
    elif speed < BUSY * core * min(threads, available_cores()):
        yield Line("速度", NOTE, text, "机器正忙，或容器限了速：关掉别的程序再训练", facts)
    else:
        yield Line("速度", GOOD, text, facts=facts)
    if is_amd():
        yield _mkl(core, ask_without)


def is_amd(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor is one of AMD's."""
    try:
        return "AuthenticAMD" in cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _mkl(core: float, ask_without: Callable[[str], Told | None]) -> Line:
    if os.environ.get(VARIABLE) != "5":
        return Line("AMD 加速", NOTE, f"{VARIABLE}={os.environ.get(VARIABLE)}（用户设置）",
                    f"飞桨的 MKL 会走慢的路径：请 unset {VARIABLE}，程序会自己设为 5")
    again = ask_without(VARIABLE)
    without = again.facts.get("gflops_core") if again else None
    if without is None:
        return Line("AMD 加速", GOOD, f"已设 {VARIABLE}=5；时间不够，没有比较不设时的速度")
    ratio = core / without
    facts = {"with": core, "without": without, "ratio": round(ratio, 2)}
    if ratio >= GAIN:
        return Line("AMD 加速", GOOD, f"{VARIABLE}=5 有效：一个核从 {without:.0f} 到 {core:.0f} GFLOP/s，"
                    f"{ratio:.1f} 倍", facts=facts)
    return Line("AMD 加速", NOTE, f"{VARIABLE}=5 没有看出作用（一个核 {core:.0f} 对 {without:.0f} GFLOP/s）",
                "新的 MKL 不看这个变量，不影响结果；机器忙时也量不准，可再运行一次", facts)
