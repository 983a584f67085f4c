"""CheXpert and MIMIC-CXR-JPG in miniature, and what -1 and an empty cell are taken for."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest
from PIL import Image

from paddle_cxr.data.pairs.mimic_cxr import CHEXPERT as MIMIC_ORDER
from paddle_cxr.data.sources import CheXpert, MimicCxr
from paddle_cxr.data.splits import Published, patient_overlap
from paddle_cxr.errors import UserError
from paddle_cxr.registry import build

OBSERVATIONS = ["No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
                "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other",
                "Fracture", "Support Devices"]
HEADER = ",".join(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *OBSERVATIONS])
SMALL = "CheXpert-v1.0-small"
# The first rows of train.csv, a lateral film, and one with doubts.
TRAIN = [f"{SMALL}/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0",
         f"{SMALL}/train/patient00002/study2/view1_frontal.jpg,Female,87,Frontal,AP,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,",
         f"{SMALL}/train/patient00002/study1/view2_lateral.jpg,Female,83,Lateral,,,,,1.0,,,-1.0,,,,,,1.0,"]
VALID = [f"{SMALL}/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,"
         "0.0,1.0,1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0"]
TEST = ["Path,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
        "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices,No Finding",
        "test/patient64741/study1/view1_frontal.jpg,1,0,1,0,0,1,0,0,0,0,0,0,1,0",
        "test/patient64741/study1/view2_lateral.jpg,1,0,1,0,0,1,0,0,0,0,0,0,1,0"]

# As published at github.com/rajpurkarlab/cheXpert-test-set-labels: a row a study, with no file name.
STUDIES = [",".join(["Study", *OBSERVATIONS]),
           "CheXpert-v1.0/test/patient64741/study1,0,1,1,1,0,0,0,0,0,0,0,0,0,1",
           "CheXpert-v1.0/test/patient64742/study1,0,1,0,1,0,0,0,0,1,0,0,0,0,0"]


def image(path: Path, level: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), level).save(path)


def chexpert(root: Path, train: list[str] | None = None) -> Path:
    for row in (*TRAIN, *VALID, *TEST[1:]):
        image(root / row.split(",")[0].removeprefix(f"{SMALL}/"))
    (root / "train.csv").write_text("\n".join([HEADER, *(train or TRAIN)]) + "\n")
    (root / "valid.csv").write_text("\n".join([HEADER, *VALID]) + "\n")
    (root / "test_labels.csv").write_text("\n".join(TEST) + "\n")
    return root


def error(match: str, make, *arguments, **options) -> None:
    with pytest.raises(UserError, match=match) as caught:
        make(*arguments, **options)
    assert "\n" not in str(caught.value)


def doubtful(root: Path, **options) -> dict[str, int | None]:
    """Labels of the film that has -1 for cardiomegaly, edema, consolidation, atelectasis and effusion."""
    return CheXpert(str(root), **options).records[1].labels


# CheXpert


def test_chexpert_as_published(tmp_path):
    root = chexpert(tmp_path / SMALL)
    source = build("findings", {"name": "CheXpert", "root": str(root)}, "DataLoader.Source")
    assert [info.name for info in source.findings] == OBSERVATIONS
    assert [record.path for record in source.records] == [
        "train/patient00001/study1/view1_frontal.jpg", "train/patient00002/study2/view1_frontal.jpg",
        "valid/patient64541/study1/view1_frontal.jpg", "test/patient64741/study1/view1_frontal.jpg"]
    assert [record.patient_id for record in source.records] == [
        "patient00001", "patient00002", "patient64541", "patient64741"]
    assert Published()(source.records) == ["train", "train", "val", "test"]
    assert [record.view for record in source.records] == ["AP", "AP", "AP", "FRONTAL"]
    assert source.records[0].extra == {"sex": "Female", "age": "68"} and source.records[3].extra == {}
    assert source.notices == [f"{root}：只用正位（frontal），略过侧位 2 张"]
    valid, test = source.records[2].labels, source.records[3].labels
    assert [name for name in OBSERVATIONS if valid[name]] == [
        "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity"]
    assert [name for name in OBSERVATIONS if test[name]] == [
        "Enlarged Cardiomediastinum", "Lung Opacity", "Consolidation", "Support Devices"]
    assert source.read(0).shape == (8, 8)
    assert CheXpert.missing(root=str(root)) is None and CheXpert.missing(root=str(tmp_path / "gone"))


def test_chexpert_above_the_release_and_lateral_films(tmp_path):
    chexpert(tmp_path / SMALL)
    source = CheXpert(str(tmp_path), frontal_only=False)
    assert [record.view for record in source.records] == ["AP", "AP", "LATERAL", "AP", "FRONTAL", "LATERAL"]
    assert source.root == tmp_path / SMALL and source.notices == []
    subsets = Published()(source.records)
    assert set(patient_overlap(source.records, subsets).values()) == {0}


def test_chexpert_as_far_as_it_is_there(tmp_path):
    """Tables that are absent are left out; CheXlocalize's folder is val, its paths say valid."""
    root = chexpert(tmp_path / "CheXpert")
    (root / "train.csv").unlink()
    (root / "valid.csv").rename(root / "val_labels.csv")
    (root / "valid").rename(root / "val")
    source = CheXpert(str(root))
    assert [record.path for record in source.records] == ["val/patient64541/study1/view1_frontal.jpg",
                                                          "test/patient64741/study1/view1_frontal.jpg"]


def test_chexpert_lateral_films_of_the_test_set_that_were_converted(tmp_path):
    """Its table has no column for the side; the name tells, whatever the format."""
    root = chexpert(tmp_path)
    (root / "test_labels.csv").write_text("\n".join(TEST).replace(".jpg", ".png"))
    for file in (root / "test").rglob("*.jpg"):
        file.rename(file.with_suffix(".png"))
    assert [record.path for record in CheXpert(str(root)).records][3:] == ["test/patient64741/study1/view1_frontal.png"]


def test_chexpert_test_labels_by_study(tmp_path):
    """groundtruth.csv gives a study's labels, which are those of every image in its folder."""
    root = chexpert(tmp_path / SMALL)
    (root / "test_labels.csv").unlink()
    (root / "groundtruth.csv").write_text("\n".join(STUDIES) + "\n")
    image(root / "test/patient64742/study1/view1_frontal.jpg")
    (root / "test/patient64742/study1/.DS_Store").write_text("litter")
    source = CheXpert(str(root))
    test = [record for record in source.records if record.split == "test"]
    assert [record.path for record in test] == ["test/patient64741/study1/view1_frontal.jpg",
                                                "test/patient64742/study1/view1_frontal.jpg"]
    assert [(record.patient_id, record.view) for record in test] == [("patient64741", "FRONTAL"),
                                                                     ("patient64742", "FRONTAL")]
    assert [[name for name in OBSERVATIONS if record.labels[name]] for record in test] == [
        ["Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Support Devices"],
        ["Enlarged Cardiomediastinum", "Lung Opacity", "Atelectasis"]]
    assert source.notices == [f"{root}：只用正位（frontal），略过侧位 2 张"] and len(source.records) == 5
    both = CheXpert(str(root), frontal_only=False).records
    assert [(record.path[-17:], record.view) for record in both if record.patient_id == "patient64741"] == [
        ("view1_frontal.jpg", "FRONTAL"), ("view2_lateral.jpg", "LATERAL")]
    assert both[-3].labels == both[-2].labels != both[-1].labels
    # A study whose folder is empty or not there is an absent image.
    (root / "test/patient64742/study1/view1_frontal.jpg").unlink()
    error("5 张图有 1 张不在磁盘上（例如 test/patient64742/study1）", CheXpert, str(root))
    (root / "test/patient64742/study1/.DS_Store").unlink()
    (root / "test/patient64742/study1").rmdir()
    error("5 张图有 1 张不在磁盘上（例如 test/patient64742/study1）", CheXpert, str(root))
    source = CheXpert(str(root), absent="skip")
    assert len(source.records) == 4 and "有 1 张不在磁盘上" in source.notices[-1]
    (root / "groundtruth.csv").write_text("\n".join([STUDIES[0], STUDIES[1].replace("test/", "../../")]))
    error("groundtruth.csv:2：路径.*指向数据文件夹之外", CheXpert, str(root))


def test_chexpert_uncertain_and_blank(tmp_path):
    """Row 2: cells 1.0 for opacity and fracture, -1.0 for five, empty for seven."""
    root = chexpert(tmp_path)
    five = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
    empty = [name for name in OBSERVATIONS if name not in (*five, "Lung Opacity", "Fracture")]
    for options, doubt, blank in (({}, None, 0), ({"uncertain": "unknown", "blank": "negative"}, None, 0),
                                  ({"uncertain": "positive"}, 1, 0), ({"uncertain": "negative"}, 0, 0),
                                  ({"blank": "unknown"}, None, None),
                                  ({"uncertain": "positive", "blank": "unknown"}, 1, None)):
        labels = doubtful(root, **options)
        assert {labels[name] for name in five} == {doubt} and {labels[name] for name in empty} == {blank}
        assert labels["Lung Opacity"] == labels["Fracture"] == 1
    labels = doubtful(root, uncertain="negative", uncertain_of={"Atelectasis": "positive", "Edema": "unknown"})
    assert [labels[name] for name in five] == [0, None, 0, 1, 0]
    error("uncertain_of：没有征象 'Edemas'，是不是 Edema", CheXpert, str(root),
          uncertain_of={"Edemas": "positive"})
    with pytest.raises(UserError, match="Source.uncertain.*是不是 positive"):
        build("findings", {"name": "CheXpert", "root": str(root), "uncertain": "postive"}, "DataLoader.Source")


def test_chexpert_findings(tmp_path):
    root = chexpert(tmp_path)
    source = CheXpert(str(root), findings="competition")
    assert [info.name for info in source.findings] == [
        "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"]
    assert list(source.records[2].labels.values()) == [0, 1, 0, 0, 0]
    chosen = build("findings", {"name": "CheXpert", "root": str(root), "findings": ["Effusion", "骨折"]}, "Source")
    assert [info.name for info in chosen.findings] == ["Pleural Effusion", "Fracture"]
    error("没有征象 'Effusions'", CheXpert, str(root), findings=("Effusions",))


def test_chexpert_refuses(tmp_path):
    root = chexpert(tmp_path / "one", [TRAIN[0].replace(",1.0,", ",2.0,")])
    error("train.csv:2：No Finding 的标签 '2.0' 不是", CheXpert, str(root))
    (root / "train.csv").write_text("\n".join([HEADER, "../../etc/view1_frontal.jpg" + TRAIN[0][TRAIN[0].index(","):]]))
    error("train.csv:2：路径.*指向数据文件夹之外", CheXpert, str(root))
    (root / "train.csv").write_text("\n".join([HEADER, "train/view1_frontal.jpg" + TRAIN[0][TRAIN[0].index(","):]]))
    error("train.csv:2：路径 'train/view1_frontal.jpg' 里没有患者编号", CheXpert, str(root))
    (root / "train.csv").write_text("\n".join([HEADER.replace("Edema", "Oedema"), *TRAIN]))
    error("train.csv:1：表头没有列 'Edema'，是不是 Oedema", CheXpert, str(root))
    (root / "train.csv").write_text("\n".join([HEADER, *TRAIN, TRAIN[1].replace("patient00002", "patient00003")]))
    error("5 张图有 1 张不在磁盘上（例如 train/patient00003/study2/view1_frontal.jpg）", CheXpert, str(root))
    assert len(CheXpert(str(root), absent="skip").records) == 4
    (tmp_path / "empty" / "train").mkdir(parents=True)
    error("没有 train.csv、valid.csv 或.*docs/data.md", CheXpert, str(tmp_path / "empty"))


# MIMIC-CXR-JPG

FILMS = [("10000032", "50414267", "02aa804e-bde0afdd", "PA", "train"),
         ("10000032", "50414267", "174413ec-4ec4c1f7", "LATERAL", "train"),
         ("10000764", "57375967", "096052b7-d256dc40", "AP", "validate"),
         ("11000098", "50985099", "43330e13-1b9a2e2a", "", "test"),
         ("11000183", "51967845", "65fb0d34-5f0cf0a6", "PA", "test")]


def place(subject: str, study: str, dicom: str) -> str:
    return f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg"


def write(path: Path, rows: list, zipped: bool) -> None:
    with (gzip.open(f"{path}.gz", "wt", newline="") if zipped else open(path, "w", newline="")) as file:
        csv.writer(file).writerows(rows)


def mimic(root: Path, zipped: bool = True) -> Path:
    root.mkdir(exist_ok=True)
    for number, film in enumerate(FILMS):
        image(root / place(*film[:3]), 10 * number)
    write(root / "mimic-cxr-2.0.0-metadata.csv", [
        ["dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows"],
        *([dicom, subject, study, "CHEST (PA AND LAT)", view, 3056] for subject, study, dicom, view, _ in FILMS)],
        zipped)
    write(root / "mimic-cxr-2.0.0-split.csv", [
        ["dicom_id", "study_id", "subject_id", "split"],
        *([dicom, study, subject, split] for subject, study, dicom, _, split in FILMS)], zipped)
    chexpert = {"50414267": {"Edema": "1.0", "Atelectasis": "-1.0", "Fracture": "0.0"},
                "57375967": {"No Finding": "1.0"}, "50985099": {}}
    negbio = {study: {**cells, "Edema": "-1.0"} for study, cells in chexpert.items()}
    for kind, table in (("chexpert", chexpert), ("negbio", negbio)):
        write(root / f"mimic-cxr-2.0.0-{kind}.csv", [
            ["subject_id", "study_id", *MIMIC_ORDER],
            *([subject, study, *(table[study].get(name, "") for name in MIMIC_ORDER)]
              for subject, study in dict.fromkeys(film[:2] for film in FILMS) if study in table)], zipped)
    return root


@pytest.mark.parametrize("zipped", [True, False])
def test_mimic(tmp_path, zipped):
    root = mimic(tmp_path / "mimic", zipped)
    source = build("findings", {"name": "MimicCxr", "root": str(root)}, "DataLoader.Source")
    assert tuple(info.name for info in source.findings) == MIMIC_ORDER
    assert [record.path for record in source.records] == [place(*FILMS[0][:3]), place(*FILMS[2][:3])]
    assert [record.patient_id for record in source.records] == ["10000032", "10000764"]
    assert Published()(source.records) == ["train", "val"]
    assert [record.view for record in source.records] == ["PA", "AP"]
    labels = source.records[0].labels
    assert (labels["Edema"], labels["Atelectasis"], labels["Fracture"], labels["Pneumonia"]) == (1, None, 0, 0)
    assert source.records[1].labels["No Finding"] == 1 and source.read(1)[0, 0] == 20
    notices = " ".join(source.notices)
    assert "其他体位 1 张、体位不明 1 张" in notices and "略过 1 张图，它们的检查（study）不在表里" in notices
    assert MimicCxr.missing(root=str(root)) is None and MimicCxr.missing(root=str(tmp_path / "gone"))


def test_mimic_options(tmp_path):
    root = mimic(tmp_path / "mimic")
    source = MimicCxr(str(root), "negbio", "competition", "positive", {"Edema": "negative"}, "unknown", False)
    assert [record.view for record in source.records] == ["PA", "LATERAL", "AP", ""]
    assert source.records[0].labels is source.records[1].labels == {
        "Atelectasis": 1, "Cardiomegaly": None, "Consolidation": None, "Edema": 0, "Pleural Effusion": None}
    (root / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    (root / place(*FILMS[0][:3])).unlink()
    source = MimicCxr(str(root), absent="skip")
    assert [record.split for record in source.records] == [None]
    assert "没有发布者的划分" in " ".join(source.notices) and "2 张图有 1 张不在磁盘上" in " ".join(source.notices)
    error("absent=skip", MimicCxr, str(root))


def test_mimic_refuses(tmp_path):
    root = mimic(tmp_path / "mimic", zipped=False)
    table = root / "mimic-cxr-2.0.0-chexpert.csv"
    good = table.read_text()
    table.write_text(good.replace("-1.0", "2"))
    error("chexpert.csv:2：Atelectasis 的标签 '2' 不是", MimicCxr, str(root))
    table.write_text(good.replace("study_id", "study"))
    error("chexpert.csv:1：表头没有列 'study_id'，是不是 study", MimicCxr, str(root))
    table.unlink()
    error("没有 mimic-cxr-2.*-chexpert.csv", MimicCxr, str(root))
    (root / "mimic-cxr-2.0.0-chexpert.csv.gz").write_bytes(gzip.compress(good.encode())[:-20])
    error("无法读取.*chexpert.csv.gz.*重新下载", MimicCxr, str(root))
    (root / "mimic-cxr-2.0.0-chexpert.csv.gz").unlink()
    table.write_text(good)
    metadata = root / "mimic-cxr-2.0.0-metadata.csv"
    metadata.write_text(metadata.read_text().replace("10000032", "../../etc", 1))
    error(r"编号 .*\.\./\.\./etc", MimicCxr, str(root))
