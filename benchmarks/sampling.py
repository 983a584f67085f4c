"""Balanced sampling at the size of the paper: seconds and peak memory for 50,000, 100,000 and 200,000 reports.

    python benchmarks/sampling.py                       # or with --balance type

The vocabulary is generated: 136,500 entities, a quarter of each type, and 40,500 anatomies, which is what RaTE-NER
finds; every second abnormality and disease is also denied, and such pairs contradict each other.  k = 9, m = 3,
τ_max = 15.  200,000 reports use up 98.8 % of the anatomies; the last plan, of 202,500, uses up all of them.

Each plan is made in a process of its own, on one thread; the peak memory is that of the process, so it holds Python,
numpy and the vocabulary too.  The seconds are CPU time of planning, which leaves out waiting for a core; a busy machine
still slows the caches and the clock down, so the load is printed with them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

import numpy as np  # noqa: E402
from machine import load, print_load  # noqa: E402

from paddle_cxr.synthesis.entities import TYPES, Entity  # noqa: E402
from paddle_cxr.synthesis.sampling import BalancedSampler  # noqa: E402
from paddle_cxr.synthesis.vocabulary import Vocabulary  # noqa: E402

QUARTER, ANATOMIES = 136_500 // 4, 40_500
K, M, CAP = 9, 3, 15
COUNTS = (50_000, 100_000, 200_000, ANATOMIES * CAP // M)
GOAL_COUNT, GOAL_SECONDS, GOAL_MB = 200_000, 10.0, 1024.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--balance", choices=("none", "type"), default="none", help="前四类取并集，或一样多")
    parser.add_argument("--seed", type=int, default=0, help="随机种子")
    arguments = parser.parse_args()
    before = load()
    print(f"{4 * QUARTER} + {ANATOMIES} 个实体，k={K}，m={M}，τ_max={CAP}，balance={arguments.balance}，单线程")
    for count in COUNTS:
        # "spawn" starts a bare Python, whose memory holds nothing of this process.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, megabytes, uses = pool.apply(measure, (count, arguments.balance, arguments.seed))
        print(f"{count:7d} 份：{seconds:5.2f} 秒（CPU 时间；每万份 {seconds / count * 1e4:.3f} 秒），"
              f"内存峰值 {megabytes:.0f} MB，用掉解剖部位名额的 {count * M / (ANATOMIES * CAP):.1%}，"
              f"用得最多的实体 {uses} 次")
        if count == GOAL_COUNT:
            met = seconds <= GOAL_SECONDS and megabytes <= GOAL_MB and uses <= CAP
            print(f"目标：{GOAL_COUNT} 份不超过 {GOAL_SECONDS:.0f} 秒、{GOAL_MB:.0f} MB："
                  f"{'达到' if met else '没有达到'}")
    print_load(before)


def measure(count: int, balance: str, seed: int) -> tuple[float, float, int]:
    """CPU seconds of planning ``count`` reports, peak memory of this process in MB, uses of the most used entity."""
    vocabulary = generated_vocabulary()
    sampler = BalancedSampler(k=K, m=M, cap=CAP, balance=balance)
    begun = time.process_time()
    plan = sampler.plan(vocabulary, count, seed)
    seconds = time.process_time() - begun
    unit = 1024**2 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes there, KB elsewhere
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    in_order = np.sort(plan, axis=1)
    if not (in_order[:, 1:] > in_order[:, :-1]).all():
        raise RuntimeError("an entity twice in a report")
    return seconds, megabytes, int(np.bincount(plan.ravel()).max())


def generated_vocabulary() -> Vocabulary:
    entities = []
    for type_ in TYPES:
        size = ANATOMIES if type_ == "anatomy" else QUARTER
        thing = type_.removeprefix("non-")
        for number in range(size):
            # Of a non-abnormality every second is an abnormality denied, the others are normal in themselves.
            denies = type_.startswith("non-") and number % 2 == 0
            name = f"{thing} {number}x" if denies else f"{type_} {number}x"
            entities.append(Entity(name.replace(" ", "_").replace("-", "_"), type_, name, denies=denies))
    return Vocabulary(entities, "generated")


if __name__ == "__main__":
    main()
