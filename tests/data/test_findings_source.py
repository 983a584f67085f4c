"""What every source of findings has: a fingerprint, regions, and the files that its masks are read from."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from PIL import Image

from paddle_cxr.data import findings as module
from paddle_cxr.data.findings import FindingBox, FindingsRecord, FindingsSource
from paddle_cxr.data.labelled import View
from paddle_cxr.data.records import ClassInfo, Source
from paddle_cxr.data.sources import ClassesAsFindings, FindingsFile, PhantomFindings

NAMES = [f"f{number}" for number in range(190)]


def many(count: int) -> FindingsSource:
    """Images of which many have the same labels, as one dict, and some have boxes."""
    kinds = [dict.fromkeys(NAMES, value) for value in (0, 1, None)]
    records = [FindingsRecord(f"{i}.png", 0, labels=kinds[i % 3],
                              boxes=(FindingBox("f1", i, 0.5, 3, 4),) if i % 5 == 1 else ()) for i in range(count)]
    return FindingsSource("many", "nowhere", [ClassInfo(name, name, name) for name in NAMES], records)


def test_the_fingerprint_is_over_every_label_and_box(monkeypatch):
    source = many(60)
    digest = hashlib.sha256(Source.fingerprint(source).encode())
    for record in source.records:
        boxes = [[box.finding, box.x, box.y, box.width, box.height] for box in record.boxes]
        digest.update(json.dumps([record.labels, boxes]).encode())
    written = []
    dumps = json.dumps
    monkeypatch.setattr(module.json, "dumps", lambda value: written.append(type(value)) or dumps(value))
    assert source.fingerprint() == digest.hexdigest()[:16]
    assert written.count(dict) == 3  # 100,000 images would take minutes else
    assert many(59).fingerprint() != source.fingerprint()


def test_a_file_that_is_missing_or_a_folder_has_no_size(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.png").write_bytes(b"12345")

    def fingerprint(*paths: str) -> str:
        return Source.fingerprint(FindingsSource("x", tmp_path, (), [FindingsRecord(path, 0) for path in paths]))

    told = "".join(f"{path}\t0\t{size}\n" for path, size in (("a.png", 5), ("folder", -1), ("gone", -1), ("a\0b", -1)))
    assert fingerprint("a.png", "folder", "gone", "a\0b") == hashlib.sha256(told.encode()).hexdigest()[:16]


def test_regions_are_what_masks_show_that_is_no_finding(tmp_path):
    assert many(3).regions == () and PhantomFindings(count=3, size=32).regions == ("lung",)
    view = View(PhantomFindings(count=3, size=32), [2, 0])
    assert view.regions == ("lung",) and view.mask_file(0, "lung") is None


def test_masks_name_the_file_they_are_read_from(tmp_path):
    for name in ("a.png", "b.png", "m.png"):
        Image.new("L", (6, 4), 255).save(tmp_path / name)
    (tmp_path / "index.jsonl").write_text("\n".join(json.dumps(line) for line in (
        {"image": "a.png", "labels": {"x": 1}, "masks": {"lung": "m.png"}}, {"image": "b.png", "labels": {"x": 0}})))
    listed = FindingsFile(str(tmp_path), "index.jsonl", columns={"path": "image"})
    assert listed.regions == ("lung",) and listed.mask_file(0, "lung") == listed.root / "m.png"
    assert listed.mask_file(1, "lung") is None and listed.mask_file(0, "x") is None
    assert View(listed, [1, 0]).mask_file(1, "lung") == listed.root / "m.png"
    (tmp_path / "index.csv").write_text("file,label,lung_mask\na.png,NORMAL,m.png\nb.png,COVID,\n")
    classes = ClassesAsFindings({"name": "ListFile", "root": str(tmp_path)}, ("NORMAL", "COVID"), "NORMAL",
                                mask_column={"lung_mask": "lung"})
    files = [classes.mask_file(index, "lung") for index in range(2)]
    assert [file and file.name for file in files] == ["m.png", None]
    assert np.array_equal(classes.mask(0, "lung", (4, 6)), np.ones((4, 6), bool))
