"""From maps over images to figures: thresholds from validation, IoU, Dice, pointing and CNR with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.evaluation import metrics as m
from paddle_cxr.evaluation.bootstrap import interval, resamples, unit_of
from paddle_cxr.evaluation.overlap import (
    SWEEP,
    best_threshold,
    contrast_to_noise,
    overlap_curve,
    pointing_game,
)
from paddle_cxr.evaluation.prompts import FindingPrompts
from paddle_cxr.tasks.grounding.marked import Located, Marked

MEASURES = ("iou", "dice", "pointing", "cnr")
# The names of the means, as every evaluation's metrics.json has them.
MEANS = {"iou": "mean_iou", "dice": "mean_dice", "pointing": "pointing", "cnr": "cnr", "cnr_signed": "cnr_signed"}
_STEPS = {"none": np.linspace(-1, 1, 401), "image": np.linspace(0, 1, 201)}  # a cosine, a stretched map


@dataclass(frozen=True)
class Thresholds:
    """What of a map counts as found.

    Attributes:
        shared: the best for all findings together.
        of: number of a finding → its own; absent where validation has none of it, or one for all was asked for.
        pairs: number of a finding → marked validation images.
    """

    shared: float
    of: dict[int, float]
    pairs: dict[int, int]

    def __getitem__(self, finding: int) -> float:
        return self.of.get(finding, self.shared)


def choose_thresholds(located: Iterable[Located], scale: str, per_finding: bool) -> Thresholds:
    """The thresholds with the highest mean Dice on validation images.

    Args:
        located: what the model shows on validation images.
        scale: of the maps, as of :func:`~paddle_cxr.tasks.grounding.marked.locate`.
        per_finding: one for each finding, or one for all.

    Raises:
        UserError: nothing to choose on.
    """
    curves: dict[int, list[np.ndarray]] = {}
    for one in located:
        if (one.truth & ~np.isnan(one.heat)).any():
            curves.setdefault(one.marked.finding, []).append(overlap_curve(one.heat, one.truth, _STEPS[scale])[1])
    if not curves:
        raise UserError("验证集上标出的征象都是空的掩膜，或都被裁掉了（preprocess.resize: crop），定不出阈值；"
                        "请检查标注")
    # Every finding counts the same, as in the means that are reported.
    shared = best_threshold(np.stack([np.mean(rows, axis=0) for rows in curves.values()]), _STEPS[scale])
    own = {finding: best_threshold(np.stack(rows), _STEPS[scale]) for finding, rows in curves.items()}
    return Thresholds(shared, own if per_finding else {}, {finding: len(rows) for finding, rows in curves.items()})


@dataclass(frozen=True)
class Score:
    """How well the model located one marked finding.

    Attributes:
        marked: which.
        iou, dice: at the threshold; pointing; cnr_signed: see :mod:`paddle_cxr.evaluation.overlap`; NaN: undefined.
        sweep_iou, sweep_dice: mean over the fixed thresholds of earlier papers.
        area: share of the seen image that was marked; cut: whether some of the finding was cropped away.
    """

    marked: Marked
    iou: float
    dice: float
    pointing: float
    cnr_signed: float
    sweep_iou: float
    sweep_dice: float
    area: float
    cut: bool

    @property
    def cnr(self) -> float:
        return abs(self.cnr_signed)

    @property
    def whole_dice(self) -> float:
        """Dice of the whole image as the answer."""
        return 2 * self.area / (1 + self.area)


def score(one: Located, threshold: float | None) -> Score:
    """All measures of one map; those of overlap are NaN without threshold, or if nothing of the finding was shown."""
    seen = ~np.isnan(one.heat)
    shown = bool((one.truth & seen).any())
    ious, dices = overlap_curve(one.heat, one.truth, np.array([threshold or 0.0, *SWEEP])) if shown else (
        np.full((2, 1 + len(SWEEP)), np.nan))
    if threshold is None:
        ious[0] = dices[0] = np.nan
    return Score(one.marked, float(ious[0]), float(dices[0]), pointing_game(one.heat, one.truth),
                 contrast_to_noise(one.heat, one.truth), float(ious[1:].mean()), float(dices[1:].mean()),
                 float(one.truth[seen].mean()) if shown else float("nan"), bool((one.truth & ~seen).any()))


def summarise(scores: Sequence[Score], prompts: Sequence[FindingPrompts], patients: Sequence[str] | None = None,
              n: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Means over findings of means over images, with 95 % intervals, ready for JSON.

    Args:
        scores: at least one.
        prompts: the findings that are counted by number in the scores.
        patients: whose image each score is of; None: nobody knows, and every image is drawn by itself.
        n, seed: of the bootstrap; ``n`` = 0 leaves the intervals out (None).

    Returns:
        ``pairs`` (image and finding), ``images``, ``mean_iou``, ``mean_dice``, ``pointing``, ``cnr`` (absolute, as
        BioViL publishes it) and ``cnr_signed``, each with ``…_ci95``; ``fixed_thresholds``: IoU and Dice as in earlier
        papers; ``whole_image``: what a map would get that is equally warm everywhere; ``per_finding``;
        ``cut_by_crop``: pairs of which the model was not shown everything; ``bootstrap``.
    """
    table = _Table(scores)
    values, draws = table.means(np.ones((1, len(scores)))), []
    unit = unit_of([one.marked.position for one in scores] if patients is None else patients, len(scores))
    for weights in resamples(unit, n, seed) if n else ():
        draws.append(table.means(weights))  # of a thousand resamples some numbers are kept, and no weights
    drawn = np.concatenate(draws) if draws else np.empty((0, *values.shape[1:]))

    def mean(name: str, key: str, finding: int | None = None) -> dict[str, Any]:
        """``{key: mean over the findings, or of one, key_ci95: its interval}``."""
        of, column = slice(None) if finding is None else [finding], _COLUMNS.index(name)
        return {key: m.jsonable(m.mean_defined(values[:, column, of])[0]),
                f"{key}_ci95": interval(m.mean_defined(drawn[:, column, of]))}

    found: dict[str, Any] = {"pairs": len(scores), "images": len({one.marked.position for one in scores})}
    for name, key in MEANS.items():
        found |= mean(name, key)
    found["fixed_thresholds"] = {"note": "早期论文的算法：几个固定阈值上取平均，不取自验证集",
                                 "thresholds": list(SWEEP),
                                 **mean("sweep_iou", "mean_iou"), **mean("sweep_dice", "mean_dice")}
    found["whole_image"] = {"note": "处处一样热的图得多少：比不过它，就没有定位",
                            "mean_iou": mean("area", "iou")["iou"], "mean_dice": mean("whole_dice", "dice")["dice"],
                            "pointing": mean("area", "pointing")["pointing"], "cnr": 0.0}
    found["per_finding"] = {
        prompts[number].name: {"pairs": table.pairs[number], "area": mean("area", "area", place)["area"]}
        | {name: value for measure in MEANS for name, value in mean(measure, measure, place).items()}
        for place, number in enumerate(table.findings)}
    found["cut_by_crop"] = sum(one.cut for one in scores)
    found["bootstrap"] = {"resamples": n, "unit": "image" if patients is None else "patient", "seed": seed}
    return found


_COLUMNS = (*MEANS, "sweep_iou", "sweep_dice", "area", "whole_dice")


class _Table:
    """Scores by finding, and their means for many ways of counting the images.

    Attributes:
        findings: the numbers of those that there are; pairs: number of a finding → scores.
    """

    def __init__(self, scores: Sequence[Score]) -> None:
        kinds = np.array([one.marked.finding for one in scores])
        values = np.array([[getattr(one, name) for name in _COLUMNS] for one in scores], np.float64)
        self.findings = [int(number) for number in np.unique(kinds)]
        self._rows = [np.flatnonzero(kinds == number) for number in self.findings]
        self.pairs = {number: len(rows) for number, rows in zip(self.findings, self._rows, strict=True)}
        self._known, self._filled = (~np.isnan(values)).astype(np.float64), np.nan_to_num(values)

    def means(self, weights: np.ndarray) -> np.ndarray:
        """Means of each column and finding ``[B, columns, findings]`` for weights ``[B, scores]``; NaN: undefined."""
        return np.stack([m.divide(weights[:, of] @ self._filled[of], weights[:, of] @ self._known[of])
                         for of in self._rows], axis=2)
