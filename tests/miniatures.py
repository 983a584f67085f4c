"""Every public data set of findings in miniature, as its publisher lays it out, with films enough to evaluate on.

What stands in the tables is checked in ``tests/data`` set by set; these are for running whole evaluations.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from published import picture

from paddle_cxr.data.sources.chexpert_labels import OBSERVATIONS
from paddle_cxr.data.sources.vindr_cxr import FINDINGS as VINDR

_COUNT = 24
_SHAPE = (40, 60)  # not square, so that rows and columns cannot be exchanged


def _film(number: int, shape: tuple[int, int] = _SHAPE) -> np.ndarray:
    """No two alike; what is ill is brighter below."""
    film = np.linspace(10, 120, shape[0] * shape[1], dtype=np.uint8).reshape(shape)
    film[shape[0] // 2:] += 60 * _ill(number)
    film[number % shape[0], :number + 1] = 255
    return film


def _ill(number: int) -> bool:
    return number % 2 == 0


def _table(file: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([list(header), *map(list, rows)])


def chestxray14(root: Path) -> None:
    names = [f"{number:08d}_000.png" for number in range(_COUNT)]
    for number, name in enumerate(names):
        picture(root / "images" / name, _film(number, (1024, 1024)))
    _table(root / "Data_Entry_2017_v2020.csv", ["Image Index", "Finding Labels", "Follow-up #", "Patient ID"], [
        [name, "Effusion|Mass" if _ill(number) else "No Finding", 0, number] for number, name in enumerate(names)])
    (root / "train_val_list.txt").write_text("\n".join(names[:16]))
    (root / "test_list.txt").write_text("\n".join(names[16:]))
    _table(root / "BBox_List_2017.csv", ["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", ""], [
        [name, "Effusion", 100, 600, 300, 200, "", "", ""] for number, name in enumerate(names) if _ill(number)])


def chexpert(root: Path) -> None:
    names = [info.name for info in OBSERVATIONS]
    for file, folder in (("valid.csv", "valid"), ("test_labels.csv", "test")):
        rows = []
        for number in range(8):
            path = f"{folder}/patient{number + 100 * len(folder):05d}/study1/view1_frontal.jpg"
            picture(root / path, _film(number))
            rows.append([f"CheXpert-v1.0-small/{path}", *(f"{int(_ill(number))}.0" for _ in names)])
        _table(root / file, ["Path", *names], rows)


def mimic(root: Path) -> None:
    films = [(f"1000{number:04d}", f"5000{number:04d}", f"{number:08x}-0", "validate" if number < 12 else "test")
             for number in range(_COUNT)]
    for number, (subject, study, dicom, _) in enumerate(films):
        picture(root / f"files/p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg", _film(number))
    _table(root / "mimic-cxr-2.0.0-metadata.csv", ["dicom_id", "subject_id", "study_id", "ViewPosition"],
           [[dicom, subject, study, "PA"] for subject, study, dicom, _ in films])
    _table(root / "mimic-cxr-2.0.0-split.csv", ["dicom_id", "study_id", "subject_id", "split"],
           [[dicom, study, subject, split] for subject, study, dicom, split in films])
    names = sorted(info.name for info in OBSERVATIONS)
    _table(root / "mimic-cxr-2.0.0-chexpert.csv", ["subject_id", "study_id", *names],
           [[subject, study, *("1.0" if _ill(number) else "" for _ in names)]
            for number, (subject, study, _, _) in enumerate(films)])


def padchest(root: Path) -> None:
    rows = []
    for number in range(_COUNT):
        picture(root / str(number % 3) / f"{number}.png", _film(number).astype(np.uint16) * 200)
        labels = "['hiatal hernia', ' empyema ']" if _ill(number) else "['normal']"
        rows.append([f"{number}.png", f"p{number}", "PA", "Physician", labels])
    _table(root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv",
           ["ImageID", "PatientID", "Projection", "MethodLabel", "Labels"], rows)


def rsna(root: Path) -> None:
    labels, classes = [], []
    for number in range(_COUNT):
        picture(root / "stage_2_train_images" / f"film-{number}.png", _film(number))
        labels += [[f"film-{number}", 5.0, 22.0, 20.0, 10.0, 1], [f"film-{number}", 40.0, 25.0, 12.0, 9.0, 1]] \
            if _ill(number) else [[f"film-{number}", "", "", "", "", 0]]
        classes.append([f"film-{number}", "Lung Opacity" if _ill(number) else "Normal"])
    _table(root / "stage_2_train_labels.csv", ["patientId", "x", "y", "width", "height", "Target"], labels)
    _table(root / "stage_2_detailed_class_info.csv", ["patientId", "class"], classes)


def siim(root: Path) -> None:
    rows = []
    for number in range(_COUNT):
        picture(root / "images" / f"1.2.{number}.png", _film(number, (1024, 1024)))
        # Columns 100 and 101, rows 200 … 299; a second outline in column 500.
        rows += [[f"1.2.{number}", " 102600 100 924 100"], [f"1.2.{number}", " 512600 50"]] if _ill(number) else [
            [f"1.2.{number}", " -1"]]
    _table(root / "train-rle.csv", ["ImageId", " EncodedPixels"], rows)


def covidx(root: Path) -> None:
    for split, numbers in (("train", range(16)), ("test", range(16, _COUNT))):
        for number in numbers:
            picture(root / split / f"{number}.png", _film(number))
        (root / f"{split}.txt").write_text("".join(
            f"p{number} {number}.png {'positive' if _ill(number) else 'negative'} ricord\n" for number in numbers))


def covid_radiography(root: Path) -> None:
    for name in ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"):
        for number in range(6):
            picture(root / name / "images" / f"{name}-{number}.png", _film(number + 6 * len(name), (299, 299)))
            picture(root / name / "masks" / f"{name}-{number}.png", np.full((256, 256), 255, np.uint8))


def vindr(root: Path) -> None:
    names = [info.name for info in VINDR]
    for split, numbers in (("train", range(16)), ("test", range(16, _COUNT))):
        readers = ("R1", "R2", "R3") if split == "train" else ("",)
        labels, boxes = [], []
        for number in numbers:
            picture(root / split / f"{number:032x}.png", _film(number))
            shown = {"Pleural effusion", "Pneumonia"} if _ill(number) else {"No finding"}
            for reader in readers:
                of = [f"{number:032x}", *([reader] if reader else [])]
                where = [5.5, 22, 30, 38] if _ill(number) else [""] * 4
                labels.append([*of, *(int(name in shown) for name in names)])
                boxes.append([*of, "Pleural effusion" if _ill(number) else "No finding", *where])
        of = ["image_id", *(["rad_id"] if split == "train" else [])]
        _table(root / f"annotations/image_labels_{split}.csv", [*of, *names], labels)
        _table(root / f"annotations/annotations_{split}.csv",
               [*of, "class_name", "x_min", "y_min", "x_max", "y_max"], boxes)


def covid_rural(root: Path) -> None:
    folder = root / "covid_rural_annot"
    for number in range(_COUNT):
        name = f"COVID-19-AR-{number}_01-01-2012-XR"
        picture(folder / "jpgs" / f"{name}.jpg", _film(number))
        lung = {"label": "left_lung", "points": [[30, 5], [50, 5], [50, 35], [30, 35]]}
        file = folder / "jpgs/jsons" / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"imageHeight": _SHAPE[0], "imageWidth": _SHAPE[1], "shapes": [lung]}))
        if _ill(number):
            mask = np.zeros(_SHAPE, np.uint8)
            mask[25:35, 35:45] = 1
            picture(folder / "pngs_masks" / f"{name}.png", mask)


MINIATURES: dict[str, Callable[[Path], None]] = {
    "chestxray14": chestxray14, "chexpert": chexpert, "mimic": mimic, "padchest": padchest, "rsna": rsna, "siim": siim,
    "covidx": covidx, "covid_radiography": covid_radiography, "vindr": vindr, "covid_rural": covid_rural}
