"""From verdicts and features to which images are kept: nothing here reads an image or asks a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from paddle_cxr.synthesis.quality.bank import load_bank
from paddle_cxr.synthesis.quality.base import QUESTIONS
from paddle_cxr.synthesis.quality.curate_schema import CurationRecipe, CurationRules
from paddle_cxr.synthesis.quality.images import ImageSet, read
from paddle_cxr.synthesis.quality.parts import EncoderFacts, Features, read_verdicts, verdict_of
from paddle_cxr.synthesis.quality.rules import answered, fails, reasons
from paddle_cxr.synthesis.similarity import Bank, suggest_threshold

KEPT, UNREADABLE, JUDGED, SIMILAR = range(4)  # why an image goes
STAGES = {UNREADABLE: "read", JUDGED: "judge", SIMILAR: "similarity"}


@dataclass
class Judged:
    """What the judge said of N images.

    Attributes:
        done: bool ``[N]``, a verdict, or why there is none, is there.
        reading: bool ``[N]``, False for an image known to be unreadable.
        passed: int8 ``[N, 6]``: 1 yes, 0 no, -1 not answered.
        failed: bool ``[N]``, to be dropped; known_bad: bool ``[N]``, for the bank.
        reasons: number → why it is unreadable or failed; unanswered: number → why no question was answered.
    """

    done: np.ndarray
    reading: np.ndarray
    passed: np.ndarray
    failed: np.ndarray
    known_bad: np.ndarray
    reasons: dict[int, str] = field(default_factory=dict)
    unanswered: dict[int, str] = field(default_factory=dict)

    @classmethod
    def nothing(cls, count: int) -> Judged:
        """Of images that nobody has looked at."""
        no = np.zeros(count, bool)
        return cls(no, ~no, np.full((count, len(QUESTIONS)), -1, np.int8), no.copy(), no.copy())

    @property
    def undecided(self) -> np.ndarray:
        """bool ``[N]``: readable, and not one question answered."""
        return self.done & self.reading & (self.passed < 0).all(axis=1)

    def add(self, number: int, record: Mapping[str, Any], rules: CurationRules) -> None:
        """Take in what the judge said of one image; of several records the first that says anything counts."""
        if self.done[number] and (not self.reading[number] or (self.passed[number] >= 0).any()):
            return
        self.done[number] = True
        if "error" in record:
            self.reading[number], self.reasons[number] = False, record["error"]
            return
        verdict = verdict_of(record)
        self.passed[number] = [-1 if verdict[one].passed is None else verdict[one].passed for one in QUESTIONS]
        self.known_bad[number] = fails(verdict, rules.known_bad)
        # Whatever the rules: an image that others are compared with as known-bad is not kept.
        self.failed[number] = self.known_bad[number] or fails(verdict, rules.drop)
        if self.failed[number]:
            self.reasons[number] = "; ".join(reasons(verdict))
        self.unanswered.pop(number, None)
        if not answered(verdict):
            self.unanswered[number] = "; ".join(dict.fromkeys(answer.reason for answer in verdict.values()))


@dataclass
class Compared:
    """The images against the bank.

    Attributes:
        encoder: which.
        features: float32 ``[M, D]`` of the bank; files: their names; own: how many are of this data set, the first.
        demo: phantoms are in the bank.
        good: float64 ``[n]``, similarity of the images that the judge passed.
        bad: float64 ``[M]``, of the bank's members to each other; empty for one member.
        suggested: the threshold that separates the two best; None for one member.
    """

    encoder: EncoderFacts
    features: np.ndarray
    files: list[str]
    own: int
    demo: bool
    good: np.ndarray
    bad: np.ndarray
    suggested: float | None


@dataclass
class Decision:
    """What happens to N images.

    Attributes:
        missing: images that are not computed yet; then the rest means nothing.
        stage: int8 ``[N]``: KEPT, or why it goes.
        reasons: number → why it goes, with numbers.
        similarity: float64 ``[N]``, NaN where not compared; nearest: int64 ``[N]``, row of the bank.
        judged: verdicts; compared: None where there was nothing to compare with, and ``skipped`` says so.
    """

    missing: int
    stage: np.ndarray
    reasons: dict[int, str]
    similarity: np.ndarray
    nearest: np.ndarray
    judged: Judged
    compared: Compared | None = None
    skipped: str = ""


def read_judged(folder: Path, images: ImageSet, rules: CurationRules) -> Judged:
    """The verdicts of all shards under ``rules``; raises UserError for a line that is none."""
    judged = Judged.nothing(len(images))
    for number, record in read_verdicts(folder, images.files):
        judged.add(number, record, rules)
    return judged


def decide(folder: Path, images: ImageSet, recipe: CurationRecipe, say: Callable[[str], None]) -> Decision:
    """Keep or drop, from what all shards have computed.

    Raises:
        UserError: damaged parts; a bank that is damaged or of another encoder.
    """
    count, stages = len(images), recipe.Global.stages
    judged = read_judged(folder, images, recipe.Rules) if "judge" in stages else Judged.nothing(count)
    decision = Decision(0, np.zeros(count, np.int8), judged.reasons, np.full(count, np.nan), np.zeros(count, np.int64),
                        judged)
    if "judge" in stages:
        decision.missing = int((~judged.done).sum())
        decision.stage[~judged.reading], decision.stage[judged.failed] = UNREADABLE, JUDGED
    if "similarity" in stages and not decision.missing:
        _compare(decision, folder, images, recipe)
        if decision.skipped:
            say(f"!! 跳过相似度（similarity）：{decision.skipped}")
    return decision


def _compare(decision: Decision, folder: Path, images: ImageSet, recipe: CurationRecipe) -> None:
    """Fill in what similarity says."""
    from paddle_cxr.synthesis.quality.curate import encoder_key

    similarity, known_bad = recipe.Similarity, decision.judged.known_bad
    if similarity.bank is None and not known_bad.any():
        decision.skipped = "没有一张图是已知坏图（known-bad），也没有给 Similarity.bank；坏图库是空的，没有可比的"
        return
    wanted = decision.stage == KEPT
    features = Features(folder, encoder_key(similarity.encoder), len(images))
    decision.missing = int((~features.done & (wanted | known_bad)).sum())
    if decision.missing:
        return
    if features.facts is None:
        decision.skipped = "没有一张能读取的图要比"
        return
    compared = _open_bank(features, images, known_bad, similarity.bank)
    if len(compared.features) == 0:
        decision.skipped = "已知坏图的文件现在都不能读取，坏图库是空的"
        return
    bank = Bank(compared.features)
    for numbers, rows in features.blocks(wanted):
        unreadable = np.isnan(rows).all(axis=1)
        _drop_unreadable(decision, images, numbers[unreadable])
        found = bank.nearest(rows[~unreadable])
        decision.similarity[numbers[~unreadable]] = found.similarity
        decision.nearest[numbers[~unreadable]] = found.index
    compared.good = decision.similarity[~np.isnan(decision.similarity)]
    if len(bank) > 1:
        compared.bad = bank.among_itself().similarity
        compared.suggested = suggest_threshold(compared.good, compared.bad) if len(compared.good) else None
    over = decision.similarity > similarity.threshold  # NaN is not
    decision.stage[over] = SIMILAR
    for number in np.flatnonzero(over):
        decision.reasons[int(number)] = (
            f"similarity: 与坏图 {compared.files[decision.nearest[number]]} 的余弦相似度 "
            f"{decision.similarity[number]:.4f}，至多 {similarity.threshold:g}")
    decision.compared = compared


def _open_bank(features: Features, images: ImageSet, known_bad: np.ndarray, folder: str | None) -> Compared:
    """The known-bad images of this data set, and behind them those of the bank that was given."""
    own = sorted((int(number), row) for numbers, rows in features.blocks(known_bad)
                 for number, row in zip(numbers, rows, strict=True) if np.isfinite(row).all())
    files = [images.files[number] for number, _ in own]
    dim, demo = len(features.facts.probe), images.demo and bool(own)
    rows = np.array([row for _, row in own], np.float32).reshape(len(own), dim)
    if folder is not None:
        given = load_bank(folder, features.facts.title, dim, features.facts.probe)
        rows, demo = np.concatenate([rows, given.features]), demo or given.demo
        files += given.files
    empty = np.zeros(0)
    return Compared(features.facts, rows, files, len(own), demo, empty, empty, None)


def _drop_unreadable(decision: Decision, images: ImageSet, numbers: np.ndarray) -> None:
    """Images that could be read for no features: their files are looked at again, to say why."""
    for number in map(int, numbers):
        found = read(images.root / images.files[number])
        decision.stage[number] = UNREADABLE
        decision.judged.reading[number] = False
        decision.reasons[number] = found if isinstance(found, str) else "计算特征时不能读取（现在可以了）"
