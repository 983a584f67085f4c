"""How many built-in phantoms one core draws a second at 224², measured in CPU time.

    python benchmarks/phantoms.py

One process, one thread.  CPU time leaves out waiting for a core, but a busy machine still slows the caches and the
clock down, so the load is printed with the figure.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # read when numpy is imported

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

from machine import load, print_load  # noqa: E402

from paddle_cxr.data.phantom import CLASSES, draw_image  # noqa: E402

SIZE = 224
GOAL = 60.0  # images a second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="测几遍，取中位数")
    parser.add_argument("--images", type=int, default=150, help="每遍画几张，各类轮流")
    arguments = parser.parse_args()
    before = load()
    images_per_second(min(arguments.images, 30))  # tables that are computed once are no part of the speed
    speeds = [images_per_second(arguments.images) for _ in range(arguments.repeats)]
    median = statistics.median(speeds)
    print(f"内置模体（phantom）{SIZE}²：每核 {median:.1f} 张/秒（CPU 时间，{arguments.repeats} 遍的中位数，"
          f"{min(speeds):.1f}–{max(speeds):.1f}）")
    print(f"目标：每核不少于 {GOAL:.0f} 张/秒：{'达到' if median >= GOAL else '没有达到'}")
    print_load(before)


def images_per_second(number: int) -> float:
    """Speed of drawing ``number`` images, the classes in turn, per second of this process's CPU time."""
    begun = time.process_time()
    for index in range(number):
        draw_image(CLASSES[index % len(CLASSES)], seed=0, index=index, size=SIZE)
    return number / (time.process_time() - begun)


if __name__ == "__main__":
    main()
