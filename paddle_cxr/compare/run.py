"""What ``tools/compare.py`` does: prepare, plan, run, report."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from paddle_cxr.compare.check import check_recipes, unequal_steps
from paddle_cxr.compare.execute import devices, execute, prepare
from paddle_cxr.compare.plan import Run, plan
from paddle_cxr.compare.recipe import LoadedComparison, load
from paddle_cxr.compare.report import write_report
from paddle_cxr.compare.results import collect
from paddle_cxr.config import explained
from paddle_cxr.engine.distributed import launched
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.errors import UserError
from paddle_cxr.files import write_text
from paddle_cxr.synthesis.locks import Taken, locked


def compare(arguments: argparse.Namespace) -> int:
    """Run the comparison of a recipe, or say what it would run; returns the exit code.

    Raises:
        UserError: a mistake in a recipe; runs that failed (what the others found is written all the same).
    """
    if launched():  # every process would run everything, and every run would wait for the others
        raise UserError("tools/compare.py 自己分配设备，请直接运行，不要用 paddle.distributed.launch；"
                        "用哪些设备写在 Global.devices")
    loaded = load(arguments.config, arguments.override)
    with explained(loaded.origins):
        slots = devices(loaded.recipe.Global.devices)
        if arguments.dry_run:
            return _foretell(loaded, plan(loaded), slots)
        folder = Path(loaded.recipe.Global.output_dir)
        try:
            with locked(folder / "compare.lock"), _terminated_like_ctrl_c():
                output = RunFolder(folder)  # keeps what is said in log.txt
                try:
                    _compare(loaded, output, slots)
                finally:
                    output.close()
        except Taken:
            raise UserError(f"{folder} 正被另一个 tools/compare.py 使用；请等它做完，或改 Global.output_dir") from None
    return 0


@contextmanager
def _terminated_like_ctrl_c() -> Iterator[None]:
    """SIGTERM, as a cluster sends before it takes the machine, stops the runs and lets them save, as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _foretell(loaded: LoadedComparison, runs: list[Run], slots: list[str]) -> int:
    _check(loaded, runs, print)
    for step in loaded.recipe.Prepare:
        print(f"事先：{step.makes}{'' if Path(step.makes).exists() else f'（还没有，由 {step.recipe} 做）'}")
    for run in runs:
        print(f"{run.tool} {run.id}（{run.base}）")
    trained = sum(run.task is None for run in runs)
    print(f"共 {len(runs)} 项：{trained} 次预训练，{len(runs) - trained} 次评估；同时用 {'、'.join(slots)}")
    return 0


def _check(loaded: LoadedComparison, runs: list[Run], say: Callable[[str], None]) -> None:
    """Refuse a mistake in any recipe; say what data are not there, but for what will be made, and what is unequal."""
    for line in check_recipes(runs):
        if not any(step.makes in line for step in loaded.recipe.Prepare):
            say(f"!! 缺数据，用到它的各项会失败：{line}")
    for line in unequal_steps(runs):
        say(f"!! {line}")


def _compare(loaded: LoadedComparison, output: RunFolder, slots: list[str]) -> None:
    recipe, folder, say = loaded.recipe, output.path, output.say
    _check(loaded, plan(loaded), say)
    prepare(recipe.Prepare, say)
    runs = plan(loaded)  # after the preparations: what they made is part of the keys
    write_text(folder / "config.yaml", yaml.safe_dump(recipe.model_dump(mode="json"), allow_unicode=True,
                                                      sort_keys=False))
    say(f"共 {len(runs)} 项，同时用 {'、'.join(slots)}；中断后重新运行同一命令，会接着做")
    outcome = execute(runs, loaded.tasks, slots, say, recipe.Global.keep_weights)
    results = collect(recipe, runs, list(outcome.seconds))
    if results.cells:
        page = write_report(folder, recipe, results, runs, outcome.seconds)
        print(page.read_text(encoding="utf-8"))
        say(f"表和图写在 {folder}")
    if outcome.failed:
        first, why = next(iter(outcome.failed.items()))
        skipped = f"，另有 {len(outcome.skipped)} 项因此没有做" if outcome.skipped else ""
        raise UserError(f"{len(outcome.failed)} 项失败{skipped}。{first}：{why}")
