"""Tries Paddle out in a process of its own, so that nothing it does can end the doctor: a crash is a finding.

What is learnt is told at once, one JSON object a line, and so survives a crash a moment later.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

MARK = "paddle_cxr.doctor "
SIDE = 1024  # of the matrices multiplied: 2 GFLOP, a tenth of a second on one slow core


def tell(**facts: Any) -> None:
    """One line that :func:`paddle_cxr.doctor.paddle_build.ask` reads."""
    print(MARK + json.dumps(facts), flush=True)


def main() -> None:
    """Everything; with the name of a variable as argument, only the matrix product, without that variable."""
    begin = time.perf_counter()
    from paddle_cxr.quiet import import_paddle

    for name in sys.argv[1:]:
        os.environ.pop(name, None)  # set again when this package was imported
    import_paddle()
    import numpy
    import paddle

    tell(version=paddle.__version__, file=paddle.__file__, seconds=round(time.perf_counter() - begin, 1),
         numpy=numpy.__version__, numpy_file=numpy.__file__)
    if sys.argv[1:]:
        paddle.set_device("cpu")
        tell(**_speed(paddle))
        return
    tell(**_build(paddle))
    paddle.set_device("cpu")
    tell(**_speed(paddle))
    tell(cpu_learns=_learns(paddle))
    if paddle.device.is_compiled_with_cuda() and paddle.device.cuda.device_count():
        paddle.set_device("gpu:0")
        tell(gpu_learns=_learns(paddle))


def _build(paddle: Any) -> dict[str, Any]:
    if not paddle.device.is_compiled_with_cuda():
        return {"cuda": None, "gpus": []}
    cards = [paddle.device.cuda.get_device_properties(i) for i in range(paddle.device.cuda.device_count())]
    return {"cuda": paddle.version.cuda(), "cudnn": paddle.version.cudnn(),
            "gpus": [{"name": card.name, "gib": round(card.total_memory / 2**30, 1)} for card in cards]}


def _speed(paddle: Any) -> dict[str, float]:
    """GFLOP/s by the clock, and of one core by its own time, which does not run while other programs do."""
    left, right = paddle.rand([SIDE, SIDE]), paddle.rand([SIDE, SIDE])
    float((left @ right)[0, 0])  # the first one starts the threads
    by_clock = by_core = float("inf")
    for _ in range(5):
        clock, core = time.perf_counter(), time.process_time()
        float((left @ right)[0, 0])
        by_clock = min(by_clock, time.perf_counter() - clock)
        by_core = min(by_core, time.process_time() - core)
    work = 2 * SIDE**3 / 1e9
    return {"gflops": round(work / by_clock, 1), "gflops_core": round(work / by_core, 1)}


def _learns(paddle: Any) -> bool:
    """A convolution, batch normalisation and their gradients, as every model here uses them."""
    paddle.seed(0)
    model = paddle.nn.Sequential(paddle.nn.Conv2D(1, 4, 3), paddle.nn.BatchNorm2D(4), paddle.nn.ReLU())
    loss = model(paddle.rand([2, 1, 16, 16])).mean()
    loss.backward()
    gradient = model[0].weight.grad
    return bool(paddle.isfinite(loss)) and bool(paddle.isfinite(gradient).all())


if __name__ == "__main__":
    main()
