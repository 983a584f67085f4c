"""Retrieval against a slow version by sorting, chance against counting all orders, intervals against repeating."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_cxr.errors import UserError
from paddle_cxr.evaluation import retrieval as module
from paddle_cxr.evaluation.retrieval import blind_curve, chance_curve, ranks, retrieval, top, unique_texts


@st.composite
def matrices(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties, texts carried by several images, by one, by none."""
    images, texts = draw(st.integers(1, 14)), draw(st.integers(1, 9))
    text_of = draw(st.lists(st.integers(0, texts - 1), min_size=images, max_size=images))
    levels = draw(st.integers(1, 4))
    flat = draw(st.lists(st.integers(0, levels - 1), min_size=images * texts, max_size=images * texts))
    return np.array(flat, np.float32).reshape(images, texts) - 1, np.array(text_of)


def slow_rank(candidates: list[tuple[float, bool]]) -> int:
    """Place of the first right one when all are sorted, the wrong ones first among equals."""
    ordered = sorted(candidates, key=lambda one: (-one[0], one[1]))
    return 1 + [right for _, right in ordered].index(True)


def slow_ranks(scores: np.ndarray, text_of: np.ndarray) -> tuple[list[int], list[int]]:
    images, texts = range(scores.shape[0]), range(scores.shape[1])
    return ([slow_rank([(scores[i, t], t == text_of[i]) for t in texts]) for i in images],
            [slow_rank([(scores[i, t], t == text_of[i]) for i in images]) for t in texts if t in text_of])


@settings(max_examples=100, deadline=None)
@given(matrices(), st.sampled_from([1, 5, 10_000]))
def test_equals_sorting(case: tuple[np.ndarray, np.ndarray], block: int) -> None:
    scores, text_of = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        result = retrieval(scores, text_of, n=3)
        of_images, of_texts = ranks(scores, text_of)
    slow_images, slow_texts = slow_ranks(scores, text_of)
    assert of_images.tolist() == slow_images and of_texts.tolist() == slow_texts
    carriers = [int((text_of == text).sum()) for text in range(scores.shape[1]) if text in text_of]
    for way, slow, right in (("image_to_text", slow_images, [1] * len(scores)),
                             ("text_to_image", slow_texts, carriers)):
        candidates = result[way]["candidates"]
        assert result[way]["queries"] == len(slow)
        assert result[way]["median_rank"]["value"] == np.median(slow)
        for k in (1, 5, 10):
            figure = result[way][f"R@{k}"]
            assert figure["value"] == pytest.approx(np.mean(np.array(slow) <= k))
            chance = np.mean([1 - comb(candidates - g, k) / comb(candidates, k) if k < candidates else 1
                              for g in right])
            assert figure["chance"] == pytest.approx(chance, abs=1e-12)
            assert figure["ratio"] == pytest.approx(figure["value"] / chance)
    recalls = [result[way][f"R@{k}"]["value"] for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)]
    assert result["mean_recall"] == pytest.approx(np.mean(recalls))
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize(("candidates", "right"), [(1, 1), (5, 1), (6, 2), (6, 5), (6, 6)])
def test_chance_is_the_share_of_all_orders(candidates: int, right: int) -> None:
    firsts = [1 + min(order.index(i) for i in range(right)) for order in itertools.permutations(range(candidates))]
    curve = chance_curve(candidates, [right], [7])
    for k in range(1, candidates + 1):
        assert curve[k - 1] == pytest.approx(float(Fraction(sum(f <= k for f in firsts), len(firsts))), abs=1e-15)


def test_random_scores_are_at_chance() -> None:
    random = np.random.default_rng(0)
    text_of = random.integers(0, 60, 600)
    results = [retrieval(random.normal(size=(600, 60)), text_of, n=0) for _ in range(300)]
    for way in ("image_to_text", "text_to_image"):
        for key in ("R@1", "R@5", "R@10", "median_rank"):
            values = [result[way][key]["value"] for result in results]
            assert np.mean(values) == pytest.approx(results[0][way][key]["chance"], rel=0.15), (way, key)


def test_one_random_order_for_all_queries_is_at_chance_too() -> None:
    """Chance means the mean over all orders.  A single order may be far from it, as many images carry one text."""
    random = np.random.default_rng(1)
    text_of = np.r_[np.zeros(60, int), random.integers(0, 60, 240)]
    found = {way: [] for way in ("image_to_text", "text_to_image")}
    for _ in range(500):
        for way, scores in (("image_to_text", np.tile(random.permutation(60), (300, 1))),
                            ("text_to_image", np.tile(random.permutation(300)[:, None], (1, 60)))):
            found[way].append(retrieval(scores, text_of, n=0)[way])
    for way, results in found.items():
        for key in ("R@1", "R@5", "R@10"):
            values, level = [result[key]["value"] for result in results], results[0][key]
            assert np.mean(values) == pytest.approx(level["chance"], rel=0.2), (way, key)
            assert max(values) <= level["blind"] + 1e-12, (way, key)
    assert found["image_to_text"][0]["R@1"]["blind"] > 10 * found["image_to_text"][0]["R@1"]["chance"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(0, 1))
def test_the_best_blind_order_is_the_best_of_all_orders(carried: list[int], unused: int) -> None:
    text_of, texts = np.array(carried), max(carried) + 1 + unused
    result = retrieval(np.zeros((len(carried), texts)), text_of, n=0)
    orders = {"image_to_text": [np.tile(order, (len(carried), 1)) for order in itertools.permutations(range(texts))],
              "text_to_image": [np.tile(np.array(order)[:, None], (1, texts))
                                for order in itertools.permutations(range(len(carried)))]}
    for way, tried in orders.items():
        best = max(retrieval(scores, text_of, n=0)[way]["R@1"]["value"] for scores in tried)
        assert result[way]["R@1"]["blind"] == pytest.approx(best)
    curve = blind_curve(texts, np.bincount(text_of))
    assert curve[-1] == pytest.approx(1) and (np.diff(curve) >= 0).all()


def test_a_constant_score_gets_no_credit() -> None:
    result = retrieval(np.full((40, 20), 0.5, np.float32), np.arange(40) % 20)
    assert all(result[way][f"R@{k}"]["value"] == 0 for way in ("image_to_text", "text_to_image") for k in (1, 5, 10))
    assert result["image_to_text"]["median_rank"]["value"] == 20
    assert result["text_to_image"]["median_rank"]["value"] == 39  # of 40, two are right


def test_identical_texts_count_as_one() -> None:
    texts, text_of = unique_texts(["Clear lungs.", "Effusion.", " Clear\n lungs. ", "clear lungs."])
    assert texts == ["Clear lungs.", "Effusion.", "clear lungs."] and text_of.tolist() == [0, 1, 0, 2]
    # Image 0 prefers image 2's copy of its text: there is no such thing, and nothing to punish.
    result = retrieval(np.array([[0.9, 0.1, 0.0], [0.0, 0.8, 0.1], [0.9, 0.2, 0.1], [0.0, 0.1, 0.9]]), text_of)
    assert result["image_to_text"]["R@1"]["value"] == result["text_to_image"]["R@1"]["value"] == 1
    assert result["text_to_image"]["R@1"]["chance"] == pytest.approx((2 / 4 + 1 / 4 + 1 / 4) / 3)


def test_all_texts_identical_is_nothing_to_be_proud_of() -> None:
    result = retrieval(np.random.default_rng(0).normal(size=(9, 1)), np.zeros(9, int), n=10)
    for way in ("image_to_text", "text_to_image"):
        assert result[way]["R@1"] == {"value": 1.0, "chance": 1.0, "blind": 1.0, "ratio": 1.0,
                                       "ci95": [1.0, 1.0]}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 4)), min_size=1, max_size=30))
def test_weighting_is_repeating(drawn: list[tuple[int, int]]) -> None:
    rank, weights = np.array([r for r, _ in drawn]), np.array([w for _, w in drawn], float)
    if not weights.any():
        return
    figures, repeated = module._figures(rank, weights[None]), np.repeat(rank, weights.astype(int))
    assert figures["median_rank"][0] == np.median(repeated)
    assert all(figures[f"R@{k}"][0] == pytest.approx(np.mean(repeated <= k)) for k in (1, 5, 10))


def test_intervals() -> None:
    random = np.random.default_rng(1)
    text_of = np.arange(200)
    scores = random.normal(size=(200, 200)) + 2.5 * np.eye(200)
    result = retrieval(scores, text_of, seed=3)
    assert result == retrieval(scores, text_of, seed=3) != retrieval(scores, text_of, seed=4)
    for way in ("image_to_text", "text_to_image"):
        low, high = result[way]["R@5"]["ci95"]
        value = result[way]["R@5"]["value"]
        spread = 1.96 * np.sqrt(value * (1 - value) / 200)  # a share of 200 queries
        assert (low, high) == pytest.approx((value - spread, value + spread), abs=0.02)
    assert result["image_to_text"]["unit"] == "image" and result["text_to_image"]["unit"] == "text"
    # Four copies of 50 patients say no more than 50 patients do.
    copied = retrieval(np.repeat(scores[:50], 4, axis=0), np.repeat(text_of[:50], 4), np.repeat(text_of[:50], 4))
    narrow, wide = result["image_to_text"]["R@5"]["ci95"], copied["image_to_text"]["R@5"]["ci95"]
    assert copied["image_to_text"]["unit"] == "patient" and np.diff(wide) > 1.5 * np.diff(narrow)
    assert retrieval(scores, text_of, n=0)["image_to_text"]["R@5"]["ci95"] is None


def test_memory_stays_small(tmp_path) -> None:
    scores = np.random.default_rng(0).random((4000, 4000), np.float32)  # 64 MB
    np.save(tmp_path / "scores.npy", scores)
    tracemalloc.start()
    result = retrieval(scores, np.arange(4000), n=20)
    assert tracemalloc.get_traced_memory()[1] < 32e6
    tracemalloc.stop()
    assert retrieval(np.load(tmp_path / "scores.npy", mmap_mode="r"), np.arange(4000), n=20) == result


@given(matrices(), st.integers(1, 6))
def test_the_best_in_order(case: tuple[np.ndarray, np.ndarray], count: int) -> None:
    scores, text_of = case
    right = np.arange(scores.shape[1]) == text_of[0]
    best = top(scores[0], right, count)
    assert len(best) == min(count, len(right)) and (np.diff(scores[0][best]) <= 0).all()
    rank = ranks(scores, text_of)[0][0]
    assert (rank <= count) == right[best].any() and (rank > count or right[best[rank - 1]])


def test_bad_input() -> None:
    good = np.eye(3)
    with pytest.raises(UserError, match="0 张图像"):
        retrieval(np.empty((0, 3)), np.empty(0, int))
    for bad in (np.nan, np.inf):
        with pytest.raises(UserError, match="NaN 或 Inf.*检查点"):
            retrieval(np.where(good == 1, bad, good), np.arange(3))
    for text_of in (np.arange(2), np.array([0, 1, 3]), np.array([0, -1, 2]), np.array([0.0, 1, 2])):
        with pytest.raises(ValueError, match="text_of"):
            retrieval(good, text_of)
    assert retrieval(np.array([[3]]), np.array([0]), n=5)["images"] == 1  # one pair, and whole-number scores
