"""Does a classifier trained on real images see in a generated one what it was drawn for?

A classifier that is wrong itself disagrees with good images: its agreement on real ones, beside it, is the ceiling.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from paddle_cxr.data.records import ClassInfo
from paddle_cxr.synthesis.fidelity.intervals import wilson_interval

SIDES = ("left", "right")
_WORD = re.compile(r"[^\W_]+")


class Share(NamedTuple):
    """So many of so many images, with the 95 % Wilson interval; ``share`` is None without images."""

    count: int
    total: int

    @property
    def share(self) -> float | None:
        return self.count / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float] | None:
        return wilson_interval(self.count, self.total) if self.total else None


@dataclass(frozen=True)
class Agreement:
    """What came of comparing labels with predictions.

    Attributes:
        overall: images whose predicted class is the one they were drawn for.
        per_class: the same for each class, in class order.
        confusion: int64 ``[K, K]``, row = drawn for, column = predicted.
        side: images drawn for the left or the right whose predicted class names that side; None where no class names
            a side.  A predicted class without side counts as wrong.
        left_out: images whose labels mean no class, or several.
    """

    overall: Share
    per_class: tuple[Share, ...]
    confusion: np.ndarray
    side: Share | None
    left_out: int


def agreement(wanted: Sequence[int | None], predicted: np.ndarray, classes: Sequence[ClassInfo]) -> Agreement:
    """Compare what images were drawn for with what a classifier sees.

    Args:
        wanted: class number of each of N images, None where it has none.
        predicted: int ``[N]``, class numbers.
        classes: the K classes, in label order.
    """
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    for row, column in zip(wanted, predicted, strict=True):
        if row is not None:
            confusion[row, column] += 1
    right, totals = np.diag(confusion), confusion.sum(axis=1)
    return Agreement(Share(int(right.sum()), int(totals.sum())),
                     tuple(Share(int(one), int(all_)) for one, all_ in zip(right, totals, strict=True)),
                     confusion, _side_agreement(confusion, classes), sum(one is None for one in wanted))


def _side_agreement(confusion: np.ndarray, classes: Sequence[ClassInfo]) -> Share | None:
    sides = np.array([finding_and_side(info.name)[1] for info in classes], object)
    sided = np.isin(sides, SIDES)
    if not sided.any():
        return None
    same = sides[:, None] == sides[None, :]
    return Share(int(confusion[sided][same[sided]].sum()), int(confusion[sided].sum()))


def finding_and_side(name: str) -> tuple[str, str | None]:
    """``effusion_left``, ``left effusion`` or ``effusion:left`` → (``effusion``, ``left``); without a side None."""
    words = [word.lower() for word in _WORD.findall(name)]
    sides = [word for word in words if word in (*SIDES, "bilateral")]
    return " ".join(word for word in words if word not in sides), sides[0] if len(sides) == 1 else None


def class_of(labels: frozenset[str] | None, side: str | None, classes: Sequence[ClassInfo], negative: str
             ) -> int | None:
    """The class that an image was drawn for, or None where its labels mean none of them, or several.

    Args:
        labels: what is present; empty: nothing is; None: not known.
        side: where it is, for labels that do not say so themselves.
        classes: the classifier's; a class whose name has no side takes every side.
        negative: name of the class of images without a label.
    """
    if labels is None:
        return None
    found = {number for label in labels or {negative} for number, info in enumerate(classes)
             if _matches(label, side if labels else None, info)}
    return found.pop() if len(found) == 1 else None


def _matches(label: str, side: str | None, info: ClassInfo) -> bool:
    if info.matches(label):
        return True
    finding, own = finding_and_side(label)
    for name in (info.name, info.en, *info.aliases):
        of_class, class_side = finding_and_side(name)
        if finding == of_class and finding and class_side in (None, own or side):
            return True
    return False
