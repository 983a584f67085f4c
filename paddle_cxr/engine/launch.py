"""From a command line to a run: choose the ranks, load Paddle, run, and end cleanly."""

from __future__ import annotations

import argparse
import sys

from paddle_cxr import cpu
from paddle_cxr.cli import EXIT_INTERRUPTED
from paddle_cxr.config import explained
from paddle_cxr.engine import distributed
from paddle_cxr.quiet import import_paddle
from paddle_cxr.recipe import load


def train(arguments: argparse.Namespace) -> int:
    """What ``tools/train.py`` does; returns the exit code."""
    loaded = load(arguments.config, arguments.override)
    settings = loaded.recipe.Global
    if settings.device == "cpu" or (settings.device == "auto" and not cpu.gpu_build_present()):
        if not distributed.launched():
            distributed.start_cpu_ranks(distributed.choose_cpu_ranks(settings.ranks, settings.micro_batches))
    # Paddle is imported from here on: its MKL and OpenMP read the settings made above.
    import_paddle()
    from paddle_cxr.engine.crossval import cross_validate
    from paddle_cxr.engine.run import dry_run, load_data, open_folder, train_run
    from paddle_cxr.engine.trainer import Interrupted
    from paddle_cxr.tasks.classification import check_components

    world = distributed.connect()
    _, notices = distributed.select_device(settings.device, world)
    loaded.notices.extend(notices)
    say = print if world.is_main else (lambda _: None)
    try:
        with distributed.losing_a_rank(), explained(loaded.origins):
            check_components(loaded.recipe)
            if arguments.dry_run or settings.folds:
                for line in [*loaded.notices, cpu.describe()]:
                    say(line)
                (dry_run if arguments.dry_run else cross_validate)(loaded, world, say)
                return 0
            folder = open_folder(loaded, settings.output_dir, world)
            try:
                train_run(loaded, load_data(loaded, folder.say, world), folder, world)
            finally:
                folder.close()
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
    return 0
