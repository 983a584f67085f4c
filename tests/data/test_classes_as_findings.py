"""Sources of classes as sources of findings."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from published import picture, refused

from paddle_cxr.data.sources import ClassesAsFindings, CovidRadiographyFindings
from paddle_cxr.registry import build


@pytest.fixture
def covidx(tmp_path):
    root = tmp_path / "covidx"
    for split, lines in (("train", ["p1 a.png positive cohen", "p2 b.png negative rsna"]),
                         ("test", ["p3 c.png negative rsna"])):
        for line in lines:
            picture(root / split / line.split()[1], np.full((6, 6), len(line), np.uint8))
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return root


def test_covidx(covidx):
    spec = {"name": "ClassesAsFindings", "source": {"name": "COVIDxCXR2", "root": str(covidx)},
            "classes": ["negative", "COVID"], "negative": "negative", "aliases": {"COVID": ["positive"]},
            "names": {"COVID": "新冠肺炎"}}
    source = build("findings", spec, "DataLoader.Source")
    assert [(info.name, info.zh) for info in source.findings] == [("COVID", "新冠肺炎")]
    assert [(record.labels, record.patient_id, record.split) for record in source.records] == [
        ({"COVID": 1}, "p1", "train"), ({"COVID": 0}, "p2", "train"), ({"COVID": 0}, "p3", "test")]
    assert source.read(0)[0, 0] == len("p1 a.png positive cohen") and source.records[1].extra == {"source": "rsna"}
    assert [source.annotated(index, "COVID") for index in range(3)] == [False, True, True]
    assert not source.mask(1, "COVID", (6, 6)).any()
    assert ClassesAsFindings.missing(**{k: v for k, v in spec.items() if k != "name"}) is None
    assert "找不到" in ClassesAsFindings.missing(source={"name": "COVIDxCXR2", "root": str(covidx / "none")})


def test_classes_exclude_each_other_and_a_list_may_name_masks(tmp_path):
    root = tmp_path / "mine"
    for name in "abc":
        picture(root / f"{name}.png", np.zeros((6, 8), np.uint8))
    picture(root / "a_lung.png", np.full((6, 8), 255, np.uint8))
    picture(root / "b_lung.png", np.full((8, 6), 255, np.uint8))
    (root / "index.csv").write_text("file,label,lung,view\na.png,COVID,a_lung.png,PA\nb.png,Other,b_lung.png,\n"
                                    "c.png,No,,\n")
    source = ClassesAsFindings({"name": "ListFile", "root": str(root)}, ("No", "COVID", "Other"), "No",
                               mask_column={"lung": "lung"})
    assert [record.labels for record in source.records] == [
        {"COVID": 1, "Other": 0}, {"COVID": 0, "Other": 1}, {"COVID": 0, "Other": 0}]
    assert source.records[0].view == "PA" and source.regions == ("lung",)
    assert [source.annotated(index, "lung") for index in range(3)] == [True, True, False]
    assert source.mask(0, "lung", (6, 8)).all()
    refused("6×8.*8×6", source.mask, 1, "lung", (6, 8))


def test_phantoms_stay_marked_as_such():
    source = ClassesAsFindings({"name": "Phantoms", "per_class": 2, "size": 32}, ("normal", "covid"), "normal")
    assert source.demo and source.read(0).shape == (32, 32) and len(source.records) == 4


@pytest.mark.parametrize(("options", "match"), [
    ({"negative": "nothing"}, "negative.*'nothing' 不在 classes"), ({"negative": ("negative", "COVID")}, "都是阴性"),
    ({"aliases": {"COVD": []}}, "COVD.*是不是 COVID"), ({"names": {"X": "x"}}, "X"), ({"classes": ()}, "至少写一个"),
    ({"source": {"name": "COVIDxCXR2"}}, "root"), ({"source": {"name": "Nothing"}}, "Nothing"),
])
def test_wrong_arguments(covidx, options, match):
    given = {"source": {"name": "COVIDxCXR2", "root": str(covidx)}, "classes": ("negative", "COVID"),
             "negative": "negative", "aliases": {"COVID": ["positive"]}, **options}
    refused(match, ClassesAsFindings, **given)


@pytest.fixture
def radiography(tmp_path):
    root = tmp_path / "COVID-19_Radiography_Dataset"
    for name in ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"):
        picture(root / name / "images" / f"{name}-1.png", np.full((299, 299), 50, np.uint8))
        mask = np.zeros((256, 256), np.uint8)
        mask[64:128, 0:32] = 255
        path = root / name / "masks" / f"{name}-1.png"
        path.parent.mkdir()
        Image.fromarray(mask).convert("RGB").save(path)  # as published: three equal channels
    return root


def test_lung_masks_are_made_as_large_as_the_images(radiography):
    source = build("findings", {"name": "CovidRadiographyFindings", "root": str(radiography)}, "DataLoader.Source")
    assert [info.name for info in source.findings] == ["Lung_Opacity", "Viral Pneumonia", "COVID"]
    assert source.findings[0].zh == "肺部阴影" and source.regions == ("lung",)
    assert [sum(record.labels.values()) for record in source.records] == [0, 1, 1, 1]
    assert all(source.annotated(index, "lung") for index in range(4)) and not source.annotated(1, "Lung_Opacity")
    mask = source.mask(3, "lung", (299, 299))
    # Pixel i of 299 lies in pixel floor((i + 1/2) 256 / 299) of 256.
    place = np.floor((np.arange(299) + 0.5) * 256 / 299)
    expected = ((place >= 64) & (place < 128))[:, None] & (place < 32)[None, :]
    assert mask.dtype == bool and np.array_equal(mask, expected) and mask.any()
    assert not source.mask(0, "COVID", (299, 299)).any()


def test_any_other_size_is_refused(radiography):
    source = CovidRadiographyFindings(str(radiography), classes=("Normal", "COVID"))
    picture(radiography / "COVID" / "masks" / "COVID-1.png", np.full((299, 299), 255, np.uint8))
    assert source.mask(1, "lung", (299, 299)).all()
    for size in ((128, 128), (256, 255)):
        picture(radiography / "COVID" / "masks" / "COVID-1.png", np.full(size, 255, np.uint8))
        refused("掩膜 256×256、图像 299×299", source.mask, 1, "lung", (299, 299))
    refused("256×256，而图像是 300×300", source.mask, 0, "lung", (300, 300))
    assert CovidRadiographyFindings.missing(root=str(radiography)) is None
    assert any("Lung_Opacity" in notice for notice in source.notices)
