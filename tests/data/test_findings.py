"""Records with findings as numbers, and a data set divided once for all its subsets."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from published import picture, refused

from paddle_cxr.data.findings import FindingsRecord, label_matrix, open_divided
from paddle_cxr.data.pairs.record import PairRecord
from paddle_cxr.schema import CacheSection, PreprocessSection


def test_labels_of_records():
    rows = [{"effusion": 1, "nodule": 0}, {"nodule": None, "covid": 1, "other": 1}, {}]
    expected = [[1, 0, np.nan], [np.nan, np.nan, 1], [np.nan] * 3]
    for kind in (FindingsRecord, PairRecord):
        records = [kind("a.png", 0, labels=labels) for labels in rows]
        np.testing.assert_array_equal(label_matrix(records, ["effusion", "nodule", "covid"]), expected)
    assert label_matrix([], ["effusion"]).shape == (0, 1)


@pytest.fixture
def loaded(tmp_path):
    """A recipe's sections: ten images of ten patients, and one that the list names and the disk lacks."""
    rows = ["file,patient_id,split,found"]
    for number in range(10):
        picture(tmp_path / "mine" / f"{number}.png", np.full((8, 8), number, np.uint8))
        subset, found = "val" if number < 3 else "test", "Effusion" if number % 2 else "Normal"
        rows.append(f"{number}.png,p{number},{subset},{found}")
    (tmp_path / "mine" / "index.csv").write_text("\n".join([*rows, "gone.png,p0,test,Normal"]) + "\n")
    section = SimpleNamespace(
        Source={"name": "FindingsFile", "root": str(tmp_path / "mine"), "label_column": "found", "absent": "skip"},
        Split={"name": "Published"}, preprocess=PreprocessSection(), on_error="error", cache=CacheSection(mode="none"),
        Eval=SimpleNamespace(subset="test"))
    return SimpleNamespace(recipe=SimpleNamespace(Global=SimpleNamespace(image_shape=(1, 32, 32)), DataLoader=section))


def test_several_subsets_are_read_of_one_division(loaded):
    """The notices and the proof that no patient is on both sides are said once, whatever is decoded then."""
    said: list[str] = []
    divided = open_divided(loaded, said.append)
    test, val, every = (divided.decode(subset, said.append) for subset in ("test", "val", "all"))
    assert [record.path for record in val.source.records] == ["0.png", "1.png", "2.png"]
    assert (len(test.images), len(every.images)) == (7, 10) and test.images[0][0, 0] == 3
    assert set(test.subsets) == {"test"} and test.source.fingerprint() != val.source.fingerprint()
    assert [line.partition("：")[0] for line in said if "重叠" in line] == ["患者重叠（patient overlap）"]
    assert sum("不在磁盘上" in line for line in said) == 1
    assert "现有子集：test、val" in refused("子集 'train' 里没有图像", divided.decode, "train", said.append)


def test_a_division_without_validation_gives_nothing_in_its_place(loaded):
    """BlogSplit hands its test images to whoever asks for val while training; a threshold may not come from them."""
    loaded.recipe.DataLoader.Split = {"name": "BlogSplit"}
    refused("子集 'val' 里没有图像", open_divided(loaded, lambda _: None).decode, "val", lambda _: None)
