"""Verification, duplicates and the lists that come out of them."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from paddle_cxr.data.prepare import prepare, summary
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.data.sources import ImageFolder, ListFile, Phantoms
from paddle_cxr.data.splits import BlogSplit, NoSplit, PatientSplit, Published
from paddle_cxr.data.verify import (
    NOTES,
    Duplicate,
    Inspection,
    difference_hash,
    find_duplicates,
    groups,
    inspect_all,
    inspect_image,
)
from paddle_cxr.errors import UserError

CLASSES = (ClassInfo("normal", "正常", "Normal"), ClassInfo("covid", "新冠", "COVID-19"))


def film(seed: int, size: int = 96) -> Image.Image:
    """A smooth random picture: unlike the others, as films of different patients are."""
    noise = np.random.default_rng(seed).integers(0, 256, (7, 6), dtype=np.uint8)
    return Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture
def root(tmp_path):
    for name, first in (("normal", 0), ("covid", 100)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(12):
            film(first + number).save(tmp_path / "data" / name / f"{number:02d}.png")
    return tmp_path / "data"


def run(root: Path, output: Path, split=None, **options):
    return prepare(ImageFolder(str(root), classes=CLASSES), split or PatientSplit(0.0, 0.25), output=output, **options)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_lists_and_report(root, tmp_path):
    report = run(root, tmp_path / "out")
    table = rows(tmp_path / "out" / "list.csv")
    assert len(table) == 24 and report["counts"] == {"train": {"normal": 9, "covid": 9},
                                                     "test": {"normal": 3, "covid": 3}}
    first = table[0]
    assert first["sha256"] == hashlib.sha256((root / first["file"]).read_bytes()).hexdigest()
    assert (first["width"], first["height"], first["notes"]) == ("96", "96", "")
    assert rows(tmp_path / "out" / "train.csv") == [row for row in table if row["split"] == "train"]
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8")) == report
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"list.csv", "train.csv", "test.csv", "report.json"}
    assert "normal 9，covid 9" in summary(report) and "没有患者编号" in summary(report)


def test_the_list_is_training_input_and_stays_the_same(root, tmp_path):
    report = run(root, tmp_path / "out")
    source = ListFile(str(root), str(tmp_path / "out" / "list.csv"), classes=CLASSES)
    assert source.fingerprint() == report["fingerprint"]
    again = prepare(source, Published(), output=tmp_path / "again")
    assert again["counts"] == report["counts"]
    assert (tmp_path / "again" / "list.csv").read_bytes() == (tmp_path / "out" / "list.csv").read_bytes()


def test_lists_of_an_earlier_run_do_not_stay(root, tmp_path):
    run(root, tmp_path / "out", BlogSplit())
    assert (tmp_path / "out" / "predict.csv").is_file()
    report = run(root, tmp_path / "out", NoSplit())
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"list.csv", "report.json"}
    assert report["counts"] == {"all": {"normal": 12, "covid": 12}}


def test_patient_overlap_is_proved_or_warned_about(root, tmp_path):
    lines = ["file,label,patient_id"] + [f"{name}/{n:02d}.png,{name},{name}{n // 4}"
                                         for name in ("normal", "covid") for n in range(12)]
    (root / "index.csv").write_text("\n".join(lines))
    source = ListFile(str(root), classes=CLASSES)
    report = prepare(source, PatientSplit(0.0, 0.34), output=tmp_path / "out")
    assert report["patient_overlap"] == {"train-test": 0} and "跨子集的患者：0" in summary(report)
    assert report["patients"] == {"train": 4, "test": 2}
    report = prepare(source, BlogSplit(), output=tmp_path / "blog")
    assert report["patient_overlap"]["train-test"] > 0 and "警告：有患者跨子集" in summary(report)


def test_broken_files_are_all_named_or_skipped(root, tmp_path, capsys):
    for name in ("normal/03.png", "covid/05.png"):
        (root / name).write_bytes((root / name).read_bytes()[:200])
    (root / "covid/07.png").write_text("404")
    with pytest.raises(UserError, match="3 张图像无法使用"):
        run(root, tmp_path / "out")
    printed = capsys.readouterr().err
    assert all(name in printed for name in ("normal/03.png", "covid/05.png", "covid/07.png"))
    assert not (tmp_path / "out").exists()
    report = run(root, tmp_path / "out", on_error="skip")
    skipped = rows(tmp_path / "out" / "skipped.csv")
    assert [row["file"] for row in skipped] == ["normal/03.png", "covid/05.png", "covid/07.png"]
    assert skipped[2]["kind"] == "not_image" and report["kept"] == 21
    assert "略过 3 张" in summary(report)


def test_nothing_left(root, tmp_path):
    for file in root.rglob("*.png"):
        file.write_text("404")
    with pytest.raises(UserError, match="没有剩下"):
        run(root, tmp_path / "out", on_error="skip")


def test_a_class_that_lost_all_its_images_is_an_error(root, tmp_path):
    for file in (root / "covid").iterdir():
        file.write_text("404")
    with pytest.raises(UserError, match="covid（原有 12 张）"):
        run(root, tmp_path / "out", on_error="skip")
    assert not (tmp_path / "out").exists()


def test_the_suggested_split_has_validation_images(root, tmp_path):
    assert "{name: Published, val: 0.1}" in summary(run(root, tmp_path / "out", BlogSplit()))
    assert "{name: Published}" in summary(run(root, tmp_path / "out", PatientSplit(0.2, 0.2)))


def test_phantoms_have_no_files(tmp_path):
    source = Phantoms(2, classes=(ClassInfo("normal", "正常", "Normal"),))
    with pytest.raises(UserError, match="没有文件"):
        prepare(source, NoSplit(), output=tmp_path / "out")


def test_output_that_cannot_be_written(root, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="无法写入"):
        run(root, tmp_path / "file")


# Oddities


def test_oddities_are_noted_by_kind(tmp_path):
    grey = film(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    cases = {
        "16bit.png": (Image.fromarray(np.asarray(grey).astype(np.uint16) * 200), {}),
        "float.tif": (Image.fromarray(np.asarray(grey) / np.float32(7)), {}),
        "1bit.png": (grey.convert("1"), {}), "alpha.png": (grey.convert("RGBA"), {}),
        "palette.png": (grey.convert("P"), {}), "cmyk.jpg": (grey.convert("RGB").convert("CMYK"), {}),
        "exif_rotated.jpg": (grey, {"exif": exif}),
        "colour.png": (Image.merge("RGB", [grey, film(1), film(2)]), {}), "tiny.png": (grey.resize((40, 90)), {}),
        "blank.png": (Image.new("L", (80, 80), 7), {}), "extension.jpg": (grey, {"format": "PNG"}),
    }
    for name, (image, options) in cases.items():
        image.save(tmp_path / name, **options)
        found = inspect_image(tmp_path / name)
        assert not found.error and Path(name).stem in found.notes, name
        assert set(found.notes) - {"colour"} == {Path(name).stem} - {"colour"}, name
        assert all(note in NOTES for note in found.notes)
    grey.save(tmp_path / "fine.png")
    assert inspect_image(tmp_path / "fine.png").notes == ()


def test_monochrome1_is_noted(tmp_path):
    pydicom = pytest.importorskip("pydicom", minversion="3")
    from pydicom.dataset import Dataset, FileMetaDataset

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 80, 80, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME1", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = np.arange(6400, dtype=np.uint16).tobytes()
    pydicom.dcmwrite(tmp_path / "a.dcm", dataset, enforce_file_format=True)
    assert inspect_image(tmp_path / "a.dcm").notes == ("monochrome1",)


def test_notes_reach_list_and_summary(root, tmp_path):
    film(0).convert("RGBA").save(root / "normal" / "00.png")
    report = run(root, tmp_path / "out")
    assert report["notes"] == {"alpha": ["normal/00.png"]}
    assert rows(tmp_path / "out" / "list.csv")[0]["notes"] == "alpha" and "RGBA" in summary(report)


def test_many_processes_see_the_same(root):
    files = [str(file) for file in sorted(root.rglob("*.png"))] * 4 + [str(root / "absent.png")]
    assert inspect_all(files, 2) == inspect_all(files, 1)


def test_auto_starts_no_more_processes_than_the_container_allows(root, monkeypatch):
    monkeypatch.setattr("paddle_cxr.data.verify.available_cores", lambda: 1)
    monkeypatch.setattr("paddle_cxr.data.verify.ProcessPoolExecutor", None)  # calling it would fail
    assert len(inspect_all([str(file) for file in sorted(root.rglob("*.png"))] * 4)) == 96


# Duplicates


def test_dhash_equals_imagehash():
    reference = pytest.importorskip("imagehash")
    for seed in range(20):
        image = film(seed, 17)  # 17 wide, so that neither needs to resize horizontally
        image = image.resize((17, 16))
        assert np.array_equal(np.unpackbits(np.frombuffer(difference_hash(image), np.uint8)),
                              reference.dhash(image, hash_size=16).hash.ravel())


@pytest.mark.parametrize("change", [
    lambda image: image.resize((60, 60), Image.Resampling.BILINEAR),
    lambda image: image.resize((300, 200), Image.Resampling.BICUBIC),
    lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    lambda image: Image.fromarray(np.clip(np.asarray(image) + np.random.default_rng(0).normal(0, 5, (96, 96)), 0,
                                          255).astype(np.uint8)),
])
def test_altered_copies_are_found_and_nothing_else(tmp_path, change):
    for number in range(10):
        film(number).save(tmp_path / f"{number}.png")
    change(film(3)).convert("L").save(tmp_path / "copy.jpg", quality=60)
    files = sorted(tmp_path.iterdir())
    (pair,) = find_duplicates([inspect_image(file) for file in files])
    assert (files[pair.first].name, files[pair.second].name, pair.kind) == ("3.png", "copy.jpg", "near")
    assert pair.correlation >= 0.98


def test_duplicates_against_a_search_over_all_pairs():
    rng = np.random.default_rng(0)
    base = [(rng.bytes(32), rng.bytes(1024)) for _ in range(5)]
    seen = []
    for index in range(40):
        dhash, thumbnail = (bytearray(part) for part in base[index % 5])
        for bit in rng.choice(256, rng.integers(0, 60), replace=False):
            dhash[bit // 8] ^= 1 << (bit % 8)
        seen.append(Inspection(sha256=str(index // 2 if index < 4 else index), dhash=bytes(dhash),
                               thumbnail=bytes(thumbnail)))
    seen[7] = Inspection(error="broken")

    def hamming(one: int, other: int) -> int:
        return sum(bin(a ^ b).count("1") for a, b in zip(seen[one].dhash, seen[other].dhash, strict=True))

    usable = [index for index in range(40) if index not in (1, 3, 7)]  # 1 and 3 are byte copies of 0 and 2
    expected = {(one, other) for place, one in enumerate(usable) for other in usable[place + 1:]
                if hamming(one, other) <= 32 and one % 5 == other % 5}
    found = find_duplicates(seen)
    assert {(pair.first, pair.second) for pair in found if pair.kind == "exact"} == {(0, 1), (2, 3)}
    assert {(pair.first, pair.second) for pair in found if pair.kind == "near"} == expected and expected
    assert find_duplicates([]) == []


def test_blank_images_are_only_equal_when_their_bytes_are(tmp_path):
    for number, level in enumerate((0, 100, 100)):
        Image.new("L", (80, 80), level).save(tmp_path / f"{number}.png")
    (pair,) = find_duplicates([inspect_image(file) for file in sorted(tmp_path.iterdir())])
    assert (pair.first, pair.second, pair.kind) == (1, 2, "exact")


def test_groups_are_connected_sets():
    pairs = [Duplicate(1, 4, "near"), Duplicate(4, 7, "exact"), Duplicate(2, 3, "near"), Duplicate(0, 7, "near")]
    assert groups(pairs) == [[0, 1, 4, 7], [2, 3]]


@pytest.fixture
def copied(root):
    """covid/00 again as covid/11, altered; normal/02 again among the covid films."""
    film(100).resize((70, 70), Image.Resampling.BILINEAR).save(root / "covid" / "11.png")
    (root / "covid" / "12.png").write_bytes((root / "normal" / "02.png").read_bytes())
    return root


def test_duplicates_are_reported(copied, tmp_path):
    report = run(copied, tmp_path / "out", BlogSplit())
    pairs = {(one["first"], one["second"]): one for one in report["duplicates"]}
    assert set(pairs) == {("covid/00.png", "covid/11.png"), ("normal/02.png", "covid/12.png")}
    labels = pairs["normal/02.png", "covid/12.png"]
    assert labels["kind"] == "exact" and {"labels", "subsets"} <= set(labels["flags"])
    leak = pairs["covid/00.png", "covid/11.png"]
    assert leak["kind"] == "near" and leak["subsets"] == ["test", "train"] and leak["flags"] == ["subsets"]
    text = summary(report)
    assert "重复图像 2 对（完全相同 1，近似 1）" in text and "标签不同" in text and "跨子集" in text
    assert len(rows(tmp_path / "out" / "duplicates.csv")) == 2 and report["kept"] == 25


def test_duplicates_are_dropped(copied, tmp_path):
    report = run(copied, tmp_path / "out", duplicates="drop")
    left = {row["file"] for row in rows(tmp_path / "out" / "list.csv")}
    assert "covid/00.png" in left  # the first of two copies stays
    assert not left & {"covid/11.png", "normal/02.png", "covid/12.png"}  # of two labels at least one is wrong
    assert {row["file"]: row["kind"] for row in rows(tmp_path / "out" / "skipped.csv")} == {
        "covid/11.png": "duplicate", "normal/02.png": "duplicate_label", "covid/12.png": "duplicate_label"}
    assert report["kept"] == 22 and len(report["duplicates"]) == 2


def test_duplicates_as_errors(copied, tmp_path, capsys):
    with pytest.raises(UserError, match="2 对重复图像"):
        run(copied, tmp_path / "out", BlogSplit(), duplicates="error")
    assert "covid/11.png" in capsys.readouterr().err and not (tmp_path / "out").exists()
    for name in ("11.png", "12.png"):
        (copied / "covid" / name).unlink()
    assert run(copied, tmp_path / "out", duplicates="error")["duplicates"] == []


@pytest.mark.skipif("PADDLE_CXR_REAL_DATA" not in os.environ, reason="PADDLE_CXR_REAL_DATA is not set")
def test_real_folder(tmp_path):
    root = Path(os.environ["PADDLE_CXR_REAL_DATA"]) / "cxr"
    classes = (ClassInfo("NORMAL", "正常", "Normal"), ClassInfo("PNEUMONIA", "肺炎", "Pneumonia"),
               ClassInfo("COVID", "新冠肺炎", "COVID-19"))
    report = prepare(ListFile(str(root), classes=classes), PatientSplit(0.1, 0.1), output=tmp_path / "out")
    assert report["kept"] == 880 and set(report["patient_overlap"].values()) == {0}
    # One film is there under two names; nothing else looks like a copy, although all of them are frontal chest films.
    assert [(one["kind"], one["flags"]) for one in report["duplicates"]] == [("exact", [])]
