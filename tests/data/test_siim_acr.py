"""SIIM-ACR Pneumothorax in miniature, as Kaggle shipped it."""

from __future__ import annotations

import numpy as np
import pytest
from published import dicom, picture, refused

from paddle_cxr.data.sources import SIIMACRPneumothorax
from paddle_cxr.data.sources.findings_layout import AbsentFromDisk
from paddle_cxr.registry import build

UID = "1.2.276.0.7230010.3.1.4.8323329.{}.1517875{}.443873"
ILL, WELL, BOTH = (UID.format(number, number) for number in (14508, 1034, 300))


@pytest.fixture
def root(tmp_path):
    """Images of grey levels 10, 20 and 30; ILL has one outline, BOTH two, WELL none."""
    folder = tmp_path / "siim"
    for number, image in enumerate((ILL, WELL, BOTH)):
        study, series = (image.replace(".4.8323329", f".{part}.8323329") for part in (2, 3))
        dicom(folder / "dicom-images-train" / study / series / f"{image}.dcm",
              np.full((1024, 1024), 10 * (number + 1), np.uint8), PatientID=image)
    (folder / "train-rle.csv").write_text("\n".join([
        "ImageId, EncodedPixels", f"{ILL}, 2050 3 1021 2", f"{WELL}, -1", f"{BOTH}, 0 1", f"{BOTH}, 1048575 1", ""]))
    return folder


def test_outlines_are_decoded_exactly(root):
    source = build("findings", {"name": "SIIMACRPneumothorax", "root": str(root)}, "DataLoader.Source")
    assert [info.name for info in source.findings] == ["Pneumothorax"]
    assert [record.labels for record in source.records] == [{"Pneumothorax": label} for label in (1, 0, 1)]
    assert source.read(0).shape == (1024, 1024) and source.read(1)[0, 0] == 20
    # 2050 = 2 × 1024 + 2: column 2, rows 2 … 4; the next run begins 1021 pixels after row 4: column 3, rows 2 and 3.
    assert np.argwhere(source.mask(0, "Pneumothorax", (1024, 1024))).tolist() == [
        [2, 2], [2, 3], [3, 2], [3, 3], [4, 2]]
    assert not source.mask(1, "Pneumothorax", (1024, 1024)).any()
    assert np.argwhere(source.mask(2, "Pneumothorax", (1024, 1024))).tolist() == [[0, 0], [1023, 1023]]
    assert all(source.annotated(index, "Pneumothorax") for index in range(3))
    assert not source.annotated(0, "Effusion")
    assert {record.patient_id for record in source.records} == {None}
    assert "没有患者编号" in source.notices[0]


def test_the_second_stage_and_png_copies(root, tmp_path):
    folder = tmp_path / "copies"
    picture(folder / "images" / f"{ILL}.png", np.zeros((1024, 1024), np.uint8))
    (folder / "stage_2_train.csv").write_text(f"ImageId,EncodedPixels\n{ILL},2050 3 1021 2\n")
    source, first = SIIMACRPneumothorax(str(folder)), SIIMACRPneumothorax(str(root))
    assert source.records[0].path == f"images/{ILL}.png"
    assert np.array_equal(source.mask(0, "Pneumothorax", (1024, 1024)), first.mask(0, "Pneumothorax", (1024, 1024)))


def test_a_mask_is_for_the_published_size(root):
    assert "512×512" in refused("1024×1024", SIIMACRPneumothorax(str(root)).mask, 0, "Pneumothorax", (512, 512))


@pytest.mark.parametrize(("line", "match"), [
    (f"{ILL}, 5 5 5", "train-rle.csv:6.*成对"), (f"{ILL}, 1048576 1", "train-rle.csv:6.*1048576"),
    (f"{ILL}, a b", "train-rle.csv:6.*整数"), (f"{ILL}, -1", "既有气胸.*没有气胸"), (f"{WELL}, 5 5", "既有气胸"),
    (f"{ILL}, 5 0", "长度为 0"), (f"{ILL}, 5 5, 3", "3 列"),
])
def test_wrong_rows(root, line, match):
    with open(root / "train-rle.csv", "a") as file:
        file.write(f"{line}\n")
    refused(match, SIIMACRPneumothorax, str(root))


def test_absent_images_and_others(root):
    with open(root / "train-rle.csv", "a") as file:
        file.write("1.2.3.gone, -1\n")
    dicom(root / "dicom-images-test" / "1.2" / "1.3" / "1.4.dcm", np.zeros((1024, 1024), np.uint8))
    with pytest.raises(AbsentFromDisk, match="4 张图有 1 张不在磁盘上.*absent=skip") as caught:
        SIIMACRPneumothorax(str(root))
    assert caught.value.paths == ["1.2.3.gone.dcm"]
    source = SIIMACRPneumothorax(str(root), absent="skip")
    assert len(source.records) == 3 and "1.4" in " ".join(source.notices)


def test_wrong_layouts(root, tmp_path):
    refused("没有 other.csv", SIIMACRPneumothorax, str(root), table="other.csv")
    refused("图像文件夹.*pngs", SIIMACRPneumothorax, str(root), images="pngs")
    (root / "train-rle.csv").write_text("ImageId,Pixels\na,-1\n")
    refused("没有列 'EncodedPixels'", SIIMACRPneumothorax, str(root))
    assert "找不到" in SIIMACRPneumothorax.missing(root=str(tmp_path / "none"))


def test_the_fingerprint_sees_the_outlines(root):
    before = SIIMACRPneumothorax(str(root)).fingerprint()
    table = root / "train-rle.csv"
    table.write_text(table.read_text().replace("2050 3", "2050 4"))
    assert SIIMACRPneumothorax(str(root)).fingerprint() != before
