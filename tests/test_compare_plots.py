"""Figures of a comparison: every glyph shows, nothing hides the line that says what a demo figure is."""

import warnings

import numpy as np
import pytest
from PIL import Image

from paddle_cxr.plots.compare import _place, plot_against_setting, plot_bars
from paddle_cxr.plots.style import RED

ARMS = ["真实（模体）", "合成，筛选", "混合", "不预训练"]


def draw(kind, path, arms, groups, demo):
    rng = np.random.default_rng(0)
    if kind == "lines":
        lines = {f"方法 {g}": {arm: [(x, float(rng.random()), 0.01) for x in (0.01, 0.1, 1.0)] for arm in arms}
                 for g in range(groups)}
        return plot_against_setting(lines, path, title="微调（fine-tuning）：macro_auc",
                                    across="标签比例（label fraction）", metric="macro_auc", demo=demo)
    bars = [(f"方法 {g}", arm, float(rng.random()), 0.05) for g in range(groups) for arm in arms]
    return plot_bars(bars, path, title="分割（segmentation）：dice", metric="dice", demo=demo)


def red(path):
    """Pixels of the demo line's colour in the strip at the bottom."""
    with Image.open(path) as picture:
        strip = np.asarray(picture.convert("RGB")).astype(int)[-45:]
    return int((np.abs(strip - [int(RED[i:i + 2], 16) for i in (1, 3, 5)]).max(axis=2) < 40).sum())


@pytest.mark.parametrize("kind", ["lines", "bars"])
@pytest.mark.parametrize(("arms", "groups"), [(1, 1), (4, 2), (4, 3)])
def test_the_demo_line_is_seen_whole(tmp_path, kind, arms, groups):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a glyph the font lacks, a layout that does not fit
        with_line = draw(kind, tmp_path / "demo.png", ARMS[:arms], groups, True)
        without = draw(kind, tmp_path / "plain.png", ARMS[:arms], groups, False)
    assert red(with_line) > 400 and red(without) < 100


def test_a_group_of_fewer_bars_stands_in_its_middle():
    assert [_place(arm, ["a", "b", "c"]) for arm in "abc"] == [-1, 0, 1] and _place("x", ["x"]) == 0
