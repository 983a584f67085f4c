"""One run of a comparison, in a process of its own: ``python -m paddle_cxr.compare.one_run train -c recipe.yaml``."""

from __future__ import annotations

import argparse
import os
import threading
import time

from paddle_cxr import cli

PARENT = "PADDLE_CXR_COMPARISON"
"""Environment variable: the comparison's process id."""


def end_with_parent() -> None:
    """End when the comparison was killed: two runs must not write one folder when it is started again."""
    # Told, and not asked for here: a comparison that was killed while this program was loading is nobody's parent now.
    # Taken out, as it is not true for processes that this one starts.
    parent = int(os.environ.pop(PARENT, os.getppid()))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: argparse.Namespace) -> int:
    """Do what ``tools/train.py`` or ``tools/eval.py`` does with the recipe."""
    end_with_parent()
    from paddle_cxr.engine.jobs import evaluator
    from paddle_cxr.engine.launch import train
    from paddle_cxr.quiet import import_paddle
    from paddle_cxr.recipe import task_of

    if arguments.tool == "train":
        return train(arguments)
    task = task_of(arguments.config, arguments.override)
    import_paddle()
    return evaluator(task)(arguments)


if __name__ == "__main__":
    parser = cli.parser("一次运行")
    parser.add_argument("tool", choices=["train", "eval"])
    cli.run(main, parser.parse_args(namespace=argparse.Namespace(dry_run=False)))
