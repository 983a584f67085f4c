"""Phantoms as findings: labels, boxes and masks are what was drawn, and the pictures are those of the pairs."""

from __future__ import annotations

import numpy as np
import pytest

from paddle_cxr.data.findings import FindingsSource, label_matrix
from paddle_cxr.data.labelled import View
from paddle_cxr.data.pairs import PhantomPairs
from paddle_cxr.data.phantom import DRAWERS, Finding, draw
from paddle_cxr.data.phantom.names import NAMES
from paddle_cxr.data.sources import PhantomFindings
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.phantom_prompts import phantom_prompts
from paddle_cxr.registry import build

ARGUMENTS = {"count": 24, "seed": 4, "size": 64, "findings": ("normal", "effusion", "nodule", "cardiomegaly"),
             "together": 3}


@pytest.fixture(scope="module")
def source() -> PhantomFindings:
    return build("findings", {"name": "PhantomFindings", **ARGUMENTS}, "DataLoader.Source")


def test_the_same_films_as_the_pairs(source: PhantomFindings) -> None:
    pairs = PhantomPairs(**ARGUMENTS)
    for index in range(6):
        assert np.array_equal(source.read(index), pairs.read(index))
        assert np.array_equal(pairs.film(index).image, pairs.read(index))
    for one, pair in zip(source.records, pairs.records, strict=True):
        assert (one.path, one.patient_id, one.labels) == (pair.path, pair.patient_id, pair.labels)


def test_labels_masks_and_boxes_agree(source: PhantomFindings) -> None:
    names = [info.name for info in source.findings]
    assert names == ["effusion", "nodule", "cardiomegaly"]
    labels = label_matrix(source.records, names)
    assert not np.isnan(labels).any() and (labels.sum(axis=1) > 1).any()
    for index, row in enumerate(labels):
        boxes = {box.finding for box in source.records[index].boxes}
        for name, label in zip(names, row, strict=True):
            assert source.annotated(index, name)
            mask = source.mask(index, name, (64, 64))
            assert mask.shape == (64, 64) and mask.dtype == bool
            assert mask.any() == (label == 1) == (name in boxes)
            # A box is tight, so that the inside of all of a finding's boxes holds its mask.
            assert not (mask & ~FindingsSource.mask(source, index, name, (64, 64))).any()
            for box in source.records[index].boxes:
                if box.finding == name:
                    part = mask[int(box.y):int(box.y + box.height), int(box.x):int(box.x + box.width)]
                    assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()


def test_the_masks_of_a_film_make_its_lesion_mask() -> None:
    wanted = [Finding("effusion", "left"), Finding("nodule", "right", "upper"), Finding("cardiomegaly")]
    film = draw(wanted, seed=0, index=3, size=96)
    assert len(film.masks) == len(film.findings) == 3
    assert np.array_equal(np.logical_or.reduce(film.masks), film.lesion_mask > 0)
    for finding, mask in zip(film.findings, film.masks, strict=True):
        x, y, w, h = finding.box
        assert mask[y:y + h, x:x + w].sum() == mask.sum() > 0


def test_lungs_are_known_and_no_finding(source: PhantomFindings) -> None:
    assert source.annotated(0, "lung") and "lung" not in {info.name for info in source.findings}
    lung = source.mask(0, "lung", (64, 64))
    assert 0.12 < lung.mean() < 0.5 and lung[:, :32].any() and lung[:, 32:].any()
    assert not source.annotated(0, "covid")


def test_a_part_of_it_knows_as_much(source: PhantomFindings) -> None:
    part = View(source, [5, 2])
    for place, index in enumerate((5, 2)):
        assert np.array_equal(part.mask(place, "effusion", (64, 64)), source.mask(index, "effusion", (64, 64)))
        assert list(part.records[place].boxes) == list(source.records[index].boxes)


def test_listing_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paddle_cxr.data.phantom.draw", None)
    many = PhantomFindings(count=50, size=32)
    assert len(many.fingerprint()) == 16
    assert {one.name for one in many.findings} == set(DRAWERS)


def test_the_fingerprint_is_of_the_pictures() -> None:
    prints = {PhantomFindings(**{**ARGUMENTS, **change}).fingerprint()
              for change in ({}, {"seed": 5}, {"size": 96}, {"count": 23}, {"together": 1})}
    assert len(prints) == 5


def test_names_are_those_of_the_prompts() -> None:
    assert list(NAMES) == list(DRAWERS)
    assert {one.name: (one.zh, one.en) for one in phantom_prompts()} == NAMES


@pytest.mark.parametrize(("arguments", "words"), [
    ({"findings": ("normal",)}, "normal"), ({"findings": ("efusion",)}, "PhantomFindings.findings.*effusion"),
    ({"count": 0}, "PhantomFindings：count"), ({"together": 0}, "PhantomFindings.together"),
])
def test_mistakes_are_one_clear_line(arguments: dict, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        PhantomFindings(**arguments)
    assert "\n" not in str(error.value)


def test_a_mask_of_another_size(source: PhantomFindings) -> None:
    with pytest.raises(UserError, match=r"\(64, 64\).*\(32, 64\)"):
        source.mask(0, "effusion", (32, 64))
