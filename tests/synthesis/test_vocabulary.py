"""Vocabulary: the shipped list is sound, files of every form load, and every mistake is one clear line."""

from __future__ import annotations

import csv
import itertools
import json
import random
import re
import time

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_cxr.data.phantom import drawers  # noqa: F401  fills DRAWERS
from paddle_cxr.data.phantom.findings import DRAWERS
from paddle_cxr.errors import UserError
from paddle_cxr.synthesis.entities import OPPOSITE, TYPES, Entity
from paddle_cxr.synthesis.vocabulary import Vocabulary, fold, load_vocabulary
from paddle_cxr.synthesis.vocabulary.names import identifier


@pytest.fixture(scope="module")
def shipped() -> Vocabulary:
    return load_vocabulary()


def thing(id_: str, type_: str = "disease", **more) -> Entity:
    return Entity(id_, type_, more.pop("en", id_.replace("_", " ")), **more)


def write(folder, name: str, text: str | bytes):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# --- the shipped vocabulary

def test_shipped_has_enough_of_every_type(shipped):
    counts = {type_: len(shipped.of_type(type_)) for type_ in TYPES}
    assert len(shipped) == sum(counts.values()) >= 800
    assert all(counts[type_] >= least for type_, least in zip(TYPES, (260, 230, 200, 130, 220), strict=True)), counts
    for type_ in ("non-abnormality", "non-disease"):
        of_type = [shipped.entities[position] for position in shipped.of_type(type_)]
        assert sum(entity.denies for entity in of_type) >= 100
        assert sum(not entity.denies for entity in of_type) >= 30


def test_shipped_entities_are_complete(shipped):
    for entity in shipped:
        assert re.fullmatch("[a-z][a-z0-9_]*", entity.id)
        assert re.search("[\u4e00-\u9fff]", entity.zh), f"{entity.id} has no Chinese name"
        for name in entity.names:
            assert name == " ".join(name.split()) and not re.search(r"[.;:|]", name), name
            assert fold(name) == fold(fold(name))
        assert entity.drawer is None or entity.drawer in DRAWERS, entity.id
        assert entity.denies <= (entity.zh.startswith("无") and (entity.id, OPPOSITE[entity.type]) in shipped.position)
    assert set(DRAWERS) <= {entity.drawer for entity in shipped}, "every drawer is somebody's"


def test_shipped_spellings_of_an_entity_differ_by_more_than_number(shipped):
    for entity in shipped:
        folded = [fold(name) for name in entity.names]
        assert len(set(folded)) == len(folded), entity.names


def test_shipped_contradictions(shipped):
    def clash(one, other):
        return shipped.position[other] in shipped.contradictions.get(shipped.position[one], ())

    assert clash(("pleural_effusion", "disease"), ("pleural_effusion", "non-disease"))
    assert clash(("tension_pneumothorax", "disease"), ("pneumothorax", "non-disease"))
    assert clash(("no_acute_cardiopulmonary_disease", "non-disease"), ("pneumonia", "disease"))
    assert clash(("pectus_carinatum", "disease"), ("pectus_excavatum", "disease"))
    assert not clash(("pneumonia", "disease"), ("pleural_effusion", "disease"))
    assert not clash(("no_acute_cardiopulmonary_disease", "non-disease"), ("pneumonia", "non-disease"))


def test_shipped_loads_fast_and_always_the_same(shipped):
    start = time.perf_counter()
    again = load_vocabulary()
    assert time.perf_counter() - start < 5
    assert again.entities == shipped.entities and again.fingerprint == shipped.fingerprint
    fewer = Vocabulary([e for e in shipped if not e.contradicts and not e.denies][:5], "fewer")
    assert re.fullmatch("[0-9a-f]{64}", fewer.fingerprint) and fewer.fingerprint != shipped.fingerprint


@pytest.mark.parametrize("text, expected", [
    ("Pleural Effusions", "pleural_effusion"), ("CHF", "congestive_heart_failure"), ("covid-19 pneumonia",
    "covid_19_pneumonia"), ("pneumothoraces", "pneumothorax"), ("Legionnaire's disease", "legionella_pneumonia"),
    ("hilum", "hila"), ("9th rib", "ninth_rib"), ("NO ACUTE PULMONARY PROCESS", "no_acute_pulmonary_disease"),
    ("platelike  atelectasis", "discoid_atelectasis"), ("quiet lung", None), ("", None)])
def test_find_id(shipped, text, expected):
    assert shipped.find_id(text) == expected


# --- the class

def test_positions_types_and_lookup():
    entities = [thing("nodule", "abnormality"), thing("pneumonia"), thing("lungs", "anatomy"),
                thing("pneumonia", "non-disease", denies=True)]
    vocabulary = Vocabulary(iter(entities), "mine")
    assert len(vocabulary) == 4 and list(vocabulary) == entities and vocabulary.name == "mine"
    assert vocabulary["pneumonia", "non-disease"] is entities[3]
    assert vocabulary.position == {entity.key: position for position, entity in enumerate(entities)}
    assert vocabulary.of_type("disease").tolist() == [1] and vocabulary.of_type("disease").dtype == np.int32
    assert vocabulary.of_type("non-abnormality").shape == (0,)
    with pytest.raises(KeyError):
        vocabulary["nodule", "disease"]
    with pytest.raises(UserError, match="disease"):
        vocabulary.of_type("diseases")


def test_a_denial_is_never_what_others_contradict():
    vocabulary = Vocabulary([thing("clear_lungs", "non-abnormality", contradicts=("opacity",)),
                             thing("opacity", "abnormality"), thing("opacity", "non-abnormality", denies=True)], "x")
    assert vocabulary.contradictions == {0: {1}, 1: {0, 2}, 2: {1}}


@pytest.mark.parametrize("entities, words", [
    ([], ["x", "是空的"]),
    ([thing("a"), thing("a")], ["a（disease）重复"]),
    ([thing("a"), thing("a", "abnormality")], ["'a'", "disease 和 abnormality"]),
    ([thing("a"), thing("a", "anatomy")], ["disease 和 anatomy"]),
    ([thing("a"), thing("a", "non-disease")], ["disease 和 non-disease", "denies"]),
    ([thing("a"), thing("a", "non-disease", denies=True), thing("a", "anatomy")], ["disease 和 anatomy"]),
    ([thing("a", en="lung mass"), thing("b", also=("Lung-Masses",))], ["'Lung-Masses'", "a 和 b"]),
    ([thing("effusion"), thing("b", "anatomy", also=("Effusions",))], ["'Effusions'", "effusion 和 b"]),
    ([thing("a", contradicts=("pneumoni",)), thing("pneumonia")], ["a 的 contradicts", "是不是 pneumonia"]),
    ([thing("a", contradicts=("a",))], ["它自己"]),
    ([thing("a", "illness")], ["a 的类型", "illness", "non-disease"]),
    ([thing("a", denies=True)], ["denies", "non-disease"]),
    ([thing("A-b")], ["'A-b'", "小写字母"]),
    ([thing("a", en="")], ["a（disease）有空的名称"]),
    ([thing("a", also=("?!",))], ["有空的名称"]),
])
def test_mistakes(entities, words):
    with pytest.raises(UserError) as error:
        Vocabulary(entities, "x")
    assert all(word in str(error.value) for word in ["x", *words]) and "\n" not in str(error.value), error.value


def test_many_mistakes_are_counted_not_listed():
    with pytest.raises(UserError) as error:
        Vocabulary([thing(f"d{n % 500}") for n in range(1000)], "x")
    assert "500 处" in str(error.value) and len(str(error.value)) < 200


words_ = st.text("abcs 'é-", min_size=1, max_size=8).filter(lambda text: fold(text))


@settings(max_examples=150, deadline=None)
@given(st.lists(words_, min_size=1, max_size=20, unique_by=fold), st.data())
def test_any_vocabulary_keeps_its_promises(names, data):
    ids = [f"e{number}" for number in range(len(names))]
    types = [data.draw(st.sampled_from(["abnormality", "disease", "anatomy"])) for _ in names]
    entities = []
    for id_, type_, name in zip(ids, types, names, strict=True):
        listed = data.draw(st.lists(st.sampled_from(ids).filter(lambda other, own=id_: other != own), max_size=3)
                           if len(ids) > 1 else st.just([]))
        entities.append(Entity(id_, type_, name, contradicts=tuple(listed)))
        if type_ in OPPOSITE and data.draw(st.booleans()):
            entities.append(Entity(id_, OPPOSITE[type_], name, denies=True))
    data.draw(st.randoms()).shuffle(entities)
    vocabulary = Vocabulary(entities, "any")
    # The definition, pair by pair.
    for (one, a), (other, b) in itertools.combinations(enumerate(entities), 2):
        expected = a.id == b.id or (b.id in a.contradicts and not b.denies) or (a.id in b.contradicts and not a.denies)
        assert (other in vocabulary.contradictions.get(one, ())) == expected
        assert (one in vocabulary.contradictions.get(other, ())) == expected
    for entity in entities:
        assert vocabulary.entities[vocabulary.position[entity.key]] is entity
        assert vocabulary.find_id(entity.en.upper()) == entity.id
    assert sorted(np.concatenate([vocabulary.of_type(type_) for type_ in TYPES]).tolist()) == list(range(len(entities)))


# --- names

@pytest.mark.parametrize("one, other", [
    ("Masses", "mass"), ("opacities", "opacity"), ("ground-glass opacity", "Ground glass opacities"),
    ("bullae", "bulla"), ("metastases", "metastasis"), ("lung apices", "lung apex"),
    ("Schmorl's nodes", "schmorl node"),
    ("Schmorl’s node", "Schmorl's node"), ("ＣＯＰＤ", "copd"), ("x-rays", "x ray"), ("diseases", "disease")])
def test_spellings_of_one_name(one, other):
    assert fold(one) == fold(other) != ""


@pytest.mark.parametrize("one, other", [
    ("pelvis", "pelvi"), ("thymus", "thymu"), ("abscess", "absces"), ("lungs clear", "lung"), ("肺炎", "肺")])
def test_different_names(one, other):
    assert fold(one) != fold(other)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=20), st.text(max_size=20))
def test_identifiers_differ_exactly_where_names_do(one, other):
    for text in (one, other):
        assert re.fullmatch("[a-z0-9_]*", identifier(text)) and bool(identifier(text)) == bool(fold(text))
    assert (identifier(one) == identifier(other)) == (fold(one) == fold(other))


# --- YAML files

def test_yaml_folder_with_denials(tmp_path):
    write(tmp_path, "disease.yaml", "- {id: edema, en: edema, zh: 水肿, also: [oedema], drawer: oedema}\n"
                                    "- {en: Tietze syndrome}\n")
    write(tmp_path, "non-disease.yaml", "\ufeff- {denies: edema, contradicts: [tietze_syndrome]}\n"
                                        "- {id: fine, en: no disease}\n")
    write(tmp_path, "anatomy.yaml", "- id: spine\n  en: no  # text, not a boolean\n")
    vocabulary = load_vocabulary(tmp_path)
    assert vocabulary.name == tmp_path.name
    assert vocabulary["edema", "disease"] == Entity("edema", "disease", "edema", "水肿", ("oedema",), drawer="oedema")
    assert vocabulary["edema", "non-disease"] == Entity(
        "edema", "non-disease", "edema", "无水肿", ("oedema",), denies=True, contradicts=("tietze_syndrome",))
    assert vocabulary["tietze_syndrome", "disease"].en == "Tietze syndrome"
    assert vocabulary["spine", "anatomy"].en == "no"
    assert vocabulary.contradictions[vocabulary.position["edema", "non-disease"]] == {0, 1}


def test_one_yaml_file(tmp_path):
    assert load_vocabulary(write(tmp_path, "anatomy.yml", "- {en: heart}")).entities == (
        Entity("heart", "anatomy", "heart"),)
    text = "- {en: heart, type: anatomy}\n- {en: flu, type: disease}"
    mixed = load_vocabulary(str(write(tmp_path, "mine.yaml", text)))
    assert [entity.type for entity in mixed] == ["anatomy", "disease"] and mixed.name == "mine.yaml"


def test_order_of_files_is_that_of_the_types(tmp_path):
    for type_ in TYPES:
        write(tmp_path, f"{type_}.yaml", f"- {{en: {type_} one}}")
    assert tuple(entity.type for entity in load_vocabulary(tmp_path)) == TYPES


@pytest.mark.parametrize("name, text, words", [
    ("disease.yaml", "", ["disease.yaml", "是空的"]),
    ("disease.yaml", "- {en: a", ["disease.yaml:", "YAML"]),
    ("disease.yaml", "a: b", ["应是一个列表"]),
    ("disease.yaml", "- pneumonia", ["disease.yaml:1"]),
    ("disease.yaml", "- {en: a}\n- {en: b, synonyms: [c]}", ["disease.yaml:2", "synonyms"]),
    ("disease.yaml", "- {en: a, alsso: [c]}", ["是不是 also"]),
    ("disease.yaml", "- {en: a, also: c}", ["also", "列表"]),
    ("disease.yaml", "- {en: a, also: [[c]]}", ["also", "列表"]),
    ("disease.yaml", "- {en: [a]}", ["en 应为文字"]),
    ("disease.yaml", "- {en: a, en: b}", ["en 重复"]),
    ("disease.yaml", "- {zh: 肺炎}", ["disease.yaml:1", "英文名"]),
    ("disease.yaml", "- {en: a, type: ilness}", ["ilness", "disease"]),
    ("disease.yaml", "- {en: a}\n- {en: A}", ["disease.yaml:2", "'A'", "重复"]),
    ("disease.yaml", "- {id: a, en: a}\n- {id: a, en: b}", ["a（disease）重复"]),
    ("disease.yaml", "- {denies: a}", ["denies", "non-disease"]),
    ("mine.yaml", "- {en: pneumonia, type: disease}\n- {denies: pneumona, type: non-disease}",
     ["mine.yaml:2", "pneumona", "是不是 pneumonia"]),
    ("mine.yaml", "- {en: a b, type: disease}\n- {denies: a_b, type: non-disease, zh: 无}", ["mine.yaml:2", "zh"]),
    ("mine.yaml", "- {en: a}", ["mine.yaml:1", "缺少 type"]),
    ("disease.yaml", "- {en: a}\n- \x07", ["disease.yaml"]),
    ("disease.yaml", "[" * 100_000, ["disease.yaml", "YAML"]),
    ("disease.yaml", "- {en: a, zh: \"\\e[31m\\nb\", foo: 1}", ["foo"]),
    ("disease.yaml", "- {en: 炎}".encode("gb18030"), ["不是 UTF-8"]),
    ("disease.txt", "pneumonia", ["disease.txt", ".csv"]),
])
def test_bad_yaml(tmp_path, name, text, words):
    with pytest.raises(UserError) as error:
        load_vocabulary(write(tmp_path, name, text))
    assert all(word in str(error.value) for word in words), error.value
    assert str(error.value).isprintable() and len(str(error.value)) < 400


def test_missing_files(tmp_path):
    with pytest.raises(UserError, match="没有 .yaml"):
        load_vocabulary(tmp_path)
    write(tmp_path, "vocabulary.csv", "name,type\nheart,anatomy\n")
    with pytest.raises(UserError, match="是不是 .*vocabulary.csv"):
        load_vocabulary(tmp_path / "vocabulry.csv")


@pytest.mark.parametrize("name", ["a" * 5000 + ".csv", "a" * 5000, "a\0.csv"])
def test_impossible_file_names(name):
    with pytest.raises(UserError, match="词表"):
        load_vocabulary(name)


def test_a_thousand_mistakes_take_no_longer_than_three(tmp_path):
    """The nearest id is looked for among all ids, which for every mistake of a large list would take hours."""
    rows = "".join(f"thing {number},disease,nothing_{number}\n" for number in range(5000))
    start = time.perf_counter()
    with pytest.raises(UserError, match="等共 5000 处"):
        load_vocabulary(write(tmp_path, "mine.csv", "name,type,contradicts\n" + rows))
    assert time.perf_counter() - start < 20


def test_anchors_cannot_blow_up(tmp_path):
    bomb = "- {en: a, also: &a0 [x]}\n" + "".join(
        f"- {{en: b{n}, also: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 30))
    start = time.perf_counter()
    with pytest.raises(UserError, match="also"):
        load_vocabulary(write(tmp_path, "disease.yaml", bomb))
    assert time.perf_counter() - start < 5


# --- CSV files

def test_csv_columns(tmp_path):
    file = write(tmp_path, "mine.csv", "\ufeffEN,zh,Type,also,contradicts,id\r\n"
                                       '"mass, large",肿块,ABNORMALITY,big mass|huge mass,cyst_1,\r\n'
                                       "\r\n"
                                       "cyst,,disease,,,cyst_1\r\n")
    assert load_vocabulary(file).entities == (
        Entity("mass_large", "abnormality", "mass, large", "肿块", ("big mass", "huge mass"), contradicts=("cyst_1",)),
        Entity("cyst_1", "disease", "cyst"))


def test_csv_name_under_a_type_and_its_opposite_is_one_thing(tmp_path):
    vocabulary = load_vocabulary(write(tmp_path, "mined.csv", "name,type,zh\npleural effusion,NON_DISEASE,\n"
                                                              "clear lungs,non-abnormality,\n"
                                                              "pleural effusion,disease,积液\n"))
    denied = vocabulary["pleural_effusion", "non-disease"]
    assert denied.denies and denied.zh == "无积液" and not vocabulary["pleural_effusion", "disease"].denies
    assert not vocabulary["clear_lung", "non-abnormality"].denies
    assert vocabulary.contradictions == {0: {2}, 2: {0}}


def test_csv_spellings_are_merged(tmp_path):
    vocabulary = load_vocabulary(write(tmp_path, "mined.csv", "name,type\nopacity,abnormality\nopacities,abnormality\n"
                                                              "ground glass,abnormality\nground-glass,abnormality\n"))
    assert [entity.names for entity in vocabulary] == [("opacity", "opacities"), ("ground glass", "ground-glass")]


@pytest.mark.parametrize("text, words", [
    ("", ["name"]),
    ("name,type\n", ["是空的"]),
    ("name,kind\na,disease\n", ["mine.csv:1", "'kind'", "可用"]),
    ("name,typ\na,disease\n", ["是不是 type"]),
    ("name\na\n", ["缺少 type"]),
    ("type,zh\ndisease,a\n", ["缺少 name"]),
    ("name,type,en\na,disease,a\n", ["重复的列"]),
    ("name,type\na,disease\nb,sickness\n", ["mine.csv:3", "sickness"]),
    ("name,type\na,disease,x\n", ["mine.csv:2", "3 列", "2 列"]),
    ("name,type\n,disease\n", ["mine.csv:2", "英文名"]),
    ("name,type\na,disease\na,disease\n", ["mine.csv:3", "重复"]),
    ("name,type\npneumonia,disease\npneumonia,abnormality\n", ["mine.csv", "pneumonia", "disease 和 abnormality"]),
    ('name,type\n"a,disease\n', ["mine.csv", "CSV"]),
    ('name,type\n"a"b,disease\n', ["mine.csv:2", "CSV"]),
    ("name,type\n" + "a" * 200_000 + ",disease\n", ["mine.csv:2", "CSV"]),
    ("name,type\na,disease\n".encode("utf-16"), ["不是 UTF-8"]),
    ("名称,type\n肺炎,disease\n".encode("gb18030"), ["不是 UTF-8"]),
])
def test_bad_csv(tmp_path, text, words):
    with pytest.raises(UserError) as error:
        load_vocabulary(write(tmp_path, "mine.csv", text))
    assert all(word in str(error.value) for word in words), error.value
    assert str(error.value).isprintable() and len(str(error.value)) < 400


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=12).filter(fold), min_size=1, max_size=10, unique_by=fold))
def test_any_names_survive_a_csv(tmp_path_factory, names):
    names = [" ".join(name.split()) for name in names if "\0" not in name]
    file = tmp_path_factory.mktemp("csv") / "any.csv"
    with open(file, "w", encoding="utf-8", newline="") as lines:
        csv.writer(lines).writerows([("name", "type"), *((name, "disease") for name in names)])
    if names:
        assert [entity.en for entity in load_vocabulary(file)] == names


def test_shipped_survives_json_and_yaml(shipped, tmp_path):
    """The form is plain YAML: what another reader makes of it loads to the same things."""
    entities = [dict(id=e.id, type=e.type, en=e.en, zh=e.zh, also=list(e.also)) for e in shipped if not e.denies]
    file = write(tmp_path, "again.yaml", json.dumps(entities, ensure_ascii=False))
    assert [e.key for e in load_vocabulary(file)] == [e.key for e in shipped if not e.denies]
    assert yaml.safe_load(file.read_text("utf-8"))[0]["id"] == shipped.entities[0].id


def mined(rows: int, seed: int = 0) -> str:
    """A list of the size and shape of RaTE's: names of two to four words, one in five also under the opposite type."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("bcdfglmnprt", k=3)) + rng.choice(["oma", "itis", "osis", "al"]) for _ in range(4000)]
    lines, seen = ["name,type"], set()
    while len(lines) <= rows:
        name, type_ = " ".join(rng.choices(words, k=rng.choice([2, 3, 4]))), rng.choice(TYPES)
        if name not in seen:
            seen.add(name)
            lines.append(f"{name},{type_}")
            if type_ in OPPOSITE and rng.random() < 0.2:
                lines.append(f"{name},{OPPOSITE[type_]}")
    return "\n".join(lines[:rows + 1]) + "\n"


def test_a_large_csv(tmp_path):
    vocabulary = load_vocabulary(write(tmp_path, "large.csv", mined(20_000)))
    assert len(vocabulary) == 20_000
    denied = [entity for entity in vocabulary if entity.denies]
    assert len(denied) * 2 == len(vocabulary.contradictions) > 2000


@pytest.mark.slow
def test_a_csv_of_177_000_rows_loads_in_seconds(tmp_path):
    file = write(tmp_path, "rate.csv", mined(177_000))
    start = time.perf_counter()
    assert len(load_vocabulary(file)) == 177_000
    assert time.perf_counter() - start < 15  # 3 to 4 seconds on a quiet machine


def test_names_that_differ_by_a_contrary_word_contradict_each_other():
    vocabulary = Vocabulary([
        Entity("a", "abnormality", "increased lung markings"), Entity("b", "abnormality", "Decreased lung marking"),
        Entity("b", "non-abnormality", "Decreased lung marking", denies=True),
        Entity("c", "abnormality", "increased density"), Entity("d", "abnormality", "high density")], "v")
    assert vocabulary.contradictions == {0: frozenset({1}), 1: frozenset({0, 2}), 2: frozenset({1})}
