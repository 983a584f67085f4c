"""From a comparison's recipe to the runs it stands for.

Every run is an ordinary recipe: its base, with what arm, method, task and seed change laid over it.  It is written to
disk and can be run by hand with ``tools/train.py`` or ``tools/eval.py``.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from paddle_cxr.compare.recipe import EVALUATED, NONE, PRETRAINING, LoadedComparison, plain
from paddle_cxr.compare.schema import TaskSection
from paddle_cxr.config import merge, read_recipe
from paddle_cxr.recipe import FALLBACK_KEY

RUNS = "runs"
_LARGE = 1 << 28  # a file above it is known by size and time: reading it would take longer than it saves


@dataclass(frozen=True)
class Run:
    """One training or evaluation.

    Attributes:
        id: path below ``runs``, with forward slashes.
        tool: which tool runs it.
        arm, method: keys in the recipe, both ``none`` without pretraining.
        task: key in ``Tasks``, or None for a pretraining.
        point: the values of the keys that are varied.
        seed: of the training after it; None where nothing is random.
        base: the recipe it starts from; override: what is laid over it.
        pretraining_seed: of the pretraining it is or starts from, None without.
        folder: its output folder.
        after: ids of the runs it needs.
        key: changes with anything that the recipe says or names, for this run and the one it needs.
        data: id → stamp of the data set, for this run and those it needs; without those whose data are not there.
            Empty in a plan: :func:`paddle_cxr.compare.data.with_data` fills it in.
    """

    id: str
    tool: Literal["train", "eval"]
    arm: str
    method: str
    task: str | None
    base: str
    override: dict[str, Any]
    folder: Path
    after: tuple[str, ...] = ()
    pretraining_seed: int | None = None
    seed: int | None = None
    point: dict[str, Any] = field(default_factory=dict)
    key: str = ""
    data: dict[str, str] = field(default_factory=dict)

    def recipe(self) -> dict[str, Any]:
        """The whole recipe, ready to be written."""
        return merge(read_recipe(self.base)[0], self.override)

    @property
    def results(self) -> Path:
        """The folder its figures are in: of an evaluation ``eval_<subset>`` within its own."""
        inside = sorted(self.folder.glob("eval_*/metrics.json")) if self.tool == "eval" else []
        return inside[0].parent if inside else self.folder


def plan(loaded: LoadedComparison) -> list[Run]:
    """Every run, in an order in which each comes after those it needs."""
    recipe = loaded.recipe
    runs: list[Run] = []
    trained: list[Run] = []
    for (arm, group), (method, how), seed in itertools.product(
            recipe.Arms.items(), recipe.Methods.items(), recipe.Pretraining.seeds):
        override = merge(merge(merge(how.override, recipe.Pretraining.override), group.pretraining),
                         {"Global": {"seed": seed}})
        trained.append(_run(loaded, f"{arm}/{method}/seed{seed}/{PRETRAINING}", "train", how.recipe, override,
                            arm=arm, method=method, task=None, pretraining_seed=seed))
    runs += trained
    # Task by task, so that what is there early can be looked at early.
    for name, task in recipe.Tasks.items():
        for before in trained:
            runs += _evaluations(loaded, name, task, before)
        if task.baseline:
            runs += _evaluations(loaded, name, task, None)
    return runs


def _evaluations(loaded: LoadedComparison, name: str, task: TaskSection, before: Run | None) -> Iterator[Run]:
    evaluated = loaded.tasks[name] in EVALUATED
    start = f"{before.arm}/{before.method}/seed{before.pretraining_seed}" if before else NONE
    for values, seed in itertools.product(itertools.product(*task.vary.values()), task.seeds or [None]):
        point = dict(zip(task.vary, values, strict=True))
        parts = [f"{key.rsplit('.', 1)[-1]}{plain(value)}" for key, value in point.items()]
        of_method = loaded.recipe.Methods[before.method].tasks.get(name, {}) if before else {}
        override = merge(task.override, of_method)
        for key, value in (point | {task.weights: str(before.folder) if before else None}).items():
            _lay(override, key, value)
        if seed is not None:
            _lay(override, "Global.seed", seed)
        yield _run(loaded, "/".join([start, name, *parts, *([f"seed{seed}"] if seed is not None else [])]),
                   "eval" if evaluated else "train", task.recipe, override, before=before,
                   arm=before.arm if before else NONE, method=before.method if before else NONE, task=name,
                   pretraining_seed=before.pretraining_seed if before else None, seed=seed, point=point)


def _run(loaded: LoadedComparison, id_: str, tool: Literal["train", "eval"], base: str, override: dict[str, Any],
         before: Run | None = None, **known: Any) -> Run:
    folder = Path(loaded.recipe.Global.output_dir) / RUNS / id_
    override = merge(override, {"Global": {"output_dir": str(folder)}})
    if FALLBACK_KEY in read_recipe(base)[0]:
        # A comparison never falls back: phantoms among the real data, and another model, would go unseen.
        override |= {FALLBACK_KEY: None}
    run = Run(id_, tool, base=base, override=override, folder=folder, after=(before.id,) if before else (), **known)
    return Run(**{**run.__dict__, "key": _key(run, before)})


def _key(run: Run, before: Run | None) -> str:
    """A digest of the recipe, of the files it names and of what the run before it was made of."""
    recipe = run.recipe()
    files = {text: _file(Path(text)) for text in sorted(_texts(recipe)) if _is_file(text)}
    told = json.dumps([recipe, files, before.key if before else None], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # a sentence, or something else that cannot be a path
        return False


def _file(path: Path) -> str:
    state = path.stat()
    if state.st_size > _LARGE:
        return f"{state.st_size} {state.st_mtime_ns}"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _lay(recipe: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for key in parents:
        recipe = recipe.setdefault(key, {})
    recipe[last] = value
