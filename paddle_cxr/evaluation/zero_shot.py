"""Zero-shot classification: a finding is recognised by what a report would say, with no classifier trained for it.

With positive and negative prompts, the image is compared with "There is a pleural effusion." and "There is no pleural
effusion."; the softmax over the two scores is the probability of the finding (CheXzero, Tiu et al. 2022; BioViL,
Boecking et al. 2022).  Without negative prompts the findings compete: the softmax is taken over all of them (GLoRIA,
Huang et al. 2021), which suits films that show one of them each.

Several prompts of a side are one side (``ensemble``):

    scores      mean of their scores, so that no single wording decides
    max         their highest score, as GLoRIA's: of many combinations few fit one film
    embeddings  one score, of the mean of their embeddings, as BioViL's and CLIP's

Nothing is taken from the other images: the probability of an image is the same alone and in any set.  (GLoRIA's code
subtracts the mean of the batch and divides by its standard deviation; the result then depends on who is beside whom.)

    prompts = read_prompts("prompts.yaml")
    scores = model's score of every image with every text of prompt_texts(prompts)      # [N, P]
    metrics = zero_shot(labels, scores, prompts)                                        # labels [N, K]
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.multilabel import multilabel_metrics
from paddle_cxr.evaluation.prompts import FindingPrompts, prompt_texts
from paddle_cxr.evaluation.sigmoid import sigmoid


def sides(prompts: Sequence[FindingPrompts]) -> list[tuple[str, ...]]:
    """The texts of each side: the positive ones of all K findings, then the negative ones where there are any."""
    negative = [one.negative for one in prompts if one.negative]
    return [*(one.positive for one in prompts), *negative]


def margins(scores: np.ndarray, prompts: Sequence[FindingPrompts], ensemble: Literal["scores", "max"] = "scores"
            ) -> np.ndarray:
    """How much the positive side of each finding outweighs what it is compared with, float64 ``[N, K]``.

    It is the logarithm of the odds: it orders images as the probability does, and unlike it has no two values that
    rounding makes both 1.0.

    Args:
        scores: float ``[N, P]``, of every image with every text of ``prompt_texts(prompts)``.
        prompts: of K findings; all have negative prompts, or none has and K ≥ 2.
        ensemble: see the top of this module.

    Raises:
        UserError: scores that are not finite; ValueError: another number of columns.
    """
    texts = prompt_texts(prompts)
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or scores.shape[1] != len(texts):
        raise ValueError(f"scores {scores.shape} do not belong to {len(texts)} prompts")
    check_finite(scores)
    column = {text: number for number, text in enumerate(texts)}
    together = np.max if ensemble == "max" else np.mean
    # take and not an index, which would lay the numbers out so that a row's sum depends on how many rows there are.
    of_sides = [together(np.take(scores, [column[text] for text in side], axis=1), axis=1) for side in sides(prompts)]
    return margins_of_sides(np.stack(of_sides, axis=1), len(prompts))


def margins_of_sides(scores: np.ndarray, findings: int) -> np.ndarray:
    """:func:`margins` from one score a side.

    Args:
        scores: float ``[N, S]``, in the order of :func:`sides`: S = 2K with negative sides, K where findings compete.
        findings: K.
    """
    scores = np.asarray(scores, np.float64)
    if scores.shape[1] == 2 * findings:
        return scores[:, :findings] - scores[:, findings:]
    # The odds of finding k in the softmax over all: exp(s_k) / Σ over the others of exp(s_j).
    others = [np.logaddexp.reduce(np.delete(scores, k, axis=1), axis=1) for k in range(findings)]
    return scores - np.stack(others, axis=1)


def probabilities_of(margins: np.ndarray) -> np.ndarray:
    """Probability of each finding, 0 … 1, from its margin.  No calibrated one: with cosine scores all lie near 0.5."""
    return sigmoid(margins)


def probabilities(scores: np.ndarray, prompts: Sequence[FindingPrompts],
                  ensemble: Literal["scores", "max"] = "scores") -> np.ndarray:
    """Probability of each finding, float64 ``[N, K]``; arguments and errors as of :func:`margins`."""
    return probabilities_of(margins(scores, prompts, ensemble))


def check_finite(scores: np.ndarray) -> None:
    """Refuse scores ``[N, P]`` with NaN or infinity; raises :class:`UserError`."""
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores).all(axis=1)).sum())
        raise UserError(f"模型对 {bad} 张图像给出的图文相似度含 NaN 或 Inf，无法做零样本分类（zero-shot）；"
                        "请换用训练正常的检查点（checkpoint）")


def zero_shot(labels: np.ndarray, scores: np.ndarray, prompts: Sequence[FindingPrompts],
              groups: Sequence[Hashable] | None = None, n: int = 1000, seed: int = 0) -> dict[str, Any]:
    """AUC of every finding and their mean, with 95 % intervals, ready for JSON.

    Args:
        labels: float ``[N, K]``: 1 present, 0 absent, NaN unknown (left out for that finding only).
        scores: float ``[N, P]``, of every image with every text of ``prompt_texts(prompts)``.
        prompts: the K findings.
        groups, n, seed: as in :func:`~paddle_cxr.evaluation.bootstrap.with_intervals`; ``n`` = 0 leaves the intervals
            out (None).

    Returns:
        ``samples``; ``macro_auc`` and ``macro_auc_ci95``: the mean over the findings that have images of both kinds
        (None without any); ``per_finding``: name → ``auc``, ``auc_ci95`` (both None where a kind is missing),
        ``positives``, ``negatives``, ``unknown``; ``left_out``: the findings that are not in the mean; ``bootstrap``.

    Raises:
        UserError: no images, scores that are not finite, a label that is none of 1, 0, NaN.
        ValueError: shapes that do not belong together.
    """
    found = multilabel_metrics(labels, margins(scores, prompts), [one.name for one in prompts], None, groups, n, seed)
    of_finding = ("auc", "auc_ci95", "positives", "negatives", "unknown")
    return {"samples": found["samples"], "macro_auc": found["macro_auc"], "macro_auc_ci95": found["macro_auc_ci95"],
            "per_finding": {name: {key: one[key] for key in of_finding}
                            for name, one in found["per_finding"].items()},
            "left_out": found["left_out"], "bootstrap": found["bootstrap"]}
