"""``tools/synthesize.py``: a recipe to an output folder of checked reports; see :mod:`paddle_cxr.synthesis.reports`."""

from __future__ import annotations

import argparse
import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from paddle_cxr.config import explained
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.errors import UserError
from paddle_cxr.registry import build, check, find
from paddle_cxr.synthesis.acceptance import write_acceptance
from paddle_cxr.synthesis.connection import check_url, check_variable
from paddle_cxr.synthesis.engines import engine_of, workers_for
from paddle_cxr.synthesis.folder import open_folder
from paddle_cxr.synthesis.plan import Plan
from paddle_cxr.synthesis.reports import Maker, Order, build_maker, make
from paddle_cxr.synthesis.sampling import BalancedSampler
from paddle_cxr.synthesis.schema import MOST_ROUNDS, MOST_WORKERS, ReportsRecipe, load_recipe
from paddle_cxr.synthesis.store import Store
from paddle_cxr.synthesis.vocabulary import Vocabulary, load_vocabulary
from paddle_cxr.synthesis.writers.prompts import Prompts


def synthesize(arguments: argparse.Namespace) -> int:
    """What the tool does; returns the exit code."""
    recipe, origins = load_recipe(arguments.config, arguments.override, ReportsRecipe)
    with explained(origins):
        vocabulary, sampler = check_recipe(recipe)
        plan = Plan(sampler, vocabulary, recipe.Global)
        # Made once, and not before it is needed: a model takes minutes to load, a finished run needs none.
        maker = functools.cache(lambda: build_maker(recipe, vocabulary))
        with open_folder(recipe, _inputs(recipe, vocabulary, plan), maker) as folder:
            store = Store(folder.path)
            with _saying_what_is_saved(store, folder):
                Run(recipe, plan, maker, store, folder).all_rounds()
    return 0


def check_recipe(recipe: ReportsRecipe) -> tuple[Vocabulary, BalancedSampler]:
    """Build what costs little and check the rest; raises UserError for what cannot work."""
    settings = recipe.Global
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
    _check_secrets(recipe)
    _check_workers(recipe)
    return vocabulary, sampler


def _check_secrets(recipe: ReportsRecipe) -> None:
    """Refuse a key in the recipe before ``config.yaml`` would hold it."""
    for name, refuse in (("url", check_url), ("key_variable", check_variable)):
        if isinstance(recipe.Writer.get(name), str):
            refuse(recipe.Writer[name], "Writer")


def _check_workers(recipe: ReportsRecipe) -> None:
    workers = recipe.Global.workers
    if workers == "auto":
        return
    if not 1 <= workers <= MOST_WORKERS:
        raise UserError(f"Global.workers：应不小于 1，不大于 {MOST_WORKERS}，现在是 {workers}")
    name = recipe.Writer["name"]
    # On Ray who asks for several workers means several machines or GPUs, each with a model of its own.
    if (workers > 1 and recipe.Global.engine == "local"
            and not getattr(find("writer", name, "Writer"), "many_processes", False)):
        raise UserError(f"Global.workers：{name} 只能用 1 个进程，现在是 {workers}；几个进程会各占一份模型或限速，"
                        "请改为 auto，要更快就调 Writer 的 concurrency 或 batch_size")


def _inputs(recipe: ReportsRecipe, vocabulary: Vocabulary, plan: Plan) -> dict[str, str | None]:
    """Digests of what lies outside the recipe and decides what is written."""
    prompts = recipe.Writer.get("prompts")
    return {"vocabulary": vocabulary.fingerprint, "prompts": Prompts(prompts).hash if prompts else None,
            "plan": plan.digest}


@contextlib.contextmanager
def _saying_what_is_saved(store: Store, folder: RunFolder) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, UserError):
        if store.done():
            with contextlib.suppress(UserError):  # on a full disk the log cannot be written either
                folder.say(f"已停下；写好的 {len(store.done())} 份都已保存，再运行同一条命令就接着写")
        raise


class Run:
    """One run of a recipe, all of its rounds.

    Args:
        recipe: checked.
        plan: which entities each report mentions.
        maker: makes the maker of reports for this process.
        store: where reports go, with those of an earlier session.
        folder: the output folder.
    """

    def __init__(self, recipe: ReportsRecipe, plan: Plan, maker: Callable[[], Maker], store: Store,
                 folder: RunFolder) -> None:
        self.recipe, self.plan, self.maker, self.store, self.folder = recipe, plan, maker, store, folder
        wanted = recipe.Global.workers
        self.workers = workers_for(recipe.Global, wanted, wanted != "auto" or _in_many_processes(recipe))

    def all_rounds(self) -> None:
        """Write what is missing, round after round, then the acceptance report."""
        tally, plan, started = self.store.tally, self.plan, time.monotonic()
        if self.store.done():
            self.folder.say(f"接着写：已有 {len(tally.accepted)} 份通过、{len(tally.rejected)} 份被拒")
        self.folder.say(f"词表 {plan.vocabulary.name}，{len(plan.vocabulary)} 项；要写 {len(plan)} 份报告，"
                        + (f"{self.workers} 个进程" if self.workers != "auto" else "进程数由 Ray 定"))
        # Never fewer than an earlier session has begun.
        begun = 1 + max(map(plan.round_of, self.store.done()), default=0)
        for round_ in range(min(max(self.recipe.Global.rounds, begun), MOST_ROUNDS)):
            accepted = {number for number in tally.accepted if plan.round_of(number) < round_}
            if len(accepted) == len(plan):
                break
            if round_ and not accepted:
                self.folder.say("!! 第 1 轮没有一份通过，不再补写：请先看被拒的原因")
                break
            orders = plan.again(round_, accepted) if round_ else plan.first()
            self._refuse_foreign(round_)
            self._write(orders, round_)
        self._refuse_foreign(math.inf)
        positions = np.array([plan.orders[number].positions for number in tally.accepted])
        write_acceptance(self.recipe, plan, positions, tally, self.folder, time.monotonic() - started)

    def _refuse_foreign(self, last: float) -> None:
        """Stop at reports of the rounds up to ``last`` that were never ordered."""
        unknown = self.store.done() - self.plan.orders.keys()
        foreign = sorted(number for number in unknown if self.plan.round_of(number) <= last)
        if foreign:
            raise UserError(f"{self.folder.path} 里有 {len(foreign)} 份报告不属于这个配方（例如编号 {foreign[0]}），"
                            "它们是从别处并进来的；请删去那些行，或换一个 Global.output_dir")

    def _write(self, orders: Sequence[Order], round_: int) -> None:
        """Write the reports of ``orders`` that are not there yet, and save them chunk by chunk, in order."""
        done, size = self.store.done(), self.recipe.Global.chunk
        orders = [order for order in orders if order.number not in done]
        if not orders:
            return
        if round_:
            self.folder.say(f"第 {round_ + 1} 轮：补写 {len(orders)} 份（用被拒报告放回的实体）")
        workers = self.workers if self.workers == "auto" else min(self.workers, -(-len(orders) // size))
        chunks = (orders[start:start + size] for start in range(0, len(orders), size))
        here = workers == 1 and self.recipe.Global.engine == "local"
        prepare, arguments = (self.maker, ()) if here else (build_maker, (self.recipe,))
        engine, progress = engine_of(self.recipe.Global), Progress(len(orders), self.folder)
        with contextlib.closing(engine(make, chunks, workers, prepare, arguments)) as written, progress:
            for reports in written:
                progress.add(self.store.add(reports))


class Progress:
    """How far a round is: a bar on a terminal, and every ten seconds a line in the log."""

    def __init__(self, total: int, folder: RunFolder) -> None:
        self.total, self.folder = total, folder
        self.done = self.passed = 0
        self.started = self.noted = time.monotonic()
        self.bar = folder.progress(total, 0, "写报告")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def add(self, accepted: Sequence[bool]) -> None:
        """Count a chunk: of each report whether it was accepted."""
        if not self.done and not any(accepted):
            self.folder.say(f"!! 前 {len(accepted)} 份没有一份通过，原因见 rejected.jsonl；Ctrl-C 可随时停下")
        self.done, self.passed = self.done + len(accepted), self.passed + sum(accepted)
        self.bar.update(len(accepted))
        now = time.monotonic()
        if now - self.noted >= 10 or self.done == self.total:
            self.noted, seconds = now, max(now - self.started, 1e-3)
            left = seconds / self.done * (self.total - self.done)
            self.folder.note(f"{self.done}/{self.total} 份，通过 {100 * self.passed / self.done:.2f} %，"
                             f"{self.done / seconds:.1f} 份/秒，剩余约 {left:.0f} 秒")


def _in_many_processes(recipe: ReportsRecipe) -> bool:
    """Whether writer and NER are made to be made in every process (``many_processes``)."""
    parts = (find("writer", recipe.Writer.get("name"), "Writer"), find("ner", recipe.NER.get("name"), "NER"))
    return all(getattr(part, "many_processes", False) for part in parts)
