"""``tools/synthesize.py`` with ``Global.task: pairs``: one shard from its first drawing to its last, then the merge."""

from __future__ import annotations

import argparse
import contextlib
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from paddle_cxr.config import explained
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.errors import UserError
from paddle_cxr.files import write_atomic
from paddle_cxr.synthesis.division import division, ranks_here
from paddle_cxr.synthesis.engines import engine_of, workers_for
from paddle_cxr.synthesis.pairs.decision import Outlook, Policy
from paddle_cxr.synthesis.pairs.folder import Opened, open_folder
from paddle_cxr.synthesis.pairs.merge import merge
from paddle_cxr.synthesis.pairs.schema import PairsGlobal, PairsRecipe, check_recipe
from paddle_cxr.synthesis.pairs.stages import PHANTOMS, TASKS, Row, Task, lost_image
from paddle_cxr.synthesis.pairs.store import Key, Store, image_path
from paddle_cxr.synthesis.progress import Progress
from paddle_cxr.synthesis.quality.bank import check_bank
from paddle_cxr.synthesis.schema import load_recipe


def synthesize_pairs(arguments: argparse.Namespace) -> int:
    """What the tool does; returns the exit code."""
    recipe, origins = load_recipe(arguments.config, arguments.override, PairsRecipe)
    with explained(origins):
        check_recipe(recipe)
        _check_bank(recipe)
        shard, shards = division(recipe.Global.shard, recipe.Global.shards)
        with open_folder(recipe, shard, shards) as opened:
            store = Store(opened.path, shard, shards)
            store.begin()
            with _saying_what_is_saved(opened.log, recipe.Global):
                Run(recipe, opened, store).all_steps()
                merge(recipe, opened, shards)
    return 0


def _check_bank(recipe: PairsRecipe) -> None:
    """See that there are known-bad images before reports are written and images drawn for hours."""
    if "similarity" in recipe.Global.stages:
        try:
            check_bank(recipe.Similarity.bank)
        except UserError as error:
            raise UserError(f"Similarity.bank：{error}，或从 Global.stages 去掉 similarity") from None


@contextlib.contextmanager
def _saying_what_is_saved(log: RunFolder, settings: PairsGlobal) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, UserError):
        keys = [f"Global.{key}" for key, given in (("redo", settings.redo), ("resume", not settings.resume)) if given]
        how = f"去掉 {'、'.join(keys)} 再运行就接着做" if keys else "再运行同一条命令就接着做"
        with contextlib.suppress(UserError):  # on a full disk the log cannot be written either
            log.say(f"已停下；做完的都已保存，{how}")
        raise


class Run:
    """One shard's drawings, judgements and comparisons.

    Args:
        recipe: checked.
        opened: the output folder and the reports.
        store: where rows go, with those of an earlier session.
    """

    def __init__(self, recipe: PairsRecipe, opened: Opened, store: Store) -> None:
        self.recipe, self.opened, self.store, self.log = recipe, opened, store, opened.log
        self.source, self.policy = opened.source, Policy.of(recipe)
        # Made once, and not before it is needed: a model takes minutes to load, a finished run needs none.
        self._tools = functools.cache(lambda stage: TASKS[stage].prepare(recipe, opened.vocabulary))

    def all_steps(self) -> None:
        """Draw, judge, compare, and again what did not pass, until nothing is left to do."""
        own = self.source.own
        begun = sum(outlook.next is None for outlook in map(self._outlook, own))
        division = f"第 {self.store.shard} 片，共 {self.store.shards} 片；" if self.store.shards > 1 else ""
        self.log.say(f"{division}{len(own)} 对图文，每对最多画 {self.policy.attempts} 次"
                     + (f"；已有 {begun} 对做完" if begun else ""))
        self._refuse_reports_without_entities()
        if begun < len(own):
            self._check_tools()
        while any([self._stage(stage) for stage in TASKS]):
            pass

    def _outlook(self, number: int) -> Outlook:
        return self.policy.outlook(self.store.rows, number, self.source.prompt(number))

    def _refuse_reports_without_entities(self) -> None:
        if self.recipe.Generator["name"] == PHANTOMS and self.source.without_entities:
            raise UserError(f"Generator.name：模体（phantom）按实体画，而 {self.source.without_entities} 的报告没有 "
                            "entities；请换成按文字画的生成器，或用本项目合成的报告")

    def _check_tools(self) -> None:
        """Make what this process will use, so that a missing bank shows before hours of drawing."""
        for stage, task in TASKS.items():
            if stage in self.policy.stages and self._alone(self._workers(task)):
                self._tools(stage)

    def _alone(self, workers: int | Literal["auto"]) -> bool:
        """Whether the work is done in this process."""
        return workers == 1 and self.recipe.Global.engine == "local"

    def _stage(self, stage: str) -> bool:
        """Do one stage for every pair that waits for it; returns whether there was any."""
        keys = self.store.waiting(lambda number: self._outlook(number).next, self.source.own, stage)
        if not keys:
            return False
        task, size = TASKS[stage], self.recipe.Global.chunk
        again = Counter(attempt > 0 for _, attempt in keys)[True]
        if again and stage == "draw":
            self.log.say(f"{again} 对没有通过，换种子重画")
        workers = self._workers(task)
        workers = workers if workers == "auto" else min(workers, -(-len(keys) // size))
        prepare, arguments = task.prepare, (self.recipe, self.opened.vocabulary)
        if self._alone(workers):
            prepare, arguments = self._tools, (stage,)
        chunks = [keys[start:start + size] for start in range(0, len(keys), size)]
        inputs = ([self._input(stage, key) for key in chunk] for chunk in chunks)
        done = engine_of(self.recipe.Global)(task.work, inputs, workers, prepare, arguments)
        with contextlib.closing(done) as results, Progress(self.log, task.verb, len(keys)) as progress:
            for chunk, rows in zip(chunks, results, strict=True):
                self._save(stage, chunk, rows)
                progress.add(len(rows))
        return True

    def _workers(self, task: Task) -> int | Literal["auto"]:
        """Processes for a stage."""
        settings = self.recipe.Global
        return workers_for(settings, settings.workers, task.many_processes(self.recipe), ranks_here())

    def _input(self, stage: str, key: Key) -> Any:
        """What a worker gets: a request to draw, or the PNG file to look at and its name."""
        if stage == "draw":
            return self.source.request(*key)
        file = self.opened.path / self.store.rows.drawn[key].image
        try:
            return str(file), file.read_bytes()
        except OSError as error:
            raise lost_image(str(file), error.strerror or str(error)) from None

    def _save(self, stage: str, keys: Sequence[Key], rows: Sequence[Row]) -> None:
        """Keep a chunk: the images first, so that a row never tells of one that is not there."""
        saved = []
        for (number, attempt), row in zip(keys, rows, strict=True):
            row = {"pair": number, "attempt": attempt} | row
            if stage == "draw":
                png = row.pop("png")
                row["image"] = "" if png is None else image_path(number, self.source.request(number, attempt).id,
                                                                 attempt)
                if png is not None:
                    write_atomic(self.opened.path / row["image"], lambda file, png=png: file.write_bytes(png))
            saved.append(row)
        self.store.add(stage, saved)
