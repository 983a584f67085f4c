"""Diversity and duplicates against brute force."""

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_cxr.synthesis.corpora import read_corpus
from paddle_cxr.synthesis.diversity import (
    NEAR,
    Duplicates,
    Sample,
    distinct_n,
    first_words,
    self_similarity,
    shingles,
    words,
)

reports = st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=8), min_size=2, max_size=6)


def test_words_of_english_and_chinese():
    assert words("No  PLEURAL-effusion; 2 cm, patient's.") == ["no", "pleural", "effusion", "2", "cm", "patient", "s"]
    assert words("胸腔积液 (左)") == ["胸", "腔", "积", "液", "左"]
    assert words("___ ... \ud800") == []


@given(reports, st.integers(1, 3))
def test_distinct_n_by_definition(texts, n):
    grams = [tuple(text[i:i + n]) for text in texts for i in range(len(text) - n + 1)]
    assert distinct_n(texts, n) == (len(set(grams)) / len(grams) if grams else 0)


@given(reports)
def test_self_similarity_by_all_pairs(texts):
    def cosine(a, b):
        return sum(a[k] * b[k] for k in a) / math.sqrt(sum(v**2 for v in a.values()) * sum(v**2 for v in b.values()))

    counts = [Counter(shingles(text)) for text in texts]
    pairs = [cosine(a, b) for a, b in itertools.combinations(counts, 2)]
    assert self_similarity(texts) == pytest.approx(np.mean(pairs), abs=1e-9)


def test_self_similarity_of_one_report_is_unknown():
    assert self_similarity([["a"]]) is None
    assert self_similarity([["a"], ["a"]]) == pytest.approx(1)


@given(reports, st.integers(0, 60))
def test_first_words_are_exactly_as_many(texts, limit):
    cut = first_words(texts, limit)
    assert [word for text in cut for word in text] == [word for text in texts for word in text][:limit]


def test_sample_is_uniform_and_reproducible():
    def drawn(seed, size=20):
        sample = Sample(size, seed)
        for i in range(200):
            sample.offer([str(i)])
        return [int(report[0]) for report in sample.reports()]

    assert drawn(1) == drawn(1) != drawn(2)
    assert drawn(1, 5) == drawn(1)[:5]  # a smaller sample is the beginning of a larger one
    assert len(drawn(3, 500)) == 200
    often = np.bincount([i for seed in range(500) for i in drawn(seed)], minlength=200)
    assert abs(often.reshape(10, 20).sum(axis=1) - 1000).max() < 150  # five standard deviations


def test_exact_duplicates_ignore_case_and_punctuation():
    duplicates = Duplicates()
    assert duplicates.find("a", words("No effusion. Clear lungs")) is None
    assert duplicates.find("a", words("no effusion, clear lungs.")) == ("exact", "a")  # the same id, another report
    assert duplicates.find("b", words("Clear lungs. No effusion")) is None
    assert duplicates.find("c", ["x"]) is None
    assert duplicates.find("d", ["x"]) == ("exact", "c")


def planted(count, seed=0):
    """Reports of which one in three is an earlier one with a few words changed."""
    rng = random.Random(seed)
    vocabulary = [f"w{i}" for i in range(500)]
    texts = []
    for i in range(count):
        text = list(rng.choice(texts)) if i % 3 == 2 else rng.choices(vocabulary, k=rng.randint(25, 90))
        for _ in range(rng.randint(1, 3) if i % 3 == 2 else 0):
            text[rng.randrange(len(text))] = rng.choice(vocabulary)
        texts.append(text)
    return texts


def compare_with_brute_force(texts):
    """(found, there are) near duplicates; whatever is found has to be one."""
    sets = [set(shingles(text)) for text in texts]
    duplicates, found, there, kept = Duplicates(), 0, 0, []
    for i, text in enumerate(texts):
        repeat = duplicates.find(str(i), text)
        if repeat and repeat[0] == "exact":
            assert texts[int(repeat[1])] == text
            continue
        close = [j for j in kept if len(sets[i] & sets[j]) >= NEAR * len(sets[i] | sets[j])]
        there += bool(close)
        if repeat:
            assert int(repeat[1]) in close
            found += 1
        else:
            kept.append(i)
    return found, there


def test_near_duplicates_are_those_of_brute_force():
    found, there = compare_with_brute_force(planted(900))
    assert there > 100 and found >= 0.99 * there


def test_near_duplicates_of_real_reports(real_data):
    texts = [words(" ".join(report.texts)) for report in read_corpus(str(real_data / "iu_reports.csv"))][:1500]
    found, there = compare_with_brute_force([text for text in texts if text])
    assert there > 10 and found >= there - 1
