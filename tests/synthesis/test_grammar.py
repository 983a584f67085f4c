"""The grammar writer: every entity mentioned, nothing else, in English that a radiologist could have dictated."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_cxr.registry import accepted_arguments
from paddle_cxr.synthesis.entities import TYPES, Entity
from paddle_cxr.synthesis.vocabulary import Vocabulary, load_vocabulary
from paddle_cxr.synthesis.writers.base import Request
from paddle_cxr.synthesis.writers.grammar import GrammarWriter
from paddle_cxr.synthesis.writers.nouns import join, noun
from paddle_cxr.synthesis.writers.phrasebook import Phrasebook

SECTIONS = ("findings", "impression")


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return load_vocabulary()


@pytest.fixture(scope="module")
def writer(vocabulary: Vocabulary) -> GrammarWriter:
    return GrammarWriter(vocabulary)


@pytest.fixture(scope="module")
def ner(vocabulary: Vocabulary):
    return pytest.importorskip("paddle_cxr.synthesis.ner.dictionary").DictionaryNER(vocabulary)


def entity(name: str, type_: str, denies: bool = False, also: tuple[str, ...] = ()) -> Entity:
    return Entity(re.sub("[^a-z0-9]+", "_", name.lower()), type_, name, also=also, denies=denies)


def random_sets(vocabulary: Vocabulary, count: int, seed: int = 0, k: int = 9, m: int = 3) -> list[tuple[Entity, ...]]:
    """k entities of the first four types, equally often, without contradictions, and m regions."""
    rng = random.Random(seed)
    pools = [vocabulary.of_type(type_).tolist() for type_ in TYPES]
    sets = []
    for _ in range(count):
        chosen: list[int] = []
        while len(chosen) < k:
            position = rng.choice(pools[rng.randrange(4)])
            if position not in chosen and not vocabulary.contradictions.get(position, frozenset()).intersection(chosen):
                chosen.append(position)
        chosen += rng.sample(pools[4], m)
        sets.append(tuple(vocabulary.entities[position] for position in chosen))
    return sets


def requests_for(sets: list[tuple[Entity, ...]], feedback: str = "") -> list[Request]:
    return [Request(f"r{number}", section, entities, 2 * number + (section == "impression"), feedback=feedback)
            for number, entities in enumerate(sets) for section in SECTIONS]


def passes(request: Request, spans) -> bool:
    return {span.key for span in spans} == {one.key for one in request.entities}


def test_the_check_finds_exactly_the_entities_asked_for(vocabulary, writer, ner):
    requests = requests_for(random_sets(vocabulary, 1000))
    found = ner.find([reply.text for reply in writer.write(requests)])
    failed = [request for request, spans in zip(requests, found, strict=True) if not passes(request, spans)]
    assert len(failed) <= 0.01 * len(requests)
    again = [Request(one.id, one.section, one.entities, one.seed + 1, feedback="Not mentioned: x.") for one in failed]
    spans_again = ner.find([reply.text for reply in writer.write(again)])
    assert sum(not passes(*pair) for pair in zip(again, spans_again, strict=True)) <= 0.001 * len(requests)


def test_every_entity_of_the_vocabulary_can_be_written(vocabulary, writer, ner):
    """Alone, plainly: what fails here can never be accepted."""
    requests = [Request("r", section, (one,), 1, feedback="again") for one in vocabulary for section in SECTIONS]
    found = ner.find([reply.text for reply in writer.write(requests)])
    failed = [request for request, spans in zip(requests, found, strict=True) if not passes(request, spans)]
    assert not {request.entities[0].key for request in failed}


def test_no_fixed_word_of_a_sentence_is_an_entity(vocabulary, ner):
    book = Phrasebook()
    for text, spans in zip(book.fixed_words(), ner.find(list(book.fixed_words())), strict=True):
        assert not spans, text
    assert {line for rows in book.sentences.values() for one in rows.values() for line in one.every} == {
        line for rows in Phrasebook(vocabulary).sentences.values() for one in rows.values() for line in one.every}


def test_reports_rarely_share_their_sentences(vocabulary, writer):
    book = Phrasebook()
    templates = {line for rows in book.sentences.values() for one in rows.values() for line in one.every}
    assert len(templates) >= 60
    # The pattern of a report: its sentences without the words of its entities.
    same = random_sets(vocabulary, 1)[0]
    replies = writer.write([Request(f"r{seed}", "findings", same, seed) for seed in range(500)])
    patterns = Counter(re.sub(r"\b(a|an|the)\b", "", reply.text.lower()) for reply in replies)
    assert len(patterns) == 500
    openings = Counter(reply.text.split(".")[0] for reply in replies)
    assert openings.most_common(1)[0][1] < 50


def test_the_text_depends_on_the_seed_and_on_nothing_else(vocabulary, writer):
    entities = random_sets(vocabulary, 1)[0]
    request = Request("r1", "findings", entities, 7)
    text = writer.write([request])[0].text
    assert GrammarWriter(vocabulary).write([request] * 2)[1].text == text
    assert writer.write([Request("r1", "findings", entities, 8)])[0].text != text
    assert writer.write([Request("r1", "findings", entities, 8, feedback="Not mentioned: x.")])[0].text != text
    program = ("from paddle_cxr.synthesis.vocabulary import load_vocabulary as load\n"
               "from paddle_cxr.synthesis.writers.grammar import GrammarWriter\n"
               "from paddle_cxr.synthesis.writers.base import Request\n"
               f"v = load(); keys = {[one.key for one in entities]!r}\n"
               "r = Request('r1', 'findings', tuple(v[key] for key in keys), 7)\n"
               "print(GrammarWriter(v).write([r])[0].text)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == text


def test_findings_and_impression_agree_on_where_and_how_much():
    entities = (entity("nodule", "abnormality"), entity("right upper lobe", "anatomy"), entity("left lung", "anatomy"))
    writer = GrammarWriter()
    placed = Counter()
    for number in range(60):
        replies = writer.write([Request(f"r{number}", section, entities, number) for section in SECTIONS])
        texts = [reply.text.lower() for reply in replies]
        where, how = ([re.search(pattern, text) for text in texts] for pattern in (
            r"(?:in|at) the (right upper lobe|left lung)",
            r"(small|tiny|moderate-sized|sizable|large|stable|unchanged|new|persistent|chronic-appearing) nodule"))
        for found in (where, how):
            assert len({match and match[1] for match in found}) == 1, texts
        placed[where[0] and where[0][1]] += 1
    assert placed["right upper lobe"] > 10 and placed["left lung"] > 10


def test_findings_and_impression_agree_where_a_synonym_says_more():
    """"Elevated left hemidiaphragm" above and "right hemidiaphragm elevation" below would be two patients."""
    diaphragm = entity("elevated hemidiaphragm", "abnormality", also=(
        "elevated left hemidiaphragm", "left hemidiaphragm elevation", "elevated right hemidiaphragm"))
    heart = entity("cardiac enlargement", "disease", also=("borderline cardiac enlargement", "heart enlargement"))
    sides = set()
    for number in range(200):
        replies = GrammarWriter().write([Request(f"r{number}", section, (diaphragm, heart), 2 * number + place)
                                         for place, section in enumerate(SECTIONS)])
        text = " ".join(reply.text.lower() for reply in replies)
        said = set(re.findall(r"\b(left|right)\b", text))
        assert len(said) < 2, text
        assert "borderline" not in text or not re.search(r"\b(marked|moderate|mild|slight|subtle)\b", text), text
        sides |= said
    assert sides == {"left", "right"}


def test_nothing_is_found_where_it_is_clear():
    entities = (entity("consolidation", "abnormality"), entity("clear upper lobes", "non-abnormality"),
                entity("right upper lobe", "anatomy"))
    texts = [reply.text for reply in GrammarWriter().write([Request(f"r{number}", "findings", entities, number)
                                                            for number in range(100)])]
    assert not any(re.search("(?i)in the right upper lobe", text) for text in texts)


@pytest.mark.parametrize("finding, region", [
    ("subphrenic abscess", "left lower lobe"), ("soft tissue calcification", "carotid artery"),
    ("hemithorax opacification", "mid lung zone"), ("lung collapse", "right upper lung zone")])
def test_findings_stay_where_they_can_be(finding, region):
    assert not Phrasebook().attach(finding, region, random.Random(0))


def test_a_line_on_the_film_is_no_device():
    assert Phrasebook().traits("visceral pleural line").purpose == "present"
    assert Phrasebook().traits("PICC line").purpose == "device"


def test_the_film_is_not_praised_where_it_may_be_rotated(vocabulary):
    openings = Phrasebook(vocabulary).sentences["findings"]["opening"].every
    assert openings and not any(re.search("adequate|diagnostic|quality", line) for line in openings)


def test_unremarkable_bones_and_a_fracture_never_share_a_report(vocabulary):
    bones = vocabulary.contradictions[vocabulary.position["normal_osseous_structures", "non-abnormality"]]
    fractures = {position for position, one in enumerate(vocabulary) if one.type == "disease"
                 and one.en.endswith("fracture")}
    assert len(fractures) > 15 and fractures <= bones


def test_what_is_denied_is_denied_and_what_is_present_is_not():
    entities = (entity("pleural effusion", "disease"), entity("pneumothorax", "non-disease", denies=True),
                entity("mass", "non-abnormality", denies=True), entity("clear lungs", "non-abnormality"),
                entity("no acute disease", "non-disease"))
    denial = re.compile(r"\b(no|not|without|neither|absent|negative)\b", re.I)
    requests = [Request("r", section, entities, seed) for seed in range(200) for section in SECTIONS]
    for reply in GrammarWriter().write(requests):
        for sentence in re.split(r"(?<=\.)\s+", reply.text):
            # Before what is denied stands the denial; before what is present none.
            for name in ("pneumothorax", "mass"):
                assert name not in sentence.lower() or denial.search(sentence), reply.text
            for name in ("effusion", "clear lungs"):
                before = sentence.lower().split(name)[0]
                if name in sentence.lower() and denial.search(before):
                    assert re.search(r"\bbut (there (is|are)|an?)\b", before), reply.text
        assert "no no" not in reply.text.lower()


def test_a_word_of_the_users_vocabulary_is_not_used_in_sentences():
    """A mined list may hold "view", "radiograph" or "small effusion" as entities."""
    effusion = entity("effusion", "disease")
    vocabulary = Vocabulary([effusion, entity("small effusion", "disease"), entity("new", "abnormality"),
                             entity("radiograph", "anatomy"), entity("views", "anatomy")], "mine")
    requests = [Request(f"r{seed}", section, (effusion,), seed) for seed in range(300) for section in SECTIONS]
    texts = [reply.text for reply in GrammarWriter(vocabulary).write(requests)]
    assert not any(re.search(r"\b(views?|radiograph|small|new)\b", text, re.I) for text in texts)
    assert any("large effusion" in text for text in texts)


@pytest.mark.parametrize("name, written", [
    ("patchy opacity", "a patchy opacity"), ("irregular opacity", "an irregular opacity"), ("NG tube", "an NG tube"),
    ("PICC line", "a PICC line"), ("unilateral mass", "a unilateral mass"), ("uninflated lobe", "an uninflated lobe"),
    ("8 mm nodule", "an 8 mm nodule"), ("pulmonary edema", "pulmonary edema"), ("Kerley B lines", "Kerley B lines"),
    ("blunting of the costophrenic angles", "blunting of the costophrenic angles"), ("COPD", "COPD"),
    ("tube in the right bronchus", "a tube in the right bronchus"), ("hiatal hernia", "a hiatal hernia"),
    ("metastases", "metastases"), ("atelectasis", "atelectasis"), ("IVC filter", "an IVC filter"),
    ("overlying jewelry", "overlying jewelry"), ("clear lung periphery", "a clear lung periphery")])
def test_articles(name, written):
    assert noun(name).indefinite() == written


def test_an_adjective_changes_the_article():
    assert noun("opacity").indefinite("small") == "a small opacity"
    assert noun("mass").indefinite("unchanged") == "an unchanged mass"


@pytest.mark.parametrize("name, plural", [
    ("opacities", True), ("blunting of the angles", False), ("atelectasis", False), ("vertebrae", True),
    ("mass", False), ("thrombus", False), ("hila", True), ("clear lungs", True), ("abscess", False),
    ("heart and mediastinum", None), ("ascites", False), ("apices of the lungs", True)])
def test_number(name, plural):
    assert noun(name).plural is plural


def test_regions_take_the_article_that_fits():
    assert noun("left hilum").definite() == "the left hilum"
    assert noun("both lungs").definite() == "both lungs"
    assert noun("T5").definite() == "T5" and noun("T5 vertebral body").definite() == "the T5 vertebral body"


def test_lists():
    assert [join(list("abc")[:count], "or") for count in (1, 2, 3)] == ["a", "a or b", "a, b, or c"]
    assert join(list("abc"), "and", oxford=False) == "a, b and c"


WORDS = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-' ", min_size=1, max_size=30).filter(str.strip)


ROWS = st.lists(st.tuples(WORDS, st.sampled_from(TYPES), st.booleans()), min_size=1, max_size=14)


@given(ROWS, st.integers(0, 2**32))
def test_any_entities_give_capitalised_sentences_with_every_name(rows, seed):
    entities = tuple(Entity(f"e{number}", type_, name.strip(), denies=denies and type_.startswith("non-"))
                     for number, (name, type_, denies) in enumerate(rows))
    for section in SECTIONS:
        text = GrammarWriter().write([Request("r", section, entities, seed)])[0].text
        assert text == text.strip() and text.endswith(".") and "{" not in text
        assert all(one.en.lower() in text.lower() for one in entities)
        assert not text[0].islower()


def test_it_is_a_component_without_arguments_in_the_recipe():
    assert list(accepted_arguments(GrammarWriter)) == ["vocabulary"]
    assert GrammarWriter.title == "grammar" and GrammarWriter.prompts_hash is None


def test_speed(vocabulary, writer):
    """200,000 reports in minutes: far less than a millisecond of one core a section."""
    requests = requests_for(random_sets(vocabulary, 300))
    writer.write(requests)
    start = time.process_time()
    writer.write(requests)
    assert (time.process_time() - start) / len(requests) < 0.001
