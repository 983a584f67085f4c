"""Relative run-length encoding, against the challenge's own way of writing and reading it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published import refused

from paddle_cxr.data.sources.rle import draw_runs, read_runs


def written(mask: np.ndarray) -> str:
    """Pixel by pixel, columns first, as the challenge's sample code counts."""
    runs, gap, length = [], 0, 0
    for value in mask.T.ravel():
        if value:
            length += 1
        else:
            if length:
                runs += [gap, length]
                gap = length = 0
            gap += 1
    return " ".join(map(str, runs + ([gap, length] if length else [])))


def test_by_hand():
    # 3 rows, 4 columns; columns are read downwards, so pixel 4 (from 0) is row 1 of column 1.
    mask = draw_runs(read_runs("4 2 3 1", 12, "here"), (3, 4))
    assert mask.astype(int).tolist() == [[0, 0, 0, 1], [0, 1, 0, 0], [0, 1, 0, 0]]


def test_runs_that_touch_and_the_first_and_last_pixel():
    mask = draw_runs(read_runs("0 1 0 2 8 1", 12, "here"), (3, 4))
    assert mask.T.ravel().nonzero()[0].tolist() == [0, 1, 2, 11]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_what_is_written_is_read(height, width, data):
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width)),
                    bool).reshape(height, width)
    if mask.any():
        read = draw_runs(read_runs(written(mask), mask.size, "here"), mask.shape)
        assert read.dtype == bool and np.array_equal(read, mask)


@pytest.mark.parametrize(("text", "match"), [
    ("1 2 3", "a.csv:7：.*成对.*3 个数"), ("", "a.csv:7：.*整数"), ("1 -2", "整数"), ("1.5 2", "整数"), ("x", "整数"),
    ("3 0", "长度为 0"), ("10 3", "第 13 个像素.*只有 12 个.*相对编码"), ("5 5 5 5", "20"), ("9" * 30 + " 1", "整数"),
])
def test_wrong_runs(text, match):
    refused(match, read_runs, text, 12, "a.csv:7")


@given(st.text(max_size=40))
def test_any_text_is_runs_or_one_clear_error(text):
    from paddle_cxr.errors import UserError

    try:
        runs = read_runs(text, 100, "a.csv:7")
    except UserError as error:
        assert "a.csv:7" in str(error)
    else:
        assert draw_runs(runs, (10, 10)).sum() == runs[:, 1].sum()
