"""Embeddings for VisualDL's projector: written, and read back as VisualDL's own server does."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.embedding import HEADER, Embedded, write_embedding

visualdl = pytest.importorskip("visualdl")

TAG = "图文"


def embedded(count: int, kind: str, width: int = 8, seed: int = 0) -> Embedded:
    vectors = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return Embedded(vectors, [f"类{i % 3}" for i in range(count)], [f"{kind} {i}" for i in range(count)])


def written(folder: Path, *arguments: object, **options: object) -> int:
    with visualdl.LogWriter(logdir=str(folder)) as writer:
        return write_embedding(writer, TAG, *arguments, **options)


def read(folder: Path) -> tuple[np.ndarray, list[list[str]]]:
    """The matrix and the rows of the table in VisualDL's log."""
    from visualdl import LogReader

    (file,) = folder.glob("vdlrecords.*")
    (record,) = LogReader(file_path=str(file)).get_data("embeddings", TAG)
    points = record.embeddings.embeddings
    assert list(record.embeddings.label_meta) == HEADER
    return np.array([point.vectors for point in points], np.float32), [list(point.label) for point in points]


def served(folder: Path) -> tuple[np.ndarray, list[list[str]]]:
    """The matrix and the table, header first, that VisualDL's server hands to the browser."""
    from visualdl.reader.reader import LogReader
    from visualdl.server import lib

    reader = LogReader(str(folder))
    (entry,) = lib.get_embeddings_list(reader)
    matrix = np.frombuffer(lib.get_embedding_tensors(reader, entry["name"]), np.float32).reshape(entry["shape"])
    return matrix, list(csv.reader(io.StringIO(lib.get_embedding_labels(reader, entry["name"])), delimiter="\t"))


def test_visualdl_serves_what_was_written(tmp_path: Path) -> None:
    images, texts = embedded(5, "image"), embedded(3, "text", seed=1)
    texts.names[1] = "右肺\t见结节。\n" + "很长" * 100
    assert written(tmp_path, images, texts) == 8
    matrix, (header, *rows) = served(tmp_path)
    again, the_same = read(tmp_path)
    assert (again == matrix).all() and the_same == rows
    np.testing.assert_array_equal(matrix, np.concatenate([images.vectors, texts.vectors]))
    assert header == HEADER and len(rows) == 8
    assert rows[0] == ["图像 image", "类0", "image 0"] and rows[5] == ["文本 text", "类0", "text 0"]
    assert rows[6][2].startswith("右肺 见结节。 很长") and len(rows[6][2]) == 80


@pytest.mark.parametrize(("images", "texts", "kept"), [(30, 30, (10, 10)), (30, 4, (16, 4)), (4, 30, (4, 16)),
                                                       (12, 8, (12, 8)), (0, 5, (0, 5)), (1, 0, (1, 0))])
def test_the_number_of_points_is_bounded(tmp_path: Path, images: int, texts: int, kept: tuple[int, int]) -> None:
    both = embedded(images, "image"), embedded(texts, "text", seed=1)
    assert written(tmp_path / "a", *both, limit=20) == sum(kept)
    matrix, rows = read(tmp_path / "a")
    kinds = [row[0] for row in rows]
    assert (kinds.count("图像 image"), kinds.count("文本 text")) == kept
    for vector, row in zip(matrix, rows, strict=True):  # every point still carries its own name and label
        source, number = both[row[0] == "文本 text"], int(row[2].split()[1])
        np.testing.assert_array_equal(vector, source.vectors[number])
        assert row[1] == source.labels[number]
    written(tmp_path / "b", *both, limit=20)
    np.testing.assert_array_equal(read(tmp_path / "b")[0], matrix)  # the same seed draws the same


def test_two_thousand_points_by_default(tmp_path: Path) -> None:
    assert written(tmp_path, embedded(1500, "image", 2), embedded(1500, "text", 2)) == 2000
    assert read(tmp_path)[0].shape == (2000, 2)


def test_bad_input(tmp_path: Path) -> None:
    good, bad = embedded(3, "image"), embedded(3, "text")
    bad.vectors[1, 1] = np.nan
    with pytest.raises(UserError, match="NaN 或 Inf"):
        written(tmp_path, good, bad)
    for other in (embedded(3, "text", 9), Embedded(good.vectors, ["a"], good.names),
                  Embedded(good.vectors, good.labels, ["a"])):
        with pytest.raises(ValueError, match="belong together"):
            written(tmp_path, good, other)
    assert written(tmp_path, embedded(0, "image"), embedded(0, "text")) == 0
