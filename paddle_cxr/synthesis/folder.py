"""The output folder of a synthesis run: gone on with where nothing differs, else what is there is kept aside."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from paddle_cxr.engine.continuing import differences, dump, rename_aside
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.errors import UserError
from paddle_cxr.files import write_json, write_text
from paddle_cxr.synthesis.engines import EngineKeys
from paddle_cxr.synthesis.locks import Taken, locked
from paddle_cxr.synthesis.schema import ReportsRecipe
from paddle_cxr.synthesis.store import ACCEPTED, REJECTED

INPUTS = "inputs.json"
# May differ between a run and its continuation: a server may move, and what these files hold is compared instead.
_HARMLESS = {"Global.rounds", "Vocabulary.file", "Writer.prompts", "Writer.url", "Writer.key_variable",
             "Writer.concurrency", "Writer.requests_per_minute", "Writer.timeout", "Writer.retries", "Writer.price",
             "Writer.batch_size", "Writer.device", "NER.batch_size",
             *(f"Global.{key}" for key in EngineKeys.model_fields)}


@contextlib.contextmanager
def open_folder(recipe: ReportsRecipe, inputs: Mapping[str, str | None], ready: Callable[[], object]
                ) -> Iterator[RunFolder]:
    """Open the output folder for one program alone, to go on with the same recipe or empty.

    Args:
        recipe: checked.
        inputs: name → digest of what the recipe names and another run has to find unchanged (``inputs.json``).
        ready: called before old results are put aside; raises what keeps the new recipe from working.

    Raises:
        UserError: another program writes there, the folder cannot be written, or it holds reports of no known recipe.
    """
    path = Path(recipe.Global.output_dir)
    with _alone(path):
        notice = _set_aside(path, recipe, inputs, ready)
    with _alone(path), contextlib.closing(RunFolder(path)) as folder:
        if notice:
            folder.say(notice)
        write_json(path / INPUTS, dict(inputs))
        write_text(path / "config.yaml", dump(recipe))
        yield folder


def _set_aside(path: Path, recipe: ReportsRecipe, inputs: Mapping[str, str | None], ready: Callable[[], object]
               ) -> str | None:
    """Rename what this run does not continue; returns what to tell the user."""
    has_reports = (path / ACCEPTED).exists() or (path / REJECTED).exists()
    if not (path / "config.yaml").exists():
        if has_reports:
            raise UserError(f"{path}：有 {ACCEPTED} 或 {REJECTED} 而没有 config.yaml，不能接着写；"
                            "请换一个 Global.output_dir")
        return None
    different = differences(path, recipe, _HARMLESS)
    of_another_task = {"Global.task", "config.yaml"} & set(different)
    if not has_reports and not of_another_task:
        return None  # it failed before its first report: there is nothing to keep
    different += _changed(path / INPUTS, inputs)
    if has_reports and not different and recipe.Global.resume:
        return None
    ready()
    return rename_aside(path, f"配方不同：{'、'.join(different[:3])}" if different else "Global.resume=false")


def _changed(file: Path, inputs: Mapping[str, str | None]) -> list[str]:
    """The inputs that are not what they were."""
    try:
        old = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return [file.name]
    if not isinstance(old, dict):
        return [file.name]
    return [f"{name}（内容变了）" for name, digest in inputs.items() if old.get(name) != digest]


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Refuse a second program that writes to the folder; a killed one's lock is released by the system."""
    try:
        with locked(path / ".lock"):
            yield
    except Taken:
        raise UserError(f"Global.output_dir：另一个程序正在写 {path}；请等它结束，或换一个目录"
                        "（分片的几个程序要各用一个目录）") from None
