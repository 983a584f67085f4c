"""Which images a fraction of the labels is: nested, whole patients, every finding there, about the whole's mixture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_cxr.tasks.finetuning.fraction import label_subset


def made_up(seed: int, images: int, findings: int, patients: int) -> tuple[list[str], np.ndarray]:
    """Patients and labels with a rare finding, unknowns and findings that come together."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.005, 0.4, findings)
    labels = (rng.random((images, findings)) < share).astype(float)
    if findings > 1:
        labels[:, 1] = np.maximum(labels[:, 1], labels[:, 0] * (rng.random(images) < 0.7))
    labels[rng.random(labels.shape) < 0.1] = np.nan
    return [f"p{one}" for one in rng.integers(patients, size=images)], labels


@given(st.integers(0, 10_000), st.integers(1, 150), st.integers(1, 6), st.integers(1, 80),
       st.lists(st.floats(0.001, 1.0), min_size=2, max_size=4))
def test_every_choice_is_lawful(seed, images, findings, patients, fractions):
    groups, labels = made_up(seed, images, findings, patients)
    before: set[int] = set()
    for fraction in sorted(fractions):
        chosen = label_subset(groups, labels, fraction, seed)
        assert (np.diff(chosen) > 0).all() and len(chosen)
        inside = {groups[i] for i in chosen}
        assert sorted(chosen) == [i for i, group in enumerate(groups) if group in inside]  # whole patients
        assert before <= set(chosen.tolist())  # nested
        before = set(chosen.tolist())
        assert ((labels[chosen] == 1).any(axis=0) == (labels == 1).any(axis=0)).all()
    assert label_subset(groups, labels, 1.0, seed).tolist() == list(range(images))


@given(st.integers(0, 1000), st.floats(0.02, 0.9))
def test_the_order_of_the_images_does_not_matter(seed, fraction):
    groups, labels = made_up(seed, 90, 4, 60)
    chosen = set(label_subset(groups, labels, fraction, 7).tolist())
    shuffled = np.random.default_rng(seed).permutation(90)
    again = label_subset([groups[i] for i in shuffled], labels[shuffled], fraction, 7)
    assert {int(shuffled[i]) for i in again} == chosen


def test_size_and_seed():
    groups, labels = [f"p{i}" for i in range(2000)], made_up(3, 2000, 9, 1)[1]
    for fraction in (0.01, 0.1, 0.5):
        assert len(label_subset(groups, labels, fraction, 0)) == round(2000 * fraction)
    assert label_subset(groups, labels, 0.1, 0).tolist() == label_subset(groups, labels, 0.1, 0).tolist()
    assert label_subset(groups, labels, 0.1, 0).tolist() != label_subset(groups, labels, 0.1, 1).tolist()


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.3])
def test_findings_keep_their_shares_better_than_by_chance(fraction):
    """Mean distance, in images, between the positives of a part and what the whole would give it."""
    groups, labels = [f"p{i}" for i in range(3000)], np.nan_to_num(made_up(5, 3000, 10, 1)[1])
    wanted = labels.sum(axis=0) * fraction

    def distance(chosen: np.ndarray) -> float:
        return float(np.abs(labels[chosen].sum(axis=0) - wanted).mean())

    rng = np.random.default_rng(0)
    size = round(3000 * fraction)
    ours = np.mean([distance(label_subset(groups, labels, fraction, seed)) for seed in range(10)])
    chance = np.mean([distance(rng.permutation(3000)[:size]) for _ in range(50)])
    assert ours < 0.5 * chance, (ours, chance)


def test_a_large_patient_is_taken_whole_or_not_at_all():
    groups = ["big"] * 60 + [f"p{i}" for i in range(40)]
    labels = np.zeros((100, 2))
    labels[:60, 0] = 1
    labels[60:64, 1] = 1
    chosen = label_subset(groups, labels, 0.1, 0)
    assert set(range(60)) <= set(chosen.tolist())  # nobody else has the first finding
    assert labels[chosen, 1].any()


def test_no_finding_at_all():
    chosen = label_subset(["a", "b", "c", "d"], np.full((4, 2), np.nan), 0.5, 0)
    assert len(chosen) == 2
