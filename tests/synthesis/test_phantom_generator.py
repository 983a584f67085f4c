"""Phantoms drawn for reports: what the entities say, where the text says."""

from collections import defaultdict

import numpy as np
import pytest

from paddle_cxr.data.phantom import DRAWERS, Finding, draw
from paddle_cxr.errors import UserError
from paddle_cxr.synthesis.entities import Entity
from paddle_cxr.synthesis.generators.base import ImageRequest
from paddle_cxr.synthesis.generators.phantom import PhantomGenerator
from paddle_cxr.synthesis.generators.places import Spot, is_lung_place, places_of_findings, spots_in, words_of
from paddle_cxr.synthesis.ner.dictionary import DictionaryNER
from paddle_cxr.synthesis.vocabulary import Vocabulary, load_vocabulary

SIZE = 64
TYPES = {"pleural_effusion": "disease", "consolidation": "abnormality", "nodule": "abnormality",
         "pneumothorax": "disease", "pulmonary_edema": "disease", "cardiomegaly": "disease",
         "airspace_opacity": "abnormality", "fracture": "abnormality"}


@pytest.fixture(scope="module")
def vocabulary():
    return load_vocabulary()


@pytest.fixture(scope="module")
def ner(vocabulary):
    return DictionaryNER(vocabulary)


@pytest.fixture(scope="module")
def generator(vocabulary):
    return PhantomGenerator(SIZE, vocabulary)


def request(prompt: str, *ids: str, seed: int = 0) -> ImageRequest:
    entities = tuple({"id": one.removeprefix("no "), "type": "non-" * one.startswith("no ")
                      + TYPES.get(one.removeprefix("no "), "anatomy")} for one in ids)
    return ImageRequest("r0", prompt, seed, entities)


def expected(*findings: Finding, seed: int = 0) -> np.ndarray:
    return draw(findings, seed=seed, index=0, size=SIZE).image


@pytest.mark.parametrize("prompt, ids, findings", [
    ("The lungs are clear.", (), ()),
    ("No pleural effusion.", ("no pleural_effusion", "left_lung"), ()),
    ("Small right pleural effusion.", ("pleural_effusion",), [Finding("effusion", "right")]),
    ("Bilateral pleural effusions, larger on the left.", ("pleural_effusion",), [Finding("effusion", "bilateral")]),
    ("There is consolidation in the left upper lobe.", ("consolidation", "left_upper_lobe"),
     [Finding("consolidation", "left", "upper")]),
    ("Consolidation in the RLL.", ("consolidation", "right_lower_lobe"), [Finding("consolidation", "right", "lower")]),
    ("In the right lung apex, there is a nodule.", ("nodule", "right_lung_apex"),
     [Finding("nodule", "right", "upper")]),
    ("Consolidation in the right upper lobe and a nodule in the left lung base.",
     ("nodule", "consolidation", "right_upper_lobe", "left_lung_base"),
     [Finding("nodule", "left", "lower"), Finding("consolidation", "right", "upper")]),
    ("Nodule and pleural effusion on the left. There is a left pleural effusion. Nodule in the right upper lobe.",
     ("nodule", "pleural_effusion"), [Finding("nodule", "right", "upper"), Finding("effusion", "left")]),
    ("Consolidation in the left and right lower lobes.", ("consolidation",),
     [Finding("consolidation", "left"), Finding("consolidation", "right", "lower")]),
    ("Left lower lobe consolidation and right upper lobe nodule.", ("nodule", "consolidation"),
     [Finding("nodule", "right", "upper"), Finding("consolidation", "left", "lower")]),
    ("Right pleural effusion and a nodule in the left upper lobe.", ("pleural_effusion", "nodule"),
     [Finding("effusion", "right"), Finding("nodule", "left", "upper")]),
    ("Moderate left pleural effusion, atelectasis and consolidation at the right lung base.",
     ("pleural_effusion", "consolidation"), [Finding("effusion", "left"), Finding("consolidation", "right", "lower")]),
    ("The left upper lobe shows consolidation. Right lung base: nodule.", ("consolidation", "nodule"),
     [Finding("consolidation", "left", "upper"), Finding("nodule", "right", "lower")]),
    ("Consolidation at the right lung base and apical pneumothorax.", ("consolidation", "pneumothorax"),
     [Finding("consolidation", "right", "lower"), Finding("pneumothorax", "right", "upper")]),
    ("In the left lung, there is a nodule in the upper zone.", ("nodule",), [Finding("nodule", "left", "upper")]),
    # The text says nothing: the report's anatomy does, where it agrees.
    ("Consolidation.", ("consolidation", "left_lower_lobe"), [Finding("consolidation", "left", "lower")]),
    ("", ("consolidation", "left_lower_lobe", "left_lung_apex", "right_clavicle"), [Finding("consolidation", "left")]),
    ("", ("consolidation", "left_lung", "right_lung"), [Finding("consolidation")]),
    # What a drawer cannot do is left open; a bilateral finding of single sides is drawn twice.
    ("Pneumothorax at the left lung base.", ("pneumothorax", "left_lung_base"), [Finding("pneumothorax", "left")]),
    ("Left pulmonary edema.", ("pulmonary_edema",), [Finding("oedema")]),
    ("Bilateral pneumothoraces.", ("pneumothorax",),
     [Finding("pneumothorax", "left"), Finding("pneumothorax", "right")]),
    # Two words for one thing are drawn once.
    ("Airspace opacity, consistent with consolidation, in the left upper lobe.",
     ("airspace_opacity", "consolidation", "left_upper_lobe"), [Finding("consolidation", "left", "upper")]),
    ("Cardiomegaly. No pneumothorax in the right lung.", ("cardiomegaly", "no pneumothorax", "right_lung"),
     [Finding("cardiomegaly")]),
])
def test_what_a_report_says_is_drawn_where_it_says(generator, prompt, ids, findings):
    drawn = generator.draw([request(prompt, *ids, seed=5)])[0]
    assert not drawn.error and drawn.image.shape == (SIZE, SIZE) and drawn.image.dtype == np.uint8
    assert np.array_equal(drawn.image, expected(*findings, seed=5))


def test_an_image_depends_on_its_request_alone(generator, vocabulary):
    requests = [request("Right pleural effusion.", "pleural_effusion", seed=seed) for seed in (3, 1, 2**31, 3)]
    together = [one.image for one in generator.draw(requests)]
    alone = [PhantomGenerator(SIZE, vocabulary).draw([one])[0].image for one in requests]
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))
    assert np.array_equal(together[0], together[3]) and not np.array_equal(together[0], together[1])
    assert PhantomGenerator(32).title == "phantom" and PhantomGenerator(32).draw([]) == []


def test_what_cannot_be_drawn_is_an_error_of_its_pair(generator):
    drawn = generator.draw([request("", "fracture", "consolidation"), request("", "consolidation"),
                            ImageRequest("r2", "", 0, ({"id": "grue", "type": "disease"},))])
    assert "fracture" in drawn[0].error and drawn[0].image is None
    assert drawn[1].image is not None
    assert "grue" in drawn[2].error and drawn[2].image is None


def test_a_drawer_that_the_generator_lacks_is_an_error():
    made = PhantomGenerator(SIZE, Vocabulary([Entity("x", "disease", "x", drawer="unheard")], "own"))
    assert "x" in made.draw([ImageRequest("r0", "", 0, ({"id": "x", "type": "disease"},))])[0].error


@pytest.mark.parametrize("size", [31, 0, -1, 4096])
def test_a_size_out_of_range_is_one_line(size):
    with pytest.raises(UserError, match="Generator.size"):
        PhantomGenerator(size)


def test_every_drawer_and_every_place_can_be_asked_for(generator, vocabulary):
    drawable = [entity for entity in vocabulary if entity.drawer and entity.type in ("abnormality", "disease")]
    places = [entity for entity in vocabulary if entity.type == "anatomy"]
    requests = [ImageRequest("r", f"{entity.en} in the {places[7 * number % len(places)].en}.", number,
                             ({"id": entity.id, "type": entity.type},)) for number, entity in enumerate(drawable)]
    assert all(one.image is not None for one in generator.draw(requests))


@pytest.mark.parametrize("words, spots", [
    ("left lower lobe", [Spot("left", "lower")]), ("both lungs", [Spot("bilateral")]), ("mediastinum", []),
    ("lower zone of the left lung upper zone of the right lung", [Spot("left", "lower"), Spot("right", "upper")]),
    ("right upper middle lobes", [Spot("right", "upper"), Spot("right", "middle")]),
    ("peripheral lung bases", [Spot(None, "lower", "peripheral")]), ("bibasilar", [Spot("bilateral", "lower")])])
def test_words_that_tell_a_place(words, spots):
    assert spots_in(words.split()) == spots


def test_the_shipped_anatomy_of_the_lungs(vocabulary):
    told = {entity.id: spots_in(words_of(entity.en)) for entity in vocabulary
            if entity.type == "anatomy" and is_lung_place(entity.en)}
    for id_, spots in told.items():
        for side in ("left", "right"):
            assert not id_.startswith(side) or spots[0].side == side, id_
        for word, zone in (("upper", "upper"), ("lower", "lower"), ("apex", "upper"), ("base", "lower")):
            assert word not in id_.split("_") or spots[0].zone == zone, id_
    assert {"left_lung_base", "lingula", "right_middle_lobe", "left_costophrenic_angle"} <= set(told)
    assert not {"left_hilum", "right_clavicle", "upper_lobe_veins", "left_lower_lobe_bronchus", "left_chest_wall",
                "lower_ribs", "upper_abdomen"} & set(told)


@pytest.mark.parametrize("section", ["findings", "impression"])
def test_the_phantoms_own_reports_are_read_as_they_were_drawn(ner, vocabulary, section):
    """The text says where every finding was placed: what is read back must be that, or nothing."""
    rng = np.random.default_rng(0)
    checked = told = 0
    for index in range(120):
        names = rng.permutation(sorted(DRAWERS))[:rng.integers(1, 4)]
        film = draw([Finding(name) for name in names], seed=5, index=index, size=32)
        text = film.report[section]
        found = defaultdict(list)
        for key, spots in places_of_findings(text, ner.find([text])[0], vocabulary).items():
            if key[1] in ("abnormality", "disease"):
                found[vocabulary[key].drawer] += spots
        for finding in film.findings:
            drawer = DRAWERS[finding.name]
            for attribute, accepted in (("side", drawer.sides), ("zone", drawer.zones)):
                wanted = getattr(finding, attribute)
                if len(accepted) > 1 and wanted != "all":
                    values = {getattr(spot, attribute) for spot in found[finding.name]} - {None}
                    checked, told = checked + 1, told + bool(values)
                    assert not values or wanted in values, (text, finding, values)
                    # What looks like COVID is described with "consolidation" too.
                    assert len(values) <= 1 or finding.name == "consolidation" and "covid" in names, (text, values)
    assert told > 0.6 * checked
