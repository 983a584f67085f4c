"""Overlays of maps on radiographs: every glyph shows, and what is marked is what should be."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddle_cxr.plots.grounding import Grounded, plot_grounding
from paddle_cxr.plots.style import GREEN, SKY


def example(number: int = 0, height: int = 90, width: int = 90) -> Grounded:
    random = np.random.default_rng(number)
    rows, columns = np.mgrid[:height, :width]
    row, column = random.integers(20, 60, 2)
    heat = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 400)
    truth = np.zeros((height, width), bool)
    truth[row - 10:row + 15, column - 12:column + 8] = True
    return Grounded(random.integers(60, 120, (height, width), dtype=np.uint8), heat, truth, 0.5,
                    "胸腔积液（Pleural effusion）", "There is a pleural effusion. " * 8,
                    {"IoU": 0.4213, "Dice": 0.61, "指点": 1.0, "CNR": -0.32})


def shows(path: Path, colour: str) -> int:
    """Pixels of about a colour."""
    wanted = np.array([int(colour[place:place + 2], 16) for place in (1, 3, 5)])
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((np.abs(pixels - wanted).max(axis=2) < 30).sum())


@pytest.mark.parametrize("count", [1, 5, 13])
def test_every_number_of_examples(tmp_path: Path, count: int) -> None:
    examples = [example(number, 90 + 30 * (number % 3), 90) for number in range(count)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = plot_grounding(examples, tmp_path / "g.png", demo=True)
    assert shows(path, GREEN) > 50 * min(count, 12)


def test_maps_that_are_flat_unseen_or_without_threshold(tmp_path: Path) -> None:
    one = example()
    half = np.where(np.arange(90) < 45, np.nan, one.heat)
    whole = replace(one, truth=np.ones((90, 90), bool))
    examples = [replace(one, heat=np.full((90, 90), 0.1)), replace(one, heat=half), replace(one, threshold=None),
                replace(one, threshold=5.0), whole]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_grounding(examples, tmp_path / "g.png")
    without = plot_grounding([replace(one, threshold=None)], tmp_path / "w.png")
    assert shows(without, SKY) < shows(plot_grounding([one], tmp_path / "o.png"), SKY)


def test_no_example_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="example"):
        plot_grounding([], tmp_path / "g.png")
