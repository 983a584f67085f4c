"""The output folder of a pairs run: who may write, what may not change, the reports, and forgetting stages."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from paddle_cxr.engine.continuing import VOLATILE, differences, dump, rename_aside
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.errors import UserError
from paddle_cxr.files import write_json, write_text, writing_to
from paddle_cxr.schema import Component
from paddle_cxr.synthesis.engines import EngineKeys
from paddle_cxr.synthesis.locks import Taken, locked
from paddle_cxr.synthesis.pairs.schema import STAGES, PairsRecipe
from paddle_cxr.synthesis.pairs.source import Source
from paddle_cxr.synthesis.pairs.store import FILES, SHARDS, forget, has_rows, shard_folder
from paddle_cxr.synthesis.run import synthesize
from paddle_cxr.synthesis.schema import ReportsRecipe, load_recipe

INPUTS, REPORTS = "inputs.json", "reports"
# Which stage's rows a change of a section (or of what it names) makes worthless.  What is not here decides nothing, or
# decides anew from the same rows: the rules, the threshold, how many attempts.
_STAGE_OF = {"Global.seed": "draw", "Generator": "draw", "Judge": "judge", "Similarity.encoder": "similarity"}
_INPUT_STAGE = {"reports": "reports", "judge_prompts": "judge", "bank": "similarity"}
# A server may move, a machine may be larger: the same comes out.
_OPERATION = ("url", "key_variable", "concurrency", "requests_per_minute", "timeout", "retries", "batch_size", "device",
              "prompts")
_HARMLESS = {f"{section}.{key}" for section in ("Generator", "Judge", "Similarity.encoder") for key in _OPERATION}


@dataclass(frozen=True, slots=True)
class Opened:
    """An output folder that one shard works in.

    Attributes:
        path: the output folder.
        log: tells the user, and keeps it in ``log.txt``: of the folder, or of the shard's where there are several.
        source: the reports.
        vocabulary: the file that their entities come from; None is the shipped one.
    """

    path: Path
    log: RunFolder
    source: Source
    vocabulary: str | None


@contextlib.contextmanager
def open_folder(recipe: PairsRecipe, shard: int, shards: int) -> Iterator[Opened]:
    """Open the output folder for one shard: the first one there has the reports written, the others wait for it.

    Raises:
        UserError: another program works on these pairs, the folder holds results of another recipe, the folder cannot
            be written, a mistake in the reports or their recipe.
    """
    path, settings = Path(recipe.Global.output_dir), recipe.Global
    if "reports" in settings.redo and shards > 1:
        raise UserError("Global.redo：重写报告（reports）会作废全部图文对，只能用一个进程（不分片）")
    if not settings.resume and shards > 1:
        raise UserError("Global.resume：分片时各片不能各自从头做；请换一个 Global.output_dir，或写 Global.redo")
    if not settings.resume and (path / "config.yaml").exists():
        with setting_up(path), _own(path, shard, shards):
            print(rename_aside(path, "Global.resume=false"))
    with contextlib.ExitStack() as stack:
        with setting_up(path):
            stack.enter_context(_own(path, shard, shards))
            log = stack.enter_context(contextlib.closing(
                RunFolder(path if shards == 1 else shard_folder(path, shard, shards))))
            if settings.redo and (path / "config.yaml").exists():
                forget(path, shard, shards, settings.redo)
                log.say(f"{'、'.join(settings.redo)} 及其后各步的旧结果作废重做（Global.redo）；"
                        "中断后续跑时请去掉这个键")
            _refuse_differences(path, recipe)
            inputs = _read_inputs(path)
            reports, vocabulary = _reports(recipe, inputs, log)
            source = Source(reports, settings.pairs, shard, shards, settings.seed)
            inputs = _refuse_changes(path, recipe, inputs, source)
            write_json(path / INPUTS, inputs)
            write_text(path / "config.yaml", dump(recipe))
        yield Opened(path, log, source, vocabulary)


def setting_up(path: Path) -> contextlib.AbstractContextManager[None]:
    """The lock under which the folder is set up, and at the end all shards are merged."""
    return locked(path / ".lock", lambda: print("另一片正在写报告或合并结果，等它完成……", flush=True))


@contextlib.contextmanager
def _own(path: Path, shard: int, shards: int) -> Iterator[None]:
    """Hold the shard's own lock, seeing that nobody works with another division into shards."""
    own = shard_folder(path, shard, shards)
    try:
        for other in (path / SHARDS).glob("*-of-*"):
            if not other.name.endswith(f"-of-{shards}"):
                with locked(other / ".lock"):
                    pass
        with locked(own / ".lock"):
            yield
    except Taken as taken:
        raise UserError(f"Global.output_dir：另一个程序正在写 {Path(str(taken)).parent}；请等它结束，或换一个目录"
                        "（各片的 Global.shard 要不同，Global.shards 要相同）") from None


def _forgotten(stage: str, recipe: PairsRecipe) -> bool:
    """Whether this run forgets a stage's rows anyway."""
    return any(STAGES.index(stage) >= STAGES.index(one) for one in recipe.Global.redo)


def _refuse_differences(path: Path, recipe: PairsRecipe) -> None:
    """Refuse to go on with rows that another recipe made."""
    if not (path / "config.yaml").exists():
        if any(has_rows(path, stage) for stage in FILES):
            raise UserError(f"{path}：有 {SHARDS} 而没有 config.yaml，不能接着做；请换一个 Global.output_dir")
        return
    for key in differences(path, recipe, _HARMLESS):
        if key in ("Global.task", "config.yaml"):
            raise UserError(f"Global.output_dir：{path} 里是别的任务的结果；请换一个目录")
        stage = next((stage for name, stage in _STAGE_OF.items() if f"{key}.".startswith(f"{name}.")), None)
        if stage is not None and has_rows(path, stage) and not _forgotten(stage, recipe):
            raise UserError(f"{key}：与 {path} 里已有的结果不同；{_ways_out(stage)}")


def _ways_out(stage: str) -> str:
    return f"请换一个 Global.output_dir，或用 -o Global.redo=[{stage}] 让这一步及其后各步重做"


def _refuse_changes(path: Path, recipe: PairsRecipe, old: dict[str, str], source: Source) -> dict[str, str]:
    """The digests of what the recipe names; refuses those that are not what earlier rows were made from."""
    inputs = old | {"reports": source.digest}
    prompts = (recipe.Judge or {}).get("prompts")
    if "judge" in recipe.Global.stages and isinstance(prompts, str):
        inputs["judge_prompts"] = _digest(Path(prompts))
    if "similarity" in recipe.Global.stages:
        inputs["bank"] = _digest(Path(recipe.Similarity.bank))
    for name, stage in _INPUT_STAGE.items():
        first = "draw" if stage == "reports" else stage
        changed = name in old and old[name] != inputs[name]
        if changed and has_rows(path, first) and not _forgotten(first, recipe):
            raise UserError(f"{path}：{name} 的内容与已有结果所用的不同；{_ways_out(first)}")
    return inputs


def _read_inputs(path: Path) -> dict[str, str]:
    try:
        value = json.loads((path / INPUTS).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        value = None
    if not (isinstance(value, dict) and all(isinstance(digest, str) for digest in value.values())):
        raise UserError(f"{path / INPUTS}：损坏；请删去它再运行")
    return value


def _reports(recipe: PairsRecipe, inputs: dict[str, str], log: RunFolder
             ) -> tuple[str | Component, str | None]:
    """Where the reports are and the path of their vocabulary, the reports written where they are to be."""
    if recipe.Reports.recipe is None:
        return recipe.Reports.file or recipe.Reports.pairs, None
    folder = Path(recipe.Global.output_dir) / REPORTS
    settings = recipe.Global
    overrides = [*recipe.Reports.overrides, f"Global.output_dir={json.dumps(str(folder), ensure_ascii=False)}"]
    if "reports" in settings.redo:
        overrides.append("Global.resume=false")
    with _of_reports(recipe.Reports.recipe):
        reports, _ = load_recipe(recipe.Reports.recipe, overrides, ReportsRecipe)
    digest = _recipe_digest(reports)
    written = inputs.get("report_recipe")
    if "reports" in settings.stages and (written is None or "reports" in settings.redo):
        log.say(f"先写报告：{recipe.Reports.recipe} → {folder}")
        with _of_reports(recipe.Reports.recipe):
            synthesize(argparse.Namespace(config=recipe.Reports.recipe, override=overrides, debug=False))
        inputs["report_recipe"] = digest
    elif written is None:
        raise UserError(f"Global.stages：没有 reports，而 {folder} 里还没有写完的报告；请加上 reports 先写，"
                        "或用 Reports.file 指向现成的报告")
    elif written != digest:
        raise UserError(f"Reports.recipe：{recipe.Reports.recipe} 与 {folder} 里的报告所用的配方不同；"
                        "请换一个 Global.output_dir，或用 -o Global.redo=[reports] 全部重做")
    return str(folder / "reports.jsonl"), reports.Vocabulary.file


@contextlib.contextmanager
def _of_reports(file: str) -> Iterator[None]:
    """Say that a key is one of the reports' recipe: both recipes have a ``Global``."""
    try:
        yield
    except UserError as error:
        raise UserError(f"Reports.recipe：{file} 的 {error}") from error


def _recipe_digest(reports: ReportsRecipe) -> str:
    """Hex; the same for recipes that differ in where and how fast they run."""
    sections = reports.model_dump(mode="json")
    for section in ("Global", "Writer", "NER"):
        sections[section] = {key: value for key, value in sections[section].items()
                             if key not in (*VOLATILE, *EngineKeys.model_fields, *_OPERATION)}
    return hashlib.sha256(json.dumps(sections, sort_keys=True).encode()).hexdigest()


def _digest(folder: Path) -> str:
    """SHA-256 over names and contents of the files in a folder; what is missing is told by who reads it."""
    hasher = hashlib.sha256()
    with writing_to(folder):
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                hasher.update(f"{file.relative_to(folder).as_posix()}\n".encode())
                hasher.update(hashlib.sha256(file.read_bytes()).digest())
    return hasher.hexdigest()

