"""NIH ChestX-ray14 in miniature, as published: the tables' headers and rows are copied from the release."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddle_cxr.data.findings import FindingBox, label_matrix
from paddle_cxr.data.sources import ChestXray14
from paddle_cxr.data.splits import Published
from paddle_cxr.errors import UserError
from paddle_cxr.registry import build

HEADER = ("Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
          "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],")
ROWS = ["00000001_000.png,Cardiomegaly,0,1,058Y,M,PA,2682,2749,0.14300000000000002,0.14300000000000002,",
        "00000001_001.png,Cardiomegaly|Emphysema,1,1,058Y,M,PA,2894,2729,0.14300000000000002,0.14300000000000002,",
        "00000002_000.png,No Finding,0,2,081Y,M,PA,2500,2048,0.171,0.171,",
        "00013118_008.png,Atelectasis|Infiltration|Pleural_Thickening,8,13118,069Y,M,AP,2500,2048,0.168,0.168,"]
BOXES = ["Image Index,Finding Label,Bbox [x,y,w,h],,,",
         "00013118_008.png,Atelectasis,225.084745762712,547.019216763771,86.7796610169491,79.1864406779661,,,",
         "00013118_008.png,Infiltrate,256,384,512,256",
         "00000001_001.png,Cardiomegaly,128,256,128,128,,,",
         "00000001_001.png,Cardiomegaly,512,256,256,384,,,"]
PLACES = {"00000001_000.png": "images_001/images", "00000001_001.png": "images_001/images",
          "00000002_000.png": "images_002/images", "00013118_008.png": "images_012/images"}


def image(path: Path, level: int = 0, side: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (side, side), level).save(path)


def nih(root: Path, rows: list[str] | None = None, boxes: list[str] | None = None, table: str = "Data_Entry_2017.csv",
        header: str = HEADER, one_folder: bool = False) -> Path:
    for number, (name, folder) in enumerate(PLACES.items()):
        image(root / ("images" if one_folder else folder) / name, number + 1)
    (root / table).write_text("\n".join([header, *(rows or ROWS)]) + "\n")
    (root / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n00000002_000.png")
    (root / "test_list.txt").write_text("00013118_008.png\n")
    (root / "BBox_List_2017.csv").write_text("\n".join(boxes or BOXES) + "\n")
    return root


def error(match: str, *arguments, **options) -> None:
    with pytest.raises(UserError, match=match) as caught:
        ChestXray14(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_as_published(tmp_path):
    source = build("findings", {"name": "ChestXray14", "root": str(nih(tmp_path))}, "DataLoader.Source")
    assert [info.name for info in source.findings] == [
        "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
        "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"]
    assert [record.path for record in source.records] == [f"{folder}/{name}" for name, folder in PLACES.items()]
    assert [source.read(index)[0, 0] for index in range(4)] == [1, 2, 3, 4]
    assert [record.patient_id for record in source.records] == ["1", "1", "2", "13118"]
    assert [record.view for record in source.records] == ["PA", "PA", "PA", "AP"]
    assert source.records[3].extra == {"age": "069Y", "sex": "M"}
    expected = np.zeros((4, 14))
    expected[0, 1] = expected[1, 1] = expected[1, 10] = expected[3, 0] = expected[3, 3] = expected[3, 12] = 1
    np.testing.assert_array_equal(label_matrix(source.records, [info.name for info in source.findings]), expected)
    assert source.notices == [] and not source.demo
    assert ChestXray14.missing(root=str(tmp_path)) is None and "gone" in ChestXray14.missing(root="gone")


def test_the_official_lists(tmp_path):
    source = ChestXray14(str(nih(tmp_path)))
    assert [record.split for record in source.records] == ["train", "train", "train", "test"]
    assert Published()(source.records) == ["train", "train", "train", "test"]
    (tmp_path / "test_list.txt").write_text("")
    assert "1 张图不在 train_val_list.txt 和 test_list.txt 里" in ChestXray14(str(tmp_path)).notices[0]
    (tmp_path / "test_list.txt").write_text("00000002_000.png\n")
    error("test_list.txt：00000002_000.png 也在 train_val_list.txt", str(tmp_path))
    (tmp_path / "test_list.txt").unlink()
    source = ChestXray14(str(tmp_path))
    assert "没有 test_list.txt" in source.notices[0] and source.records[3].split is None


def test_boxes_by_their_odd_header(tmp_path):
    source = ChestXray14(str(nih(tmp_path)))
    assert source.records[0].boxes == () == source.records[2].boxes
    assert source.records[3].boxes == (
        FindingBox("Atelectasis", 225.084745762712, 547.019216763771, 86.7796610169491, 79.1864406779661),
        FindingBox("Infiltration", 256, 384, 512, 256))
    assert source.annotated(3, "Atelectasis") and source.annotated(3, "Mass")
    assert not source.annotated(3, "Pleural_Thickening")  # present, and nobody drew where
    mask = source.mask(3, "Infiltration", (1024, 1024))
    assert mask.sum() == 512 * 256 and mask[384:640, 256:768].all()
    # Centres of pixels from 225.08 to 311.86 and from 547.02 to 626.21: columns 225 … 311, rows 547 … 625.
    rows, columns = np.nonzero(source.mask(3, "Atelectasis", (1024, 1024)))
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (225, 311, 547, 625)
    assert not source.mask(3, "Mass", (1024, 1024)).any()


def test_boxes_of_resized_images(tmp_path):
    source = ChestXray14(str(nih(tmp_path)), image_size=8)
    expected = np.zeros((8, 8), bool)
    expected[2:3, 1:2] = expected[2:5, 4:6] = True  # 128, 256, 128, 128 and 512, 256, 256, 384, divided by 128
    np.testing.assert_array_equal(source.mask(1, "Cardiomegaly", (8, 8)), expected)
    with pytest.raises(UserError, match="00000001_001.png：图像为 1024×1024.*8×8.*image_size"):
        source.mask(1, "Cardiomegaly", (1024, 1024))
    assert not source.mask(0, "Mass", (5, 7)).any()  # no boxes, nothing to be wrong
    error("image_size", str(tmp_path), image_size=0)


def test_v2020_one_folder_and_an_archive(tmp_path):
    """The corrected table (no comma at the end, ages in years) wins; all images in one folder, or in a zip."""
    rows = [row.rstrip(",").replace("058Y", "57") for row in ROWS]
    root = nih(tmp_path / "nih", rows[::-1], table="Data_Entry_2017_v2020.csv", header=HEADER.rstrip(","),
               one_folder=True)
    (root / "Data_Entry_2017.csv").write_text("not read")
    source = ChestXray14(str(root))
    assert [record.path for record in source.records] == [f"images/{name}" for name in reversed(PLACES)]
    assert source.records[3].extra["age"] == "57"
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        for file in sorted(root.rglob("*.*")):
            archive.write(file, f"nih/{file.relative_to(root)}")
    packed = ChestXray14(str(tmp_path / "packed.zip"))
    assert len(packed.records) == 4 and packed.read(0)[0, 0] == 4 and "解压" in packed.notices[0]


def test_some_findings(tmp_path):
    source = ChestXray14(str(nih(tmp_path)), ("胸腔积液", "atelectasis", "Infiltrate"))
    assert [info.name for info in source.findings] == ["Effusion", "Atelectasis", "Infiltration"]
    assert source.records[3].labels == {"Effusion": 0, "Atelectasis": 1, "Infiltration": 1}
    assert source.records[1].boxes == () and len(source.records[3].boxes) == 2
    error("没有征象 'Atelectases'，是不是 Atelectasis？", str(tmp_path), ("Atelectases",))
    error("Effusion 写了两次", str(tmp_path), ("Effusion", "胸腔积液"))
    error("一个征象也没有", str(tmp_path), ())


def test_absent_images(tmp_path):
    root = nih(tmp_path)
    (root / "images_002/images/00000002_000.png").unlink()
    error("4 张图有 1 张不在磁盘上（例如 00000002_000.png）.*absent=skip", str(root))
    source = ChestXray14(str(root), absent="skip")
    assert len(source.records) == 3 and "1 张不在磁盘上（例如 00000002_000.png），略过" in source.notices[0]
    for file in root.rglob("*.png"):
        file.unlink()
    error("没有一张可用的图.*4 张不在磁盘上（例如 00000001_000.png、00000001_001.png、00000002_000.png）", str(root),
          absent="skip")


@pytest.mark.parametrize(("rows", "match"), [
    ([ROWS[0].replace("Cardiomegaly", "Cardiomagaly")], "Data_Entry_2017.csv:2：不认识的征象.*Cardiomagaly"),
    ([ROWS[0], ROWS[0]], "00000001_000.png 在表中列了两次"),
    ([ROWS[0], ROWS[1][:40]], "Data_Entry_2017.csv:3：有 . 列，而表头有 12 列")])
def test_broken_tables(tmp_path, rows, match):
    error(match, str(nih(tmp_path, rows)))


@pytest.mark.parametrize(("row", "match"), [
    ("00013118_008.png,Atelectasis,1,2,3", "BBox_List_2017.csv:2：应有.*6 列，现在有 5 列"),
    ("00013118_008.png,Atelectasis,1,2,x,4", "BBox_List_2017.csv:2：标注框"),
    ("00013118_008.png,Atelectasis,1,2,0,4", "BBox_List_2017.csv:2：标注框"),
    ("00013118_008.png,Atelectasis,nan,2,3,4", "BBox_List_2017.csv:2：标注框"),
    ("00013118_008.png,Lump,1,2,3,4", "BBox_List_2017.csv:2：不认识的征象.*Lump")])
def test_broken_boxes(tmp_path, row, match):
    error(match, str(nih(tmp_path, boxes=[BOXES[0], row])))


def test_files_that_are_not_there(tmp_path):
    root = nih(tmp_path / "nih", boxes=[BOXES[0], "00099999_000.png,Mass,1,2,3,4,,,"])
    assert "1 张有框的图不在 Data_Entry_2017.csv 里（例如 00099999_000.png）" in ChestXray14(str(root)).notices[0]
    (root / "BBox_List_2017.csv").unlink()
    assert "没有 BBox_List_2017.csv：没有标注框" in ChestXray14(str(root)).notices[0]
    (root / "Data_Entry_2017.csv").write_text("\n".join([HEADER.replace("Patient ID", "Patient"), *ROWS]))
    error("Data_Entry_2017.csv:1：表头没有列 'Patient ID'", str(root))
    (root / "Data_Entry_2017.csv").unlink()
    error("没有 Data_Entry_2017_v2020.csv 或.*NIH ChestX-ray14.*docs/data.md", str(root))
    error("找不到数据", str(tmp_path / "gone"))


def test_fingerprint_names_the_labels_and_boxes(tmp_path):
    first = ChestXray14(str(nih(tmp_path))).fingerprint()
    assert ChestXray14(str(tmp_path)).fingerprint() == first
    assert ChestXray14(str(nih(tmp_path, boxes=BOXES[:2]))).fingerprint() != first
    assert ChestXray14(str(nih(tmp_path, rows=[ROWS[0], ROWS[1], ROWS[2], ROWS[3].replace("|Infil", "|Mass|Infil")])
                           )).fingerprint() != first
