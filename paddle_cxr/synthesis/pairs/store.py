"""The finished rows of a run: ``shards/<i>-of-<n>/{drawn,judged,compared}.jsonl``, appended chunk by chunk.

A shard writes in its own folder only, and reads everybody's: a run that is gone on with in another number of shards
finds all that was done.  Rows are never deleted.  Forgetting a stage (``Global.redo``) appends a line to ``redo.jsonl``
that raises the *version* which rows of that stage and of those after it need to count.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paddle_cxr.errors import UserError
from paddle_cxr.files import writing_to
from paddle_cxr.synthesis.lines import append_lines, cut_broken_end
from paddle_cxr.synthesis.quality.base import QUESTIONS, Answer, Verdict
from paddle_cxr.synthesis.quality.rules import answered

SHARDS, REDO = "shards", "redo.jsonl"
FILES = {"draw": "drawn.jsonl", "judge": "judged.jsonl", "similarity": "compared.jsonl"}
_ORDER = ("reports", *FILES)
_YES = Answer(True)

Key = tuple[int, int]  # (pair's number, attempt from 0)


@dataclass(frozen=True, slots=True)
class Drawing:
    """A row of ``drawn.jsonl``: ``image`` is its path below the output folder, or empty, and ``error`` says why."""

    seed: int
    image: str
    error: str
    tokens_cut: int
    generator: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """A row of ``judged.jsonl``; ``tries``: how often the judge has been asked about this image."""

    judge: str
    verdict: Verdict
    tries: int = 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """A row of ``compared.jsonl``: cosine with the nearest known-bad image, and its number in the bank."""

    similarity: float
    nearest: int
    encoder: str


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Shard ``shard`` of ``shards`` wants rows of ``stage`` and after to have at least ``version``."""

    shard: int
    shards: int
    stage: str
    version: int

    def concerns(self, stage: str, number: int) -> bool:
        return number % self.shards == self.shard and _ORDER.index(stage) >= _ORDER.index(self.stage)


@dataclass
class Rows:
    """What is known of some pairs.

    Attributes:
        drawn, judged, compared: (number, attempt) → row.
        errors: why a judge left questions without an answer → how many.
    """

    drawn: dict[Key, Drawing] = field(default_factory=dict)
    judged: dict[Key, Judgement] = field(default_factory=dict)
    compared: dict[Key, Comparison] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, stage: str, row: Mapping[str, Any]) -> None:
        """Enter a row; raises ValueError, KeyError or TypeError for what is none."""
        key = _integer(row["pair"]), _integer(row["attempt"])
        if stage == "draw":
            self.drawn.setdefault(key, Drawing(_integer(row["seed"]), _image_path(row["image"]), str(row["error"]),
                                               _integer(row["tokens_cut"]), sys.intern(str(row["generator"]))))
        elif stage == "similarity":
            self.compared.setdefault(key, Comparison(float(row["similarity"]), _integer(row["nearest"]),
                                                     sys.intern(str(row["encoder"]))))
        else:
            self._add_judgement(key, row)

    def _add_judgement(self, key: Key, row: Mapping[str, Any]) -> None:
        self.errors.update({str(kind): _integer(count) for kind, count in row.get("errors", {}).items()})
        before = self.judged.get(key)
        if before is None or not answered(before.verdict):
            verdict = {question: _answer(row["answers"][question]) for question in QUESTIONS}
            self.judged[key] = Judgement(sys.intern(str(row["judge"])), verdict, before.tries + 1 if before else 1)


class Store:
    """Reads the rows of all shards, and appends to those of one.

    Args:
        output: the output folder.
        shard, shards: whose pairs are read; a store that only reads has them all, with 0 of 1.

    Attributes:
        rows: the valid ones.

    Raises:
        UserError: a line in a file is no row, with its place.
    """

    def __init__(self, output: Path, shard: int, shards: int) -> None:
        self.output, self.shard, self.shards = output, shard, shards
        self.folder = shard_folder(output, shard, shards)
        self.rows = Rows()
        self._forgotten = list(_forgotten(output))
        for stage, name in FILES.items():
            for file in sorted((output / SHARDS).glob(f"*/{name}")):
                for place, row in _lines(file):
                    self._enter(stage, row, f"{file}:{place}")

    def _enter(self, stage: str, row: dict[str, Any], where: str) -> None:
        try:
            number = _integer(row["pair"])
            if number % self.shards == self.shard and _integer(row["version"]) >= self.version(stage, number):
                self.rows.add(stage, row)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{where}：不是本程序写的结果；请删去这一行，或换一个 Global.output_dir") from None

    def version(self, stage: str, number: int) -> int:
        """What a row has to have at least to count."""
        return max((one.version for one in self._forgotten if one.concerns(stage, number)), default=0)

    def begin(self) -> None:
        """Make ready for :meth:`add`; the shard's lock is held by then.

        Images about which the judge could answer nothing are asked about again: its server may be well by now.
        """
        for name in FILES.values():
            cut_broken_end(self.folder / name)
        self.rows.judged = {key: row for key, row in self.rows.judged.items() if answered(row.verdict)}

    def add(self, stage: str, rows: Sequence[dict[str, Any]]) -> None:
        """Append finished rows, all or none.

        Raises:
            UserError: the disk is full; no half line stays.
        """
        rows = [row | {"version": self.version(stage, row["pair"])} for row in rows]
        append_lines(self.folder / FILES[stage],
                     "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))
        for row in rows:
            self.rows.add(stage, row)

    def waiting(self, next_stage: Callable[[int], tuple[str, int] | None], numbers: Iterable[int], stage: str
                ) -> list[Key]:
        """The (number, attempt) of the pairs whose next step is ``stage``."""
        steps = ((number, next_stage(number)) for number in numbers)
        return [(number, step[1]) for number, step in steps if step is not None and step[0] == stage]


def shard_folder(output: Path, shard: int, shards: int) -> Path:
    """Where a shard keeps its rows."""
    return output / SHARDS / f"{shard}-of-{shards}"


def has_rows(output: Path, stage: str) -> bool:
    """Whether anything was ever finished of a stage."""
    return any(file.stat().st_size for file in (output / SHARDS).glob(f"*/{FILES[stage]}"))


def forget(output: Path, shard: int, shards: int, stages: Iterable[str]) -> None:
    """Let the rows of these stages, and of those after, no longer count for a shard's pairs."""
    stage = min(stages, key=_ORDER.index)
    version = 1 + max((one.version for one in _forgotten(output)), default=0)
    folder = shard_folder(output, shard, shards)
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    cut_broken_end(folder / REDO)
    append_lines(folder / REDO, json.dumps({"stage": stage, "version": version}) + "\n")


def _forgotten(output: Path) -> Iterator[Forgotten]:
    for file in sorted((output / SHARDS).glob(f"*/{REDO}")):
        division = re.fullmatch(r"(\d{1,9})-of-([1-9]\d{0,8})", file.parent.name)
        for place, row in _lines(file):
            if not (division and row.get("stage") in _ORDER and isinstance(row.get("version"), int)):
                raise UserError(f"{file}:{place}：不是本程序写的；请删去这一行，或换一个 Global.output_dir")
            yield Forgotten(int(division[1]), int(division[2]), row["stage"], row["version"])


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The whole lines of a file, as mappings; another shard may be writing the one after."""
    with open(file, "rb") as lines:
        for place, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise UserError(f"{file}:{place}：不是有效的 JSON；请删去这一行，或换一个 Global.output_dir")
            yield place, row


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _image_path(value: Any) -> str:
    """A path below the output folder as :func:`image_path` makes them, or an empty one."""
    if not re.fullmatch(r"(images/\d+/[A-Za-z0-9_-]+\.png)?", value):
        raise ValueError(f"{value!r} is no image's path")
    return value


def image_path(number: int, identity: str, attempt: int) -> str:
    """Where a drawing is kept below the output folder: a thousand pairs a folder, the attempt counted from 1."""
    return f"images/{number // 1000:04d}/{identity}-{attempt + 1}.png"


def _answer(value: Mapping[str, Any]) -> Answer:
    """An answer without the number behind it; what passed needs no reason, and is most of 200,000 images' memory."""
    passed = value["passed"]
    if passed not in (True, False, None):
        raise ValueError(f"{passed!r} is no answer")
    return _YES if passed else Answer(passed, reason=sys.intern(str(value["reason"])))
