"""Which image is trained on, chosen on, tested on: by patient wherever a patient id exists.

A split is a callable: ``records -> one subset name per record`` (``train``, ``val``, ``test``, ``predict`` or
``all``).  It depends on nothing but the records and its seed, not on their order.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from paddle_cxr.data.records import Record
from paddle_cxr.errors import UserError
from paddle_cxr.registry import register

SUBSETS = ("train", "val", "test", "predict")


@register("split")
class PatientSplit:
    """Random split by patient, every class in about the same proportion everywhere.

    A record without patient id counts as a patient of its own.

    Args:
        val, test: fraction of the images for validation and for testing; 0 for none.
        seed: another seed, another split.
    """

    def __init__(self, val: float, test: float, seed: int = 0) -> None:
        _check_fraction("DataLoader.Split.val", val)
        _check_fraction("DataLoader.Split.test", test)
        if val + test >= 1:
            raise UserError(f"DataLoader.Split：val（{val}）与 test（{test}）之和应小于 1，否则没有训练数据")
        self.fractions = {"train": 1 - val - test, "val": val, "test": test}
        self.seed = seed

    def __call__(self, records: Sequence[Record]) -> list[str]:
        names = list(self.fractions)
        parts = assign_groups(patients_of(records), [record.label for record in records],
                              list(self.fractions.values()), self.seed)
        return [names[part] for part in parts]


@register("split")
class Published:
    """The publisher's own split.

    Args:
        val: fraction of the publisher's training images, taken by patient, that become validation where the
            publisher has none; ignored where there is one.
        seed: for that.

    Raises UserError where a record has no published split.
    """

    def __init__(self, val: float = 0.0, seed: int = 0) -> None:
        _check_fraction("DataLoader.Split.val", val)
        self.val, self.seed = val, seed

    def __call__(self, records: Sequence[Record]) -> list[str]:
        for record in records:
            if record.split not in SUBSETS:
                raise UserError(f"{record.path} 没有发布者给出的划分（split）；请改用 PatientSplit")
        subsets = [str(record.split) for record in records]
        if self.val > 0 and "val" not in subsets:
            train = [index for index, subset in enumerate(subsets) if subset == "train"]
            chosen = PatientSplit(self.val, 0.0, self.seed)([records[index] for index in train])
            for index, subset in zip(train, chosen, strict=True):
                subsets[index] = subset
        return subsets


@register("split")
class BlogSplit:
    """The rule of the course's blog, on sorted names: every tenth image of a class is test, its last one predict.

    With the images of a class sorted by path and numbered from 0, the last is ``predict``, of the others those with
    ``number % 10 == 0`` are ``test`` and the rest ``train``.  There is no ``val``: the blog evaluates on the test
    images while training, so whoever asks for ``val`` is given ``test``, and the best epoch chosen on it is optimistic.
    The blog took the order of ``os.listdir``, which differs between machines, and ignored patients.
    """

    val_is_test = True  # read where subsets are looked up, which also tells the user

    def __call__(self, records: Sequence[Record]) -> list[str]:
        by_class: dict[int, list[int]] = defaultdict(list)
        for index in sorted(range(len(records)), key=lambda one: records[one].path):
            by_class[records[index].label].append(index)
        subsets = ["train"] * len(records)
        for indices in by_class.values():
            for index in indices[::10]:
                subsets[index] = "test"
            subsets[indices[-1]] = "predict"
        return subsets


@register("split")
class NoSplit:
    """Everything is ``all``: to train on everything, or to evaluate on everything."""

    def __call__(self, records: Sequence[Record]) -> list[str]:
        return ["all"] * len(records)


def fold_of(records: Sequence[Record], k: int, seed: int = 0) -> list[int]:
    """Fold number 0 … k-1 of every record, for cross-validation.

    The published folds (``Record.fold``) where there are exactly ``k``; otherwise patients are dealt out so that every
    class is spread evenly, and :func:`fold_notice` says so where there are published folds.

    Raises:
        UserError: k below 2, a class with fewer than k patients, published folds that share a patient, or that only
            some records have.
    """
    if k < 2:
        raise UserError(f"Global.folds：交叉验证至少 2 折，现在是 {k}")
    published = _published_folds(records)
    if len(published) == k:
        order = {fold: number for number, fold in enumerate(published)}
        folds = [order[record.fold] for record in records]  # type: ignore[index]  # all have one, or none has
        shared = sum(patient_overlap(records, [str(fold) for fold in folds]).values())
        if shared:
            raise UserError(f"列表中的 fold 列有 {shared} 处同一患者分在不同的折；请改正，或删去 fold 列由程序划分")
        return folds
    patients, labels = patients_of(records), [record.label for record in records]
    counts = Counter(label for _, label in {*zip(patients, labels, strict=True)})
    label, fewest = min(counts.items(), key=lambda item: (item[1], item[0]))
    if fewest < k:
        raise UserError(f"Global.folds：类别 {label} 只有 {fewest} 位患者，不能分成 {k} 折")
    return assign_groups(patients, labels, [1 / k] * k, seed)


def fold_notice(records: Sequence[Record], k: int) -> str | None:
    """What to tell the user where :func:`fold_of` leaves published folds aside because there are not ``k``, or None."""
    published = _published_folds(records)
    if not published or len(published) == k:
        return None
    return (f"!! 列表中的 fold 列有 {len(published)} 折，而 Global.folds={k}：不用它，改由程序按患者划分；"
            f"要用发布的折，请设 Global.folds={len(published)}")


def _published_folds(records: Sequence[Record]) -> list[int]:
    """The fold numbers there are, sorted; raises UserError where only some records have one."""
    published = {record.fold for record in records if record.fold is not None}
    without = [record.path for record in records if record.fold is None]
    if published and without:
        raise UserError(f"列表中的 fold 列不完整：{len(without)} 张没有折号（例如 {without[0]}）；"
                        "请补全，或删去 fold 列由程序划分")
    return sorted(published)


def patient_overlap(records: Sequence[Record], subsets: Sequence[str]) -> dict[str, int]:
    """Number of patients that each two subsets share, ``{"train-test": 0, …}``; all must be 0.

    Records without patient id cannot be checked and are not counted.
    """
    patients: dict[str, set[str]] = {}
    for record, subset in zip(records, subsets, strict=True):
        found = patients.setdefault(subset, set())
        if record.patient_id is not None:
            found.add(record.patient_id)
    order = [name for name in SUBSETS if name in patients] + sorted(set(patients) - set(SUBSETS))
    return {f"{one}-{other}": len(patients[one] & patients[other]) for one, other in combinations(order, 2)}


def patients_of(records: Sequence[Record]) -> list[str]:
    """What must not be torn apart: the patient id, or the image itself where there is none."""
    return [f"image {record.path}" if record.patient_id is None else f"patient {record.patient_id}"
            for record in records]


def assign_groups(groups: Sequence[str], labels: Sequence[int], fractions: Sequence[float], seed: int) -> list[int]:
    """Deal groups into parts so that every class fills each part to its fraction, as far as whole groups allow.

    Greedy, large groups first, each to the part where it lowers Pearson's chi-square distance
    Σ (n - e)² / e between the images of a class that a part has and should have the most.  For groups of one this is
    Webster's (Sainte-Laguë's) apportionment, whose quotas are never off by more than one in practice.

    Args:
        groups: group of each record. labels: class of each record.
        fractions: share of each part, summing to 1; parts with 0 stay empty.
        seed: decides among equals.

    Returns:
        The part of each record, independent of the records' order.
    """
    names, group_of = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    class_numbers, label_of_record = np.unique(np.asarray(labels), return_inverse=True)
    counts = np.zeros((len(names), len(class_numbers)))
    np.add.at(counts, (group_of, label_of_record), 1)

    open_parts = np.flatnonzero(np.asarray(fractions) > 0)
    expected = np.asarray(fractions)[open_parts, None] * counts.sum(axis=0)  # [parts, classes]
    filled = np.zeros_like(expected)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-counts.sum(axis=1)[order], kind="stable")]
    part_of_group = np.zeros(len(names), dtype=int)
    for group in order:
        own = counts[group]
        change = (own * (2 * (filled - expected) + own) / expected).sum(axis=1)
        part = int(np.argmin(change))
        filled[part] += own
        part_of_group[group] = open_parts[part]
    return part_of_group[group_of].tolist()


def _check_fraction(path: str, value: float) -> None:
    if not 0 <= value < 1:
        raise UserError(f"{path}：应在 0 与 1 之间（不含 1），现在是 {value}")
