"""Your own images with findings: tables, JSON Lines, boxes, masks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from published import picture, refused

from paddle_cxr.data.findings import FindingBox, label_matrix
from paddle_cxr.data.sources import FindingsFile
from paddle_cxr.data.sources.findings_layout import AbsentFromDisk
from paddle_cxr.data.sources.mask_file import read_any_mask
from paddle_cxr.errors import UserError
from paddle_cxr.registry import build


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "mine"
    for name in "abcd":
        picture(folder / "images" / f"{name}.png", np.full((8, 12), ord(name), np.uint8))
    (folder / "index.csv").write_text("\n".join([
        "file,label,patient_id,fold,split,view,found,age", "images/a.png,COVID,p1,0,train,AP,,50",
        "images/b.png,NORMAL,p2,1,val,PA,No Finding,", "images/c.png,PNEUMONIA,,0,,,Effusion|Pneumonia,",
        "images/d.png,PNEUMONIA,nan,1,test,,Pneumonia,", ""]))
    return folder


def write(root, text: str) -> None:
    (root / "index.csv").write_text(text)


def labels(source) -> dict[str, list[int | None]]:
    return {info.name: [record.labels[info.name] for record in source.records] for info in source.findings}


def test_a_column_that_lists_findings(root):
    source = build("findings", {"name": "FindingsFile", "root": str(root), "label_column": "found"}, "x")
    assert labels(source) == {"Effusion": [None, 0, 1, 0], "Pneumonia": [None, 0, 1, 1]}
    assert [info.zh for info in source.findings] == ["胸腔积液", "肺炎"]
    first, second, third, _ = source.records
    assert (first.patient_id, first.fold, first.split, first.view) == ("p1", 0, "train", "AP")
    assert third.patient_id is None and third.split is None and first.extra["age"] == "50"
    assert second.extra == {"label": "NORMAL", "found": "No Finding"} and source.read(1)[0, 0] == ord("b")
    assert np.array_equal(label_matrix(source.records, ["Effusion"]), [[np.nan], [0], [1], [0]], equal_nan=True)


def test_two_columns_speak_together(root):
    both = {"label_column": ["label", "found"], "findings": ["Pneumonia", "COVID"]}
    # Without an alias PNEUMONIA is another word than Pneumonia, which nobody judged for the COVID film.
    source = build("findings", {"name": "FindingsFile", "root": str(root), **both}, "x")
    assert labels(source) == {"Pneumonia": [None, 0, 1, 1], "COVID": [1, 0, 0, 0]}
    source = FindingsFile(str(root), label_column=("label", "found"), aliases={"Pneumonia": ["PNEUMONIA"]},
                          names={"COVID": "新冠肺炎"})
    assert labels(source) == {"COVID": [1, 0, 0, 0], "Pneumonia": [0, 0, 1, 1], "Effusion": [None, 0, 1, 0]}
    assert source.findings[0].zh == "新冠肺炎"
    source = FindingsFile(str(root), label_column=("label", "found"), aliases={"Pneumonia": ["PNEUMONIA"]},
                          unjudged={"COVID": ["Pneumonia"]})
    assert labels(source)["Pneumonia"] == [None, 0, 1, 1]


def test_one_column_a_finding(root):
    write(root, "file,Effusion,Mass\nimages/a.png,1,0\nimages/b.png,-1,\nimages/c.png,0.0,1.0\nimages/d.png,nan,-1.0\n")
    source = FindingsFile(str(root), finding_columns=("Effusion", "Mass"))
    assert labels(source) == {"Effusion": [1, None, 0, None], "Mass": [0, None, 1, None]}
    write(root, "file,Effusion\nimages/a.png,2\n")
    refused("index.csv:2.*Effusion.*'2'.*不确定", FindingsFile, str(root), finding_columns=("Effusion",))


def test_other_column_names_separators_and_tsv(root):
    (root / "list.tsv").write_text("name\twho\tsees\nimages/a.png\tp9\tMass; Nodule\nimages/b.png\tp8\tnothing\n")
    source = FindingsFile(str(root), "list.tsv", {"path": "name", "patient_id": "who"}, label_column="sees",
                          separator=";", negative=("nothing",))
    assert labels(source) == {"Mass": [1, 0], "Nodule": [1, 0]} and source.records[0].patient_id == "p9"


def test_json_lines(root):
    rows = [{"image": "images/a.png", "labels": {"effusion": 1, "nodule": None}, "patient_id": "p1", "seed": 3,
             "boxes": [{"finding": "effusion", "x": 1, "y": 2, "width": 3.5, "height": 4}],
             "masks": {"lung": "lungs/a.png"}, "entities": []},
            {"image": "images/b.png", "labels": {"effusion": 0, "nodule": -1}, "view": "PA"}, {"image": "images/c.png"}]
    (root / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    picture(root / "lungs" / "a.png", np.full((8, 12), 255, np.uint8))
    source = FindingsFile(str(root), "pairs.jsonl", columns={"path": "image"})
    assert labels(source) == {"effusion": [1, 0, None], "nodule": [None, None, None]}
    assert source.records[0].boxes == (FindingBox("effusion", 1, 2, 3.5, 4),) and source.records[1].view == "PA"
    assert source.annotated(0, "lung") and not source.annotated(1, "lung") and source.regions == ("lung",)
    assert source.records[0].extra == {"seed": "3"}
    for row, match in (({"image": "images/a.png", "labels": []}, "labels 应是"), ({"labels": {}}, "没有 'image'"),
                       ({"image": "images/a.png", "boxes": [5]}, "finding, x"),
                       ({"image": "images/a.png", "labels": {"x": True}}, "'?True"), ({"image": 7}, "找不到|不在磁盘"),
                       ({"image": "images/a.png", "boxes": [{"finding": "x", "x": 1}]}, "四个数"),
                       ({"image": "images/a.png", "boxes": [{"finding": "x", "x": 10 ** 400, "y": 1, "width": 1,
                                                             "height": 1}]}, "四个数")):
        (root / "pairs.jsonl").write_text(json.dumps({**row, "other": 1}) + "\n" +
                                          json.dumps({"image": "images/b.png", "labels": {"x": 1}}))
        refused(match, FindingsFile, str(root), "pairs.jsonl", columns={"path": "image"})
    refused("只用于表格", FindingsFile, str(root), "pairs.jsonl", mask_column={"m": "lung"})


def test_boxes(root):
    (root / "boxes.csv").write_text("\n".join([
        "file,finding,x,y,width,height", "images/a.png,Pneumonia,1,2,3,4", "images/c.png,Infiltrate,0.5,0.5,2,1",
        "images/c.png,Effusion,9,5,3,3", "images/z.png,Effusion,1,1,1,1", ""]))
    source = FindingsFile(str(root), label_column="found", boxes="boxes.csv", aliases={"Infiltration": ["Infiltrate"]})
    assert labels(source)["Pneumonia"] == [1, 0, 1, 1]  # a box says what the column did not
    assert labels(source)["Infiltration"] == [None, None, 1, None]
    assert [source.annotated(index, "Pneumonia") for index in (0, 1, 3)] == [True, True, False]
    assert np.argwhere(source.mask(2, "Infiltration", (8, 12))).tolist() == [[0, 0], [0, 1]]  # centres at 0.5, 1.5
    assert source.mask(0, "Pneumonia", (8, 12))[2:6, 1:4].all() and source.mask(0, "Pneumonia", (8, 12)).sum() == 12
    assert any("1 个框" in notice and "images/z.png" in notice for notice in source.notices)
    refused("图像缩小过", source.mask, 2, "Effusion", (4, 6))
    only = FindingsFile(str(root), label_column="found", boxes="boxes.csv", findings=("Effusion",))
    assert [len(record.boxes) for record in only.records] == [0, 0, 1, 0]
    for line, match in (("images/b.png,Effusion,1,1,1,1", "index.csv:3.*Effusion 的标签是 0"),
                        ("images/a.png,Mass,1,1,0,1", "more.csv:6.*四个数"),
                        ("images/a.png,Mass,1,1,inf,1", "四个数"), ("../x.png,Mass,1,1,1,1", "之外")):
        with open(root / "boxes.csv") as file:
            text = file.read()
        (root / "more.csv").write_text(text + line + "\n")
        refused(match, FindingsFile, str(root), label_column="found", boxes="more.csv")
    (root / "boxes.csv").write_text("file,finding,x,y,width,height\nother/a.png,Mass,1,1,1,1\n")
    refused("没有一个框", FindingsFile, str(root), label_column="found", boxes="boxes.csv")
    refused("FindingsFile.boxes", FindingsFile, str(root), label_column="found", boxes="none.csv")


def test_masks(root):
    mask = np.zeros((8, 12), np.uint8)
    mask[2:5, 3:7] = 255
    picture(root / "masks" / "a.png", mask)
    picture(root / "masks" / "b.png", np.zeros((9, 12), np.uint8))
    write(root, "file,found,outline\nimages/a.png,Mass,masks/a.png\nimages/b.png,,masks/b.png\nimages/c.png,,\n")
    source = FindingsFile(str(root), label_column="found", mask_column={"outline": "lung"})
    assert [source.annotated(index, "lung") for index in range(3)] == [True, True, False]
    assert np.array_equal(source.mask(0, "lung", (8, 12)), mask > 0) and labels(source) == {"Mass": [1, None, None]}
    assert "b.png" in refused("12×9.*12×8", source.mask, 1, "lung", (8, 12))
    only = FindingsFile(str(root), mask_column={"outline": "lung"})  # nothing but masks: for segmentation
    assert only.findings == () and only.annotated(0, "lung")
    (root / "masks" / "b.png").unlink()
    refused("找不到掩膜.*b.png", source.mask, 1, "lung", (8, 12))
    write(root, "file,outline\nimages/a.png,/etc/passwd\n")
    refused("index.csv:2.*之外", FindingsFile, str(root), mask_column={"outline": "lung"})


@pytest.mark.parametrize(("values", "mode", "expected"), [
    ([0, 1], "L", [False, True]), ([0, 255], "L", [False, True]), ([127, 128], "L", [False, True]),
    ([0, 0], "L", [False, False]), ([1, 0], "P", [True, False]), ([0, 65535], "I;16", [False, True])])
def test_mask_files(tmp_path, values, mode, expected):
    image = Image.fromarray(np.array([values], np.uint16 if mode == "I;16" else np.uint8))
    if mode == "P":
        image = Image.frombytes("P", (2, 1), bytes(values))
        image.putpalette([0, 0, 0, 128, 0, 0] + [0] * 762)
    image.save(tmp_path / "m.png")
    assert read_any_mask(tmp_path / "m.png").tolist() == [expected]


def test_masks_that_are_none(tmp_path):
    picture(tmp_path / "m.png", np.array([[0, 1, 2]], np.uint8))
    refused("最大值是 2.*0 和 1，或 0 和 255", read_any_mask, tmp_path / "m.png")
    (tmp_path / "m.png").write_bytes((tmp_path / "m.png").read_bytes()[:40])
    refused("无法读取", read_any_mask, tmp_path / "m.png")


def test_absent_images_are_named_counted_or_skipped(root):
    (root / "images" / "b.png").unlink()
    (root / "images" / "c.png").unlink()
    with pytest.raises(AbsentFromDisk, match="4 张图有 2 张不.*images/b.png.*FindingsFile.absent=skip") as caught:
        FindingsFile(str(root), label_column="found")
    assert caught.value.paths == ["images/b.png", "images/c.png"]
    source = FindingsFile(str(root), label_column="found", absent="skip")
    assert [record.path for record in source.records] == ["images/a.png", "images/d.png"]
    assert any("2 张不在磁盘上" in notice for notice in source.notices)


@pytest.mark.parametrize(("options", "match"), [
    ({}, "没有一列说明征象"), ({"label_column": "fond"}, "没有列 'fond'，是不是 found"),
    ({"label_column": "found", "findings": ("Efusion",)}, "Efusion.*是不是 Effusion"),
    ({"label_column": "found", "names": {"X": "x"}}, "names.*X"),
    ({"label_column": "found", "unjudged": {"X": []}}, "unjudged.*X"),
    # A typo here would keep labels 0 that nobody gave.
    ({"label_column": "found", "unjudged": {"Effusion": ["Pnuemonia"]}}, "unjudged.*'Pnuemonia'，是不是 Pneumonia"),
    ({"file": "x" * 300}, "找不到列表文件"), ({"label_column": "found", "boxes": "x" * 300}, "找不到列表文件"),
    ({"label_column": "found", "columns": {"pth": "file"}}, "pth.*是不是 path"),
    ({"label_column": "found", "columns": {"path": "fil"}}, "没有列 'fil'"), ({"file": "no.csv"}, "找不到列表"),
    ({"finding_columns": ("age", "agee")}, "agee"), ({"mask_column": {"m": "lung"}}, "没有列 'm'"),
    ({"finding_columns": ("age",), "mask_column": {"age": "lung"}}, "列 age .*写了两次"),
    ({"finding_columns": ("age", "age")}, "列 age .*写了两次"),
    ({"finding_columns": ("age",)}, "index.csv:2.*'50'"), ({"label_column": "found", "separator": ""}, "separator"),
])
def test_wrong_arguments(root, options, match):
    refused(match, FindingsFile, str(root), **options)


@pytest.mark.parametrize(("line", "match"), [
    ("images/a.png,COVID,p1,0,train,AP,,50", "列了两次"), ("../x.png,COVID,p1,0,train,AP,,50", "index.csv:6.*之外"),
    ("images/e.png,COVID,p1,x,train,AP,,50", "fold"), ("images/e.png,COVID,p1,0,tran,AP,,50", "split"),
    (",COVID,p1,0,train,AP,,50", "路径为空"), ("images/e.png,COVID", "2 列"),
])
def test_wrong_rows(root, line, match):
    with open(root / "index.csv", "a") as file:
        file.write(f"{line}\n")
    refused(match, FindingsFile, str(root), label_column="found")


@pytest.mark.parametrize("name", ["index.csv", "index.tsv"])
def test_a_first_line_that_is_no_header(root, name):
    """What some other file begins with: a field longer than the csv module reads."""
    (root / name).write_text("x" * 200_000)
    refused(f"{name}:1：不是有效的 CSV", FindingsFile, str(root), name, label_column="found")


def test_empty_lists_and_the_word_nan(root):
    write(root, "file,found\nimages/a.png,nan\nimages/b.png,Mass\n")
    assert labels(FindingsFile(str(root), label_column="found")) == {"Mass": [None, 1]}
    write(root, "file,found\n")
    refused("一张图像也没有", FindingsFile, str(root), label_column="found")


def test_the_fingerprint_sees_labels_boxes_and_masks(root):
    (root / "boxes.csv").write_text("file,finding,x,y,width,height\nimages/c.png,Effusion,1,1,1,1\n")
    first = FindingsFile(str(root), label_column="found", boxes="boxes.csv").fingerprint()
    assert first == FindingsFile(str(root), label_column="found", boxes="boxes.csv").fingerprint()
    assert first != FindingsFile(str(root), label_column="found").fingerprint()
    assert first != FindingsFile(str(root), label_column=("found", "label"), boxes="boxes.csv").fingerprint()


REAL = {"label_column": ("label", "nih_labels"), "aliases": {"Pneumonia": ["PNEUMONIA"]},
        "unjudged": {"COVID": ["Pneumonia"]}, "boxes": "boxes.csv", "mask_column": {"lung_mask": "lung"}}


@pytest.mark.skipif("PADDLE_CXR_REAL_DATA" not in os.environ, reason="PADDLE_CXR_REAL_DATA is not set")
def test_real_folder():
    source = FindingsFile(str(Path(os.environ["PADDLE_CXR_REAL_DATA"]) / "cxr"), **REAL)
    known = labels(source)
    assert len(source.records) == 880 and known["COVID"].count(1) == 98 and known["COVID"].count(0) == 782
    assert known["Pneumonia"].count(1) == 389 and known["Pneumonia"].count(None) == 98
    assert sum(len(record.boxes) for record in source.records) == 39 and source.notices == []
    masked = [index for index in range(880) if source.annotated(index, "lung")]
    assert len(masked) == 48 and all(record.fold in range(5) for record in source.records)
    for index in masked[:5]:
        mask = source.mask(index, "lung", source.read(index).shape[:2])
        assert 0.1 < mask.mean() < 0.7


# Whatever stands in the files


WORDS = st.sampled_from(["images/a.png", "x"])
JSON = st.recursive(st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | WORDS,
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["file", "labels", "boxes", "masks", "finding", "x", "y", "width", "height",
                                         "patient_id", "fold", "split", "view"]), inner, max_size=5), max_leaves=12)
CELLS = st.lists(st.sampled_from(["images/a.png", "Mass", "1", "-1", "nan", "", "../x", '"', "|", "1e400", "train"]),
                 min_size=5, max_size=6).map(",".join)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(JSON, max_size=3))
def test_any_json_is_read_or_one_clear_error(root, values):
    (root / "any.jsonl").write_text("\n".join(map(json.dumps, values)))
    one_line_or_nothing(FindingsFile, str(root), "any.jsonl", absent="skip")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CELLS, max_size=4), st.lists(CELLS, max_size=3))
def test_any_table_is_read_or_one_clear_error(root, lines, boxes):
    (root / "any.csv").write_text("\n".join(["file,found,Mass,split,fold,outline", *lines]))
    (root / "any_boxes.csv").write_text("\n".join(["file,finding,x,y,width,height", *boxes]))
    one_line_or_nothing(FindingsFile, str(root), "any.csv", label_column="found", finding_columns=("Mass",),
                        boxes="any_boxes.csv", mask_column={"outline": "lung"}, absent="skip")


def one_line_or_nothing(make, *arguments, **options) -> None:
    try:
        make(*arguments, **options)
    except UserError as error:
        assert "\n" not in str(error)
