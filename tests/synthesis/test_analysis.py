"""The numbers of an analysis against independent formulas, and mining."""

import json
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy

from paddle_cxr.errors import UserError
from paddle_cxr.synthesis.analysis import (
    count_corpus,
    entropy,
    gini,
    lorenz,
    lorenz_at,
    text_numbers,
    type_numbers,
)
from paddle_cxr.synthesis.corpora import Report, read_corpus
from paddle_cxr.synthesis.entities import TYPES, Entity, Span
from paddle_cxr.synthesis.mining import mine, to_vocabulary
from paddle_cxr.synthesis.vocabulary import Vocabulary, load_vocabulary

EFFUSION = Entity("effusion", "disease", "pleural effusion", "胸腔积液", also=("effusion",))
VOCABULARY = Vocabulary([
    EFFUSION, Entity("effusion", "non-disease", "pleural effusion", "无胸腔积液", also=("effusion",), denies=True),
    Entity("edema", "disease", "pulmonary edema", "肺水肿"), Entity("clear_lungs", "non-abnormality", "clear lungs"),
    Entity("heart", "anatomy", "heart", "心脏")], "small")

positive = st.lists(st.integers(1, 10_000), min_size=1, max_size=60)


class Words:
    """A stand-in NER: the last word of every listed phrase is a mention of what is listed for it."""

    def __init__(self, table):
        self.table = table

    def find(self, texts):
        return [[Span(place + phrase.rfind(" ") + 1, place + len(phrase), *key) for phrase, key in self.table.items()
                 if (place := text.find(phrase)) >= 0] for text in texts]


def no_ner():
    raise AssertionError("every report names its entities")


def report(*keys, text="some words", writer=""):
    return Report("here", "here", text, "", frozenset(keys), writer)


def count(reports, ner=no_ner, name="corpus"):
    return count_corpus(name, reports, ner, sample=100, seed=0)


@given(positive)
def test_gini_is_the_mean_difference_of_all_pairs(counts):
    x = np.array(counts, float)
    expected = np.abs(x[:, None] - x[None]).mean() / (2 * x.mean())
    assert gini(counts) == pytest.approx(expected, abs=1e-9)


@given(positive)
def test_entropy_is_scipys(counts):
    assert entropy([*counts, 0]) == pytest.approx(scipy_entropy(counts, base=2), abs=1e-9)


@given(positive)
def test_lorenz_curve_rises_below_the_diagonal(counts):
    x, y = lorenz(counts)
    assert (x[0], y[0], x[-1]) == (0, 0, 1) and y[-1] == pytest.approx(1)
    assert (np.diff(y) >= 0).all() and (y <= x + 1e-9).all()


def test_known_distributions():
    assert gini([5] * 7) == pytest.approx(0, abs=1e-12) and entropy([5] * 8) == 3
    assert gini([0, 0, 0, 9]) == 0.75 and entropy([9]) == 0
    # Even counts: the head has its tenth and the tail its half, whatever their number.
    assert lorenz_at([3] * 7, 0.5) == pytest.approx(0.5) and 1 - lorenz_at([3] * 7, 0.9) == pytest.approx(0.1)
    assert lorenz_at([1] * 9 + [91], 0.9) == pytest.approx(0.09)


def test_numbers_of_a_type():
    corpus = count([report(("effusion", "disease"), ("heart", "anatomy"), text=f"word{i}") for i in range(3)]
                   + [report(("edema", "disease"), text="other")])
    by_type = {row.type: row for row in type_numbers(corpus, VOCABULARY)}
    assert tuple(by_type) == TYPES
    disease = by_type["disease"]
    assert (disease.entities, disease.mentions, disease.per_report) == (2, 4, 1)
    assert disease.gini == disease.gini_vocabulary == pytest.approx(0.25)
    assert disease.entropy == pytest.approx(2 - 0.75 * math.log2(3)) == disease.evenness
    assert disease.coverage == 1
    denied = by_type["non-disease"]
    assert (denied.entities, denied.gini, denied.evenness, denied.coverage, denied.gini_vocabulary) == (
        0, None, None, 0, None)
    assert by_type["anatomy"].evenness is None and by_type["abnormality"].coverage is None


def test_never_mentioned_entries_count_as_zero_over_the_vocabulary():
    corpus = count([report(("effusion", "disease"))])
    disease = type_numbers(corpus, VOCABULARY)[TYPES.index("disease")]
    assert disease.gini == 0 and disease.gini_vocabulary == pytest.approx(0.5) and disease.coverage == 0.5


def test_an_entity_counts_once_a_report_whoever_finds_it():
    ner = Words({"edema": ("edema", "disease"), "heart": ("heart", "anatomy")})
    texts = [Report("1", "1", "heart with edema", "edema of the heart"), report(("edema", "disease"), text="edema")]
    corpus = count(texts, lambda: ner)
    assert corpus.counts == {("edema", "disease"): 2, ("heart", "anatomy"): 1}


def test_ranking_is_by_count_and_then_by_id():
    corpus = count([report(("b", "disease"), ("a", "disease"), text="x"), report(("c", "disease"), text="y"),
                    report(("c", "disease"), text="z")])
    assert [key[0] for key, _ in corpus.ranked("disease")] == ["c", "a", "b"]
    assert corpus.frequencies("disease").tolist() == [2, 1, 1]


def test_texts_are_compared_over_equally_many_words():
    small = count([report(text=f"the heart is normal {i}") for i in range(10)], name="small")
    large = count([report(text=f"the heart is normal {i % 10} {i}", writer="w") for i in range(90)], name="large")
    first, second = text_numbers([small, large])
    assert first.compared_words == second.compared_words == 50
    assert (first.reports, first.synthetic, second.synthetic, second.words_mean) == (10, 0, 90, 6)
    alone = text_numbers([large])[0]
    assert alone.compared_words == 540 and alone.distinct[0] < second.distinct[0]


def test_empty_reports_are_told_and_left_out():
    corpus = count([report(("effusion", "disease"), text="..."), report(text="word"), report(text="Word!")])
    assert (corpus.reports, corpus.empty, corpus.words, dict(corpus.counts)) == (2, 1, 2, {})
    assert corpus.repeats == [("here", "exact", "here")]
    with pytest.raises(UserError, match="corpus 里没有一份带文字的报告"):
        count([report(text="")])


def test_memory_does_not_hold_the_texts(tmp_path):
    file = tmp_path / "a.jsonl"
    with open(file, "w") as stream:
        for i in range(2000):
            text = f"report number {i}" + " ." * 10_000
            stream.write(json.dumps({"id": str(i), "findings": text, "entities": [], "writer": "w"}) + "\n")
    tracemalloc.start()
    corpus = count_corpus("a", read_corpus(str(file)), no_ner, sample=20, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert corpus.reports == 2000 and peak < file.stat().st_size / 3


# --- mining ----------------------------------------------------------------------------------------------------------

def test_mined_vocabulary_keeps_what_is_known_and_settles_what_is_new():
    ner = Words({
        "effusion": ("effusion", "disease"), "no edema": ("edema", "non-disease"),
        "lungs": ("clear_lungs", "abnormality"),
        "Blob": ("blob", "abnormality"), "blobs": ("blobs", "abnormality"), "no blob": ("blob", "non-abnormality"),
        "a blob": ("blob", "disease")})
    reports = [Report(str(i), str(i), text, "") for i, text in enumerate(
        ["effusion no edema", "effusion lungs", "Blob", "Blob", "two blobs", "no blob", "a blob"])]
    rows, left_out = to_vocabulary(mine(reports, ner), VOCABULARY, 1)
    assert [tuple(row) for row in rows] == [
        ("blob", "abnormality", 3, "", "", ""), ("blob", "non-abnormality", 1, "", "", ""),
        ("pleural effusion", "disease", 2, "effusion", "胸腔积液", "effusion"),
        ("pulmonary edema", "non-disease", 1, "edema", "", "")]
    assert left_out == [("blob", "disease"), ("clear_lungs", "abnormality")]


def test_rare_entities_are_passed_over():
    reports = [Report(str(i), str(i), text, "") for i, text in enumerate(["heart edema", "edema"])]
    ner = Words({"heart": ("heart", "anatomy"), "edema": ("edema", "disease")})
    rows, left_out = to_vocabulary(mine(reports, ner), VOCABULARY, 2)
    assert [(row.id, row.count) for row in rows] == [("edema", 2)] and left_out == []


def test_a_mined_vocabulary_can_be_loaded(tmp_path):
    from paddle_cxr.evaluation.report import write_table
    from paddle_cxr.synthesis.mining import Mined

    ner = Words({"effusion": ("effusion", "disease"), "without": ("effusion", "non-disease"),
                 "nodule": ("nodule, small", "abnormality"), "heart": ("heart", "anatomy")})
    rows, _ = to_vocabulary(mine([Report("1", "1", "effusion nodule without heart", "")], ner), VOCABULARY, 1)
    write_table(tmp_path / "v.csv", Mined._fields, rows)
    loaded = load_vocabulary(tmp_path / "v.csv")
    assert {entity.key for entity in loaded.entities} == {
        ("effusion", "disease"), ("effusion", "non-disease"), ("nodule", "abnormality"), ("heart", "anatomy")}
    assert loaded["effusion", "non-disease"].denies and loaded["effusion", "disease"].also == ("effusion",)
