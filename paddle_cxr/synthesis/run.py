"""``tools/synthesize.py``: a recipe to an output folder of checked reports; see :mod:`paddle_cxr.synthesis.reports`."""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from paddle_cxr.config import explained
from paddle_cxr.cpu import available_cores
from paddle_cxr.engine.continuing import differences, dump, rename_aside
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.errors import UserError
from paddle_cxr.files import write_text
from paddle_cxr.processes import in_order
from paddle_cxr.registry import build, check, find
from paddle_cxr.synthesis.acceptance import write_acceptance
from paddle_cxr.synthesis.reports import Order, build_maker, make
from paddle_cxr.synthesis.sampling import BalancedSampler
from paddle_cxr.synthesis.schema import ReportsGlobal, ReportsRecipe, load_recipe
from paddle_cxr.synthesis.store import ACCEPTED, REJECTED, Store
from paddle_cxr.synthesis.vocabulary import Vocabulary, load_vocabulary


def synthesize(arguments: argparse.Namespace) -> int:
    """What the tool does; returns the exit code."""
    recipe, origins = load_recipe(arguments.config, arguments.override, ReportsRecipe)
    with explained(origins):
        vocabulary, sampler = check_recipe(recipe)
        plan = Plan(sampler, vocabulary, recipe.Global)
        folder = _open_folder(recipe)
        try:
            return _run(recipe, vocabulary, plan, folder)
        finally:
            folder.close()


def check_recipe(recipe: ReportsRecipe) -> tuple[Vocabulary, BalancedSampler]:
    """Build what costs little and check the rest; raises UserError for what cannot work."""
    settings = recipe.Global
    if isinstance(settings.workers, int) and settings.workers < 1:
        raise UserError("Global.workers：应不小于 1")
    if settings.shard >= settings.shards:
        raise UserError(f"Global.shard：{settings.shard} 不在 0–{settings.shards - 1} 之内"
                        f"（Global.shards={settings.shards}）")
    if settings.shards > settings.reports:
        raise UserError(f"Global.shards：{settings.shards} 片，而只要 {settings.reports} 份报告")
    vocabulary = load_vocabulary(recipe.Vocabulary.file)
    sampler = build("sampler", recipe.Sampler, "Sampler")
    sampler.resolved_cap(vocabulary, settings.reports, settings.seed)
    for kind, path, spec in (("writer", "Writer", recipe.Writer), ("ner", "NER", recipe.NER)):
        check(kind, spec, path, {"vocabulary": None})
    return vocabulary, sampler


class Plan:
    """Which entities each report mentions, round after round; the same on every machine that has the same recipe.

    The first round draws the whole set and takes this shard's rows.  A later round draws anew for the reports that
    were rejected: from their entities, and from this shard's part of what the first round left unused.

    Raises:
        UserError: the settings cannot be met.
    """

    def __init__(self, sampler: BalancedSampler, vocabulary: Vocabulary, settings: ReportsGlobal) -> None:
        self.sampler, self.vocabulary, self.settings = sampler, vocabulary, settings
        self.all = sampler.plan(vocabulary, settings.reports, settings.seed)
        self.cap = sampler.resolved_cap(vocabulary, settings.reports, settings.seed)
        self.rows = np.arange(settings.shard, settings.reports, settings.shards)
        self.orders = {int(row): tuple(self.all[row].tolist()) for row in self.rows}

    def first(self) -> list[Order]:
        """The orders of the first round."""
        return [Order(number, positions) for number, positions in self.orders.items()]

    def again(self, number: int, accepted: set[int]) -> list[Order]:
        """The orders of round ``number`` ≥ 1, given the accepted reports of the rounds before."""
        missing = len(self.rows) - len(accepted)
        settings, size = self.settings, len(self.vocabulary)
        used = np.bincount(self.all.ravel(), minlength=size)
        kept = np.bincount(np.ravel([self.orders[one] for one in accepted]).astype(np.int64), minlength=size)
        own = np.bincount(self.all[self.rows].ravel(), minlength=size)
        left = (self.cap - used) // settings.shards + own - kept  # this shard may still use so many of each
        sampler = copy.copy(self.sampler)
        sampler.cap = self.cap  # ``auto`` would be worked out anew
        table = sampler.plan(self.vocabulary, missing, settings.seed + number, spent=self.cap - left)
        start = number * settings.reports + settings.shard
        orders = [Order(start + i * settings.shards, tuple(row.tolist())) for i, row in enumerate(table)]
        self.orders |= {order.number: order.positions for order in orders}
        return orders


def _open_folder(recipe: ReportsRecipe) -> RunFolder:
    """Open the output folder: to go on with the same recipe, or empty, with what was there renamed."""
    path = Path(recipe.Global.output_dir)
    notice = None
    if (path / ACCEPTED).exists() or (path / REJECTED).exists():
        different = differences(path, recipe) if (path / "config.yaml").exists() else ["config.yaml"]
        if different or not recipe.Global.resume:
            why = f"配方不同：{'、'.join(different[:3])}" if different else "Global.resume=false"
            if not (path / "config.yaml").exists():
                raise UserError(f"{path}：有 {ACCEPTED} 而没有 config.yaml，不能接着写；请换一个 Global.output_dir")
            notice = rename_aside(path, why)
    folder = RunFolder(path)
    if notice:
        folder.say(notice)
    write_text(path / "config.yaml", dump(recipe))
    return folder


def _run(recipe: ReportsRecipe, vocabulary: Vocabulary, plan: Plan, folder: RunFolder) -> int:
    settings = recipe.Global
    store = Store(folder.path)
    workers = _workers(recipe)
    wanted = len(plan.rows)
    if store.done():
        folder.say(f"接着写：已有 {len(store.tally.accepted)} 份通过、{len(store.tally.rejected)} 份被拒")
    folder.say(f"词表 {vocabulary.name}，{len(vocabulary)} 项；要写 {wanted} 份报告，{workers} 个进程")
    started = time.monotonic()
    for number in range(settings.rounds):
        accepted = {one for one in store.tally.accepted if one < number * settings.reports}
        if number and len(accepted) == wanted:
            break
        try:
            orders = plan.again(number, accepted) if number else plan.first()
        except UserError as error:
            folder.say(f"不再补写：剩下的实体凑不成报告（{error}）")
            break
        if number:
            folder.say(f"第 {number + 1} 轮：补写 {len(orders)} 份（用被拒报告放回的实体）")
        _write(recipe, [order for order in orders if order.number not in store.done()], store, folder, workers)
    positions = [plan.orders[one] for one in store.tally.accepted]
    write_acceptance(recipe, vocabulary, np.array(positions), plan.cap, store.tally, folder,
                     time.monotonic() - started)
    return 0


def _workers(recipe: ReportsRecipe) -> int:
    """Processes: as asked, or one a core where writer and NER are made to be made in each (``many_processes``)."""
    if recipe.Global.workers != "auto":
        return recipe.Global.workers
    parts = (find("writer", recipe.Writer.get("name"), "Writer"), find("ner", recipe.NER.get("name"), "NER"))
    return available_cores() if all(getattr(part, "many_processes", False) for part in parts) else 1


def _write(recipe: ReportsRecipe, orders: Sequence[Order], store: Store, folder: RunFolder, workers: int) -> None:
    """Write the reports of ``orders`` and save them chunk by chunk, in order."""
    size = recipe.Global.chunk
    workers = min(workers, -(-len(orders) // size))
    chunks = (orders[start:start + size] for start in range(0, len(orders), size))
    for report_chunk in _with_progress(in_order(make, chunks, workers, build_maker, (recipe,)), len(orders), folder):
        store.add(report_chunk)


def _with_progress(chunks: Iterator[list], total: int, folder: RunFolder) -> Iterator[list]:
    bar = folder.progress(total, 0, "写报告")
    started, noted, done, passed = time.monotonic(), 0.0, 0, 0
    for chunk in chunks:
        yield chunk
        done, passed = done + len(chunk), passed + sum(report.accepted for report in chunk)
        bar.update(len(chunk))
        seconds = time.monotonic() - started
        if seconds - noted >= 10 or done == total:
            noted = seconds
            left = seconds / done * (total - done)
            folder.note(f"{done}/{total} 份，通过 {100 * passed / done:.2f} %，{done / seconds:.1f} 份/秒，"
                        f"剩余约 {left:.0f} 秒")
    bar.close()
