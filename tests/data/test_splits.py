"""Splits: no patient on both sides, classes spread evenly, scikit-learn as the yardstick."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_cxr.data.records import Record
from paddle_cxr.data.splits import (
    BlogSplit,
    NoSplit,
    PatientSplit,
    Published,
    assign_groups,
    fold_notice,
    fold_of,
    patient_overlap,
)
from paddle_cxr.errors import UserError
from paddle_cxr.registry import build


def cohort(seed: int = 0, patients: int = 300, longest: int = 12) -> list[Record]:
    """Patients with 1 … longest films, mostly of one class, classes unevenly frequent."""
    rng = np.random.default_rng(seed)
    records = []
    for patient in range(patients):
        main = rng.choice(3, p=(0.45, 0.45, 0.1))
        for film in range(1 + min(longest - 1, int(rng.geometric(0.5)) - 1)):
            label = main if rng.random() < 0.9 else rng.integers(3)
            records.append(Record(f"{patient}/{film}.png", int(label), f"p{patient}"))
    return records


def table(records, parts) -> np.ndarray:
    """[parts, classes] of image counts."""
    names = sorted(set(parts))
    counts = Counter(zip(parts, (record.label for record in records), strict=True))
    return np.array([[counts[name, label] for label in range(3)] for name in names])


@pytest.mark.parametrize("seed", range(5))
def test_patient_split_keeps_patients_together_and_proportions(seed):
    records = cohort(seed)
    split = build("split", {"name": "PatientSplit", "val": 0.1, "test": 0.2, "seed": seed}, "DataLoader.Split")
    subsets = split(records)
    assert set(patient_overlap(records, subsets).values()) == {0}
    got = table(records, subsets)  # test, train, val
    expected = np.array([[0.2], [0.7], [0.1]]) * got.sum(axis=0)
    assert np.abs(got - expected).max() <= 2


def test_patient_split_depends_on_the_seed_but_not_on_the_order():
    records = cohort()
    subsets = {
        record.path: subset for record, subset in zip(records, PatientSplit(0.1, 0.1)(records), strict=True)}
    shuffled = random.Random(0).sample(records, len(records))
    again = {record.path: subset for record, subset in zip(shuffled, PatientSplit(0.1, 0.1)(shuffled), strict=True)}
    assert subsets == again
    assert PatientSplit(0.1, 0.1, seed=1)(records) != PatientSplit(0.1, 0.1)(records)


def test_images_without_patient_are_their_own_and_quotas_are_exact():
    records = [Record(f"{label}/{number}.png", label) for label in range(3) for number in range(100)]
    subsets = PatientSplit(0.1, 0.2)(records)
    assert table(records, subsets).tolist() == [[20] * 3, [70] * 3, [10] * 3]
    assert Counter(PatientSplit(0.0, 0.25)(records)) == {"train": 225, "test": 75}


@pytest.mark.parametrize("val, test", [(-0.1, 0.1), (0.1, 1.0), (0.5, 0.5), (float("nan"), 0)])
def test_impossible_fractions(val, test):
    with pytest.raises(UserError, match="DataLoader.Split"):
        PatientSplit(val, test)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 3)), min_size=1, max_size=80),
       st.lists(st.floats(0.01, 1), min_size=1, max_size=5), st.integers(0, 5))
def test_any_groups_stay_whole(films, weights, seed):
    fractions = list(np.array(weights) / sum(weights))
    parts = assign_groups([f"g{group}" for group, _ in films], [label for _, label in films], fractions, seed)
    part_of = {}
    for (group, _), part in zip(films, parts, strict=True):
        assert 0 <= part < len(fractions) and part_of.setdefault(group, part) == part


def imbalance(records, folds) -> float:
    """Largest deviation of a class's share in a fold from its even share, in images of that class."""
    counts = table(records, folds)
    return float(np.abs(counts - counts.sum(axis=0) / len(counts)).max())


@pytest.mark.parametrize("k", [3, 5, 10])
def test_folds_are_as_even_as_those_of_scikit_learn(k):
    selection = pytest.importorskip("sklearn.model_selection")
    ours, theirs = [], []
    for seed in range(5):
        records = cohort(seed)
        folds = fold_of(records, k, seed)
        assert set(folds) == set(range(k))
        assert set(patient_overlap(records, [str(fold) for fold in folds]).values()) == {0}
        ours.append(imbalance(records, folds))
        labels, groups = [r.label for r in records], [r.patient_id for r in records]
        reference = np.zeros(len(records), int)
        splitter = selection.StratifiedGroupKFold(k, shuffle=True, random_state=seed)
        for number, (_, test) in enumerate(splitter.split(np.zeros(len(records)), labels, groups)):
            reference[test] = number
        theirs.append(imbalance(records, reference.tolist()))
    assert np.mean(ours) <= np.mean(theirs) + 0.5 and max(ours) <= 3


def test_published_folds_are_used_when_there_are_exactly_k():
    records = [Record(f"{n}.png", n % 2, f"p{n}", fold=(n % 4) * 10) for n in range(40)]
    assert fold_of(records, 4) == [n % 4 for n in range(40)]
    own = fold_of(records, 5)
    assert sorted(Counter(own).values()) == [8] * 5
    leaking = [Record("a.png", 0, "p", fold=0), Record("b.png", 1, "p", fold=1)]
    with pytest.raises(UserError, match="同一患者"):
        fold_of(leaking, 2)


def test_published_folds_are_never_dropped_silently():
    records = [Record(f"{n}.png", n % 2, f"p{n}", fold=n % 4) for n in range(40)]
    assert fold_notice(records, 4) is None and "Global.folds=4" in fold_notice(records, 5)
    assert fold_notice([Record("a.png", 0)], 5) is None
    for k in (4, 5):
        with pytest.raises(UserError, match="1 张没有折号（例如 x.png）"):
            fold_of([*records, Record("x.png", 0, "x")], k)


def test_impossible_folds():
    records = [Record(f"{n}.png", int(n >= 8), f"p{n}") for n in range(10)]
    with pytest.raises(UserError, match="至少 2 折"):
        fold_of(records, 1)
    with pytest.raises(UserError, match="类别 1 只有 2 位患者"):
        fold_of(records, 3)


def test_published_split_and_validation_taken_from_train():
    records = [Record(f"{n}.png", n % 2, f"p{n // 2}", split="test" if n >= 80 else "train") for n in range(100)]
    assert Counter(Published()(records)) == {"train": 80, "test": 20}
    subsets = Published(val=0.25)(records)
    assert Counter(subsets) == {"train": 60, "val": 20, "test": 20}
    assert subsets[80:] == ["test"] * 20 and set(patient_overlap(records, subsets).values()) == {0}
    with_val = [*records, Record("v.png", 0, "v", split="val")]
    assert Counter(Published(val=0.25)(with_val)) == {"train": 80, "val": 1, "test": 20}
    with pytest.raises(UserError, match="x.png"):
        Published()([Record("x.png", 0)])


def test_blog_rule_on_sorted_names():
    records = [Record(f"{label}/{number:03d}.png", label) for label in range(2) for number in range(25)]
    random.Random(0).shuffle(records)
    subset = {record.path: name for record, name in zip(records, BlogSplit()(records), strict=True)}
    for label in range(2):
        assert {number for number in range(25) if subset[f"{label}/{number:03d}.png"] == "test"} == {0, 10, 20}
        assert subset[f"{label}/024.png"] == "predict"
    assert Counter(subset.values()) == {"train": 42, "test": 6, "predict": 2}
    eleven = [Record(f"{number:02d}.png", 0) for number in range(11)]
    assert BlogSplit()(eleven)[10] == "predict"  # also a tenth, but the last one wins


def test_no_split():
    assert NoSplit()(cohort(0, 3)) == ["all"] * len(cohort(0, 3))


def test_overlap_is_counted_by_patient():
    records = [Record(f"{n}.png", 0, patient) for n, patient in enumerate(("a", "a", "b", "c", None, None))]
    overlap = patient_overlap(records, ["train", "test", "test", "val", "train", "test"])
    assert overlap == {"train-val": 0, "train-test": 1, "val-test": 0}
