"""Image ↔ text retrieval: does the model find an image's own report among all of them, and the report's image?

Two things make such figures too good, and are dealt with here.

* **Identical texts.**  "No acute abnormality." is the report of many images, so none of its copies is *the* right one.
  Each text is counted once (:func:`unique_texts`): image → text asks for the image's own text among the different
  texts, text → image for any image that carries the text.
* **Ties.**  A model that gives every pair the same score has found nothing.  A candidate whose score equals the right
  one's is counted as ranked before it, so a constant score gets rank last, not rank 1.

A figure is read beside two levels that need no model, both exact, not simulated:

* ``chance``: the candidates in random order, the mean over all orders; drawn anew for each query or once for all of
  them makes no difference.
* ``blind``: the best order that is the same for all queries, and so looks at none of them.  Where many images
  carry one text, putting it first finds more than chance does: a model is worth what it finds beyond *this*.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.bootstrap import interval, resamples, unit_of

RECALL_AT = (1, 5, 10)
_BLOCK = 4_000_000  # scores compared at a time: 20 000 × 20 000 needs some 30 MB beside the matrix itself


def unique_texts(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The different texts, in order of first appearance, and for each of the N texts which of them it is, int64 [N].

    Texts that differ only in white space count as the same.
    """
    number: dict[str, int] = {}
    text_of = [number.setdefault(" ".join(text.split()), len(number)) for text in texts]
    return list(number), np.array(text_of, np.int64)


def retrieval(scores: np.ndarray, text_of: np.ndarray, groups: Sequence[Hashable] | None = None, n: int = 1000,
              seed: int = 0) -> dict[str, Any]:
    """Retrieval figures both ways, with 95 % intervals and the level of chance, ready for JSON.

    R@k ("recall at k") is the share of queries whose rank is k or better; see :func:`ranks` for the rank.

    Args:
        scores: float ``[Ni, T]``, of every image and every *different* text, higher = belongs together.  May be a
            memory map: it is read in blocks of rows and never copied.
        text_of: int ``[Ni]``, which text is each image's own, 0 … T-1.  A text that no image carries is a candidate
            like the others, and no query.
        groups: Ni patient ids, as in :func:`~paddle_cxr.evaluation.bootstrap.with_intervals`: whole patients are then
            drawn for the intervals of image → text.
        n: resamples behind the intervals; 0 leaves them out (None), which is what a validation during training wants.
        seed: the same seed gives the same intervals.

    Returns:
        ``image_to_text`` and ``text_to_image``, each with ``queries``, ``candidates``, ``unit`` (what is drawn for
        the intervals), ``R@1``, ``R@5``, ``R@10`` and ``median_rank``; each of the last four holds ``value``, ``ci95``
        (``[low, high]`` or None), ``chance`` (see :func:`chance_curve`), ``ratio`` = value / chance (for the median
        rank smaller is better) and, but for the median rank, ``blind`` (see :func:`blind_curve`).  ``mean_recall``:
        mean of the six R@k, one number for early stopping.  ``images``, ``texts`` and ``bootstrap`` (``resamples``,
        ``seed``).  The intervals are those of the queries; the candidates stay as they are.

    Raises:
        UserError: no images, or scores that are not finite.
        ValueError: shapes that do not belong together, a number in ``text_of`` that is no text.
    """
    of_images, of_texts = ranks(scores, text_of)
    images, texts = scores.shape
    carriers = np.bincount(text_of)[np.unique(text_of)]  # images of each text that has any
    both = {
        "image_to_text": _direction("image", of_images, (chance_curve(texts, [1], [1]), blind_curve(texts, carriers)),
                                    groups, n, seed),
        # One image of each text is enough to find it.
        "text_to_image": _direction("text", of_texts, (chance_curve(images, *np.unique(carriers, return_counts=True)),
                                                       blind_curve(images, np.ones_like(carriers))), None, n, seed),
    }
    recalls = [both[way][f"R@{k}"]["value"] for way in both for k in RECALL_AT]
    return {"images": images, "texts": texts, **both, "mean_recall": float(np.mean(recalls)),
            "bootstrap": {"resamples": n, "seed": seed}}


def ranks(scores: np.ndarray, text_of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank of what is right, 1 = first, ties counted against the model.

    image → text: 1 + the other texts that score at least as high as the image's own.
    text → image: 1 + the images *without* the text that score at least as high as the best image that carries it.

    Args, Raises: as :func:`retrieval`.

    Returns:
        int64 ``[Ni]`` for the images, and int64 for the texts that some image carries, in their order.
    """
    text_of = _checked(scores, text_of)
    images, texts = scores.shape
    own = scores[np.arange(images), text_of]
    best = np.full(texts, -np.inf, np.result_type(own, np.float16))  # of the images that carry the text
    with np.errstate(invalid="ignore"):  # NaN is refused below, with the images it belongs to
        np.maximum.at(best, text_of, own)

    of_images = np.empty(images, np.int64)
    as_high = np.zeros(texts, np.int64)  # images that score at least as high as `best`
    step = max(1, _BLOCK // texts)
    for first in range(0, images, step):
        block = np.asarray(scores[first:first + step])
        if not np.isfinite(block).all():
            raise UserError(f"模型对第 {first + 1}–{first + len(block)} 张图像给出的图文相似度含 NaN 或 Inf，"
                            "无法评估检索（retrieval）；请换用训练正常的检查点（checkpoint）")
        of_images[first:first + step] = (block >= own[first:first + step, None]).sum(axis=1)  # its own text is the 1
        as_high += (block >= best).sum(axis=0)
    carried = np.bincount(text_of, minlength=texts) > 0
    right = np.bincount(text_of[own >= best[text_of]], minlength=texts)
    return of_images, (1 + as_high - right)[carried]


def chance_curve(candidates: int, right: Sequence[int], queries: Sequence[int]) -> np.ndarray:
    """Chance of rank ≤ k when the candidates are put in random order, float64 ``[candidates]`` for k = 1 … candidates.

    Of N candidates g are right: all of the first k are wrong with probability C(N-g, k) / C(N, k), so the chance is
    1 - C(N-g, k) / C(N, k); with g = 1 it is k / N.

    Args:
        candidates: N.
        right: the values of g, 1 … N.
        queries: how many queries have each; the mean over the queries is returned.
    """
    drawn = np.arange(candidates)
    missed = np.zeros(candidates)
    for g, count in zip(right, queries, strict=True):
        # C(N-g, k) / C(N, k) = product over j < k of (N-g-j) / (N-j), and 0 as soon as fewer than k are wrong.
        missed += count * np.cumprod(np.maximum(candidates - g - drawn, 0) / (candidates - drawn))
    return 1 - missed / np.sum(queries)


def blind_curve(candidates: int, queries: np.ndarray) -> np.ndarray:
    """Share of the queries that the best order, one for all of them, finds at rank ≤ k: float64 ``[candidates]``.

    Args:
        candidates: N.
        queries: int ``[≤ N]``, how many queries each candidate is right for; none is counted twice.
    """
    found = np.zeros(candidates)
    found[:len(queries)] = np.sort(queries)[::-1]
    return np.cumsum(found) / found.sum()


def top(scores: np.ndarray, right: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` best of N candidates, best first, int64; of equal scores the right ones come last, as in the ranks.

    Args:
        scores: float ``[N]``.
        right: bool ``[N]``, which candidates are right.
        count: ≥ 1.
    """
    return np.lexsort((np.asarray(right, bool), -np.asarray(scores, np.float64)))[:count]


def _checked(scores: np.ndarray, text_of: np.ndarray) -> np.ndarray:
    text_of = np.asarray(text_of)
    if scores.ndim != 2 or text_of.shape != (len(scores),):
        raise ValueError(f"scores {scores.shape} and text_of {text_of.shape} do not belong together")
    if not scores.size:
        raise UserError("没有图文对可评估检索（retrieval）：0 张图像或 0 条文本；请检查 DataLoader.Eval 的数据")
    if not np.issubdtype(text_of.dtype, np.integer) or text_of.min() < 0 or text_of.max() >= scores.shape[1]:
        raise ValueError(f"text_of must hold whole numbers from 0 to {scores.shape[1] - 1}")
    return text_of


def _direction(query: str, rank: np.ndarray, levels: tuple[np.ndarray, np.ndarray],
               groups: Sequence[Hashable] | None, n: int, seed: int) -> dict[str, Any]:
    """The figures of one way; ``levels`` are the curves of chance and of the best blind order."""
    chance, blind = levels
    unit, candidates = unit_of(groups, len(rank)), len(chance)
    values = _figures(rank, np.ones((1, len(rank))))
    draws = [_figures(rank, weights) for weights in resamples(unit, n, seed)] if n else []
    result: dict[str, Any] = {"queries": len(rank), "candidates": candidates,
                              "unit": query if len(set(unit)) == len(unit) else "patient"}
    for key in values:
        if key == "median_rank":
            beside = {"chance": _median_of(chance)}
        else:
            last = min(int(key[2:]), candidates) - 1
            beside = {"chance": float(chance[last]), "blind": float(blind[last])}
        value = float(values[key][0])
        result[key] = {"value": value, **beside, "ratio": value / beside["chance"],
                       "ci95": interval(np.concatenate([draw[key] for draw in draws])) if draws else None}
    return result


def _figures(rank: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """R@k and median rank ``[B]`` for B ways ``[B, Q]`` of counting the queries."""
    total = weights.sum(axis=1)
    recalls = {f"R@{k}": weights @ (rank <= k) / total for k in RECALL_AT}
    order = np.argsort(rank)
    below = np.cumsum(weights[:, order], axis=1)
    # As numpy's median: halfway between the last rank of the lower half and the first of the upper half.
    lower = np.argmax(below >= total[:, None] / 2, axis=1)
    upper = np.argmax(below > total[:, None] / 2, axis=1)
    return {**recalls, "median_rank": (rank[order][lower] + rank[order][upper]) / 2}


def _median_of(chance: np.ndarray) -> float:
    """The median of the ranks of which ``chance`` is the distribution, by the same rule."""
    rounding = 1e-12
    return float(np.argmax(chance >= 0.5 - rounding) + np.argmax(chance > 0.5 + rounding)) / 2 + 1
