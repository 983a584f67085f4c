"""The two data sets of lesson 3: a mark planted on some classes, and several films of every patient."""

from __future__ import annotations

import numpy as np
import pytest
from published import picture, refused

from paddle_cxr.data.cache import DecodedCache
from paddle_cxr.data.labelled import open_source, split_source
from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.data.sources import ImageFolder, Phantoms, PlantedMark, SeveralFilms
from paddle_cxr.data.sources.planted_mark import with_mark
from paddle_cxr.data.splits import patient_overlap
from paddle_cxr.recipe import load
from paddle_cxr.registry import build

CLASSES = (ClassInfo("normal", "正常", "Normal"), ClassInfo("covid", "新冠肺炎", "COVID-19"))
DRAWN = {"name": "Phantoms", "per_class": 6, "size": 64}


def marked(rates, seed=0, source=None):
    return build("source", {"name": "PlantedMark", "source": source or DRAWN, "rates": rates, "seed": seed},
                 "DataLoader.Source", classes=CLASSES)


def films(**options):
    return build("source", {"name": "SeveralFilms", "source": DRAWN, **options}, "DataLoader.Source", classes=CLASSES)


@pytest.fixture
def folders(tmp_path):
    for name in ("normal", "covid"):
        picture(tmp_path / "real" / name / f"{name}.png", np.zeros((64, 64), np.uint8))
    return {"name": "ImageFolder", "root": str(tmp_path / "real")}


# --- a mark ----------------------------------------------------------------------------------------------------------

def test_the_mark_is_on_the_marked_class_and_nowhere_else():
    source, plain = marked({"covid": 1}), Phantoms(6, 0, 64, classes=CLASSES)
    for index, record in enumerate(source.records):
        expected = with_mark(plain.read(index)) if record.label == 1 else plain.read(index)
        assert np.array_equal(source.read(index), expected)
    assert source.demo and source.name == "phantom-marked" and source.locate(3) == plain.locate(3)
    assert source.notices == ["!! 种下的记号（planted mark）：normal 0/6，covid 6/6；只用于演示捷径学习"]


@pytest.mark.parametrize("shape", [(64, 64), (32, 48), (224, 224, 3)])
def test_the_mark_lies_where_hiding_the_border_covers_it(shape):
    image = np.zeros(shape, np.uint8)
    rows, columns = np.nonzero(with_mark(image).reshape(*shape[:2], -1)[..., 0])
    side = min(shape[:2]) // 16
    assert len(rows) == side**2 and not image.any()
    assert rows.min() >= shape[0] - shape[0] // 8 and rows.max() < shape[0] and columns.max() < shape[1] // 8


def test_another_rate_only_adds_marks():
    def which(rate):
        source, plain = marked({"normal": rate}), Phantoms(6, 0, 64, classes=CLASSES)
        return {i for i in range(12) if not np.array_equal(source.read(i), plain.read(i))}

    assert which(0) == set() < which(0.5) < which(1) == {0, 2, 4, 6, 8, 10}


def test_the_fingerprint_says_which_images_are_marked():
    same = [marked(rates).fingerprint() for rates in ({}, {"covid": 0}, {"covid": 0.0, "normal": 0})]
    assert len(set(same)) == 1 and same[0] != Phantoms(6, 0, 64, classes=CLASSES).fingerprint()
    others = [marked({"covid": 1}), marked({"normal": 1}), marked({"covid": 0.5}), marked({"covid": 0.5}, 3),
              marked({"covid": 1}, source=DRAWN | {"seed": 1})]
    assert len({source.fingerprint() for source in others} | set(same)) == 6


def test_a_cache_of_other_marks_is_not_served(tmp_path):
    first, second = (np.array(DecodedCache(marked(rates), Preprocess((1, 64, 64)), folder=tmp_path).images)
                     for rates in ({}, {"covid": 1}))
    assert not np.array_equal(first[1], second[1]) and np.array_equal(first[0], second[0])


def test_real_images_can_be_marked_and_stay_real(folders):
    source = marked({"covid": 1}, source=folders)
    assert not source.demo and source.read(1).any() and not source.read(0).any()
    assert PlantedMark.missing(source=folders) is None
    assert "找不到" in PlantedMark.missing(source=folders | {"root": "nowhere"})


@pytest.mark.parametrize(("options", "match"), [
    ({"rates": {"covd": 1}}, "PlantedMark.rates：'covd' 不在 Global.classes 中，是不是 covid？（有：normal、covid）"),
    ({"rates": {"covid": 1.5}}, "PlantedMark.rates.covid：应在 0 与 1 之间，现在是 1.5"),
    ({"rates": {"covid": -1}}, "应在 0 与 1 之间"), ({"rates": {"covid": float("nan")}}, "应在 0 与 1 之间"),
    ({"rates": {}, "seed": -1}, "PlantedMark.seed"), ({"rates": ["covid"]}, "DataLoader.Source.rates"),
    ({"rates": {}, "source": {"name": "Nothing"}}, "PlantedMark.source.*Nothing"),
])
def test_wrong_marks(options, match):
    refused(match, build, "source", {"name": "PlantedMark", "source": DRAWN, **options}, "DataLoader.Source",
            classes=CLASSES)


def best_shift(film, image):
    """How far the middle of two 64² pictures is apart, one of them shifted by at most two pixels."""
    middle = film[2:62, 2:62].astype(float)
    return min(abs(middle - image[2 + down:62 + down, 2 + right:62 + right]).mean()
               for down in range(-2, 3) for right in range(-2, 3))


# --- films -----------------------------------------------------------------------------------------------------------

def test_every_patient_has_several_films_that_are_nearly_alike():
    source, plain = films(films=3), Phantoms(6, 0, 64, classes=CLASSES)
    assert len(source.records) == 36 and source.demo and source.name == "phantom-films" and source.notices == []
    assert [record.patient_id for record in source.records[:4]] == ["phantom-0-0"] * 3 + ["phantom-0-1"]
    assert [record.label for record in source.records] == [r.label for r in plain.records for _ in range(3)]
    assert len({record.path for record in source.records}) == 36 and source.locate(1) == "phantom/0/normal/0000/1"
    assert source.read(0).shape == (64, 64) and not np.array_equal(source.read(0), source.read(1))
    for index in range(6):  # three films of each of the first two patients
        own, stranger = plain.read(index // 3), plain.read(index // 3 + 2)
        assert best_shift(source.read(index), own) < best_shift(source.read(index), stranger) / 2
    assert np.array_equal(source.read(1), films(films=3).read(1))


def test_random_labels_are_the_same_labels_given_to_whole_patients():
    own, dealt = films(), films(labels="random")
    assert dealt.counts() == own.counts() and [r.label for r in dealt.records] != [r.label for r in own.records]
    assert all(len({record.label for record in dealt.records[i:i + 5]}) == 1 for i in range(0, 60, 5))
    assert "随机分给患者" in dealt.notices[-1]
    assert np.array_equal(own.read(7), dealt.read(7))  # the pictures know nothing of it


def test_what_the_films_depend_on_is_in_the_fingerprint():
    made = [films(), films(films=4), films(labels="random"), films(seed=1), films(source=DRAWN | {"seed": 2})]
    assert len({source.fingerprint() for source in made}) == 5 and films().fingerprint() == films().fingerprint()


def test_only_phantoms_have_films_made_of_them(folders):
    refused("只能是内置模体", films, source=folders)
    refused("每位患者一张", films, source={"name": "SeveralFilms", "source": DRAWN})
    refused("films（0）至少为 1", films, films=0)
    refused("seed（-1）至少为 0", films, seed=-1)
    assert SeveralFilms.missing(source=DRAWN) is None
    assert SeveralFilms.missing(source=folders) == ImageFolder.missing(root=folders["root"])


# --- the recipes -----------------------------------------------------------------------------------------------------

def test_one_split_leaks_patients_and_the_other_does_not(root):
    by_patient = load(root / "configs/lessons/leakage.yaml")
    source = open_source(by_patient)
    assert len(source.records) == 600
    assert not any(patient_overlap(source.records, split_source(source, by_patient.recipe.DataLoader)).values())
    by_image = load(root / "configs/lessons/leakage.yaml", ["DataLoader.Split={name: BlogSplit}"])
    assert patient_overlap(source.records, split_source(source, by_image.recipe.DataLoader))["train-test"] == 60


def test_rates_can_be_taken_away_on_the_command_line(root):
    written = load(root / "configs/lessons/shortcut.yaml")
    bare = load(root / "configs/lessons/shortcut.yaml", ["DataLoader.Source.rates={}"])
    assert "NODULE 300/300" in open_source(written).notices[-1] and "NODULE 0/300" in open_source(bare).notices[-1]
    splits = [split_source(open_source(loaded), loaded.recipe.DataLoader) for loaded in (written, bare)]
    assert splits[0] == splits[1] and splits[0].count("test") == 180
