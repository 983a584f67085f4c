"""Distances between outlines: against SciPy's distance transform, all pairs, and figures worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.spatial.distance import cdist

from paddle_cxr.evaluation import surface
from paddle_cxr.evaluation.surface import hausdorff, outline

CROSS = ndimage.generate_binary_structure(2, 1)
masks = hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def scipys(truth, predicted, percentile, spacing):
    """The same definition by another road: erosion, and the distance transform of what is not outline."""
    if not (truth.any() and predicted.any()):
        return np.nan
    lines = [mask & ~ndimage.binary_erosion(mask, CROSS) for mask in (truth, predicted)]
    far = [ndimage.distance_transform_edt(~line, sampling=spacing) for line in lines]
    return max(np.percentile(far[1][lines[0]], percentile), np.percentile(far[0][lines[1]], percentile))


@given(mask=masks)
def test_outline_is_what_erosion_takes_away(mask):
    assert np.array_equal(outline(mask), mask & ~ndimage.binary_erosion(mask, CROSS))


@given(data=st.data(), truth=masks, percentile=st.sampled_from([0.0, 50.0, 95.0, 100.0]),
       spacing=st.sampled_from([(1.0, 1.0), (0.2, 0.35)]))
def test_distance_equals_scipys(data, truth, percentile, spacing):
    predicted = data.draw(hnp.arrays(bool, truth.shape))
    found, wanted = hausdorff(truth, predicted, percentile, spacing), scipys(truth, predicted, percentile, spacing)
    assert found == pytest.approx(wanted, abs=1e-9, nan_ok=True)
    assert found == pytest.approx(hausdorff(predicted, truth, percentile, spacing), abs=1e-12, nan_ok=True)


def test_distance_equals_a_comparison_of_all_pairs(monkeypatch):
    rng = np.random.default_rng(0)
    truth, predicted = (ndimage.gaussian_filter(rng.standard_normal((120, 90)), 6) > 0.03 for _ in range(2))
    points = [np.argwhere(outline(mask)) for mask in (truth, predicted)]
    pairs = cdist(*points)
    wanted = max(np.percentile(pairs.min(axis=1), 95), np.percentile(pairs.min(axis=0), 95))
    assert hausdorff(truth, predicted) == pytest.approx(wanted, abs=1e-9)
    monkeypatch.setattr(surface, "_AT_ONCE", 500)  # a few points at a time
    assert hausdorff(truth, predicted) == pytest.approx(wanted, abs=1e-9)


def test_figures_worked_out_by_hand():
    one, other = np.zeros((10, 30), bool), np.zeros((10, 30), bool)
    one[4, 5], other[7, 9] = True, True
    assert hausdorff(one, other) == 5.0  # 3, 4, 5
    assert hausdorff(one, other, spacing=(2.0, 0.5)) == pytest.approx(np.hypot(6, 2))
    square, moved = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    square[5:25, 5:25] = True
    moved[5:25, 8:28] = True
    assert hausdorff(square, moved) == 3.0 and hausdorff(square, square) == 0.0
    stray = square.copy()
    stray[39, 39] = True  # one pixel in 77: beyond the 95th percentile, not beyond the 100th
    assert hausdorff(square, stray) == 0.0
    assert hausdorff(square, stray, 100) == pytest.approx(np.hypot(15, 15))


def test_empty_masks_have_no_distance():
    empty, full = np.zeros((3, 4), bool), np.ones((3, 4), bool)
    for pair in ((empty, empty), (empty, full), (full, empty)):
        assert np.isnan(hausdorff(*pair))
    assert hausdorff(full, full) == 0.0 and hausdorff(np.ones((1, 1), bool), np.ones((1, 1), bool)) == 0.0
    with pytest.raises(ValueError, match="different sizes"):
        hausdorff(empty, np.zeros((4, 3), bool))


def test_a_large_noisy_mask_takes_neither_long_nor_much_memory():
    rng = np.random.default_rng(0)
    truth = np.zeros((1024, 1024), bool)
    truth[300:700, 300:700] = True
    noise = rng.random((1024, 1024)) < 0.02
    assert 300 < hausdorff(truth, noise) < 500
