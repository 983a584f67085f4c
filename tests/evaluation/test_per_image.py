"""The table of every image: what is written is read again to the last digit, and writing it takes no memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from paddle_cxr.data.records import Record
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.per_image import read_per_image, write_per_image
from paddle_cxr.evaluation.report import write_table


def test_what_is_written_is_read_again(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.where(rng.random((30, 2)) < 0.3, np.nan, rng.integers(0, 2, (30, 2)))
    scores = rng.normal(size=(30, 2)) * 1e-9
    records = [Record(f"病房/{i}, \"a\".png", 0, f"p{i // 2}" if i % 3 else None) for i in range(30)]
    write_per_image(tmp_path / "x.csv", records, ["A", "B"], labels, scores)
    files, answers, values = read_per_image(tmp_path / "x.csv", ["A", "B"])
    assert files == [record.path for record in records]
    np.testing.assert_array_equal(answers, labels)
    np.testing.assert_array_equal(values, scores)


@pytest.mark.parametrize("text", ["", "file,label:A\na.png,1\n", "file,label:A,score:A\na.png,1,high\n",
                                  "file,label:A,score:A\na.png\n"])
def test_a_damaged_table_is_one_clear_line(tmp_path, text):
    (tmp_path / "x.csv").write_text(text)
    if text == "":
        assert read_per_image(tmp_path / "x.csv", ["A"])[0] == []
        return
    with pytest.raises(UserError, match=r"x\.csv 读不了.*请删去") as error:
        read_per_image(tmp_path / "x.csv", ["A"])
    assert "\n" not in str(error.value)


def test_a_large_table_is_written_row_by_row(tmp_path):
    tracemalloc.start()
    try:
        write_table(tmp_path / "x.csv", ["number", "text"], ([i, "x" * 1000] for i in range(20_000)))
        assert tracemalloc.get_traced_memory()[1] < 5_000_000  # the file has 20 MB
    finally:
        tracemalloc.stop()
    assert (tmp_path / "x.csv").stat().st_size > 20_000_000


def test_a_table_whose_rows_fail_leaves_the_old_one(tmp_path):
    write_table(tmp_path / "x.csv", ["a"], [["old"]])

    def rows():
        yield ["new"]
        raise UserError("no more")

    with pytest.raises(UserError, match="no more"):
        write_table(tmp_path / "x.csv", ["a"], rows())
    assert (tmp_path / "x.csv").read_text() == "a\nold\n" and [one.name for one in tmp_path.iterdir()] == ["x.csv"]
