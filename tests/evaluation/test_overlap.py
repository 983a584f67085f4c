"""Overlap of masks and maps against loops over pixels, on random and on degenerate input."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_cxr.evaluation.overlap import (
    SWEEP,
    best_threshold,
    contrast_to_noise,
    dice,
    iou,
    overlap_curve,
    pointing_game,
    stretched,
)


@st.composite
def maps(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """A map with ties or without, some of it unseen, and a finding that may be nowhere or everywhere."""
    shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    heat = random.normal(size=shape)
    heat = draw(st.sampled_from([heat, np.round(heat), np.full(shape, 0.1)]))
    heat = np.where(random.random(shape) < draw(st.sampled_from([0, 0.3, 1])), np.nan, heat)
    return heat, random.random(shape) < draw(st.sampled_from([0, 0.3, 0.7, 1]))


def counted(heat: np.ndarray, truth: np.ndarray, threshold: float) -> tuple[float, float]:
    """IoU and Dice, pixel by pixel."""
    hit = false = missed = 0
    for value, there in zip(heat.ravel(), truth.ravel(), strict=True):
        if math.isnan(value):
            continue
        hit += there and value >= threshold
        false += not there and value >= threshold
        missed += there and value < threshold
    if hit + false + missed == 0:
        return 1.0, 1.0
    return hit / (hit + false + missed), 2 * hit / (2 * hit + false + missed)


@given(maps())
def test_overlap_is_counted_pixels(case: tuple[np.ndarray, np.ndarray]) -> None:
    heat, truth = case
    thresholds = np.array([-9, -1, -0.5, 0, 0.1, 0.3, 1, 9])
    of_iou, of_dice = overlap_curve(heat, truth, thresholds)
    for place, threshold in enumerate(thresholds):
        expected = counted(heat, truth, threshold)
        assert (of_iou[place], of_dice[place]) == pytest.approx(expected)
        seen = ~np.isnan(heat)
        with np.errstate(invalid="ignore"):
            masks = (heat >= threshold)[seen], truth[seen]
        assert (iou(*masks), dice(*masks)) == pytest.approx(expected)


@given(maps())
def test_pointing_wins_what_a_random_one_of_the_warmest_wins(case: tuple[np.ndarray, np.ndarray]) -> None:
    heat, truth = case
    pixels = [(value, there) for value, there in zip(heat.ravel(), truth.ravel(), strict=True) if not math.isnan(value)]
    warmest = [there for value, there in pixels if value == max(value for value, _ in pixels)]
    if not any(there for _, there in pixels):
        assert math.isnan(pointing_game(heat, truth))
    else:
        assert pointing_game(heat, truth) == pytest.approx(sum(warmest) / len(warmest))


@given(maps())
def test_contrast_is_the_formula(case: tuple[np.ndarray, np.ndarray]) -> None:
    heat, truth = case
    sides = [[value for value, there in zip(heat.ravel(), truth.ravel(), strict=True)
              if not math.isnan(value) and there == side] for side in (True, False)]
    found = contrast_to_noise(heat, truth)
    if not all(sides):
        assert math.isnan(found)
        return
    means = [math.fsum(side) / len(side) for side in sides]
    noise = sum(math.fsum((v - mean) ** 2 for v in side) / len(side) for side, mean in zip(sides, means, strict=True))
    if all(min(side) == max(side) for side in sides):
        assert found == 0 if sides[0][0] == sides[1][0] else math.isnan(found)
    else:
        assert found == pytest.approx((means[0] - means[1]) / math.sqrt(noise), rel=1e-6, abs=1e-9)


def test_overlap_equals_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    for _ in range(20):
        predicted, truth = random.random((2, 9, 11)) < 0.4
        assert iou(predicted, truth) == pytest.approx(metrics.jaccard_score(truth.ravel(), predicted.ravel()))
        assert dice(predicted, truth) == pytest.approx(metrics.f1_score(truth.ravel(), predicted.ravel()))


def test_empty_masks_are_decided() -> None:
    nothing, something = np.zeros((3, 3), bool), np.eye(3, dtype=bool)
    for measure in (iou, dice):
        assert measure(nothing, nothing) == 1
        assert measure(nothing, something) == measure(something, nothing) == 0
        assert measure(something, something) == 1
    assert math.isnan(pointing_game(np.ones((3, 3)), nothing))
    assert math.isnan(contrast_to_noise(np.ones((3, 3)), nothing))


def test_one_pixel() -> None:
    heat, there = np.array([[0.4]]), np.array([[True]])
    assert [float(curve[0]) for curve in overlap_curve(heat, there, np.array([0.4]))] == [1, 1]
    assert [float(curve[0]) for curve in overlap_curve(heat, there, np.array([0.5]))] == [0, 0]
    assert pointing_game(heat, there) == 1 and math.isnan(contrast_to_noise(heat, there))


def test_a_map_that_says_nothing_wins_by_chance() -> None:
    truth = np.zeros((10, 10), bool)
    truth[:2] = True
    flat = np.full((10, 10), 0.1)  # its mean over a part, summed in floating point, need not be 0.1
    assert pointing_game(flat, truth) == 0.2 and contrast_to_noise(flat, truth) == 0
    assert (stretched(flat) == 0).all()
    assert math.isnan(contrast_to_noise(np.where(truth, 0.7, 0.1), truth))


def test_unseen_pixels_count_nowhere() -> None:
    heat = np.array([[1.0, 0, np.nan], [0, 0, np.nan]])
    truth = np.array([[True, False, True], [False, False, False]])
    assert [curve.tolist() for curve in overlap_curve(heat, truth, np.array([0.5]))] == [[1], [1]]
    assert pointing_game(heat, truth) == 1
    only_there = np.array([[False, False, True], [False, False, True]])
    assert math.isnan(pointing_game(heat, only_there)) and math.isnan(contrast_to_noise(heat, only_there))
    assert np.isnan(stretched(heat)).sum() == 2


def test_the_sign_says_whether_warm_means_finding() -> None:
    random = np.random.default_rng(0)
    heat, truth = random.random((20, 20)), np.zeros((20, 20), bool)
    truth[5:9, 5:9] = True
    warm, cold = heat + truth, heat - truth
    assert contrast_to_noise(warm, truth) > 1 and contrast_to_noise(cold, truth) < -1


def test_stretched_maps_reach_from_0_to_1() -> None:
    found = stretched(np.array([[-3.0, np.nan], [5, 1]]))
    np.testing.assert_allclose(found, [[0, np.nan], [1, 0.5]])


def test_the_threshold_with_the_best_mean_is_taken() -> None:
    thresholds = np.array([0.1, 0.2, 0.3])
    assert best_threshold(np.array([[0, 1, 0.5], [0, 0, 1]]), thresholds) == 0.3
    assert best_threshold(np.ones((2, 3)), thresholds) == 0.1


def test_masks_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        iou(np.ones((2, 3), bool), np.ones((1, 3), bool))
    with pytest.raises(ValueError, match="shapes"):
        overlap_curve(np.ones((2, 3)), np.ones((3, 2), bool), np.array(SWEEP))
