"""Pairs with flaws, findings with a long tail, and epochs of a given length."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from paddle_cxr.data.pairs import FlawedPairs, PhantomPairs
from paddle_cxr.data.pairs.flawed import FLAW
from paddle_cxr.data.sampler import MicroBatchSampler
from paddle_cxr.data.spoil import SPOILINGS
from paddle_cxr.errors import UserError

PHANTOMS = {"name": "PhantomPairs", "count": 100, "size": 32, "seed": 3, "findings": ["normal", "effusion"]}


def test_the_shares_are_exact_and_do_not_overlap():
    pairs, clean = FlawedPairs(PHANTOMS, spoiled=0.12, mismatched=0.1, seed=1), PhantomPairs(
        100, size=32, seed=3, findings=("normal", "effusion"))
    flaws = Counter(record.extra.get(FLAW) for record in pairs.records)
    assert flaws.pop("mismatched") == 10 and flaws.pop(None) == 78
    assert sum(flaws.values()) == 12 and set(flaws) == set(SPOILINGS) and max(flaws.values()) <= 2
    for index, (record, before) in enumerate(zip(pairs.records, clean.records, strict=True)):
        assert record.labels == before.labels and record.patient_id == before.patient_id
        flaw = record.extra.get(FLAW)
        same_text = (record.findings, record.impression) == (before.findings, before.impression)
        same_image = np.array_equal(pairs.read(index), clean.read(index))
        assert same_image == (flaw in (None, "mismatched"))
        assert same_text or flaw == "mismatched"
    moved = [i for i, record in enumerate(pairs.records) if record.extra.get(FLAW) == "mismatched"]
    assert sorted(pairs.records[i].findings for i in moved) == sorted(clean.records[i].findings for i in moved)
    assert any("12 张图" in notice and "10 份报告" in notice for notice in pairs.notices)


def test_the_seed_decides():
    one, again, other = (FlawedPairs(PHANTOMS, seed=seed) for seed in (1, 1, 2))
    assert one.fingerprint() == again.fingerprint() != other.fingerprint()
    spoilt = next(i for i, record in enumerate(one.records) if record.extra.get(FLAW) in SPOILINGS)
    assert np.array_equal(one.read(spoilt), again.read(spoilt))


@pytest.mark.parametrize("shares", [(-0.1, 0.0), (0.6, 0.6)])
def test_impossible_shares_are_named(shares):
    with pytest.raises(UserError, match="FlawedPairs：spoiled"):
        FlawedPairs(PHANTOMS, *shares)


def test_a_long_tail_falls_as_zipf_says_and_its_beginning_is_the_same():
    names = ("normal", "effusion", "cardiomegaly", "nodule")
    pairs = PhantomPairs(4000, findings=names, long_tail=1.5, seed=2)
    counts = Counter(record.path.split("/")[2].split("-")[0] for record in pairs.records)
    expected = np.arange(1, 5) ** -1.5
    assert [counts[name] / 4000 for name in names] == pytest.approx(expected / expected.sum(), abs=0.03)
    assert [record.path for record in PhantomPairs(50, findings=names, long_tail=1.5, seed=2).records] == [
        record.path for record in pairs.records[:50]]
    with pytest.raises(UserError, match=r"PhantomPairs\.long_tail"):
        PhantomPairs(10, long_tail=-1.0)


@pytest.mark.parametrize(("n", "drawn"), [(10, 4), (10, 26), (7, 7)])
def test_an_epoch_of_a_given_length_goes_through_all_pictures_in_turn(n, drawn):
    sampler = MicroBatchSampler(n, batch_size=2, samples_per_epoch=drawn, seed=5)
    row = [position for epoch in range(21) for step in sampler.plan(epoch) for part in step for position in part]
    assert len(sampler.plan(0)) == drawn // 2 + 0 == sampler.steps_per_epoch
    passes = [row[start:start + n] for start in range(0, len(row) - n + 1, n)]
    if drawn % 2 == 0:
        assert all(sorted(one) == list(range(n)) for one in passes) and len({tuple(one) for one in passes}) > 1


def test_the_same_picture_twice_in_an_epoch_is_augmented_anew():
    sampler = MicroBatchSampler(4, batch_size=4, samples_per_epoch=8)
    keys = [key for part in sampler for key in part]
    assert sorted((key.position, key.repeat) for key in keys) == [(i, k) for i in range(4) for k in range(2)]


def test_an_epoch_shorter_than_a_batch_is_refused():
    with pytest.raises(UserError, match="每轮只取 3 张"):
        MicroBatchSampler(100, batch_size=8, drop_last=True, samples_per_epoch=3)
