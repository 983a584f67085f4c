"""What the sources of findings share: tables, choosing findings, images that are absent."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_cxr.data.findings import FindingBox, FindingsRecord
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.data.sources.findings_layout import (
    SharedLabels,
    check_boxes_fit,
    choose_findings,
    files_there,
    images_below,
    usable_records,
)
from paddle_cxr.data.sources.tables import find_table, header_of, read_cells, read_rows
from paddle_cxr.errors import UserError

FINDINGS = (ClassInfo("Effusion", "胸腔积液", "Pleural effusion", ("fluid",)), ClassInfo("Mass", "肿块", "Mass"))


def error(match: str, call, *arguments) -> None:
    with pytest.raises(UserError, match=match) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)


def rows(file: Path, *columns: str, optional: tuple[str, ...] = ()) -> list:
    return list(read_rows(file, columns, "Test", optional))


# tables


def test_rows_by_column(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text('\ufeffone, two,three\n1, 2 ,"3\n4"\n\n5,6,7\n', encoding="utf-8")
    assert rows(file, "three", "one") == [(f"{file}:2", ("3\n4", "1")), (f"{file}:5", ("7", "5"))]
    assert rows(file, "two", optional=("gone", "one")) == [(f"{file}:2", ("2", "", "1")), (f"{file}:5", ("6", "", "5"))]
    assert header_of(file) == ["one", "two", "three"]
    with gzip.open(tmp_path / "b.csv.gz", "wb") as packed:
        packed.write(file.read_bytes())
    assert [cells for _, cells in rows(tmp_path / "b.csv.gz", "one", "two")] == [("1", "2"), ("5", "6")]


def test_rows_that_cannot_be_read(tmp_path):
    file = tmp_path / "a.csv"
    error("无法读取.*a.csv.*重新下载", rows, file, "one", "two")
    file.write_text("")
    error("a.csv:?1?：表头没有列 'one'（有：空），不像 Test", rows, file, "one", "two")
    assert header_of(file) == [] and list(read_cells(file)) == []
    file.write_text("one,three\n1,2\n")
    error("表头没有列 'two'", rows, file, "one", "two")
    file.write_text("one,two\n1,2\n1,2,3\n")
    error("a.csv:3：有 3 列，而表头有 2 列", rows, file, "one", "two")
    file.write_text("one,two\n" + '"' + "x" * 200_000)
    error("无法读取", rows, file, "one", "two")
    file.write_bytes(b"one,two\n\xff\xfe,2\n")  # a report in another encoding does not stop the labels
    assert rows(file, "two", "one")[0][1][0] == "2"
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"one,two\n" + b"1,2\n" * 50_000)[:-30])
    error("无法读取.*b.csv.gz", rows, tmp_path / "b.csv.gz", "one", "two")


def test_find_table(tmp_path):
    for name in ("data-2.0.csv", "data-2.1.csv.gz", "other.csv"):
        (tmp_path / name).touch()
    assert find_table(tmp_path, ("best.csv", "data-*.csv"), "Test", "X").name == "data-2.1.csv.gz"
    assert find_table(tmp_path, ("other.csv", "data-*.csv"), "Test", "X").name == "other.csv"
    error("没有 none.csv，不像 Test；请检查 X.root", find_table, tmp_path, ("none.csv",), "Test", "X")


# findings


def test_choose_findings():
    assert choose_findings(FINDINGS, None, "X") == FINDINGS
    for name in ("effusion", "FLUID", "胸腔积液", "Pleural effusion", " Effusion "):
        assert choose_findings(FINDINGS, [name], "X") == FINDINGS[:1]
    assert choose_findings(FINDINGS, ["Mass", "Effusion"], "X") == FINDINGS[::-1]
    error("X.findings：没有征象 'Massa'，是不是 Mass？（有：Effusion、Mass）", choose_findings, FINDINGS, ["Massa"],
          "X")
    error("Effusion 写了两次", choose_findings, FINDINGS, ["Effusion", "fluid"], "X")
    error("一个征象也没有", choose_findings, FINDINGS, [], "X")


@given(st.lists(st.lists(st.sampled_from([0, 1, None]), min_size=2, max_size=2)))
def test_labels_are_shared(films):
    shared = SharedLabels(FINDINGS)
    labels = [shared.of(values) for values in films]
    assert labels == [{"Effusion": one, "Mass": two} for one, two in films]
    assert len({id(one) for one in labels}) == len({tuple(values) for values in films})


def test_a_table_s_name_longer_than_the_system_allows(tmp_path):
    error("里没有 x+ 或 b.csv，不像 Test", find_table, tmp_path, ("x" * 300, "b.csv"), "Test", "X")
    (tmp_path / "b.csv").touch()
    assert find_table(tmp_path, ("x" * 300, "b.csv"), "Test", "X") == tmp_path / "b.csv"


# images


def test_images_below(tmp_path):
    for name in ("a.png", "one/b.JPG", "one/a.png", "two/x/c.dicom", "two/x/y/d.png", "two/notes.txt", ".hidden/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert images_below(tmp_path, 0) == {"a.png": "a.png"}
    assert images_below(tmp_path, 1) == {"a.png": "a.png", "b.JPG": "one/b.JPG"}
    assert images_below(tmp_path, 2) == {"a.png": "a.png", "b.JPG": "one/b.JPG", "c.dicom": "two/x/c.dicom"}
    assert files_there(tmp_path, ["one/b.JPG", "one", "gone.png"], "Test") == [True, False, False]


def test_images_below_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))  # chmod does not stop root

    monkeypatch.setattr("os.scandir", refuse)
    error("无法读取文件夹 .*（Permission denied）", images_below, tmp_path, 1)


def records(number: int) -> list[FindingsRecord]:
    return [FindingsRecord(f"{index}.png", 0) for index in range(number)]


def test_images_that_are_absent():
    notices: list[str] = []
    assert usable_records(records(3), [True] * 3, "error", Path("data"), "X", notices) == records(3) and not notices
    error("data：表中的 9 张图有 5 张不在磁盘上（例如 0.png、1.png、2.png）；请补齐下载，或设 X.absent=skip",
          usable_records, records(9), [False] * 5 + [True] * 4, "error", Path("data"), "X", notices)
    kept = usable_records(records(9), [False] * 5 + [True] * 4, "skip", Path("data"), "X", notices)
    assert kept == records(9)[5:]
    assert notices == ["data：表中的 9 张图有 5 张不在磁盘上（例如 0.png、1.png、2.png），略过"
                       "（全部名单见 tools/prepare_data.py 写的 absent.csv）"]
    error("没有一张可用的图.*2 张不在磁盘上", usable_records, records(2), [False] * 2, "skip", Path("d"), "X", [])
    error("没有一张可用的图（表是空的）", usable_records, [], [], "skip", Path("d"), "X", [])
    error("1.png 在表中列了两次", usable_records, records(2) + records(2)[1:], [True] * 3, "skip", Path("d"), "X", [])


def test_boxes_fit():
    box = FindingBox("Mass", 10, 20, 30.5, 40)
    check_boxes_fit([box], (60, 40), "a.png", "…")  # sticks out by half a pixel
    check_boxes_fit([], (1, 1), "a.png", "…")
    error(r"a.png：图像为 30×60.*（box）到 \(40, 60\).*用原图", check_boxes_fit, [box], (60, 30), "a.png", "用原图")
    error("a.png：图像为 41×50", check_boxes_fit, [box], (50, 41), "a.png", "用原图")
