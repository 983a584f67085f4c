"""``tools/analyze.py quality``: which images of an existing data set to keep, as SynCXR did with MIMIC-CXR.

    judge        six questions about every image; those that fail are dropped, those that fail all are known-bad
    similarity   features of every image; what looks like a known-bad one (here, or of a bank given) is dropped too
    decision     from verdicts and features alone: other rules or another threshold cost seconds

The paper's filters took 213,384 pairs of MIMIC-CXR to 211,936 and then to 206,424 (arXiv 2410.13523, section 3.2).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paddle_cxr.config import explained
from paddle_cxr.engine.continuing import differences, dump
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.errors import UserError
from paddle_cxr.files import write_json, write_text, writing_to
from paddle_cxr.registry import build, check, find
from paddle_cxr.schema import Component
from paddle_cxr.synthesis.connection import check_url, check_variable
from paddle_cxr.synthesis.division import division, ranks_here
from paddle_cxr.synthesis.engines import EngineKeys, engine_of, workers_for
from paddle_cxr.synthesis.locks import Taken, locked
from paddle_cxr.synthesis.progress import Progress
from paddle_cxr.synthesis.quality import parts
from paddle_cxr.synthesis.quality.bank import check_bank, probe_of
from paddle_cxr.synthesis.quality.base import Judge
from paddle_cxr.synthesis.quality.curate_report import write_decision
from paddle_cxr.synthesis.quality.curate_schema import MOST_WORKERS, CurationRecipe
from paddle_cxr.synthesis.quality.decision import decide, read_judged
from paddle_cxr.synthesis.quality.images import ImageSet, list_images, read
from paddle_cxr.synthesis.schema import load_recipe

INPUTS = "inputs.json"
_AT_ONCE = 32  # images in memory; a judge that answers several requests at once gets twice as many as it takes
# May differ between a run and its continuation: what the verdicts and features say does not depend on them.
_HARMLESS = {"Global.stages", "Global.shard", "Global.shards", "Global.ask_again",
             *(f"Global.{key}" for key in EngineKeys.model_fields),
             "Images.kind", "Images.fallback", "Rules", "Similarity", "Judge.prompts", "Judge.url",
             "Judge.key_variable", "Judge.concurrency", "Judge.requests_per_minute", "Judge.timeout", "Judge.retries",
             "Judge.batch_size", "Judge.device"}
_ENCODER_HARMLESS = {"batch_size", "device"}

Task = tuple[int, str, str]  # number of the image, its name in the list, where it is


def curate(arguments: argparse.Namespace) -> None:
    """What the tool does.

    Raises:
        UserError: a mistake in the recipe, no images, results of another recipe in the output folder, a judge or an
            encoder that cannot work, a full disk.
    """
    recipe, origins = load_recipe(arguments.config, arguments.override, CurationRecipe)
    with explained(origins):
        check_recipe(recipe)
        output = Path(recipe.Global.output_dir)
        with writing_to(output):
            output.mkdir(parents=True, exist_ok=True)
        images = list_images(recipe.Images, output)
        with locked(output / ".lock", lambda: None):  # shards may start together
            _claim(output, recipe, images)
        Curation(recipe, images).run()


def check_recipe(recipe: CurationRecipe) -> None:
    """What needs no image is refused before hours of work; raises :class:`UserError`."""
    settings, similarity = recipe.Global, recipe.Similarity
    division(settings.shard, settings.shards)
    if settings.workers != "auto" and not 1 <= settings.workers <= MOST_WORKERS:
        raise UserError(f"Global.workers：应不小于 1，不大于 {MOST_WORKERS}，现在是 {settings.workers}")
    check("judge", recipe.Judge, "Judge")
    for name, refuse in (("url", check_url), ("key_variable", check_variable)):  # before config.yaml would hold a key
        if isinstance(recipe.Judge.get(name), str):
            refuse(recipe.Judge[name], "Judge")
    if "similarity" not in settings.stages:
        return
    if similarity is None:
        raise UserError("Similarity：Global.stages 里有 similarity，要写 Similarity.encoder；"
                        "或用 -o 'Global.stages=[judge]' 只做六问")
    check("encoder", similarity.encoder, "Similarity.encoder")
    if similarity.bank is not None:
        if Path(similarity.bank).resolve() == (Path(settings.output_dir) / "bank").resolve():
            raise UserError("Similarity.bank：不能是这次运行自己要写的 bank/；请先把它复制到别处")
        with _at("Similarity.bank"):
            check_bank(similarity.bank)
    elif "judge" not in settings.stages:
        raise UserError("Similarity.bank：Global.stages 里没有 judge，就没有坏图可比；请写一个现成的坏图库（bank）")


@contextlib.contextmanager
def _at(path: str) -> Iterator[None]:
    """Put a YAML path before an error."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}：{error}") from None


def _claim(output: Path, recipe: CurationRecipe, images: ImageSet) -> None:
    """Write ``config.yaml`` where the folder is empty or this recipe's; never mix verdicts of two judges or data sets.

    Refused, and not put aside as other runs do: another shard may be writing there.
    """
    inputs = {"images": images.fingerprint(), "prompts": _prompts_hash(recipe.Judge)}
    if (output / "config.yaml").exists():
        different = differences(output, recipe, _HARMLESS)
        begun = any((output / parts.PARTS).glob("*/*.*"))
        if begun:
            different += _changed(output / INPUTS, inputs)
        if different and (begun or {"Global.task", "config.yaml"} & set(different)):
            raise UserError(f"Global.output_dir：{output} 里是另一次运行的结果（不同：{'、'.join(different[:3])}）；"
                            "请换一个目录，或删去它再运行")
    elif (output / parts.PARTS).exists():
        raise UserError(f"Global.output_dir：{output} 里有 {parts.PARTS}/ 而没有 config.yaml，不能接着算；请换一个目录")
    write_json(output / INPUTS, inputs)
    write_text(output / "config.yaml", dump(recipe))


def _prompts_hash(judge: Component) -> str | None:
    """SHA-256 of the texts that a judge asks with, whatever their files are called."""
    if not isinstance(judge.get("prompts"), str):
        return None
    digest = hashlib.sha256()
    for file in sorted(Path(judge["prompts"]).glob("*.txt")):
        with contextlib.suppress(OSError):  # the judge says what is wrong with it
            digest.update(file.name.encode() + b"\0" + file.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()


def _changed(file: Path, inputs: dict[str, str | None]) -> list[str]:
    try:
        old = json.loads(file.read_bytes())
        return [f"{ {'images': '图像', 'prompts': '提示词'}[name]}（内容变了）" for name, digest in inputs.items()
                if old[name] != digest]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return [file.name]


def encoder_key(encoder: Component) -> str:
    """8 characters that tell the encoders of a recipe apart: features of each have files of their own."""
    spec = {name: value for name, value in encoder.items() if name not in _ENCODER_HARMLESS}
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:8]


class Curation:
    """One run of one shard.

    Args:
        recipe: checked; images: what it names.
    """

    def __init__(self, recipe: CurationRecipe, images: ImageSet) -> None:
        self.recipe, self.images = recipe, images
        settings = recipe.Global
        self.output = Path(settings.output_dir)
        shard, self.shards = division(settings.shard, settings.shards)
        self.part = self.output / parts.PARTS / f"{shard}of{self.shards}"
        self.own = range(*(len(images) * i // self.shards for i in (shard, shard + 1)))
        self.started = time.monotonic()

    def run(self) -> None:
        """Compute what is missing of this shard; decide where nothing is missing of any."""
        try:
            with locked(self.part / ".lock"), contextlib.closing(RunFolder(self.part)) as folder:
                self._compute_part(folder)
        except Taken:
            raise UserError(f"Global.output_dir：另一个程序正在算 {self.part}；"
                            "请等它结束，或换一个 Global.shard") from None
        # One program decides at a time: the shards that end last may end together.
        with locked(self.output / ".lock", lambda: None), contextlib.closing(RunFolder(self.output)) as folder:
            self._decide(folder)

    def _compute_part(self, folder: RunFolder) -> None:
        parts.cut_broken_ends(self.part)
        self._introduce(folder)
        if "judge" in self.recipe.Global.stages:
            self._judge(folder)
        if "similarity" in self.recipe.Global.stages:
            self._encode(folder)

    def _introduce(self, folder: RunFolder) -> None:
        if self.images.demo and self.recipe.Images.kind != "phantom" and not Path(self.recipe.Images.path).exists():
            folder.say(f"!! 找不到 {self.recipe.Images.path}，改用内置模体（phantom）和它们弄坏的副本："
                       "结果不是临床结果")
        share = f"，本片 {len(self.own)} 张" if len(self.own) < len(self.images) else ""
        folder.say(f"{self.images.name}：{len(self.images)} 张图{share}；裁判 {self.recipe.Judge['name']}")

    def _judge(self, folder: RunFolder) -> None:
        judged, judge = read_judged(self.output, self.images, self.recipe.Rules), self.recipe.Judge
        done = judged.done & ~judged.undecided if self.recipe.Global.ask_again else judged.done
        self._compute(folder, "判断（judge）", done, judge_some, build_judge, (judge,), self._workers(),
                      lambda records: parts.add_verdicts(self.part, records))

    def _encode(self, folder: RunFolder) -> None:
        encoder = self.recipe.Similarity.encoder
        key = encoder_key(encoder)
        unneeded = ~self._to_encode(folder)
        done = parts.Features(self.output, key, len(self.images)).done | unneeded
        workers = 1 if self.recipe.Global.engine == "local" else "auto"
        self._compute(folder, "特征（features）", done, encode_some, build_encoder, (encoder,), workers,
                      lambda found: parts.add_features(self.part, key, found.facts, found.numbers, found.features))

    def _to_encode(self, folder: RunFolder) -> np.ndarray:
        """bool ``[N]``: the known-bad images, and those that similarity may yet drop."""
        if "judge" not in self.recipe.Global.stages:
            return np.ones(len(self.images), bool)
        judged = read_judged(self.output, self.images, self.recipe.Rules)
        alone = self.shards == 1 and self.recipe.Similarity.bank is None
        if alone and not judged.known_bad.any():
            return np.zeros(len(self.images), bool)
        return judged.known_bad | (judged.reading & ~judged.failed)

    def _compute(self, folder: RunFolder, what: str, done: np.ndarray, work: Any, prepare: Any, arguments: tuple,
                 workers: int | str, save: Any) -> None:
        """Do ``work`` for the images of this shard that are not ``done``, and ``save`` it chunk by chunk, in order."""
        missing = [number for number in self.own if not done[number]]
        if not missing:
            return
        if len(missing) < len(self.own):
            folder.say(f"{what}：接着算，还有 {len(missing)} 张")
        files, size = self.images.files, self.recipe.Global.chunk
        root = self.images.root.resolve()  # a worker elsewhere has another current folder
        chunks = ([(n, files[n], str(root / files[n])) for n in missing[start:start + size]]
                  for start in range(0, len(missing), size))
        workers = workers if workers == "auto" else min(workers, -(-len(missing) // size))
        results = engine_of(self.recipe.Global)(work, chunks, workers, prepare, arguments)
        progress = Progress(folder, what, len(missing), "：")
        with contextlib.closing(results), progress:
            for start, result in zip(range(0, len(missing), size), results, strict=True):
                save(result)
                progress.add(len(missing[start:start + size]))

    def _workers(self) -> int | str:
        settings = self.recipe.Global
        if settings.workers != "auto":
            return settings.workers
        many = getattr(find("judge", self.recipe.Judge["name"], "Judge"), "many_processes", False)
        return workers_for(settings, "auto", many, ranks_here())

    def _decide(self, folder: RunFolder) -> None:
        decision = decide(self.output, self.images, self.recipe, folder.say)
        if decision.missing:
            folder.say(f"这一片完成；其余分片还有 {decision.missing} 张没有算完，全部完成后才决定取舍")
            return
        write_decision(folder, self.recipe, self.images, decision, time.monotonic() - self.started)


# --- what runs in the processes of an engine ---------------------------------------------------------------------

def build_judge(spec: Component) -> tuple[Judge, int]:
    """The judge, and how many images it gets at once."""
    return build("judge", spec, "Judge"), max(_AT_ONCE, 2 * int(spec.get("concurrency", 0)))


def judge_some(tools: tuple[Judge, int], tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """A record (:func:`~paddle_cxr.synthesis.quality.parts.verdict_record`) for each image."""
    judge, at_once = tools
    records = []
    for some, pictures in _batches(tasks, at_once):
        verdicts = iter(judge.judge([picture for picture in pictures if not isinstance(picture, str)]))
        for (number, file, _), picture in zip(some, pictures, strict=True):
            records.append(parts.verdict_record(number, file, None, picture) if isinstance(picture, str)
                           else parts.verdict_record(number, file, next(verdicts)))
    return records


@dataclass(frozen=True)
class Encoded:
    """Features float32 ``[n, D]`` of the images ``numbers`` ``[n]``; NaN for those that cannot be read."""

    facts: parts.EncoderFacts
    numbers: np.ndarray
    features: np.ndarray


def build_encoder(spec: Component) -> tuple[Any, parts.EncoderFacts]:
    """The encoder, and what tells it from others."""
    encoder = build("encoder", spec, "Similarity.encoder")
    return encoder, parts.EncoderFacts(encoder.title, probe_of(encoder))


def encode_some(tools: tuple[Any, parts.EncoderFacts], tasks: Sequence[Task]) -> Encoded:
    """The features of each image."""
    encoder, facts = tools
    features = np.full((len(tasks), len(facts.probe)), np.nan, np.float32)
    row = 0
    for some, pictures in _batches(tasks, _AT_ONCE):
        readable = [i for i, picture in enumerate(pictures) if not isinstance(picture, str)]
        if readable:
            features[[row + i for i in readable]] = encoder.encode([pictures[i] for i in readable])
        row += len(some)
    return Encoded(facts, np.array([number for number, _, _ in tasks]), features)


def _batches(tasks: Sequence[Task], size: int) -> Iterable[tuple[Sequence[Task], list[np.ndarray | str]]]:
    """Some tasks and their images (or why one cannot be read), never more than ``size`` in memory."""
    for start in range(0, len(tasks), size):
        some = tasks[start:start + size]
        yield some, [read(Path(place)) for _, _, place in some]
