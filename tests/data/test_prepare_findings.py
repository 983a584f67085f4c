"""tools/prepare_data.py on data sets of findings."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from miniatures import covidx
from PIL import Image
from published import picture, refused
from recipes import ROOT

from paddle_cxr.data.prepare import prepare, summary
from paddle_cxr.data.sources import FindingsFile, PhantomFindings
from paddle_cxr.data.splits import NoSplit, PatientSplit, Published
from paddle_cxr.engine.prepare import prepare_data
from paddle_cxr.errors import UserError


def film(seed: int, size: tuple[int, int] = (80, 96)) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (7, 6), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize(size[::-1], Image.Resampling.BICUBIC))


@pytest.fixture
def root(tmp_path):
    """Twelve films of six patients; a third with Effusion, boxes on two of them, lung masks on three."""
    folder = tmp_path / "mine"
    rows = ["file,patient_id,split,found,outline"]
    for number in range(12):
        picture(folder / "images" / f"{number:02d}.png", film(number))
        outline = f"masks/{number:02d}.png" if number < 3 else ""
        if outline:
            picture(folder / outline, np.full((80, 96), 255, np.uint8))
        found = "" if number == 11 else "Effusion" if number % 3 == 0 else "No Finding"
        rows.append(f"images/{number:02d}.png,p{number // 2},{'test' if number > 7 else 'train'},{found},{outline}")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    (folder / "boxes.csv").write_text("file,finding,x,y,width,height\nimages/00.png,Effusion,1,2,30,40\n"
                                      "images/03.png,Effusion,10,20,30,40.5\n")
    return folder


OPTIONS = {"label_column": "found", "boxes": "boxes.csv", "mask_column": {"outline": "lung"}}


def run(root, output, split=None, absent=(), **options):
    source = FindingsFile(str(root), **OPTIONS, absent="skip")
    return prepare(source, split or Published(), output=output, absent=absent, **options)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_counts_boxes_masks_and_patients(root, tmp_path):
    report = run(root, tmp_path / "out")
    assert report["counts"] == {"train": {"Effusion": {"present": 3, "absent": 5, "unknown": 0}},
                                "test": {"Effusion": {"present": 1, "absent": 2, "unknown": 1}}}
    assert report["sizes"] == {"train": 8, "test": 4} and report["patient_overlap"] == {"train-test": 0}
    assert report["annotations"] == {"boxes": {"Effusion": 2}, "masks": {"lung": 3, "Effusion": 2}, "outside": [],
                                     "empty": []}
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8")) == report
    text = summary(report)
    assert "Effusion 3/5/0" in text and "跨子集的患者：0" in text and "lung 3" in text and "Effusion 2" in text


def test_the_lists_can_be_read(root, tmp_path):
    report = run(root, tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"list.csv", "train.csv", "test.csv", "boxes.csv",
                                                                    "report.json"}
    again = FindingsFile(str(root), str(tmp_path / "out" / "list.csv"), finding_columns=("Effusion",),
                         boxes=str(tmp_path / "out" / "boxes.csv"))
    first = FindingsFile(str(root), **OPTIONS)
    assert [record.labels for record in again.records] == [record.labels for record in first.records]
    assert [record.boxes for record in again.records] == [record.boxes for record in first.records]
    assert [record.patient_id for record in again.records] == [record.patient_id for record in first.records]
    assert rows(tmp_path / "out" / "list.csv")[0]["Effusion"] == "1" and report["kept"] == 12
    assert rows(tmp_path / "out" / "list.csv")[11]["Effusion"] == ""


def test_patients_on_both_sides_are_warned_about(root, tmp_path):
    text = (root / "index.csv").read_text()
    (root / "index.csv").write_text(text.replace("images/08.png,p4,test", "images/08.png,p3,test"))
    report = run(root, tmp_path / "out")
    assert report["patient_overlap"] == {"train-test": 1} and "警告：有患者跨子集" in summary(report)
    assert run(root, tmp_path / "out", PatientSplit(0.0, 0.3))["patient_overlap"] == {"train-test": 0}


def test_masks_that_cannot_be_used(root, tmp_path, capsys):
    picture(root / "masks" / "01.png", np.full((80, 95), 255, np.uint8))
    (root / "masks" / "02.png").write_bytes(b"404")
    with pytest.raises(UserError, match="2 张图像无法使用"):
        run(root, tmp_path / "out")
    printed = capsys.readouterr().err
    assert "95×80" in printed and "02.png" in printed
    report = run(root, tmp_path / "out", on_error="skip")
    kinds = [row["kind"] for row in rows(tmp_path / "out" / "skipped.csv")]
    assert kinds == ["annotation"] * 2 and report["kept"] == 10


def test_masks_and_boxes_that_look_wrong(root, tmp_path):
    picture(root / "masks" / "01.png", np.zeros((80, 96), np.uint8))
    (root / "boxes.csv").write_text("file,finding,x,y,width,height\nimages/00.png,Effusion,-5,2,30,40\n")
    report = run(root, tmp_path / "out")
    assert report["annotations"]["empty"] == ["images/01.png"]
    assert report["annotations"]["outside"] == ["images/00.png"]
    assert "掩膜是空的：1 张" in summary(report) and "伸出图像：1 张" in summary(report)


def test_copies_with_other_labels(root, tmp_path):
    (root / "images" / "04.png").write_bytes((root / "images" / "00.png").read_bytes())
    (root / "images" / "05.png").write_bytes((root / "images" / "01.png").read_bytes())
    report = run(root, tmp_path / "out", NoSplit())
    flags = {one["first"]: one["flags"] for one in report["duplicates"]}
    assert flags == {"images/00.png": ["labels", "patients"], "images/01.png": ["patients"]}
    assert "标签不同（Effusion、-）" in summary(report)
    assert run(root, tmp_path / "out", NoSplit(), duplicates="drop")["kept"] == 9


def test_a_copy_of_which_less_is_known_is_no_contradiction(root, tmp_path):
    (root / "images" / "11.png").write_bytes((root / "images" / "00.png").read_bytes())
    report = run(root, tmp_path / "out", NoSplit())
    assert report["duplicates"][0]["flags"] == ["patients"] and report["duplicates"][0]["labels"] == ["Effusion", "?"]
    assert run(root, tmp_path / "out", NoSplit(), duplicates="drop")["kept"] == 11


def test_phantoms_have_no_files(tmp_path):
    refused("没有文件", prepare, PhantomFindings(2, size=32), NoSplit(), output=tmp_path / "out")


# The tool


RECIPES = ("finetune_films", "segment_lungs_films", "eval/grounding_films", "eval/zero_shot_covid3")


def check(name: str, root, output: Path, source: str = "", *overrides: str) -> str:
    """What the tool says of ``root`` as the data set of a recipe that comes with the toolkit."""
    spec = (f"{{name: FindingsFile, root: {root}, label_column: found, boxes: boxes.csv, "
            f"mask_column: {{outline: lung}}{source}}}")
    return prepare_data(ROOT / f"configs/{name}.yaml", [
        f"DataLoader.Source={spec}", "DataLoader.Split={name: Published}", f"Prepare.output={output}", *overrides])


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_of_every_task(root, tmp_path, name):
    text = check(name, root, tmp_path / "out")
    assert "Effusion 3/5/0" in text and "lung 3" in text and (tmp_path / "out" / "list.csv").is_file()


def test_wrong_keys_and_skipped_images(root, tmp_path):
    refused("Prepare.on_eror", check, RECIPES[0], root, tmp_path / "out", "", "Prepare.on_eror=skip")
    (root / "images" / "07.png").write_bytes(b"404")
    refused("1 张图像无法使用", check, RECIPES[0], root, tmp_path / "out")
    assert "可用 11 张" in check(RECIPES[0], root, tmp_path / "out", "", "Prepare.on_error=skip")


def test_absent_images_are_all_listed(root, tmp_path, capsys):
    for number in (1, 5, 6, 9):
        (root / "images" / f"{number:02d}.png").unlink()
    refused("4 张不在磁盘上", check, RECIPES[0], root, tmp_path / "out")
    assert capsys.readouterr().err.split() == [f"images/{number:02d}.png" for number in (1, 5, 6, 9)]
    text = check(RECIPES[0], root, tmp_path / "out", ", absent: skip")
    assert "不在磁盘上：4 张，名单见 absent.csv" in text
    assert [row["file"] for row in rows(tmp_path / "out" / "absent.csv")] == [
        f"images/{number:02d}.png" for number in (1, 5, 6, 9)]


def test_absent_images_of_a_data_set_of_classes_are_listed_too(tmp_path, capsys):
    """The source within ClassesAsFindings says what to do about them."""
    covidx(tmp_path / "covidx")
    (tmp_path / "covidx/train/3.png").unlink()
    (tmp_path / "covidx/test/20.png").unlink()
    recipe, output = ROOT / "configs/eval/zero_shot_covidx.yaml", f"Prepare.output={tmp_path / 'out'}"
    source = f"DataLoader.Source.source={{name: COVIDxCXR2, root: {tmp_path / 'covidx'}, absent: %s}}"
    refused("24 张图有 2 张不在磁盘上", prepare_data, recipe, [source % "error", output])
    assert capsys.readouterr().err.split() == ["train/3.png", "test/20.png"]
    assert "不在磁盘上：2 张，名单见 absent.csv" in prepare_data(recipe, [source % "skip", output])
    assert [row["file"] for row in rows(tmp_path / "out" / "absent.csv")] == ["train/3.png", "test/20.png"]


def test_pairs_are_not_checked_here(tmp_path):
    (tmp_path / "recipe.yaml").write_text("Global: {task: pretraining}\n")
    refused("不检查 pretraining", prepare_data, tmp_path / "recipe.yaml", [])


@pytest.mark.skipif("PADDLE_CXR_REAL_DATA" not in os.environ, reason="PADDLE_CXR_REAL_DATA is not set")
def test_real_folder(tmp_path):
    source = FindingsFile(str(Path(os.environ["PADDLE_CXR_REAL_DATA"]) / "cxr"), label_column=("label", "nih_labels"),
                          aliases={"Pneumonia": ["PNEUMONIA"]}, boxes="boxes.csv", mask_column={"lung_mask": "lung"})
    report = prepare(source, PatientSplit(0.1, 0.2), output=tmp_path / "out")
    assert report["kept"] == 880 and set(report["patient_overlap"].values()) == {0}
    seen = report["annotations"]
    assert sum(seen["boxes"].values()) == 39 and seen["masks"]["lung"] == 48 and seen["empty"] == []
