"""RSNA Pneumonia Detection Challenge in miniature, as Kaggle shipped it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from published import dicom, picture, refused

from paddle_cxr.data.findings import FindingBox, label_matrix
from paddle_cxr.data.sources import RSNAPneumonia
from paddle_cxr.data.splits import PatientSplit
from paddle_cxr.registry import build

WELL, OTHER, ILL = "0004cfab-14fd-4e49-80ba-63a80b6bddd6", "00313ee0-9eaa-42f4-b0ab-c148ed3241cd", \
    "00436515-870c-4b36-a041-de91049b9ab4"


@pytest.fixture
def root(tmp_path):
    """Films of 60 columns and 40 rows: a box must not take one for the other."""
    folder = tmp_path / "rsna"
    for film in (WELL, OTHER, ILL):
        dicom(folder / "stage_2_train_images" / f"{film}.dcm", np.full((40, 60), 90, np.uint8))
    (folder / "stage_2_train_labels.csv").write_text("\n".join([
        "patientId,x,y,width,height,Target", f"{WELL},,,,,0", f"{OTHER},,,,,0", f"{ILL},4.0,5.0,3.0,2.0,1",
        f"{ILL},50.0,10.0,10.0,30.0,1", ""]))
    (folder / "stage_2_detailed_class_info.csv").write_text("\n".join([
        "patientId,class", f"{WELL},Normal", f"{OTHER},No Lung Opacity / Not Normal", f"{ILL},Lung Opacity",
        f"{ILL},Lung Opacity", ""]))
    return folder


def test_classes_and_boxes_of_films_that_are_not_square(root):
    source = build("findings", {"name": "RSNAPneumonia", "root": str(root)}, "DataLoader.Source")
    assert [info.name for info in source.findings] == ["Pneumonia", "Normal"]
    assert [record.labels for record in source.records] == [
        {"Pneumonia": 0, "Normal": 1}, {"Pneumonia": 0, "Normal": 0}, {"Pneumonia": 1, "Normal": 0}]
    assert [record.extra["class"] for record in source.records][1] == "No Lung Opacity / Not Normal"
    assert source.records[2].boxes == (FindingBox("Pneumonia", 4, 5, 3, 2), FindingBox("Pneumonia", 50, 10, 10, 30))
    assert source.read(2).shape == (40, 60)
    mask = source.mask(2, "Pneumonia", (40, 60))
    assert mask.sum() == 3 * 2 + 10 * 30
    assert np.argwhere(mask)[:6].tolist() == [[5, 4], [5, 5], [5, 6], [6, 4], [6, 5], [6, 6]]  # row, column
    assert mask[10:40, 50:60].all()
    assert [source.annotated(index, "Pneumonia") for index in range(3)] == [True] * 3
    assert not source.mask(0, "Pneumonia", (40, 60)).any()
    assert np.array_equal(label_matrix(source.records, ["Normal"]), [[1], [0], [0]])


def test_patients_come_from_the_mappings(root):
    assert any("patientId 是图的编号" in notice for notice in RSNAPneumonia(str(root)).notices)
    rows = [{"subset_img_id": film, "img_id": f"{patient}_00{number}.png", "orig_labels": ["No Finding"]}
            for number, (film, patient) in enumerate(zip((WELL, OTHER, ILL), ("00000007", "00000007", "00000031"),
                                                         strict=True))]
    (root / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(rows))
    source = RSNAPneumonia(str(root))
    assert [record.patient_id for record in source.records] == ["7", "7", "31"]
    subsets = PatientSplit(0.0, 0.5)(source.records)
    assert subsets[0] == subsets[1] != subsets[2]
    (root / "pneumonia-challenge-dataset-mappings_2018.json").write_text("[{}]")
    refused("subset_img_id", RSNAPneumonia, str(root))
    (root / "pneumonia-challenge-dataset-mappings_2018.json").write_text("[{")
    refused("无法读取", RSNAPneumonia, str(root))


def test_png_copies_without_the_class_table(root):
    (root / "stage_2_detailed_class_info.csv").unlink()
    for film in (WELL, OTHER, ILL):
        picture(root / "png" / f"{film}.png", np.zeros((40, 60), np.uint8))
    source = RSNAPneumonia(str(root), images="png")
    assert [info.name for info in source.findings] == ["Pneumonia"]
    assert source.records[0].path == f"png/{WELL}.png" and source.mask(2, "Pneumonia", (40, 60)).sum() == 306


def test_films_in_a_folder_further_down(root):
    (root / "raw").mkdir()
    (root / "stage_2_train_images").rename(root / "raw/stage_2_train_images")
    (root / f"raw/stage_2_train_images/{WELL}.dcm").unlink()
    refused(f"例如 raw/stage_2_train_images/{WELL}.dcm", RSNAPneumonia, str(root), images="raw/stage_2_train_images")
    source = RSNAPneumonia(str(root), images="raw/stage_2_train_images", absent="skip")
    assert source.records[0].path == f"raw/stage_2_train_images/{OTHER}.dcm" and source.read(0).shape == (40, 60)


def test_a_smaller_copy_is_refused(root):
    refused("图像为 30×20.*框.*原来大小", RSNAPneumonia(str(root)).mask, 2, "Pneumonia", (20, 30))
    refused("框", RSNAPneumonia(str(root)).mask, 2, "Pneumonia", (60, 40))  # rows and columns exchanged


def test_films_whose_lowest_value_is_white(root):
    """MONOCHROME1: the picture is turned round, its boxes stay where they are."""
    pixels = np.full((40, 60), 200, np.uint8)
    pixels[5:7, 4:7] = 20  # what the first box holds is white on the film
    dicom(root / "stage_2_train_images" / f"{ILL}.dcm", pixels, jpeg=False, PhotometricInterpretation="MONOCHROME1")
    source = RSNAPneumonia(str(root))
    picture_of, mask = source.read(2), source.mask(2, "Pneumonia", (40, 60))
    assert picture_of.shape == (40, 60) and picture_of[5:7, 4:7].min() > picture_of[mask & (picture_of < 200)].max()
    assert picture_of[0, 0] < picture_of[5, 4] and mask[5:7, 4:7].all()


def test_only_some_findings(root):
    source = RSNAPneumonia(str(root), findings=("Normal",))
    assert [record.labels for record in source.records] == [{"Normal": 1}, {"Normal": 0}, {"Normal": 0}]
    assert not any(record.boxes for record in source.records)
    refused("Effusion", RSNAPneumonia, str(root), findings=("Effusion",))


@pytest.mark.parametrize(("line", "match"), [
    (f"{WELL},1,1,5,5,1", "labels.csv:6.*前面是 0"), (f"{ILL},,,,,0", "labels.csv:6.*前面是 1"),
    (f"{ILL},,,,,1", "四个数"), (f"{ILL},1,1,0,5,1", "四个数"), (f"{ILL},nan,1,5,5,1", "四个数"),
    ("x,,,,,2", "Target 应为 0 或 1"), ("x,1,1,5,5,0", "Target 是 0，却有"), ("x,,,,0", "5 列"),
])
def test_wrong_rows(root, line, match):
    with open(root / "stage_2_train_labels.csv", "a") as file:
        file.write(f"{line}\n")
    refused(match, RSNAPneumonia, str(root))


@pytest.mark.parametrize(("line", "match"), [
    (f"{WELL},Lung Opacity", "两个 class"), (f"{WELL},Sick", "Sick"), (f"{ILL},Normal", "两个 class")])
def test_wrong_classes(root, line, match):
    with open(root / "stage_2_detailed_class_info.csv", "a") as file:
        file.write(f"{line}\n")
    refused(match, RSNAPneumonia, str(root))


def test_a_class_that_contradicts_the_target(root):
    table = root / "stage_2_detailed_class_info.csv"
    table.write_text(table.read_text().replace("Lung Opacity\n", "Normal\n"))
    refused("Target 1 不符", RSNAPneumonia, str(root))


def test_absent_films(root):
    (root / "stage_2_train_images" / f"{WELL}.dcm").unlink()
    refused("3 张图有 1 张不在磁盘上.*0004cfab", RSNAPneumonia, str(root))
    assert len(RSNAPneumonia(str(root), absent="skip").records) == 2


def test_wrong_layouts(root, tmp_path):
    (root / "stage_2_train_images").rename(root / "films")
    refused("图像文件夹.*RSNAPneumonia.images", RSNAPneumonia, str(root))
    (root / "stage_2_train_labels.csv").unlink()
    refused("stage_2_train_labels.csv", RSNAPneumonia, str(root), images="films")
    assert RSNAPneumonia.missing(root=str(tmp_path / "none"))
