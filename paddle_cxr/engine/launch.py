"""From a command line to a run: choose the ranks, load Paddle, run, and end cleanly."""

from __future__ import annotations

import argparse
import sys

from paddle_cxr import cpu
from paddle_cxr.cli import EXIT_INTERRUPTED
from paddle_cxr.config import explained
from paddle_cxr.engine import distributed
from paddle_cxr.engine.jobs import training_job
from paddle_cxr.quiet import import_paddle
from paddle_cxr.recipe import task_of


def train(arguments: argparse.Namespace) -> int:
    """What ``tools/train.py`` does; returns the exit code."""
    task = training_job(task_of(arguments.config, arguments.override))
    loaded = task.load(arguments.config, arguments.override)
    settings = loaded.recipe.Global
    if settings.device == "cpu" or (settings.device == "auto" and not cpu.gpu_build_present()):
        if not distributed.launched():
            distributed.start_cpu_ranks(distributed.choose_cpu_ranks(settings.ranks, settings.micro_batches))
    # Paddle is imported from here on: its MKL and OpenMP read the settings made above.
    import_paddle()
    from paddle_cxr.engine.trainer import Interrupted

    job = task.open()

    world = distributed.connect()
    _, notices = distributed.select_device(settings.device, world)
    loaded.notices.extend(notices)
    say = print if world.is_main else (lambda _: None)
    try:
        with distributed.losing_a_rank(), explained(loaded.origins):
            job.check(loaded.recipe)
            if arguments.dry_run:
                for line in [*loaded.notices, cpu.describe()]:
                    say(line)
            (job.dry_run if arguments.dry_run else job.run)(loaded, world, say)
    except Interrupted as reason:
        if world.is_main:
            print(reason, file=sys.stderr)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:  # outside the loop, or the second time within it
        if arguments.debug:
            raise
        if world.is_main:
            print("已中断（Ctrl-C）；重新运行同一命令，会从最近的检查点接着做", file=sys.stderr)
        return EXIT_INTERRUPTED
    distributed.leave()
    return 0
