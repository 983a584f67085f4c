"""Work for the tests of the Ray engine, in a module that workers can import."""

from __future__ import annotations

import os
import time
from typing import Any

from paddle_cxr.errors import UserError


def prepare(trouble: str = "") -> str:
    if trouble == "prepare":
        raise UserError("模型文件夹坏了（broken model folder）")
    return trouble


def work(trouble: str, task: Any) -> Any:
    """The task itself and who did it; ``trouble`` goes wrong at task 5, as asked."""
    if task == 5 and trouble == "user":
        raise UserError("第 5 个坏了（broken）")
    if task == 5 and trouble == "bug":
        raise LookupError("a bug")
    if trouble == "slow":
        time.sleep(0.2)
    if trouble == "pictures":
        return len(task), bytes(1_000_000)
    return task, os.getpid()
