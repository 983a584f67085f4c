"""Zero-shot classification: a finding is recognised by what a report would say, with no classifier trained for it.

For each finding the image is compared with a *positive* prompt ("There is a pleural effusion.") and a *negative* one
("There is no pleural effusion."); the softmax over the two scores is the probability of the finding (CheXzero, Tiu et
al. 2022; BioViL, Boecking et al. 2022).  With several prompts a side their scores are averaged first, so that no single
wording decides.  Nothing is taken from the other images: the probability of an image is the same alone and in any set.

    prompts = read_prompts("prompts.yaml")
    scores = model's score of every image with every text of prompt_texts(prompts)      # [N, P]
    metrics = zero_shot(label_matrix(labels, prompts), scores, prompts)
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field

from paddle_cxr.config import read_recipe
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation import metrics as m
from paddle_cxr.evaluation.bootstrap import _interval, _resamples, _unit_of
from paddle_cxr.schema import Section, checked


@dataclass(frozen=True)
class FindingPrompts:
    """The prompts of one finding.

    Attributes:
        name: the finding's key in the labels.
        positive, negative: what a report says where it is present, and where it is absent; at least one each.
        zh, en: display names.
    """

    name: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    zh: str
    en: str


def _as_list(value: Any) -> Any:
    """A single prompt is a list of one; white space at the ends and line breaks of YAML's ``>`` mean nothing."""
    if isinstance(value, str):
        value = [value]
    return [" ".join(text.split()) if isinstance(text, str) else text for text in value] if isinstance(value, list) \
        else value


Texts = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1), BeforeValidator(_as_list)]


class _PromptSection(Section):
    positive: Texts = Field(description="有此征象时报告的说法，一条或几条")
    negative: Texts = Field(description="没有此征象时报告的说法，一条或几条")
    zh: str = Field("", description="中文显示名；不写则用征象的键")
    en: str = Field("", description="英文显示名；不写则用征象的键")


def read_prompts(file: str | Path) -> tuple[FindingPrompts, ...]:
    """Prompts from a YAML file.

    One finding an entry, its key as in the labels; a single prompt needs no list::

        effusion:
          zh: 胸腔积液
          en: Pleural effusion
          positive: [There is a pleural effusion., Pleural effusion is present.]
          negative: There is no pleural effusion.

    Raises:
        UserError: no such file, not YAML, no entry, an unknown key, a side without text, one text on both sides.
    """
    if not Path(file).is_file():
        raise UserError(f"找不到提示词（prompt）文件 {file}；应是一个 .yaml 文件，每个征象写 positive 和 negative")
    written, origins = read_recipe(file)
    if not written:
        raise UserError(f"提示词（prompt）文件 {file} 是空的；应写 征象名: {{positive: [...], negative: [...]}}")
    return tuple(_finding(name, value, origins.get(name, str(file))) for name, value in written.items())


def _finding(name: str, value: Any, where: str) -> FindingPrompts:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}：征象 {name} 的提示词（prompt）应写成 {{positive: [...], negative: [...]}}")
    try:
        section = checked(value, _PromptSection)
    except UserError as error:
        raise UserError(f"{where}：征象 {name} 的提示词（prompt）：{error}") from None
    both = set(section.positive) & set(section.negative)
    if both:
        raise UserError(f"{where}：征象 {name} 的正、负提示词（prompt）里有同一句话 {min(both)!r}，会互相抵消；"
                        "请去掉一边")
    return FindingPrompts(name, tuple(section.positive), tuple(section.negative), section.zh or name,
                          section.en or name)


def prompt_texts(prompts: Sequence[FindingPrompts]) -> list[str]:
    """Every different prompt once, in order: the texts to encode, and the columns of ``scores`` below."""
    return list(dict.fromkeys(text for one in prompts for text in (*one.positive, *one.negative)))


def label_matrix(rows: Sequence[Mapping[str, int | None]], prompts: Sequence[FindingPrompts]) -> np.ndarray:
    """Labels (finding → 1 present, 0 absent, None unknown) of N images as float64 ``[N, K]``: 1, 0 and NaN.

    A finding that a row does not name is unknown there.
    """
    return np.array([[np.nan if row.get(one.name) is None else row[one.name] for one in prompts] for row in rows],
                    np.float64).reshape(len(rows), len(prompts))


def margins(scores: np.ndarray, prompts: Sequence[FindingPrompts]) -> np.ndarray:
    """Mean score with the positive prompts minus mean score with the negative ones, float64 ``[N, K]``.

    It orders images as the probability does, and unlike it has no two values that rounding makes both 1.0.

    Args:
        scores: float ``[N, P]``, of every image with every text of ``prompt_texts(prompts)``.

    Raises:
        UserError: scores that are not finite; ValueError: another number of columns.
    """
    texts = prompt_texts(prompts)
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or scores.shape[1] != len(texts):
        raise ValueError(f"scores {scores.shape} do not belong to {len(texts)} prompts")
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores).all(axis=1)).sum())
        raise UserError(f"模型对 {bad} 张图像给出的图文相似度含 NaN 或 Inf，无法做零样本分类（zero-shot）；"
                        "请换用训练正常的检查点（checkpoint）")
    column = {text: number for number, text in enumerate(texts)}
    return np.stack([scores[:, [column[text] for text in one.positive]].mean(axis=1)
                     - scores[:, [column[text] for text in one.negative]].mean(axis=1) for one in prompts], axis=1)


def probabilities(scores: np.ndarray, prompts: Sequence[FindingPrompts]) -> np.ndarray:
    """Probability of each finding, float64 ``[N, K]``, 0 … 1: softmax over its positive and its negative score.

    Args, Raises: as :func:`margins`.  They are no calibrated probabilities: with cosine scores all lie near 0.5.
    """
    # softmax((p, n))[0] = 1 / (1 + exp(n - p)), written with tanh, which does not overflow.
    return (1 + np.tanh(margins(scores, prompts) / 2)) / 2


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
    labels, values = np.asarray(labels, np.float64), margins(scores, prompts)
    if labels.shape != values.shape:
        raise ValueError(f"labels {labels.shape} do not belong to scores of {values.shape} images and findings")
    if not len(labels):
        raise UserError("没有图像可做零样本分类（zero-shot）；请检查 DataLoader.Eval 的数据")
    known = ~np.isnan(labels)
    if not np.isin(labels[known], (0, 1)).all():
        raise UserError(f"零样本分类（zero-shot）的标签应为 1（有）、0（无）或空（未知），"
                        f"现在有 {labels[known & ~np.isin(labels, (0, 1))][0]:g}")
    auc = _aucs(labels, values, np.ones((1, len(labels))))[0]
    unit = _unit_of(groups, len(labels))
    draws = np.concatenate([_aucs(labels, values, weights) for weights in _resamples(unit, n, seed)]) if n else (
        np.empty((0, len(prompts))))
    return {
        "samples": len(labels),
        "macro_auc": m.jsonable(m.mean_defined(auc)),
        "macro_auc_ci95": _interval(m.mean_defined(draws)),
        "per_finding": {one.name: {"auc": m.jsonable(auc[k]), "auc_ci95": _interval(draws[:, k]),
                                   "positives": int((labels[:, k] == 1).sum()),
                                   "negatives": int((labels[:, k] == 0).sum()),
                                   "unknown": int((~known[:, k]).sum())} for k, one in enumerate(prompts)},
        "left_out": [one.name for k, one in enumerate(prompts) if np.isnan(auc[k])],
        "bootstrap": {"resamples": n, "unit": "sample" if len(set(unit)) == len(unit) else "patient", "seed": seed},
    }


def _aucs(labels: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUC ``[B, K]`` for B ways ``[B, N]`` of counting the images; NaN where a kind is missing."""
    known = ~np.isnan(labels)
    return np.stack([
        m.auc(labels[of, k] == 1, values[of, k], weights[:, of]) if of.any() else np.full(len(weights), np.nan)
        for k, of in enumerate(known.T)], axis=1)
