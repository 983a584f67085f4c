"""The dictionary recogniser: what it finds, where, and what it takes for denied."""

from __future__ import annotations

import csv
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthesis import mesh

from paddle_cxr.registry import build
from paddle_cxr.synthesis.entities import OPPOSITE, Entity
from paddle_cxr.synthesis.ner.dictionary import DictionaryNER
from paddle_cxr.synthesis.ner.words import Words
from paddle_cxr.synthesis.vocabulary import Vocabulary, load_vocabulary

LABELS = Path(__file__).with_name("negation_labels.csv")

ENTITIES = (
    Entity("effusion", "abnormality", "pleural effusion", also=("effusion", "pleural fluid")),
    Entity("effusion", "non-abnormality", "pleural effusion", also=("effusion", "pleural fluid"), denies=True),
    Entity("pneumothorax", "abnormality", "pneumothorax"),
    Entity("consolidation", "abnormality", "consolidation", also=("focal consolidation",)),
    Entity("opacity", "abnormality", "opacity", also=("lung opacity",)),
    Entity("nodule", "abnormality", "nodule"),
    Entity("calcified_nodule", "abnormality", "calcified nodule"),
    Entity("edema", "abnormality", "pulmonary edema", also=("edema",)),
    Entity("markings", "abnormality", "increased interstitial markings"),
    Entity("pneumonia", "disease", "pneumonia"),
    Entity("cardiomegaly", "disease", "cardiomegaly", also=("enlarged heart", "heart is enlarged")),
    Entity("clear_lungs", "non-abnormality", "clear lungs", also=("lungs are clear",)),
    Entity("normal_heart", "non-abnormality", "normal heart size", also=("heart size is normal",)),
    Entity("lung", "anatomy", "lung"),
    Entity("vertebra", "anatomy", "vertebra"),
    Entity("left_lower_lobe", "anatomy", "left lower lobe"),
    Entity("right_lower_lobe", "anatomy", "right lower lobe"),
    Entity("lobe", "anatomy", "lobe"),
    Entity("pericardial_effusion", "disease", "pericardial effusion"),
    *(Entity(f"{place}_node", "abnormality", f"{place} node") for place in ("hilar", "mediastinal", "axillary")),
    Entity("chest_tube", "abnormality", "chest tube"),
    Entity("lung_opacity", "abnormality", "nodular lung opacity"),
    Entity("mass", "abnormality", "mass"),
    Entity("chest_wall_mass", "abnormality", "chest wall mass"),
    Entity("left_chest", "anatomy", "left chest"),
    Entity("left_chest_wall", "anatomy", "left chest wall"),
    Entity("right_chest_wall", "anatomy", "right chest wall"),
    Entity("left_lung", "anatomy", "left lung"),
    Entity("no_acute_disease", "non-disease", "no acute disease"),
)


@pytest.fixture(scope="module")
def ner() -> DictionaryNER:
    return DictionaryNER(Vocabulary(ENTITIES, "test"))


def told(ner: DictionaryNER, text: str) -> str:
    """The ids in a text, a minus before what is non-abnormality or non-disease."""
    return " ".join("-" * span.type.startswith("non-") + span.id for span in ner.find([text])[0])


def test_recipes_build_it_by_name():
    ner = build("ner", {"name": "DictionaryNER"}, "NER", vocabulary=Vocabulary(ENTITIES, "test"))
    assert [[span.key for span in spans] for spans in ner.find(["No effusion.", "", "Pneumonia."])] == [
        [("effusion", "non-abnormality")], [], [("pneumonia", "disease")]]


@pytest.mark.parametrize("text, found", [
    ("Left lower lobe opacity.", "left_lower_lobe opacity"),  # the longest name
    ("Calcified nodules; nodules.", "calcified_nodule nodule"),
    ("PLEURAL\n  EFFUSIONS", "effusion"),  # case, line breaks, plural
    ("Opacities, pneumothoraces and vertebrae.", "opacity pneumothorax vertebra"),
    ("Lungs, the lung’s lobes", "lung lung lobe"),
    ("Pulmonary oedema", "edema"),  # British spelling
    ("Lobectomy, lobes.lobe", "lobe lobe"),  # whole words, and a full stop without a blank
    ("pleural, effusion", "effusion"),  # punctuation separates
    ("A pleural-effusion", "effusion"),
    ("A non-calcified nodule, a noncalcified nodule", "nodule nodule"),
    ("The heart remains mildly enlarged.", "cardiomegaly"),  # adverbs and forms of "be"
    ("Pneumonia\n\nclear lungs", "pneumonia -clear_lungs"),
    ("胸腔积液 effusion", "effusion"),
    ("The heart is mild to moderately enlarged. Heart mildly to\nmarkedly enlarged", "cardiomegaly"),
    ("", ""), ("No.", ""), ("Nothing of the kind", ""),
    # what two names share is said once
    ("Left and right lower lobes", "left_lower_lobe right_lower_lobe"),
    ("No pleural or pericardial effusion.", "-effusion -pericardial_effusion"),
    ("Hilar, mediastinal, and axillary nodes", "hilar_node mediastinal_node axillary_node"),
    ("No bony or pericardial effusion, opacity and nodule", "-pericardial_effusion -opacity -nodule"),
    # a finding that begins in a region's name
    ("A left chest tube.", "chest_tube"),
    ("Right chest wall mass, left chest wall", "chest_wall_mass left_chest_wall"),
    ("Left lung opacity in the left chest", "left_lung opacity left_chest"),
])
def test_names(ner, text, found):
    assert told(ner, text) == found


@pytest.mark.parametrize("text, found", [
    # a list belongs to its cue, whatever joins it
    ("No pleural effusion, pneumothorax, or focal consolidation.", "-effusion -pneumothorax -consolidation"),
    ("There is no effusion or pneumothorax seen. Opacity persists.", "-effusion -pneumothorax opacity"),
    ("The lungs are clear, no effusion or pneumothorax is seen.", "-clear_lungs -effusion -pneumothorax"),
    ("Neither effusion nor pneumothorax.", "-effusion -pneumothorax"),
    ("Negative for pneumonia, effusion and/or edema", "-pneumonia -effusion -edema"),
    ("The lungs are free of consolidation. Absence of edema.", "lung -consolidation -edema"),
    ("The lungs are clear of edema", "-clear_lungs -edema"),
    ("No opacities to suggest pneumonia or edema to indicate effusion.", "-opacity -pneumonia -edema -effusion"),
    ("W/o effusion. It doesn't show edema; it isn't pneumonia.", "-effusion -edema -pneumonia"),
    ("The film does not show edema, effusion or nodules.", "-edema -effusion -nodule"),
    ("The film is negative for edema and effusion.", "-edema -effusion"),
    ("No opacity consistent with pneumonia. No evidence that there is edema.", "-opacity -pneumonia -edema"),
    ("Opacity is unlikely to represent pneumonia.", "opacity -pneumonia"),
    # and ends with it
    ("No effusion but opacity.", "-effusion opacity"),
    ("No effusion; opacity. Edema: nodule", "-effusion opacity edema nodule"),
    ("No effusion, however there is opacity", "-effusion opacity"),
    ("No effusion, and the heart is enlarged.", "-effusion cardiomegaly"),
    ("No effusion and there is a nodule.", "-effusion nodule"),
    ("No pneumothorax, stable cardiomegaly.", "-pneumothorax cardiomegaly"),
    ("No pneumothorax with a small effusion", "-pneumothorax effusion"),
    ("No pneumonia due to edema", "-pneumonia edema"),
    ("No effusion is seen, nodule.", "-effusion nodule"),
    ("No effusion or edema, and cardiomegaly is again noted.", "-effusion -edema cardiomegaly"),
    ("No effusion, edema, and pneumothorax are seen.", "-effusion -edema -pneumothorax"),
    # what is normal in itself is not turned by a list, only by a cue beside it
    ("No effusion, normal heart size.", "-effusion -normal_heart"),
    ("Lungs are clear without effusion.", "-clear_lungs -effusion"),
    ("Without clear lungs", "clear_lungs"),
    # cues after
    ("Effusion, pneumothorax and edema are not seen.", "-effusion -pneumothorax -edema"),
    ("The effusion has resolved and the opacity persists.", "-effusion opacity"),
    ("Edema is noted, pneumothorax is not seen.", "edema -pneumothorax"),
    ("Pneumonia has been excluded. Effusion is absent. Edema is no longer seen.", "-pneumonia -effusion -edema"),
    ("Resolved edema. Edema resolved. Pneumonia is unlikely.", "-edema -edema -pneumonia"),
    ("Effusion: none. Edema cannot be identified. Pneumonia has not been seen", "-effusion -edema -pneumonia"),
    ("Effusion that was seen previously has resolved", "-effusion"),
    # no negation after all, or an uncertain one
    ("No change in the effusion.", "effusion"),
    ("Without significant interval increase in edema", "edema"),
    ("No increased interstitial markings", "-markings"),
    ("No effusion, no change in the opacity or nodule.", "-effusion opacity nodule"),
    ("Not only pneumonia. Edema has not resolved.", "pneumonia edema"),
    ("Pneumonia cannot be excluded, can't exclude edema, effusion is not ruled out", "pneumonia edema effusion"),
    ("Follow to ensure resolution of the opacity, to rule out pneumonia", "opacity pneumonia"),
    ("Possible pneumonia or edema", "pneumonia edema"),
    ("Near complete resolution of effusion, partially resolved edema", "effusion edema"),
    ("A nodule, not previously seen. The opacity was not present previously.", "nodule opacity"),
    # other ways to say no
    ("Nil effusion. Edema - none. Pneumonia: nil. Nothing to suggest nodules.", "-effusion -edema -pneumonia -nodule"),
    ("Doubt pneumonia. Findings argue against edema. No doubt an effusion.", "-pneumonia -edema effusion"),
    ("Opacity rather than pneumonia. Edema is rather large, larger than the effusion.",
     "opacity -pneumonia edema effusion"),
    ("Right greater than left consolidation.", "consolidation"),
    ("No longer seen is the nodule. The edema can no longer be identified.", "-nodule -edema"),
    ("No pneumothorax after chest tube removal.", "-pneumothorax -chest_tube"),
    ("The heart is not enlarged. The lungs aren't clear.", "-cardiomegaly clear_lungs"),
    ("Opacities without effusion, most suggestive of pneumonia.", "opacity -effusion pneumonia"),
    ("No radiographic evidence of acute disease. Cardiomegaly without acute disease.",
     "-no_acute_disease cardiomegaly -no_acute_disease"),
    # anatomy is never denied
    ("No left lower lobe opacity in the lung", "left_lower_lobe -opacity lung"),
])
def test_negation(ner, text, found):
    assert told(ner, text) == found


def test_two_things_with_one_folded_name_are_told_apart_by_their_words():
    ner = DictionaryNER(Vocabulary([Entity("edema", "abnormality", "edema"),
                                    Entity("oedema", "abnormality", "oedema")], "test"))
    assert told(ner, "Oedema, EDEMA") == "oedema edema"


def test_a_name_with_a_cue_in_it_denies_nothing():
    ner = DictionaryNER(Vocabulary([Entity("no_disease", "non-disease", "no active disease"),
                                    Entity("edema", "abnormality", "edema")], "test"))
    assert told(ner, "No active disease, edema.") == "-no_disease edema"


WORDS = ["left", "lung", "lungs", "opacity", "opacities", "the", "is", "no", ";", ".", "not", "seen", "but"]


@given(names=st.lists(st.lists(st.sampled_from(["left", "lung", "opacity", "base"]), min_size=1, max_size=3)
                      .map(" ".join), min_size=1, max_size=6, unique=True),
       text=st.lists(st.sampled_from([*WORDS, "base", "bases", "LUNG", "lungy"]), max_size=30))
def test_finds_what_a_regular_expression_finds(names, text):
    """Leftmost, longest, whole words: an independent and slow way to the same mentions (in texts without "and")."""
    ner = DictionaryNER(Vocabulary([Entity(name.replace(" ", "_"), "anatomy", name) for name in names], "test"))
    written = " ".join(text)
    gap = r"(?: the)* (?:the )*"
    patterns = {name: r"\b" + gap.join(re.sub("y$", "(?:y|ies)", word) if word == "opacity" else word + "s?"
                                       for word in name.split()) + r"\b" for name in names}
    expected, place = [], 0
    while place < len(written):
        here = [(match.end(), name) for name, pattern in patterns.items()
                if (match := re.compile(pattern, re.IGNORECASE).match(written, place))]
        if here:
            end, name = max(here, key=lambda one: (len(one[1].split()), one[0]))
            expected.append((place, end, name.replace(" ", "_")))
            place = end
        else:
            place += 1
    assert [(span.start, span.end, span.id) for span in ner.find([written])[0]] == expected


@given(st.lists(st.one_of(st.text(), st.sampled_from([*(entity.en for entity in ENTITIES), "no", ",", "has resolved",
                                                      "İ", "ﬁ", "\n\n", "’s", "non-", "e.g."]))).map(" ".join))
def test_spans_are_ordered_and_point_into_any_text(text):
    ner = DictionaryNER(Vocabulary(ENTITIES, "test"))
    names = {Words(name).text: entity.id for entity in ENTITIES for name in entity.names}
    end = 0
    for span in ner.find([text])[0]:
        assert end <= span.start < span.end <= len(text)
        folded = Words(text[span.start:span.end]).text
        # A name, or the first word of one whose end stands later ("pleural or pericardial effusion").
        assert names.get(folded) == span.id or any(name.startswith(folded) for name in names)
        end = span.end


@pytest.mark.parametrize("text", ["no effusion and " * 20_000, ", " * 100_000, "\n" + " " * 200_000 + "x",
                                  "effusion " * 20_000 + "is not seen " * 20_000, "non-" * 100_000],
                         ids=["lists", "commas", "blanks", "cues", "prefixes"])
def test_the_time_of_a_long_text_is_linear(ner, text):
    """A quadratic step would take minutes here."""
    assert len(ner.find([text])[0]) in (0, 20_000)


def test_every_shipped_name_is_found_as_itself_and_denied():
    vocabulary = load_vocabulary()
    ner = DictionaryNER(vocabulary)
    wrong = []
    for entity in vocabulary.entities:
        plain = OPPOSITE[entity.type] if entity.denies else entity.type
        for name in entity.names:
            for text, type_ in ((f"There is {name}.", plain), (f"No {name}.", OPPOSITE.get(plain, plain))):
                if [span.key for span in ner.find([text])[0]] != [(entity.id, type_)]:
                    wrong.append(text)
    assert not wrong


@pytest.mark.slow
def test_a_vocabulary_of_the_size_of_rate_is_as_fast(ner):
    words = [f"{a}{b}" for a in ("pulmo", "cardio", "pleuro", "osteo", "vasculo") for b in ("genic", "pathy", "graphy")]
    many = [Entity(f"e{i}", "abnormality", f"{words[i % 15]} {words[i // 15 % 15]} term{i}") for i in range(177_000)]
    big = DictionaryNER(Vocabulary([*ENTITIES, *many], "big"))
    text = "No pleural effusion. pulmogenic cardiopathy term31, calcified nodule of the left lower lobe."
    assert told(big, text) == "-effusion calcified_nodule left_lower_lobe"
    assert told(big, many[176_999].en + " and " + many[5].en) == "e176999 e5"


def test_labelled_negations_of_real_reports(real_data):
    """300 mentions in 210 sentences with a word of negation, read and labelled one by one before it was run on them.

    The sentences were drawn with a fixed seed, 130 of them among those with a word that makes them hard ("but",
    "resolved", "cannot", "with" …).  Each labelled mention is made a name of its own, so that nothing depends on the
    vocabulary; then those that the shipped vocabulary finds are counted as well.
    """
    texts = {(report["uid"], section): report[section] for report in mesh.read_reports(real_data)
             for section in ("findings", "impression")}
    with open(LABELS, encoding="utf-8", newline="") as file:
        labels = [(texts[row["uid"], row["section"]], int(row["start"]), int(row["end"]), row["negated"] == "1")
                  for row in csv.DictReader(file)]
    names = {Words(text[start:end]).text: text[start:end] for text, start, end, _ in labels}
    ad_hoc = Vocabulary([Entity(f"e{i}", "abnormality", name) for i, name in enumerate(names.values())], "labels")
    shares = []
    for vocabulary in (ad_hoc, load_vocabulary()):
        ner = DictionaryNER(vocabulary)
        right = []
        for text, start, end, negated in labels:
            overlap = {min(span.end, end) - max(span.start, start): span for span in ner.find([text])[0]
                       if span.start < end and span.end > start and span.type != "anatomy"}
            if overlap:
                right.append(overlap[max(overlap)].type.startswith("non-") == negated)
        shares.append((sum(right) / len(right), len(right)))
    print("negation: " + ", ".join(f"{share:.3f} of {count} mentions" for share, count in shares))
    assert shares[0][1] == len(labels) and min(share for share, _ in shares) >= 0.95


def test_recall_of_the_tags_of_real_reports(real_data):
    vocabulary = load_vocabulary()
    ner, reports = DictionaryNER(vocabulary), mesh.read_reports(real_data)
    texts = [f"{report['findings']}\n{report['impression']}" for report in reports]
    ner.find(texts[:100])  # tables that are made once are no part of the speed
    begun = time.process_time()
    ner.find(texts)
    print(f"{len(texts) / (time.process_time() - begun):.0f} reports/s on one core")
    tags, found = mesh.recall(vocabulary, ner, reports)
    print(mesh.table(tags, found))
    assert sum(found.values()) / sum(tags.values()) >= 0.85
