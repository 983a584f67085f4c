"""The output folder of a pairs run: who may write, what may not change, the reports, and forgetting stages."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paddle_cxr.engine.continuing import VOLATILE, differences, dump, rename_aside
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.errors import UserError
from paddle_cxr.files import write_json, write_text
from paddle_cxr.registry import find
from paddle_cxr.schema import Component
from paddle_cxr.synthesis.engines import EngineKeys
from paddle_cxr.synthesis.locks import Taken, locked
from paddle_cxr.synthesis.pairs.schema import STAGES, PairsRecipe, Stage
from paddle_cxr.synthesis.pairs.source import Source
from paddle_cxr.synthesis.pairs.store import FILES, SHARDS, forget, has_rows, shard_folder
from paddle_cxr.synthesis.run import synthesize
from paddle_cxr.synthesis.schema import ReportsRecipe, load_recipe

INPUTS, REPORTS = "inputs.json", "reports"
PAIRS, REJECTED = "pairs.jsonl", "rejected.jsonl"
# Which stage's rows a change of a section (or of what it names) makes worthless.  What is not here decides nothing, or
# decides anew from the same rows: the rules, the threshold, how many attempts.
_STAGE_OF = {"Global.seed": "draw", "Generator": "draw", "Judge": "judge", "Similarity.encoder": "similarity"}
_INPUT_STAGE = {"reports": "draw", "generator": "draw", "judge_prompts": "judge", "judge": "judge",
                "encoder": "similarity", "bank": "similarity"}
_INPUT_NAMES = {"reports": "Reports（报告）", "generator": "Generator（模型权重）",
                "judge_prompts": "Judge.prompts（提示词）", "judge": "Judge（模型权重）",
                "encoder": "Similarity.encoder（模型权重）", "bank": "Similarity.bank（坏图库）"}
# A server may move, a machine may be larger: the same comes out.
_OPERATION = ("url", "key_variable", "concurrency", "requests_per_minute", "timeout", "retries", "batch_size", "device",
              "prompts")
_HARMLESS = {f"{section}.{key}" for section in ("Generator", "Judge", "Similarity.encoder") for key in _OPERATION}
_WEIGHTS = (".safetensors", ".pdparams", ".bin")
_SAMPLES, _SAMPLE = 256, 4096  # places in a file of weights, and bytes at each: another training changes all of them


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
            source, vocabulary = _set_up(path, recipe, shard, shards, log)
        yield Opened(path, log, source, vocabulary)


def _set_up(path: Path, recipe: PairsRecipe, shard: int, shards: int, log: RunFolder) -> tuple[Source, str | None]:
    """The reports and the path of their vocabulary; what this run may not go on with is refused or forgotten.

    Nothing is forgotten before everything is seen to be in order: a mistake in one key costs no results.
    """
    settings = recipe.Global
    different = _refuse_differences(path, recipe)
    old = _read_inputs(path)
    inputs = old | _inputs(recipe)
    different |= _refuse_changes(path, recipe, old, inputs)
    again = bool(settings.redo) and (path / "config.yaml").exists()
    if again and "reports" in settings.redo:  # before they are written: after an interruption that is gone on with
        _forget(path, shard, shards, settings.redo, log)
        for name in ("reports", "report_recipe"):
            old.pop(name, None)
        write_json(path / INPUTS, old)
    reports, vocabulary = _reports(recipe, old, log)
    source = Source(reports, settings.pairs, shard, shards, settings.seed, vocabulary)
    inputs |= {"reports": source.digest} | ({"report_recipe": old["report_recipe"]} if "report_recipe" in old else {})
    different |= _refuse_changes(path, recipe, old, inputs)
    if again and "reports" not in settings.redo:
        # Rows of another recipe do not count for any shard, nor may those of shards that start later be mixed in.
        _forget(path, *((0, 1) if different else (shard, shards)), settings.redo, log)
    write_json(path / INPUTS, inputs)
    write_text(path / "config.yaml", dump(recipe))
    return source, vocabulary


def _forget(path: Path, shard: int, shards: int, stages: Sequence[Stage], log: RunFolder) -> None:
    forget(path, shard, shards, stages)
    if min(map(STAGES.index, stages)) <= STAGES.index("draw"):
        for name in (PAIRS, REJECTED):  # they would tell of images that are about to be drawn over
            (path / name).unlink(missing_ok=True)
    log.say(f"{'、'.join(stages)} 及其后各步的旧结果作废重做（Global.redo）；中断后续跑时请去掉这个键")


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


def _refuse_differences(path: Path, recipe: PairsRecipe) -> set[str]:
    """Refuse to go on with rows that another recipe made; returns the stages whose rows this run forgets instead."""
    if not (path / "config.yaml").exists():
        if any(has_rows(path, stage) for stage in FILES):
            raise UserError(f"{path}：有 {SHARDS} 而没有 config.yaml，不能接着做；请换一个 Global.output_dir")
        return set()
    found = set()
    for key in differences(path, recipe, _HARMLESS):
        if key in ("Global.task", "config.yaml"):
            raise UserError(f"Global.output_dir：{path} 里是别的任务的结果；请换一个目录")
        stage = next((stage for name, stage in _STAGE_OF.items() if f"{key}.".startswith(f"{name}.")), None)
        if stage is not None and has_rows(path, stage):
            if not _forgotten(stage, recipe):
                raise UserError(f"{key}：与 {path} 里已有的结果不同；{_ways_out(stage)}")
            found.add(stage)
    return found


def _ways_out(stage: str) -> str:
    return f"请换一个 Global.output_dir，或用 -o Global.redo=[{stage}] 让这一步及其后各步重做"


def _inputs(recipe: PairsRecipe) -> dict[str, str]:
    """Digests of what the recipe names and the stages of this run use; the reports' is their source's."""
    stages, inputs = recipe.Global.stages, {}
    if "draw" in stages and getattr(find("generator", recipe.Generator.get("name"), "Generator"), "redraws", True):
        inputs["generator"] = _weights_digest(recipe.Generator)
    if "judge" in stages:
        inputs["judge"] = _weights_digest(recipe.Judge)
        if isinstance(recipe.Judge.get("prompts"), str):
            inputs["judge_prompts"] = _digest(Path(recipe.Judge["prompts"]))
    if "similarity" in stages:
        inputs["encoder"] = _weights_digest(recipe.Similarity.encoder)
        inputs["bank"] = _digest(Path(recipe.Similarity.bank))
    return {name: digest for name, digest in inputs.items() if digest}


def _refuse_changes(path: Path, recipe: PairsRecipe, old: Mapping[str, str], new: Mapping[str, str]) -> set[str]:
    """Refuse what is not what earlier rows were made from; returns the stages whose rows this run forgets instead."""
    found = set()
    for name, stage in _INPUT_STAGE.items():
        if name in old and name in new and old[name] != new[name] and has_rows(path, stage):
            if not _forgotten(stage, recipe):
                raise UserError(f"{path}：{_INPUT_NAMES[name]}的内容与已有结果所用的不同；{_ways_out(stage)}")
            found.add(stage)
    return found


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
        return recipe.Reports.file or recipe.Reports.pairs, recipe.Reports.vocabulary
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
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            hasher.update(f"{file.relative_to(folder).as_posix()}\n".encode())
            content = hashlib.sha256()
            for block in _blocks(file, range(0, file.stat().st_size, 2**20), 2**20):
                content.update(block)
            hasher.update(content.digest())
    return hasher.hexdigest()


def _weights_digest(spec: Component) -> str:
    """Tells the weights that a component's arguments name from others, or is empty where they name none.

    Only some of each file is read: models have gigabytes, and every rank looks.
    """
    hasher, found = hashlib.sha256(), False
    for key, value in sorted(spec.items()):
        if key == "name" or key in _OPERATION or not isinstance(value, str) or not os.path.exists(value):
            continue
        place = Path(value)
        for file in [place] if place.is_file() else sorted(place.rglob("*")):
            if file.suffix in _WEIGHTS and file.is_file():
                size, found = file.stat().st_size, True
                hasher.update(f"{key} {os.path.relpath(file, place)} {size}\n".encode())
                starts = sorted({size * part // _SAMPLES for part in range(_SAMPLES)} | {max(0, size - _SAMPLE)})
                for block in _blocks(file, starts, _SAMPLE):
                    hasher.update(block)
    return hasher.hexdigest() if found else ""


def _blocks(file: Path, starts: Iterable[int], size: int) -> Iterator[bytes]:
    try:
        with open(file, "rb") as stream:
            for start in starts:
                stream.seek(start)
                yield stream.read(size)
    except OSError as error:
        raise UserError(f"无法读取 {file}：{error.strerror or error}") from None
