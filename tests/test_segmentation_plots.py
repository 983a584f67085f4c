"""Figures of masks: every glyph shows, outlines are drawn where the masks end, nothing needs a mask to have pixels."""

import warnings

import numpy as np
import pytest
from PIL import Image

from paddle_cxr.errors import UserError
from paddle_cxr.plots.segmentation import Segmented, plot_segmentations
from paddle_cxr.plots.style import GREEN, ORANGE


def example(number=0, shape=(60, 48), truth=True, predicted=True):
    rng = np.random.default_rng(number)
    masks = np.zeros((2, *shape), bool)
    masks[0, 10:40, 5:30], masks[1, 14:44, 8:36] = truth, predicted
    return Segmented(rng.integers(0, 90, shape, dtype=np.uint8), masks[0], masks[1], "胸腔积液（Pleural effusion）",
                     f"images/某医院/病房 {number}/很长的文件名-{number:09d}.png",
                     {"Dice": 0.912345, "HD95": float("nan") if not (truth and predicted) else 12.3456})


def pixels(path, colour):
    """How many pixels of a PNG are near a colour."""
    wanted = [int(colour[i:i + 2], 16) for i in (1, 3, 5)]
    with Image.open(path) as picture:
        return int((np.abs(np.asarray(picture.convert("RGB")).astype(int) - wanted).max(axis=2) < 40).sum())


@pytest.mark.parametrize("count", [1, 3, 12, 20, 60])
def test_figures_of_any_size(tmp_path, count):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a glyph the font lacks, a layout that does not fit
        path = plot_segmentations([example(number, (40 + number, 90 - number)) for number in range(count)],
                                  tmp_path / "figure.png", demo=count == 3)
    assert pixels(path, GREEN) > 50 * min(count, 12) and pixels(path, ORANGE) > 50 * min(count, 12)


def test_empty_masks_and_masks_up_to_the_edge(tmp_path):
    shown = {}
    for truth, predicted in ((True, True), (True, False), (False, True), (False, False)):
        path = plot_segmentations([example(0, truth=truth, predicted=predicted)], tmp_path / f"{truth}{predicted}.png")
        shown[truth, predicted] = pixels(path, GREEN), pixels(path, ORANGE)
    assert shown[True, False][1] == shown[False, False][1] and shown[False, True][0] == shown[False, False][0]
    assert shown[True, True][0] > shown[False, True][0]
    whole = Segmented(np.zeros((30, 30), np.uint8), None, np.ones((30, 30), bool), "肺（lung）", "a.png", {})
    assert pixels(plot_segmentations([whole], tmp_path / "whole.png"), ORANGE) > 200  # closed at the picture's edge


def test_nothing_to_draw_and_nowhere_to_write(tmp_path):
    with pytest.raises(ValueError, match="no example"):
        plot_segmentations([], tmp_path / "x.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="无法写入"):
        plot_segmentations([example()], tmp_path / "file" / "x.png")
