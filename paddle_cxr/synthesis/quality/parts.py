"""What has been computed so far, in files that only grow: verdicts as JSONL, features as rows of fixed length.

    parts/0of4/verdicts.jsonl           {"n": 17, "file": …, "answers": {question: [passed, value, reason]}} or "error"
               features-1a2b3c4d.bin    rows of (n + 1, D numbers); NaN for an image that cannot be read
               features-1a2b3c4d.json   which encoder: {title, probe}

Each program writes to the folder of its shard alone and reads all of them, so a run may be gone on with under another
number of shards.  A program that is killed leaves at most half a record at the end, which is cut off and made again.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.files import write_json, writing_to
from paddle_cxr.synthesis.lines import append_bytes, append_lines, cut_broken_end
from paddle_cxr.synthesis.quality.bank import same_probe
from paddle_cxr.synthesis.quality.base import QUESTIONS, Answer, Verdict

PARTS, VERDICTS = "parts", "verdicts.jsonl"
BLOCK = 8192  # rows of features in memory at a time: 25 MB of 768 numbers


# --- verdicts ----------------------------------------------------------------------------------------------------

def verdict_record(number: int, file: str, verdict: Verdict | None, error: str = "") -> dict[str, Any]:
    """The line about one image: its verdict, or why it could not be read."""
    if verdict is None:
        return {"n": number, "file": file, "error": error}
    return {"n": number, "file": file, "answers": {
        question: [answer.passed, _finite(answer.value), answer.reason] for question, answer in verdict.items()}}


def verdict_of(record: Mapping[str, Any]) -> Verdict:
    """The inverse of :func:`verdict_record`."""
    return {question: Answer(*record["answers"][question]) for question in QUESTIONS}


def add_verdicts(part: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Append finished verdicts; all of them are on the disk afterwards, or the file is as it was."""
    append_lines(part / VERDICTS, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def read_verdicts(folder: Path, files: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of the image, record) of all shards; of an image judged twice both.

    Raises:
        UserError: a line that is no verdict about these files, with its place.
    """
    for path in sorted((folder / PARTS).glob(f"*/{VERDICTS}")):
        with open(path, "rb") as lines:
            for place, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):  # another shard is writing it
                    continue
                try:
                    record = json.loads(line)
                    number = record["n"]
                    right = number >= 0 and _same_name(record["file"], files[number]) and _is_verdict(record)
                except (ValueError, KeyError, TypeError, IndexError, RecursionError):
                    right = False
                if not right:
                    raise UserError(f"{path}:{place}：不是这些图像的判断（verdict）；请删去这一行，这张图会重新判断")
                yield number, record


def _is_verdict(record: Mapping[str, Any]) -> bool:
    if isinstance(record.get("error"), str):
        return True
    answers = record["answers"]
    return set(answers) == set(QUESTIONS) and all(
        passed in (True, False, None) and isinstance(reason, str) for passed, _, reason in answers.values())


def _same_name(written: str, file: str) -> bool:
    """Bytes of a file name that are not UTF-8 were written as ``\\udc…``."""
    return written == file.encode("utf-8", "backslashreplace").decode()


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


# --- features ----------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class EncoderFacts:
    """Which encoder features are of: its title and what it makes of the fixed picture, float32 ``[D]``."""

    title: str
    probe: np.ndarray


def add_features(part: Path, key: str, facts: EncoderFacts, numbers: np.ndarray, features: np.ndarray) -> None:
    """Append the features of some images.

    Args:
        part: folder of the shard.
        key: of the encoder's section in the recipe.
        facts: of the encoder that made them.
        numbers: int ``[n]``; features: float32 ``[n, D]``.

    Raises:
        UserError: the file holds features of other weights, or the disk is full.
    """
    about = part / f"features-{key}.json"
    if about.exists():
        _same_encoder(facts, _read_facts(about), about)
    else:
        write_json(about, {"title": facts.title, "probe": [float(x) for x in facts.probe]})
    rows = np.zeros(len(numbers), _row(features.shape[1]))
    # Numbered from 1: the zeros that a crash of the machine can leave at the end are then nobody's features.
    rows["n"], rows["x"] = np.asarray(numbers) + 1, features
    append_bytes(part / f"features-{key}.bin", rows.tobytes())


class Features:
    """Features of all shards for one encoder, on the disk.

    Args:
        folder: output folder of the run.
        key: of the encoder's section.
        count: images of the data set.

    Attributes:
        facts: of the encoder; None while there are no features.
        done: bool ``[count]``, whether an image's features (or NaN) are there.

    Raises:
        UserError: shards of different encoders, or a damaged file.
    """

    def __init__(self, folder: Path, key: str, count: int) -> None:
        self.facts: EncoderFacts | None = None
        self.done = np.zeros(count, bool)
        self._parts: list[np.ndarray] = []
        for about in sorted((folder / PARTS).glob(f"*/features-{key}.json")):
            facts = _read_facts(about)
            if self.facts is not None:
                _same_encoder(facts, self.facts, about)
            self.facts = facts
            rows = _map_rows(about.with_suffix(".bin"), len(facts.probe))
            if rows is not None:
                numbers = rows["n"].astype(np.int64) - 1
                self.done[numbers[(numbers >= 0) & (numbers < count)]] = True
                self._parts.append(rows)

    def blocks(self, wanted: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(numbers int64 ``[n]``, features float32 ``[n, D]``) of ``wanted`` (bool ``[count]``) images, each once."""
        left = wanted.copy()
        for rows in self._parts:
            for start in range(0, len(rows), BLOCK):
                numbers = rows["n"][start:start + BLOCK].astype(np.int64) - 1
                inside = (numbers >= 0) & (numbers < len(left))
                chosen = np.flatnonzero(inside)[left[numbers[inside]]]
                chosen = chosen[np.unique(numbers[chosen], return_index=True)[1]]
                left[numbers[chosen]] = False
                yield numbers[chosen], np.array(rows["x"][start:start + BLOCK][chosen])


def _row(dim: int) -> np.dtype:
    return np.dtype([("n", "<i8"), ("x", "<f4", (dim,))])


def _map_rows(file: Path, dim: int) -> np.ndarray | None:
    """Whole rows of a file, memory-mapped; half a row at its end is left out."""
    count = file.stat().st_size // _row(dim).itemsize if file.exists() else 0
    return np.memmap(file, _row(dim), "r", shape=(count,)) if count else None


def _read_facts(file: Path) -> EncoderFacts:
    try:
        about = json.loads(file.read_text("utf-8"))
        title, probe = about["title"], np.array(about["probe"], np.float32)
        if isinstance(title, str) and probe.ndim == 1 and len(probe):
            return EncoderFacts(title, probe)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise UserError(f"{file} 损坏；请删去它和旁边的 {file.stem}.bin，再运行就重算这一片的特征（feature）")


def _same_encoder(one: EncoderFacts, other: EncoderFacts, about: Path) -> None:
    if one.title != other.title or not same_probe(one.probe, other.probe):
        raise UserError(f"Similarity.encoder：{about.with_suffix('.bin')} 是另一份权重算出的特征（feature）；"
                        "请换回原来的权重，或删去它和旁边的 .json 重算")


def cut_broken_ends(part: Path) -> None:
    """Remove the half record that a killed program left at the end of a file of its shard."""
    with writing_to(part):
        cut_broken_end(part / VERDICTS)
        for about in part.glob("features-*.json"):
            file, size = about.with_suffix(".bin"), _row(len(_read_facts(about).probe)).itemsize
            if file.exists():
                os.truncate(file, file.stat().st_size // size * size)
