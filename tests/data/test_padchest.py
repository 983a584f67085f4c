"""PadChest in miniature: its broken labels, its projections, its 16-bit PNG."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from paddle_cxr.data.sources import PadChest
from paddle_cxr.data.sources.padchest_labels import FINDINGS, RARE, SEEN, UNSEEN
from paddle_cxr.data.splits import PatientSplit, patient_overlap
from paddle_cxr.errors import UserError
from paddle_cxr.registry import build

TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
HEADER = ["", "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM",
          "ViewPosition_DICOM", "Projection", "MethodProjection", "Pediatric", "Modality_DICOM", "Manufacturer_DICOM",
          "PhotometricInterpretation_DICOM", "PixelRepresentation_DICOM", "PixelAspectRatio_DICOM",
          "SpatialResolution_DICOM", "BitsStored_DICOM", "WindowCenter_DICOM", "WindowWidth_DICOM", "Rows_DICOM",
          "Columns_DICOM", "XRayTubeCurrent_DICOM", "Exposure_DICOM", "ExposureInuAs_DICOM", "ExposureTime",
          "RelativeXRayExposure_DICOM", "ReportID", "Report", "MethodLabel", "Labels", "Localizations",
          "LabelsLocalizationsBySentence", "labelCUIS", "LocalizationsCUIS"]


def row(number: int, labels: str, projection: str = "PA", method: str = "Physician", **others: str) -> dict[str, str]:
    """A row as the publisher writes it, of image ``<number>.png`` of patient ``number // 2``."""
    return {**dict.fromkeys(HEADER, "None"), "": str(number), "ImageID": f"{number}.png", "ImageDir": str(number % 3),
            "PatientID": f"8398604886942923316682376614609{number // 2}", "PatientBirth": "1930.0",
            "PatientSex_DICOM": "M", "Projection": projection, "MethodProjection": "Manual review of DICOM fields",
            "Modality_DICOM": "CR", "PhotometricInterpretation_DICOM": "MONOCHROME2", "ReportID": "4765777",
            "Report": "sin hallazg patolog edad pacient .", "MethodLabel": method, "Labels": labels,
            "Localizations": "['loc  tracheal, loc  left', 'loc basal bilateral']",
            "LabelsLocalizationsBySentence": f"[{labels}]", "labelCUIS": "['C0025552' 'C4273001' '']", **others}


def padchest(root: Path, rows: list[dict[str, str]], images: bool = True, zipped: bool = False) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for one in rows if images else []:
        file = root / one["ImageDir"] / one["ImageID"]
        file.parent.mkdir(exist_ok=True)
        Image.fromarray((np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)).save(file)
    with (gzip.open(root / f"{TABLE}.gz", "wt", newline="", encoding="utf-8") if zipped
          else open(root / TABLE, "w", newline="", encoding="utf-8")) as file:
        writer = csv.DictWriter(file, HEADER)
        writer.writeheader()
        writer.writerows(rows)
    return root


def present(source: PadChest, index: int) -> list[str]:
    return [name for name, label in source.records[index].labels.items() if label == 1]


def error(match: str, *arguments, **options) -> None:
    with pytest.raises(UserError, match=match) as caught:
        PadChest(*arguments, **options)
    assert "\n" not in str(caught.value)


# The labels as they stand in the published table, and what they say (None: the image is left out).
CELLS = [("['normal']", {"normal"}),
         ("['pleural effusion', 'costophrenic angle blunting']", {"pleural effusion", "costophrenic angle blunting"}),
         ("['pleural effusion ', ' costophrenic angle blunting', 'pleural effusion']",
          {"pleural effusion", "costophrenic angle blunting"}),
         ("['', 'ground  glass pattern', ' ']", {"ground glass pattern"}),
         ("['nodule', nan]", {"nodule"}),
         ("['copd signs', 'double j stent', 'Chilaiditi sign']", {"COPD signs", "double J stent", "Chilaiditi sign"}),
         ('["kerley lines", \'cardiomegaly\']', {"kerley lines", "cardiomegaly"}),
         ("['scoliosis, 'kyphosis'", {"scoliosis", "kyphosis"}),  # a quotation mark and the bracket are missing
         ("['hiatal hernia' 'kyphosis']", {"hiatal hernia", "kyphosis"}),  # a comma is, as in the columns of CUIs
         ("[['mass'], ['nodule ']]", {"mass", "nodule"}),
         ("['loc right', 'pneumonia']", {"pneumonia"}),
         ("['unchanged', 'cardiomegaly']", {"cardiomegaly"}),
         ("[nan]", None), ("nan", None), ("", None), ("[]", None), ("['']", None), ("['loc right']", None),
         ("['exclude']", None), ("['exclude', 'nodule']", None), ("['suboptimal study', 'nodule']", None),
         ("['unchanged']", None), ("[' unchanged ', 'unchanged']", None)]


def test_broken_labels(tmp_path):
    root = padchest(tmp_path, [row(number, cell) for number, (cell, _) in enumerate(CELLS)])
    source = build("findings", {"name": "PadChest", "root": str(root)}, "DataLoader.Source")
    assert len(source.findings) == 190 and source.findings[0].name == "normal"
    used = [number for number, (_, labels) in enumerate(CELLS) if labels is not None]
    assert [record.path for record in source.records] == [f"{number % 3}/{number}.png" for number in used]
    for index, number in enumerate(used):
        assert set(present(source, index)) == CELLS[number][1]
        absent = None if "unchanged" in CELLS[number][0] else 0
        assert set(source.records[index].labels.values()) == {1, absent}
        assert list(source.records[index].labels) == [info.name for info in source.findings]
    notices = " ".join(source.notices)
    assert "略过 11 行（没有标签 6、exclude 2、只有 unchanged 2、suboptimal study 1）" in notices
    assert "1 种不认识的标签没有使用（例如 loc right）" in notices


NAMES = [info.name for info in FINDINGS]
NOISE = st.sampled_from(["", " ", "  ", "\t"])


@settings(max_examples=25)
@given(st.lists(st.lists(st.tuples(st.sampled_from(NAMES), NOISE, NOISE, st.sampled_from("'\""), st.booleans()),
                         min_size=1, max_size=6), min_size=1, max_size=5))
def test_labels_however_they_are_written(tmp_path_factory, films):
    """Blanks, either quotation mark, capitals, repeats and gaps change nothing."""
    rows, expected = [], []
    for number, labels in enumerate(films):
        cell = ", nan, ".join(f"{mark}{before}{name.upper() if loud else name}{after}{mark}"
                              for name, before, after, mark, loud in labels)
        rows.append(row(number, f"[{cell}, '']"))
        expected.append({name for name, *_ in labels})
    source = PadChest(str(padchest(tmp_path_factory.mktemp("padchest"), rows)))
    assert [set(present(source, index)) for index in range(len(rows))] == expected


def test_16_bit_images_patients_and_what_is_kept(tmp_path):
    rows = [row(0, "['normal']"),
            row(1, "['nodule']", PatientSex_DICOM="F", Report="informe con ñ, comas y\notra línea"),
            row(2, "['mass']", PhotometricInterpretation_DICOM="MONOCHROME1", PatientSex_DICOM="")]
    source = PadChest(str(padchest(tmp_path, rows, zipped=True)))
    pixels = source.read(0)
    assert pixels.dtype == np.uint8 and (pixels.min(), pixels.max()) == (0, 255)
    assert (np.diff(pixels.ravel().astype(int)) >= 0).all() and len(np.unique(pixels)) == 64
    assert source.records[0].patient_id == source.records[1].patient_id != source.records[2].patient_id
    assert source.records[1].extra == {"sex": "F", "photometric": "MONOCHROME2"}
    assert source.records[2].extra == {"photometric": "MONOCHROME1"}
    assert source.records[0].split is None and not source.demo
    subsets = PatientSplit(0.0, 0.4)(source.records)
    assert set(patient_overlap(source.records, subsets).values()) == {0}
    assert PadChest.missing(root=str(tmp_path)) is None and PadChest.missing(root=str(tmp_path / "gone"))


def test_projections_and_who_labelled(tmp_path):
    rows = [row(number, "['nodule']", projection) for number, projection in enumerate(
        ["PA", "AP", "AP_horizontal", "L", "COSTAL", "EXCLUDE", ""])]
    rows += [row(7, "['nodule']", method="RNN_model"), row(8, "['nodule']", "L", "RNN_model")]
    root = padchest(tmp_path, rows)
    source = PadChest(str(root))
    assert [record.view for record in source.records] == ["PA", "AP", "AP_horizontal"]
    assert "略过 6 行（不是医生标注（MethodLabel） 2、体位 L 1、" in source.notices[0]
    assert len(PadChest(str(root), physician_only=False).records) == 4
    both = PadChest(str(root), physician_only=False, projections=("PA", "L"))
    assert [record.view for record in both.records] == ["PA", "L", "PA", "L"]
    error("没有体位 'LATERAL'", str(root), projections=("LATERAL",))
    error("没有一张可用的图.*略过", str(padchest(tmp_path / "none", rows[3:4])))


def test_subsets_of_the_papers(tmp_path):
    names = {info.name for info in FINDINGS}
    assert len(names) == len(FINDINGS) == 190
    assert (len(SEEN), len(UNSEEN), len(RARE)) == (len(set(SEEN)), len(set(UNSEEN)), len(set(RARE))) == (14, 60, 39)
    assert set(RARE) < set(UNSEEN) < names and set(SEEN) < names and not set(SEEN) & set(UNSEEN)
    root = padchest(tmp_path, [row(0, "['pulmonary edema', 'empyema', 'hiatal hernia', 'kyphosis']")])
    for subset, shown in (("seen", ["pulmonary edema"]), ("unseen", ["hiatal hernia", "empyema"]),
                          ("rare", ["empyema"])):
        source = PadChest(str(root), subset)
        assert present(source, 0) == shown and len(source.findings) == {"seen": 14, "unseen": 60, "rare": 39}[subset]
    assert present(PadChest(str(root), findings=("kyphosis", "肺水肿")), 0) == ["kyphosis", "pulmonary edema"]
    error("findings 和 subset 只能写一个", str(root), subset="rare", findings=("mass",))


def test_findings_that_few_images_show(tmp_path):
    """Nodule on 3 films, mass on 2 (one of them absent), cyst on 1, nothing else."""
    rows = [row(0, "['nodule', 'mass']"), row(1, "['nodule']"), row(2, "['nodule', 'cyst']"), row(3, "['mass']")]
    root = padchest(tmp_path, rows)
    assert [info.name for info in PadChest(str(root), fewer_than=3).findings] == ["cyst", "mass"]
    assert [info.name for info in PadChest(str(root), fewer_than=4).findings] == ["cyst", "mass", "nodule"]
    assert [info.name for info in PadChest(str(root), "rare", fewer_than=10).findings] == ["cyst"]
    (root / "0/3.png").unlink()
    source = PadChest(str(root), fewer_than=2, absent="skip")
    assert [info.name for info in source.findings] == ["cyst", "mass"] and len(source.records) == 3
    assert source.records[0].labels == {"cyst": 0, "mass": 1}
    error("fewer_than=1：没有一个征象", str(root), fewer_than=1, absent="skip")


def test_absent_images_and_other_folders(tmp_path):
    rows = [row(number, "['nodule']") for number in range(5)]
    root = padchest(tmp_path / "some", rows)
    (root / "0/3.png").rename(root / "0/unknown.png")
    error("5 张图有 1 张不在磁盘上（例如 3.png）.*PadChest.absent=skip", str(root))
    assert len(PadChest(str(root), absent="skip").records) == 4
    (root / "images").mkdir()
    for number in range(3):
        (root / str(number)).rename(root / "images" / str(number))
    assert PadChest(str(root), absent="skip").records[1].path == "images/1/1.png"
    flat = padchest(tmp_path / "flat", rows, images=False)
    for number in range(5):
        Image.new("L", (4, 4), number).save(flat / f"{number}.png")
    assert [record.path for record in PadChest(str(flat)).records] == [f"{number}.png" for number in range(5)]


def test_refuses(tmp_path):
    root = padchest(tmp_path / "pc", [row(0, "['nodule']")])
    text = (root / TABLE).read_text()
    (root / TABLE).write_text(text.replace("MethodLabel", "Method"))
    error("csv:1：表头没有列 'MethodLabel'", str(root))
    (root / TABLE).write_text(text + "1,2,3\n")
    error("csv:3：有 3 列，而表头有 36 列", str(root))
    (root / TABLE).unlink()
    error("没有 PADCHEST_chest_x_ray_images_labels_160K.*不像 PadChest", str(root))
    padchest(root, [row(0, "['nodule']"), row(0, "['mass']")])
    error("0/0.png 在表中列了两次", str(root))
