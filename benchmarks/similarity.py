"""Similarity to known-bad images at the size of the paper: seconds, peak memory, and the share of what the BLAS can do.

    python benchmarks/similarity.py [--threads 2] [--repeats 3] [--engine faiss]

200,000 images against a bank of 1,448, with 768 features (RAD-DINO's).  The features are random, of one cloud as those
of real encoders are; every twentieth image looks like a member of the bank, with cosines around the threshold.

The machine's own rate is that of single-precision products of 2048 x 2048 matrices with NumPy's BLAS, measured for a
second before and after every run, so that a busy machine slows both; the share is the median over the runs.  Paddle's
BLAS (MKL) is measured too, in a process of its own.  Everything is timed by the clock on the wall.  The peak memory is
that of the process, which holds Python, NumPy and the features (614 MB).  Decisions are compared with those of the
direct computation in double precision.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

IMAGES, BAD, DIM = 200_000, 1_448, 768
SIDE = 2048  # of the matrices that tell the machine's rate
GOAL_SHARE, GOAL_MB = 0.70, 2048.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, help="线程数（默认：全部可用的核）")
    parser.add_argument("--repeats", type=int, default=3, help="测几遍")
    parser.add_argument("--engine", choices=("blas", "faiss"), default="blas", help="用 NumPy 的 BLAS 或 Faiss")
    parser.add_argument("--images", type=int, default=IMAGES, help="图像数")
    arguments = parser.parse_args()
    from machine import load, print_load

    from paddle_cxr import cpu

    before = load()
    threads = arguments.threads or cpu.available_cores()
    # What the BLAS libraries read when they are loaded, in the processes started below.
    os.environ["OPENBLAS_NUM_THREADS"] = str(threads)
    cpu.prepare(threads)
    print(f"{arguments.images} × {BAD}，{DIM} 维，{threads} 个线程，engine={arguments.engine}")
    print(f"Paddle 的矩阵乘法（MKL）：{in_new_process(paddle_rate):.1f} GFLOP/s")
    runs, unsure, wrong, megabytes = in_new_process(measure, arguments.images, arguments.repeats, arguments.engine)
    work = 2 * arguments.images * BAD * DIM / 1e9
    for seconds, rate in runs:
        print(f"  {seconds:.2f} 秒，{work / seconds:.1f} GFLOP/s；NumPy 的矩阵乘法 {rate:.1f} GFLOP/s")
    share = statistics.median(work / seconds / rate for seconds, rate in runs)
    print(f"中位数 {statistics.median(seconds for seconds, _ in runs):.2f} 秒，是机器矩阵乘法速度的 {share:.0%}；"
          f"内存峰值 {megabytes:.0f} MB；{unsure:.2%} 的行用双精度重算")
    print(f"与双精度直接计算的判断不同的图：{wrong} 张")
    met = share >= GOAL_SHARE and megabytes <= GOAL_MB and wrong == 0
    print(f"目标：≥ {GOAL_SHARE:.0%}，≤ {GOAL_MB:.0f} MB，判断相同：{'达到' if met else '没有达到'}")
    print_load(before)


def in_new_process(function: Callable, *arguments: object) -> object:
    # "spawn" starts a bare Python, whose memory holds nothing of this process.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def paddle_rate() -> float:
    """GFLOP/s of Paddle's matrix product."""
    import numpy as np

    from paddle_cxr.quiet import import_paddle

    import_paddle()
    import paddle

    paddle.device.set_device("cpu")
    matrix = paddle.to_tensor(np.random.default_rng(0).standard_normal((SIDE, SIDE), dtype=np.float32))
    return rate_of(lambda: paddle.matmul(matrix, matrix))


def rate_of(product: Callable[[], object]) -> float:
    """GFLOP/s of a product of two matrices of SIDE x SIDE, over one second."""
    product()
    count, begun = 0, time.perf_counter()
    while (seconds := time.perf_counter() - begun) < 1:
        product()
        count += 1
    return 2 * SIDE**3 * count / seconds / 1e9


def measure(images: int, repeats: int, engine: str) -> tuple[list[tuple[float, float]], float, int, float]:
    """(seconds, GFLOP/s of NumPy's product) of each run, share of unsure rows, wrong decisions, peak memory in MB."""
    import numpy as np

    from paddle_cxr.synthesis import similarity

    bad, features = made_up_features(images)
    bank = similarity.Bank(bad, engine=engine)
    counted = count_rows_of(bank)
    matrix = np.random.default_rng(0).standard_normal((SIDE, SIDE), dtype=np.float32)
    runs, nearest = [], None
    for _ in range(repeats):
        before = rate_of(lambda: matrix @ matrix)
        begun = time.perf_counter()
        nearest = bank.nearest(features)
        seconds = time.perf_counter() - begun
        runs.append((seconds, (before + rate_of(lambda: matrix @ matrix)) / 2))
    unit = 1024**2 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes there, KB elsewhere
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    wrong = int((nearest.over() != (direct(bad, features) > similarity.THRESHOLD)).sum())
    return runs, sum(counted) / repeats / images, wrong, megabytes


def made_up_features(images: int):  # noqa: ANN201 - two numpy arrays; numpy is not imported before the threads are set
    """Bank float32 [BAD, DIM] and features float32 [images, DIM]."""
    import numpy as np

    rng = np.random.default_rng(0)
    centre = 0.5 * rng.standard_normal(DIM, dtype=np.float32)
    bad = centre + rng.standard_normal((BAD, DIM), dtype=np.float32)
    features = rng.standard_normal((images, DIM), dtype=np.float32)
    features += centre
    similar = slice(0, images, 20)
    weight = rng.uniform(0, 1, len(features[similar])).astype(np.float32)[:, None]
    features[similar] = (1 - weight) * features[similar] + weight * bad[rng.integers(0, BAD, len(weight))]
    return bad, features


def count_rows_of(bank) -> list[int]:  # noqa: ANN001 - paddle_cxr.synthesis.similarity.Bank
    """A list that grows by the number of rows whenever the bank computes rows again in double precision."""
    counted, original = [], bank._winners_in_double

    def counting(units, *rest):  # noqa: ANN001, ANN002, ANN202
        counted.append(len(units))
        return original(units, *rest)

    bank._winners_in_double = counting
    return counted


def direct(bad, features):  # noqa: ANN001, ANN201 - numpy arrays
    """The largest cosine of each row, as one would write it down, in double precision."""
    import numpy as np

    bad = bad.astype(np.float64)
    bad /= np.linalg.norm(bad, axis=1, keepdims=True)
    result = []
    for start in range(0, len(features), 2000):
        rows = features[start:start + 2000].astype(np.float64)
        result.append((rows @ bad.T).max(axis=1) / np.linalg.norm(rows, axis=1))
    return np.concatenate(result)


if __name__ == "__main__":
    main()
