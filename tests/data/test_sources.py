"""Every layout in miniature, in the exact format its publisher ships."""

from __future__ import annotations

import errno
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddle_cxr.data.records import ClassInfo
from paddle_cxr.data.sources import (
    CovidChestXray,
    CovidRadiography,
    COVIDxCXR2,
    ImageFolder,
    ListFile,
    Phantoms,
)
from paddle_cxr.errors import UserError
from paddle_cxr.registry import build

COVID = ClassInfo("COVID", "新冠肺炎", "COVID-19", ("COVID-19", "positive", "新冠"))
NORMAL = ClassInfo("NORMAL", "正常", "Normal", ("No Finding", "negative"))
VIRAL = ClassInfo("Viral Pneumonia", "病毒性肺炎", "Viral pneumonia", ("viral", "PNEUMONIA", "Pneumonia"))
CLASSES = (NORMAL, VIRAL, COVID)


def image(path: Path, level: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4), level, np.uint8)).save(path)
    return path


def error(match: str, make, *arguments, **options) -> str:
    with pytest.raises(UserError, match=match) as caught:
        make(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def paths(source) -> list[str]:
    return [record.path for record in source.records]


# One folder a class


@pytest.fixture
def folders(tmp_path):
    root = tmp_path / "data"
    for name, count in (("COVID", 3), ("NORMAL", 2), ("viral", 2)):
        for number in range(count, 0, -1):  # created in falling order, so that directory order is not sorted order
            image(root / name / f"P{number % 2}-{number}.png", number)
    return root


def test_image_folder(folders):
    source = build("source", {"name": "ImageFolder", "root": str(folders)}, "DataLoader.Source", classes=CLASSES)
    assert paths(source) == ["NORMAL/P0-2.png", "NORMAL/P1-1.png", "viral/P0-2.png", "viral/P1-1.png",
                             "COVID/P0-2.png", "COVID/P1-1.png", "COVID/P1-3.png"]
    assert source.counts() == {"NORMAL": 2, "Viral Pneumonia": 2, "COVID": 3}
    assert [record.label for record in source.records] == [0, 0, 1, 1, 2, 2, 2]
    assert source.read(6)[0, 0] == 3 and source.locate(6) == str(folders / "COVID/P1-3.png")
    assert {record.patient_id for record in source.records} == {None}


def test_image_folder_patient_pattern(folders):
    source = ImageFolder(str(folders), r"^(P\d)-", classes=CLASSES)
    assert [record.patient_id for record in source.records] == ["P0", "P1", "P0", "P1", "P0", "P1", "P1"]
    error("正则", ImageFolder, str(folders), "(", classes=CLASSES)
    error("括号", ImageFolder, str(folders), "P", classes=CLASSES)
    error("P0-2.png.*患者编号", ImageFolder, str(folders), "(x+)", classes=CLASSES)


def test_image_folder_wrong_layouts(folders, tmp_path):
    image(folders / "masks" / "a.png")
    assert "masks" in error("aliases", ImageFolder, str(folders), classes=CLASSES)
    source = ImageFolder(str(folders), ignore_unknown=True, classes=CLASSES)
    assert len(source.records) == 7 and "masks" in source.notices[0]
    other = ClassInfo("TB", "结核", "Tuberculosis")
    error("TB.*没有图像", ImageFolder, str(folders), ignore_unknown=True, classes=(*CLASSES, other))
    for file in (folders / "viral").iterdir():
        file.unlink()
    error("Viral Pneumonia.*没有图像", ImageFolder, str(folders), ignore_unknown=True, classes=CLASSES)
    error("找不到数据", ImageFolder, str(tmp_path / "absent"), classes=CLASSES)
    error("既不是文件夹", ImageFolder, str(image(tmp_path / "a.png")), classes=CLASSES)
    assert ImageFolder.missing(root=str(tmp_path / "absent")) and not ImageFolder.missing(root=str(folders))
    (tmp_path / "mounted").mkdir()
    assert "空的" in ImageFolder.missing(root=str(tmp_path / "mounted"))


def test_image_folder_counts_what_is_no_image(folders):
    (folders / "COVID" / "Thumbs.db").write_bytes(b"x")
    (folders / "COVID" / ".DS_Store").write_bytes(b"x")
    image(folders / "COVID" / "deeper" / "a.png")
    source = ImageFolder(str(folders), classes=CLASSES)
    assert source.counts()["COVID"] == 3
    assert any("1 个不是图像" in notice for notice in source.notices)
    assert any("deeper" in notice for notice in source.notices)


def zipped(folder: Path, archive: Path, prefix: str) -> Path:
    with zipfile.ZipFile(archive, "w") as out:
        for file in sorted(folder.rglob("*.png")):
            out.write(file, f"{prefix}{file.relative_to(folder)}")
    return archive


def test_image_folder_in_a_zip_is_unpacked_once(folders, tmp_path):
    archive = zipped(folders, tmp_path / "covid.zip", "COVID-19 Radiography Database/")
    first = ImageFolder(str(archive), classes=CLASSES)
    assert paths(first)[0] == "COVID-19 Radiography Database/NORMAL/P0-2.png"
    assert first.root == tmp_path / "covid" and first.read(0).shape == (4, 4)
    before = os.stat(tmp_path / "covid" / paths(first)[0]).st_ino
    second = ImageFolder(str(archive), classes=CLASSES)
    assert paths(second) == paths(first) and os.stat(tmp_path / "covid" / paths(first)[0]).st_ino == before
    assert not [notice for notice in second.notices if notice.startswith("!!")]
    (tmp_path / "covid.zip").unlink()
    image(folders / "COVID" / "more.png")
    zipped(folders, tmp_path / "covid.zip", "")
    third = ImageFolder(str(archive), classes=CLASSES)
    assert len(third.records) == 8 and third.root != first.root and first.read(0).shape == (4, 4)
    assert [notice for notice in third.notices if notice.startswith("!!") and str(first.root) in notice]


def test_a_wrapping_folder_named_like_a_class_is_looked_through(folders, tmp_path):
    archive = zipped(folders, tmp_path / "covid.zip", "covid/")
    source = ImageFolder(str(archive), classes=CLASSES)
    assert source.counts() == {"NORMAL": 2, "Viral Pneumonia": 2, "COVID": 3}
    only = tmp_path / "only"
    image(only / "COVID" / "a.png")
    assert paths(ImageFolder(str(only), classes=(COVID,))) == ["COVID/a.png"]


def test_zip_in_a_read_only_folder_is_unpacked_under_data(folders, tmp_path, monkeypatch):
    archive = zipped(folders, tmp_path / "covid.zip", "")
    monkeypatch.chdir(tmp_path)
    # Permission bits do not stop root, who runs many containers, so the probe itself is what is replaced.
    monkeypatch.setattr("paddle_cxr.data.archive._writable", lambda folder: False)
    source = ImageFolder(str(archive), classes=CLASSES)
    assert source.root == Path("data/covid") and len(source.records) == 7


def archived(folder: Path, prefix: str) -> Path:
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as out:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                out.write(file, f"{prefix}{file.relative_to(folder)}")
    return archive


@pytest.mark.parametrize("prefix", ["", "wrapper/"])
def test_every_layout_may_come_as_an_archive(tmp_path, prefix):
    image(tmp_path / "list" / "images" / "a.png")
    write(tmp_path / "list" / "index.csv", "file,label\nimages/a.png,COVID\n")
    image(tmp_path / "cxr2" / "train" / "a.png")
    write(tmp_path / "cxr2" / "train.txt", "5 a.png positive cohen\n")
    image(tmp_path / "cohen" / "images" / "a.png")
    write(tmp_path / "cohen" / "metadata.csv", HEADER + row("2", "COVID-19", "PA", "a.png"))
    for name in ("COVID", "Normal", "Viral Pneumonia"):
        image(tmp_path / "radiography" / name / "images" / "a.png")
        image(tmp_path / "folder" / name / "a.png")
    for name, source in (("list", ListFile), ("cxr2", COVIDxCXR2), ("cohen", CovidChestXray),
                         ("radiography", CovidRadiography), ("folder", ImageFolder)):
        folder = tmp_path / name
        expected = source(str(folder), classes=CLASSES)
        archive = archived(folder, prefix)
        folder.rename(tmp_path / f"{name}_as_it_was")
        found = source(str(archive), classes=CLASSES)
        assert [record.label for record in found.records] == [record.label for record in expected.records]
        assert all(found.read(index).shape == (4, 4) for index in range(len(found.records)))
        assert any("解压" in notice for notice in found.notices)
        error("既不是文件夹", source, str(write(tmp_path / "notes.txt", "x")), classes=CLASSES)


# Lists


@pytest.fixture
def listed(tmp_path):
    for name in ("a 1", "b", "c"):
        image(tmp_path / "images" / f"{name}.png")
    return tmp_path


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_text(text, encoding=encoding)
    return path


def test_list_with_all_columns(listed):
    write(listed / "index.csv", "file,label,patient_id,fold,split,view,note\n"
          'images/a 1.png,COVID,p1,0,train,PA,"two\nlines, quoted"\n\n'
          "images\\b.png,no finding,p2,1.0,valid,,\nimages/c.png,1,,,,AP,\n")
    one, two, three = ListFile(str(listed), classes=CLASSES).records
    assert (one.path, one.label, one.patient_id, one.fold, one.split) == ("images/a 1.png", 2, "p1", 0, "train")
    assert one.extra == {"view": "PA", "note": "two\nlines, quoted"}
    assert (two.path, two.label, two.fold, two.split, two.extra) == ("images/b.png", 0, 1, "val", {})
    assert (three.label, three.patient_id, three.fold, three.split) == (1, None, None, None)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_list_encodings_and_minimal_columns(listed, encoding):
    write(listed / "index.csv", "file,label,备注\nimages/b.png,新冠,复查\n", encoding)
    (record,) = ListFile(str(listed), classes=CLASSES).records
    assert record.label == 2 and record.extra == {"备注": "复查"}


def test_other_column_names_and_tab(listed):
    write(listed / "l.tsv", "filename\tfinding\tsubject\nimages/b.png\tCOVID\tx\n")
    columns = {"path": "filename", "label": "finding", "patient_id": "subject"}
    (record,) = ListFile(str(listed), "l.tsv", columns, classes=CLASSES).records
    assert (record.label, record.patient_id, record.extra) == (2, "x", {})
    error("filename", ListFile, str(listed), "l.tsv", classes=CLASSES)
    error("是不是 label", ListFile, str(listed), "l.tsv", {"lable": "x"}, classes=CLASSES)
    error("没有列 'group'", ListFile, str(listed), "l.tsv", {**columns, "fold": "group"}, classes=CLASSES)


def test_classic_text_list(listed):
    write(listed / "train.txt", "images/a 1.png 2\nimages/b.png\t0\nimages/c.png COVID\n")
    source = ListFile(str(listed), "train.txt", classes=CLASSES)
    assert [(record.path, record.label) for record in source.records] == [
        ("images/a 1.png", 2), ("images/b.png", 0), ("images/c.png", 2)]
    write(listed / "bad.txt", "images/b.png 0\nlonely\n")
    error("bad.txt:2", ListFile, str(listed), "bad.txt", classes=CLASSES)


def test_list_outside_the_root(listed, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("lists") / "list.csv", "file,label\nimages/b.png,0\n")
    assert len(ListFile(str(listed), str(path), classes=CLASSES).records) == 1


@pytest.mark.parametrize("row, match", [
    ("images/b.png,7", "标签 7 超出范围 0–2"), ("images/b.png,-1", "超出范围"), ("images/b.png,flu", "'flu'"),
    ("images/zz.png,0", "找不到图像 .*zz.png"), ("/etc/passwd,0", "之外"), ("../b.png,0", "之外"),
    ("images/b.png,²", "'²'"), ("images/b.png,--1", "'--1'"), ("images/b.png,inf", "'inf'"),
    ("images/b.png,3.0", "超出范围"), pytest.param(f"images/b.png,{'9' * 5000}", "Global.classes", id="huge"),
    ("C:\\x\\b.png,0", "之外"), ("images/c.png,COVID", "已有另一个标签"), (",0", "路径为空"), ("images/b.png", "1 列"),
])
def test_bad_rows_are_named_by_line(listed, row, match):
    write(listed / "index.csv", f"file,label\nimages/c.png,NORMAL\n{row}\n")
    assert "index.csv:3" in error(match, ListFile, str(listed), classes=CLASSES)


@pytest.mark.parametrize("column, cell", [("fold", "x"), ("fold", "-1"), ("fold", "1.5"), ("fold", "nan"),
                                          ("fold", "inf"), ("fold", "²"), ("fold", "--1"), ("split", "trian")])
def test_bad_fold_and_split(listed, column, cell):
    write(listed / "index.csv", f"file,label,{column}\nimages/c.png,0,{cell}\n")
    assert "index.csv:2" in error(column, ListFile, str(listed), classes=CLASSES)


def test_repeated_line_is_used_once(listed):
    write(listed / "index.csv", "file,label\nimages/c.png,0\nimages/c.png,0\n")
    source = ListFile(str(listed), classes=CLASSES)
    assert len(source.records) == 1 and "1 行重复" in source.notices[0]


def test_numbers_as_a_spreadsheet_writes_them(listed):
    write(listed / "index.csv", "file,label,fold\nimages/c.png,2.0,1.0\n")
    (record,) = ListFile(str(listed), classes=CLASSES).records
    assert (record.label, record.fold) == (2, 1)


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "NA", "None", "null"])
def test_words_for_an_unknown_patient(listed, cell):
    write(listed / "index.csv", f"file,label,patient_id\nimages/c.png,0,{cell}\nimages/b.png,0,nana\n")
    assert [record.patient_id for record in ListFile(str(listed), classes=CLASSES).records] == [None, "nana"]
    write(listed / "metadata.csv", HEADER + row(cell, "COVID-19", "PA", "b.png"))
    assert CovidChestXray(str(listed), classes=CLASSES).records[0].patient_id is None


@pytest.mark.parametrize("second", ["p2,train,0", "p1,test,0", "p1,train,1", ",train,0"])
def test_repeated_lines_that_disagree(listed, second):
    write(listed / "index.csv", "file,label,patient_id,split,fold\nimages/c.png,0,p1,train,0\n"
                                f"images/b.png,0,p3,train,0\nimages/c.png,0,{second}\n")
    message = error("images/c.png", ListFile, str(listed), classes=CLASSES)
    assert "index.csv:4" in message and "index.csv:2" in message


def test_a_list_that_was_asked_for_must_be_there(listed, monkeypatch):
    image(listed / "COVID" / "x.png")
    write(listed / "labels.csv", "file,label\nimages/b.png,0\n")
    message = error("找不到列表文件", ListFile, str(listed), "lables.csv", classes=CLASSES)
    assert "是不是 labels.csv" in message
    (listed / "elsewhere").mkdir()
    write(listed / "elsewhere" / "mine.csv", "file,label\nimages/b.png,0\n")
    monkeypatch.chdir(listed / "elsewhere")
    error("找不到列表文件", ListFile, str(listed), "mine.csv", classes=CLASSES)  # a bare name is one in root
    assert len(ListFile(str(listed), "./mine.csv", classes=CLASSES).records) == 1
    write(listed / "elsewhere" / "index.csv", "file,label\nimages/b.png,0\n")
    assert paths(ListFile(str(listed), classes=CLASSES)) == ["COVID/x.png"]


@pytest.mark.parametrize("base", ["images", "."])
def test_absent_list_falls_back_to_class_folders(tmp_path, base):
    for name in ("COVID", "NORMAL"):
        image(tmp_path / base / name / "x.jpg")
    image(tmp_path / base / "masks" / "x.png")
    (tmp_path / "readme.txt").write_text("x")
    source = ListFile(str(tmp_path), classes=CLASSES)
    prefix = "" if base == "." else "images/"
    assert paths(source) == [f"{prefix}NORMAL/x.jpg", f"{prefix}COVID/x.jpg"]
    assert source.notices[0].startswith("!! 没有列表文件")
    assert any("Viral Pneumonia" in notice for notice in source.notices)


def test_absent_or_empty_list(tmp_path):
    image(tmp_path / "other" / "x.png")
    error("找不到列表文件", ListFile, str(tmp_path), classes=CLASSES)
    write(tmp_path / "index.csv", "file,label\n")
    error("一张图像也没有", ListFile, str(tmp_path), classes=CLASSES)


# Paths that the system refuses: the data set names them, and the answer is a line

LONG = "x" * 300 + ".png"  # file systems allow 255 bytes


def closed(monkeypatch, folder: Path) -> None:
    """As ``chmod 000``, which does not stop root."""
    listdir = os.listdir

    def refuse(path="."):
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)


def test_names_longer_than_the_system_allows(listed):
    for component in (ImageFolder, ListFile, CovidRadiography, COVIDxCXR2, CovidChestXray):
        assert "找不到数据" in component.missing(root=str(listed / LONG))
        error("找不到数据", component, str(listed / LONG), classes=CLASSES)
    error("找不到列表文件", ListFile, str(listed), LONG, classes=CLASSES)
    write(listed / "index.csv", f"file,label\nimages/{LONG},0\n")
    error("index.csv:2：找不到图像", ListFile, str(listed), classes=CLASSES)
    write(listed / "train.txt", f"1 {LONG} negative cohen\n")
    error("1 张图有 1 张不在磁盘上", COVIDxCXR2, str(listed), classes=(NORMAL, COVID))
    write(listed / "metadata.csv", HEADER + row("2", "No Finding", "PA", LONG))
    error("metadata.csv:2：找不到图像", CovidChestXray, str(listed), classes=CLASSES)


@pytest.mark.parametrize("inner", [".", "COVID"])
def test_a_closed_folder_is_not_an_absent_one(folders, monkeypatch, inner):
    """A recipe falls back to phantoms where data is absent, not where it may not be read."""
    closed(monkeypatch, folders / inner)
    error(f"无法读取文件夹 {folders / inner}（Permission denied）；请检查路径和权限", ImageFolder, str(folders),
          classes=CLASSES)
    if inner == ".":
        error("无法读取文件夹", ImageFolder.missing, root=str(folders))
        error("无法读取文件夹", ListFile, str(folders), classes=CLASSES)


# COVID-19 Radiography Database


def radiography(root: Path) -> Path:
    base = root / "COVID-19_Radiography_Dataset"
    for name in ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"):
        for number in (1, 2):
            image(base / name / "images" / f"{name}-{number}.png")
            image(base / name / "masks" / f"{name}-{number}.png")
        (base / f"{name}.metadata.xlsx").write_bytes(b"PK")
    (base / "README.md.txt").write_text("x")
    return base


def test_radiography_database_of_2021(tmp_path):
    base = radiography(tmp_path)
    for root in (tmp_path, base):
        source = CovidRadiography(str(root), classes=CLASSES)
        assert source.counts() == {"NORMAL": 2, "Viral Pneumonia": 2, "COVID": 2}
        assert "患者" in source.notices[0] and "Lung_Opacity" in source.notices[1]
        for record in source.records:
            assert record.extra["mask"] == record.path.replace("/images/", "/masks/")
            assert (source.root / record.extra["mask"]).is_file() and record.patient_id is None
    opacity = ClassInfo("Lung_Opacity", "肺部阴影", "Lung opacity")
    assert len(CovidRadiography(str(tmp_path), classes=(*CLASSES, opacity)).records) == 8
    (base / "COVID" / "masks" / "COVID-2.png").unlink()
    source = CovidRadiography(str(base), classes=CLASSES)
    assert "1 张图像没有同名掩膜" in source.notices[-1]
    assert [bool(record.extra) for record in source.records if record.label == 2] == [True, False]
    error("TB.*Lung_Opacity", CovidRadiography, str(base), classes=(*CLASSES, ClassInfo("TB", "结核", "TB")))


def test_radiography_database_of_2020(tmp_path):
    base = tmp_path / "COVID-19 Radiography Database"
    for name in ("COVID-19", "NORMAL", "Viral Pneumonia"):
        image(base / name / f"{name} (1).png")
        image(base / name / f"{name} (10).png")
        (base / f"{name}.metadata.xlsx").write_bytes(b"PK")
    source = CovidRadiography(str(tmp_path), classes=CLASSES)
    assert source.counts() == {"NORMAL": 2, "Viral Pneumonia": 2, "COVID": 2}
    assert not any(record.extra for record in source.records)


# COVIDx


def test_covidx_cxr2(tmp_path):
    image(tmp_path / "train" / "ARDSSevere.png")
    image(tmp_path / "train" / "1-s2.0-S0140673620303706-fx1_lrg.jpg")
    image(tmp_path / "test" / "MIDRC-RICORD-1C-419639-003251-46647-0.png")
    write(tmp_path / "train.txt", "5 ARDSSevere.png negative cohen\n"
                                  "11 1-s2.0-S0140673620303706-fx1_lrg.jpg positive cohen\n")
    write(tmp_path / "test.txt", "419639-003251 MIDRC-RICORD-1C-419639-003251-46647-0.png positive ricord\n")
    source = COVIDxCXR2(str(tmp_path), classes=(NORMAL, COVID))
    assert [(r.path, r.label, r.patient_id, r.split, r.extra["source"]) for r in source.records] == [
        ("train/ARDSSevere.png", 0, "5", "train", "cohen"),
        ("train/1-s2.0-S0140673620303706-fx1_lrg.jpg", 1, "11", "train", "cohen"),
        ("test/MIDRC-RICORD-1C-419639-003251-46647-0.png", 1, "419639-003251", "test", "ricord")]
    assert source.read(2).shape == (4, 4)


def test_older_covidx_lists(tmp_path):
    for name in ("a.png", "COVID(2).png", "b c.png"):
        image(tmp_path / "train" / name)
    # Version 7 has blanks in ids, version 1 no source and repeated lines.
    write(tmp_path / "train_COVIDx7A.txt", "COVID 2 COVID(2).png COVID-19 sirm\n3 a.png pneumonia\n3 a.png pneumonia\n"
                                           "9 b c.png normal\n")
    source = COVIDxCXR2(str(tmp_path), {"train": "train_COVIDx7A.txt"}, classes=CLASSES)
    assert [(r.path, r.label, r.patient_id) for r in source.records] == [
        ("train/COVID(2).png", 2, "COVID 2"), ("train/a.png", 1, "3"), ("train/b c.png", 0, "9")]
    assert "1 行重复" in source.notices[0]


@pytest.mark.parametrize("line, match", [
    ("3 a.png", "应为"), ("3 a.png maybe cohen", "应为"),
    ("3 ../a.png positive cohen", "之外"), ("3 a.png pneumonia cohen", "Global.classes"),
    ("3 a.png positive cohen", "已有另一个标签"),
])
def test_bad_covidx_lines(tmp_path, line, match):
    image(tmp_path / "train" / "a.png")
    write(tmp_path / "train.txt", f"1 a.png negative cohen\n{line}\n")
    assert "train.txt:2" in error(match, COVIDxCXR2, str(tmp_path), classes=(NORMAL, COVID))


def test_covidx_images_that_are_absent(tmp_path):
    image(tmp_path / "train" / "a.png")
    write(tmp_path / "train.txt", "1 a.png negative cohen\n3 gone.png positive cohen\n4 away.png positive cohen\n")
    error("3 张图有 2 张不在磁盘上（例如 train/gone.png、train/away.png）.*COVIDxCXR2.absent=skip", COVIDxCXR2,
          str(tmp_path), classes=(NORMAL, COVID))
    source = COVIDxCXR2(str(tmp_path), absent="skip", classes=(NORMAL, COVID))
    assert paths(source) == ["train/a.png"] and "2 张不在磁盘上" in source.notices[0]


def test_covidx_without_lists(tmp_path):
    image(tmp_path / "train" / "a.png")
    error("train.txt", COVIDxCXR2, str(tmp_path), classes=CLASSES)
    error("'valid'", COVIDxCXR2, str(tmp_path), {"valid": "x"}, classes=CLASSES)


# covid-chestxray-dataset

HEADER = ("patientid,offset,sex,age,finding,RT_PCR_positive,survival,intubated,intubation_present,went_icu,in_icu,"
          "needed_supplemental_O2,extubated,temperature,pO2_saturation,leukocyte_count,neutrophil_count,"
          "lymphocyte_count,view,modality,date,location,folder,filename,doi,url,license,clinical_notes,other_notes,\n")


def row(patient: str, finding: str, view: str, filename: str, modality: str = "X-ray", folder: str = "images") -> str:
    return (f'{patient},0,M,65,{finding},Y,Y,N,N,N,N,Y,,,,,,,{view},{modality},"January 22, 2020","Hanoi, Vietnam",'
            f'{folder},{filename},,,CC BY,"Fever, cough",,\n')


def test_covid_chestxray(tmp_path):
    for name in ("a.jpeg", "b.png", "c.jpg", "d.jpg", "e.png"):
        image(tmp_path / "images" / name)
    write(tmp_path / "metadata.csv", HEADER
          + row("2", "Pneumonia/Viral/COVID-19", "PA", "a.jpeg") + row("3", "Pneumonia/Viral/SARS", "AP", "b.png")
          + row("4", "No Finding", "AP Supine", "c.jpg") + row("5", "Tuberculosis", "PA", "d.jpg")
          + row("6", "Pneumonia/Viral/COVID-19", "L", "e.png") + row("7", "todo", "PA", "e.png")
          + row("8", "Pneumonia/Viral/COVID-19", "Axial", "x.nii.gz", "CT", "volumes")
          + row("9", "Pneumonia", "PA", "e.png"))
    source = CovidChestXray(str(tmp_path), classes=CLASSES)
    assert [(r.path, r.label, r.patient_id) for r in source.records] == [
        ("images/a.jpeg", 2, "2"), ("images/b.png", 1, "3"), ("images/c.jpg", 0, "4"), ("images/e.png", 1, "9")]
    assert source.records[0].extra["view"] == "PA" and source.records[0].extra["clinical_notes"] == "Fever, cough"
    (notice,) = source.notices
    for words in ("略过 4 行", "诊断 Tuberculosis 1", "体位 L 1", "成像方式 CT 1", "诊断 todo 1"):
        assert words in notice
    assert paths(CovidChestXray(str(tmp_path), ("AP",), classes=CLASSES)) == ["images/b.png"]
    error("没有一行", CovidChestXray, str(tmp_path), ("Coronal",), classes=CLASSES)


def test_first_release_and_damage(tmp_path):
    image(tmp_path / "images" / "a.jpeg")
    columns = "Patientid,offset,sex,age,finding,survival,view,date,location,filename,doi, url,license,notes\n"
    write(tmp_path / "metadata.csv", columns + '2,0,M,65,"COVID-19, ARDS",Y,PA,2020,,a.jpeg,,,,\n')
    assert CovidChestXray(str(tmp_path), classes=CLASSES).records[0].label == 2
    write(tmp_path / "metadata.csv", HEADER + row("2", "COVID-19", "PA", "gone.png"))
    assert "metadata.csv:2" in error("gone.png", CovidChestXray, str(tmp_path), classes=CLASSES)
    write(tmp_path / "metadata.csv", HEADER + row("2", "COVID-19", "PA", "../../secret.png"))
    error("之外", CovidChestXray, str(tmp_path), classes=CLASSES)
    write(tmp_path / "metadata.csv", "a,b\n1,2\n")
    error("patientid", CovidChestXray, str(tmp_path), classes=CLASSES)
    (tmp_path / "metadata.csv").unlink()
    error("找不到列表文件", CovidChestXray, str(tmp_path), classes=CLASSES)


# Phantoms


def test_phantoms():
    source = build("source", {"name": "Phantoms", "per_class": 5, "size": 64}, "DataLoader.Source", classes=CLASSES)
    assert source.demo and Phantoms.missing() is None
    assert [record.label for record in source.records[:6]] == [0, 1, 2, 0, 1, 2]
    assert len({record.patient_id for record in source.records}) == 15 == len(set(paths(source)))
    assert source.locate(5) == "phantom/0/covid/0001"
    pixels = source.read(5)
    assert pixels.shape == (64, 64) and pixels.dtype == np.uint8 and pixels.std() > 10
    again = Phantoms(5, 0, 64, classes=CLASSES)
    assert np.array_equal(pixels, again.read(5)) and source.fingerprint() == again.fingerprint()
    other = Phantoms(5, 1, 64, classes=CLASSES)
    assert not np.array_equal(pixels, other.read(5)) and source.fingerprint() != other.fingerprint()
    for name in ("path", "patient_id"):  # films of another seed are other patients'
        assert not {getattr(record, name) for record in source.records} & {
            getattr(record, name) for record in other.records}
    error("画不出类别 TB", Phantoms, classes=(ClassInfo("TB", "结核", "TB"),))
    error("per_class", Phantoms, 0, classes=CLASSES)


# The real folder


@pytest.mark.skipif("PADDLE_CXR_REAL_DATA" not in os.environ, reason="PADDLE_CXR_REAL_DATA is not set")
def test_real_folder_with_and_without_its_list(tmp_path):
    root = Path(os.environ["PADDLE_CXR_REAL_DATA"]) / "cxr"
    classes = (NORMAL, ClassInfo("PNEUMONIA", "肺炎", "Pneumonia"), COVID)
    source = ListFile(str(root), classes=classes)
    assert source.counts() == {"NORMAL": 393, "PNEUMONIA": 389, "COVID": 98} and not source.notices
    assert {record.fold for record in source.records} == {0, 1, 2, 3, 4}
    (tmp_path / "images").symlink_to(root / "images")
    assert ListFile(str(tmp_path), classes=classes).counts() == source.counts()
