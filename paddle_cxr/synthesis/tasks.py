"""Which task a synthesis recipe is for, and what does it."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.recipe import task_of

TASKS = ("reports", "pairs")


def tool_for(arguments: argparse.Namespace) -> Callable[[argparse.Namespace], int]:
    """What ``tools/synthesize.py`` calls for ``Global.task`` of the recipe on a command line.

    Raises:
        UserError: another task, a mistake in the file or an override.
    """
    task = task_of(arguments.config, arguments.override, TASKS[0])
    if task not in TASKS:
        raise UserError(f"Global.task：没有叫 {task!r} 的合成任务{did_you_mean(task, TASKS)}"
                        f"（可用：{'、'.join(TASKS)}）")
    if task == "pairs":
        from paddle_cxr.synthesis.pairs.run import synthesize_pairs

        return synthesize_pairs
    from paddle_cxr.synthesis.run import synthesize

    return synthesize
