"""Masks into the model's input and maps back out of it, for every way of resizing and odd sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from paddle_cxr.data.preprocess import Preprocess

WAYS = ("squash", "letterbox", "crop")
SIZES = [(90, 70), (41, 97), (33, 33), (64, 48), (7, 130), (1, 1), (300, 211)]


def sloping(shape: tuple[int, int]) -> np.ndarray:
    """A picture that says where each of its pixels is: bright to the right and darker downwards."""
    rows, columns = (np.arange(n) + 0.5 for n in shape)
    return 60 + 120 * columns[None] / shape[1] + 60 * rows[:, None] / shape[0]


@pytest.mark.parametrize("resize", WAYS)
@pytest.mark.parametrize("shape", SIZES)
def test_there_and_back_is_the_same_picture(resize: str, shape: tuple[int, int]) -> None:
    preprocess, picture = Preprocess((1, 48, 64), resize=resize), sloping(shape)
    back = preprocess.undo_geometry(preprocess.geometry(np.rint(picture).astype(np.uint8)), shape)
    assert back.shape == shape
    seen = ~np.isnan(back)
    assert seen.all() if resize != "crop" else seen.any()
    # Within what a pixel of the input covers (at the edges half of one is not resolved), and rounding to grey levels.
    step = max(120 * max(1 / 64, 1 / shape[1]), 60 * max(1 / 48, 1 / shape[0])) if min(shape) > 1 else 120
    assert np.abs(back - picture)[seen].max() <= step + 2
    if min(shape) > 30:
        assert abs(np.mean((back - picture)[seen])) < 0.6  # shifted by nothing


@given(st.integers(2, 90), st.integers(2, 90), st.sampled_from(WAYS), st.data())
def test_boxes_come_back_where_they_were(height: int, width: int, resize: str, data: st.DataObject) -> None:
    preprocess = Preprocess((1, 96, 96), resize=resize)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    inside = preprocess.mask_geometry(mask)
    assert inside.shape == (96, 96) and inside.dtype == bool
    back = preprocess.undo_geometry(inside.astype(float), mask.shape)
    seen = ~np.isnan(back)
    # The input is finer than the picture along the shorter side at least; along a longer one a pixel may go.
    wrong = np.argwhere(((back > 0.5) != mask) & seen)
    edge = max(1.0, height / 96, width / 96)
    for row, column in wrong:
        to_edge = min(abs(row + 0.5 - line) for line in (top, bottom)), min(abs(column + 0.5 - line)
                                                                            for line in (left, right))
        assert min(to_edge) <= edge


@pytest.mark.parametrize(("shape", "resize"), [((50, 100), "letterbox"), ((100, 37), "letterbox"),
                                               ((200, 37), "letterbox"), ((11, 100), "letterbox")])
def test_nothing_of_the_padding_comes_back(shape: tuple[int, int], resize: str) -> None:
    preprocess = Preprocess((1, 40, 40), resize=resize)
    shown = preprocess.mask_geometry(np.ones(shape, bool))
    assert not shown.all() and np.array_equal(shown, preprocess.geometry(np.full(shape, 9, np.uint8)) == 9)
    values = np.where(shown, 3.25, 1e30)
    assert (preprocess.undo_geometry(values, shape) == 3.25).all()


@pytest.mark.parametrize("shape", [(50, 100), (100, 50), (64, 65), (31, 90)])
def test_what_was_cropped_away_is_unknown(shape: tuple[int, int]) -> None:
    preprocess = Preprocess((1, 40, 40), resize="crop")
    back = preprocess.undo_geometry(np.ones((5, 5)), shape)
    short, cut = min(shape), (max(shape) - min(shape)) / 2
    centres = np.arange(max(shape)) + 0.5
    expected = (centres >= cut) & (centres <= cut + short)
    along = (~np.isnan(back)).any(axis=int(np.argmin(shape)))
    assert np.array_equal(along, expected)
    assert (back[~np.isnan(back)] == 1).all()
    outside = np.isnan(back)  # a lesion that lies there is in no input
    assert not preprocess.mask_geometry(outside).any()


def test_the_picture_itself_comes_back_exactly() -> None:
    values = np.random.default_rng(0).normal(size=(48, 37))
    for resize in WAYS:
        assert np.array_equal(Preprocess((1, 48, 37), resize=resize).undo_geometry(values, (48, 37)), values)


def test_regions_are_stretched_as_pictures_are() -> None:
    """A coarse map over the input, against Pillow's bilinear enlargement (which also lets the edge reach on)."""
    values = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)
    found = Preprocess((1, 96, 96)).undo_geometry(values, (60, 100))
    expected = np.asarray(Image.fromarray(values).resize((100, 60), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_regions_of_a_padded_picture() -> None:
    """Four rows of regions over a picture that is padded above and below: the middle two are the picture."""
    found = Preprocess((1, 40, 40), resize="letterbox").undo_geometry(np.array([[7.0], [1], [2], [7]]), (200, 400))
    expected = np.interp((np.arange(200) + 0.5) / 100 - 0.5, [-1, 0, 1, 2], [7, 1, 2, 7])
    # The outermost half pixel of the input is where its padding begins.
    np.testing.assert_allclose(found[5:-5, 0], expected[5:-5])
    assert np.ptp(found, axis=1).max() == 0


def test_one_value_is_everywhere() -> None:
    assert (Preprocess((1, 32, 32)).undo_geometry(np.array([[0.1]]), (7, 3)) == 0.1).all()


def test_a_mask_is_the_half_of_what_a_pixel_shows() -> None:
    mask = np.zeros((8, 8), bool)
    mask[:, :3] = True  # the second pixel of four shows columns 2 and 3: one half
    assert np.array_equal(Preprocess((1, 4, 4)).mask_geometry(mask), np.tile([True, True, False, False], (4, 1)))
    mask[0] = False
    mask[0, :2] = True  # of four pixels at the top one is left: a quarter, then less
    assert not Preprocess((1, 4, 4)).mask_geometry(mask)[0, 1]


def test_a_mask_enlarged_is_the_nearest_pixel() -> None:
    mask = np.random.default_rng(2).random((5, 9)) < 0.4
    found = Preprocess((1, 15, 27)).mask_geometry(mask)
    assert np.array_equal(found, np.repeat(np.repeat(mask, 3, axis=0), 3, axis=1))
