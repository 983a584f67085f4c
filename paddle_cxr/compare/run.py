"""What ``tools/compare.py`` does: prepare, plan, run, report."""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from paddle_cxr.compare.execute import devices, execute, prepare
from paddle_cxr.compare.plan import Run, plan
from paddle_cxr.compare.recipe import LoadedComparison, load
from paddle_cxr.compare.report import write_report
from paddle_cxr.compare.results import collect
from paddle_cxr.config import explained
from paddle_cxr.errors import UserError
from paddle_cxr.files import write_text
from paddle_cxr.synthesis.locks import Taken, locked


def compare(arguments: argparse.Namespace) -> int:
    """Run the comparison of a recipe, or say what it would run; returns the exit code.

    Raises:
        UserError: a mistake in a recipe; runs that failed (what the others found is written all the same).
    """
    loaded = load(arguments.config, arguments.override)
    with explained(loaded.origins):
        slots = devices(loaded.recipe.Global.devices)
        if arguments.dry_run:
            return _foretell(loaded, plan(loaded), slots)
        folder = Path(loaded.recipe.Global.output_dir)
        try:
            with locked(folder / "compare.lock"):
                _compare(loaded, folder, slots)
        except Taken:
            raise UserError(f"{folder} 正被另一个 tools/compare.py 使用；请等它做完，或改 Global.output_dir") from None
    return 0


def _foretell(loaded: LoadedComparison, runs: list[Run], slots: list[str]) -> int:
    for step in loaded.recipe.Prepare:
        print(f"事先：{step.makes}{'' if Path(step.makes).exists() else f'（还没有，由 {step.recipe} 做）'}")
    for run in runs:
        print(f"{run.tool} {run.id}（{run.base}）")
    trained = sum(run.task is None for run in runs)
    print(f"共 {len(runs)} 项：{trained} 次预训练，{len(runs) - trained} 次评估；同时用 {'、'.join(slots)}")
    return 0


def _compare(loaded: LoadedComparison, folder: Path, slots: list[str]) -> None:
    recipe = loaded.recipe
    prepare(recipe.Prepare, print)
    runs = plan(loaded)  # after the preparations: what they made is part of the keys
    write_text(folder / "config.yaml", yaml.safe_dump(recipe.model_dump(mode="json"), allow_unicode=True,
                                                      sort_keys=False))
    print(f"共 {len(runs)} 项，同时用 {'、'.join(slots)}；中断后重新运行同一命令，会接着做")
    outcome = execute(runs, loaded.tasks, slots, print, recipe.Global.keep_weights)
    results = collect(recipe, runs, list(outcome.seconds))
    if results.cells:
        page = write_report(folder, recipe, results, runs, outcome.seconds)
        print(page.read_text(encoding="utf-8"))
        print(f"表和图写在 {folder}")
    if outcome.failed:
        first, why = next(iter(outcome.failed.items()))
        skipped = f"，另有 {len(outcome.skipped)} 项因此没有做" if outcome.skipped else ""
        raise UserError(f"{len(outcome.failed)} 项失败{skipped}。{first}：{why}")
