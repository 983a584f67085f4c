"""VinDr-CXR in miniature: three readers a training film, a consensus on test films, boxes in pixels of the DICOM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddle_cxr.data.findings import FindingBox
from paddle_cxr.data.sources import VinDrCxr
from paddle_cxr.data.splits import Published
from paddle_cxr.errors import UserError
from paddle_cxr.registry import build

FINDINGS = ["Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation",
            "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst",
            "Mediastinal shift", "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax",
            "Pulmonary fibrosis", "Rib fracture", "Other lesion", "COPD", "Lung tumor", "Pneumonia", "Tuberculosis"]
ONE, TWO, THREE = ("000434271f63a053c4128a0ba6352c7f", "00053190460d56c53cc3e57321387478",
                   "002a34c58c5b758217ed1f584ccbcfe9")
SHAPE = (12, 10)  # of the films: rows, columns


def row(image: str, reader: str, *present: str) -> str:
    names = [*FINDINGS, "Other diseases", "No finding"]
    return ",".join([image, *([reader] if reader else []), *(str(int(name in present)) for name in names)])


TRAIN = [row(ONE, "R10", "Cardiomegaly", "Nodule/Mass"), row(ONE, "R8", "Cardiomegaly"),
         row(ONE, "R9", "Cardiomegaly", "Pneumonia"),
         row(TWO, "R4", "No finding"), row(TWO, "R1", "No finding"), row(TWO, "R2", "Other lesion", "Other diseases")]
TEST = [row(THREE, "", "Nodule/Mass", "Lung tumor", "Other diseases")]
TRAIN_BOXES = [f"{ONE},R10,Cardiomegaly,2.5,6.0,8.0,10.0", f"{ONE},R8,Cardiomegaly,1,7,6,11",
               f"{ONE},R10,Nodule/Mass,0,0,3,2", f"{ONE},R9,Cardiomegaly,2,6,8,10", f"{TWO},R4,No finding,,,,",
               f"{TWO},R1,No finding,,,,", f"{TWO},R2,Other lesion,4.0,1.0,5.0,2.0"]
TEST_BOXES = [f"{THREE},Nodule/Mass,1.0,2.0,3.0,5.0", f"{THREE},Nodule/Mass,7,8,9,10"]


def dicom(path: Path) -> None:
    pydicom = pytest.importorskip("pydicom", minversion="3")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.Modality, dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "DX", "MONOCHROME1", 1
    dataset.Rows, dataset.Columns = SHAPE
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 14, 13, 0
    dataset.PixelData = (np.arange(SHAPE[0] * SHAPE[1], dtype=np.uint16) * 100).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def png(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", SHAPE[::-1], 7).save(path)


def vindr(root: Path, kind: str = "png", train: list[str] | None = None, boxes: list[str] | None = None) -> Path:
    for split, names in (("train", (ONE, TWO)), ("test", (THREE,))):
        for name in names:
            (dicom if kind == "dicom" else png)(root / split / f"{name}.{kind}")
    (root / "annotations").mkdir(exist_ok=True)
    write(root, "image_labels_train", ["image_id,rad_id," + ",".join([*FINDINGS, "Other diseases", "No finding"]),
                                       *(train or TRAIN)])
    # The published tables differ in this name.
    write(root, "image_labels_test", ["image_id," + ",".join([*FINDINGS, "Other disease", "No finding"]), *TEST])
    write(root, "annotations_train", ["image_id,rad_id,class_name,x_min,y_min,x_max,y_max", *(boxes or TRAIN_BOXES)])
    write(root, "annotations_test", ["image_id,class_name,x_min,y_min,x_max,y_max", *TEST_BOXES])
    return root


def write(root: Path, name: str, lines: list[str]) -> None:
    (root / "annotations" / f"{name}.csv").write_text("\n".join(lines) + "\n")


def present(source: VinDrCxr, index: int) -> list[str]:
    return [name for name, label in source.records[index].labels.items() if label == 1]


def error(match: str, *arguments, **options) -> None:
    with pytest.raises(UserError, match=match) as caught:
        VinDrCxr(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_as_published(tmp_path):
    root = vindr(tmp_path, "dicom")
    source = build("findings", {"name": "VinDrCxr", "root": str(root)}, "DataLoader.Source")
    assert [info.name for info in source.findings] == [*FINDINGS, "Other disease", "No finding"]
    assert [record.path for record in source.records] == [
        f"train/{ONE}.dicom", f"train/{TWO}.dicom", f"test/{THREE}.dicom"]
    assert Published()(source.records) == ["train", "train", "test"]
    assert {record.patient_id for record in source.records} == {None} and source.records[0].view == "PA"
    pixels = source.read(0)
    assert pixels.shape == SHAPE and pixels[0, 0] == 255 and pixels[-1, -1] == 0  # MONOCHROME1
    assert present(source, 0) == ["Cardiomegaly"] and present(source, 1) == ["No finding"]
    assert present(source, 2) == ["Nodule/Mass", "Lung tumor", "Other disease"]
    assert all(label in (0, 1) for record in source.records for label in record.labels.values())
    assert any("没有患者编号" in notice for notice in source.notices)
    assert VinDrCxr.missing(root=str(root)) is None and VinDrCxr.missing(root=str(tmp_path / "gone"))


def test_votes(tmp_path):
    """Cardiomegaly 3 of 3, nodule and pneumonia 1 of 3 on the first film; nothing found 2 of 3 on the second."""
    root = vindr(tmp_path)
    for readers, first, second in (
            ("majority", ["Cardiomegaly"], ["No finding"]),
            ("any", ["Cardiomegaly", "Nodule/Mass", "Pneumonia"], ["Other lesion", "Other disease", "No finding"]),
            ("all", ["Cardiomegaly"], [])):
        source = VinDrCxr(str(root), readers=readers)
        assert present(source, 0) == first and present(source, 1) == second
        assert present(source, 2) == ["Nodule/Mass", "Lung tumor", "Other disease"]
    two = vindr(tmp_path / "two", train=TRAIN[:2])
    assert present(VinDrCxr(str(two)), 0) == ["Cardiomegaly"]  # a majority of two is both
    assert present(VinDrCxr(str(two), readers="any"), 0) == ["Cardiomegaly", "Nodule/Mass"]


def test_boxes_of_all_readers(tmp_path):
    source = VinDrCxr(str(vindr(tmp_path)))
    assert source.records[0].boxes == (
        FindingBox("Cardiomegaly", 2.5, 6, 5.5, 4), FindingBox("Cardiomegaly", 1, 7, 5, 4),
        FindingBox("Nodule/Mass", 0, 0, 3, 2), FindingBox("Cardiomegaly", 2, 6, 6, 4))
    expected = np.zeros(SHAPE, bool)
    expected[6:10, 2:8] = expected[7:11, 1:6] = True  # columns 2 … 7 by the third reader: 2.5 is the centre of 2
    np.testing.assert_array_equal(source.mask(0, "Cardiomegaly", SHAPE), expected)
    assert source.annotated(0, "Cardiomegaly") and source.annotated(0, "Edema") and source.annotated(0, "Pneumonia")
    assert not source.annotated(0, "Nodule/Mass")  # one of three saw it, and boxed it
    assert VinDrCxr(str(tmp_path), readers="any").annotated(0, "Nodule/Mass")
    mask = source.mask(2, "Nodule/Mass", SHAPE)
    assert mask.sum() == 2 * 3 + 2 * 2 and mask[2:5, 1:3].all() and mask[8:10, 7:9].all()
    assert not source.annotated(2, "Lung tumor") and source.annotated(1, "Lung tumor")  # diagnoses are not boxed
    with pytest.raises(UserError, match=rf"{ONE}.png：图像为 5×6.*\(8, 11\).*原尺寸"):
        source.mask(0, "Cardiomegaly", (6, 5))


def test_some_findings(tmp_path):
    source = VinDrCxr(str(vindr(tmp_path)), findings=("结节或肿块", "Other diseases"))
    assert [info.name for info in source.findings] == ["Nodule/Mass", "Other disease"]
    assert source.records[0].boxes == (FindingBox("Nodule/Mass", 0, 0, 3, 2),)
    assert source.records[2].labels == {"Nodule/Mass": 1, "Other disease": 1}


def test_as_far_as_it_is_there(tmp_path):
    root = vindr(tmp_path)
    (root / f"train/{TWO}.png").unlink()
    error(f"3 张图有 1 张不在磁盘上（例如 train/{TWO}.dicom）.*absent=skip", str(root))
    assert [record.path for record in VinDrCxr(str(root), absent="skip").records] == [
        f"train/{ONE}.png", f"test/{THREE}.png"]
    (root / "train").rename(root / "training")
    source = VinDrCxr(str(root))
    assert len(source.records) == 1 and "没有 train 文件夹" in source.notices[0]
    (root / "annotations/image_labels_train.csv").unlink()
    (root / "annotations/annotations_test.csv").unlink()
    source = VinDrCxr(str(root))
    assert len(source.records) == 1 and "没有标注框" in source.notices[0] and source.records[0].boxes == ()
    (root / "annotations/image_labels_test.csv").unlink()
    error("没有 image_labels_train.csv 或 image_labels_test.csv", str(root))


@pytest.mark.parametrize(("train", "boxes", "match"), [
    ([TRAIN[0].replace("R10,0", "R10,2")], None, "image_labels_train.csv:2：Aortic enlargement 的标签 '2' 不是 0 或 1"),
    ([TRAIN[0] + ",0"], None, "image_labels_train.csv:2：有 31 列，而表头有 30 列"),
    (None, [f"{ONE},R8,Cardiomegaly,1,7,x,11"], "annotations_train.csv:2：标注框"),
    (None, [f"{ONE},R8,Cardiomegaly,6,7,1,11"], "annotations_train.csv:2：标注框"),
    (None, [f"{ONE},R8,Cardiomegaly,1,7,,11"], "annotations_train.csv:2：标注框")])
def test_broken_tables(tmp_path, train, boxes, match):
    error(match, str(vindr(tmp_path, train=train, boxes=boxes)))


def test_a_missing_column(tmp_path):
    root = vindr(tmp_path)
    table = root / "annotations/image_labels_train.csv"
    table.write_text(table.read_text().replace("Pneumothorax", "PTX"))
    error("image_labels_train.csv:1：表头没有列 'Pneumothorax'", str(root))
    assert len(VinDrCxr(str(root), findings=("Edema",)).records) == 3


# As Kaggle gave it out

KAGGLE = ["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max",
          f"{TWO},No finding,14,R11,,,,", f"{TWO},No finding,14,R7,,,,", f"{TWO},Other lesion,9,R10,4.0,1.0,5.0,2.0",
          f"{ONE},Cardiomegaly,3,R10,2.5,6.0,8.0,10.0", f"{ONE},Cardiomegaly,3,R8,1,7,6,11",
          f"{ONE},Aortic enlargement,0,R10,0,0,3,2", f"{ONE},Cardiomegaly,3,R8,0,0,1,1", f"{ONE},No finding,14,R9,,,,"]


def kaggle(root: Path, lines: list[str] = KAGGLE) -> Path:
    for name in (ONE, TWO):
        png(root / "train" / f"{name}.png")
    (root / "train.csv").write_text("\n".join(lines) + "\n")
    return root


def test_the_table_of_kaggle(tmp_path):
    """A reader's row says that the finding is there; two rows of one reader are two boxes and one vote."""
    root = kaggle(tmp_path)
    source = build("findings", {"name": "VinDrCxr", "root": str(root)}, "DataLoader.Source")
    assert len(source.findings) == 15 and source.findings[-1].name == "No finding"
    assert [record.path for record in source.records] == [f"train/{TWO}.png", f"train/{ONE}.png"]
    assert present(source, 0) == ["No finding"] and present(source, 1) == ["Cardiomegaly"]
    assert {record.split for record in source.records} == {None} and "Kaggle" in source.notices[0]
    assert source.records[1].boxes == (
        FindingBox("Cardiomegaly", 2.5, 6, 5.5, 4), FindingBox("Cardiomegaly", 1, 7, 5, 4),
        FindingBox("Aortic enlargement", 0, 0, 3, 2), FindingBox("Cardiomegaly", 0, 0, 1, 1))
    assert source.annotated(1, "Cardiomegaly") and not source.annotated(1, "Aortic enlargement")
    assert present(VinDrCxr(str(root), readers="any"), 1) == ["Aortic enlargement", "Cardiomegaly", "No finding"]
    assert present(VinDrCxr(str(root), readers="all"), 1) == []
    assert VinDrCxr(str(root), findings=("心影增大",)).records[1].labels == {"Cardiomegaly": 1}
    error("没有征象 'Pneumonia'", str(root), findings=("Pneumonia",))


def test_what_is_no_table_of_kaggle(tmp_path):
    root = kaggle(tmp_path, [KAGGLE[0], f"{ONE},Cardiomegali,3,R10,1,1,2,2"])
    error("train.csv:2：不认识的 class_name 'Cardiomegali'", str(root))
    kaggle(root, ["image_id,PredictionString", f"{ONE},14 1 0 0 1 1"])
    error("train.csv:1：表头没有列 'rad_id'", str(root))
    kaggle(root)
    (root / "train").rename(root / "films")
    error("没有 train 文件夹", str(root))
