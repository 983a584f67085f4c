"""Which images are trained on when only a fraction of the labels is used: the 1 % lie within the 10 %.

The patients are put in an order whose every beginning shows the findings in about the proportions of the whole; a
fraction is a beginning of it.  As in iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On the
stratification of multi-label data", 2011) the rarest finding is dealt with first, as it leaves the least choice.  That
algorithm fills separate folds, of which a smaller one is no part of a larger; hence an order here:

    1. one patient with each finding comes first, so that no part is without it
    2. of the n patients with a finding, some have a place (0 … 1) already, from a rarer one; each of those takes one of
       n evenly spaced slots, and the others get the slots that are left, at random
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_STREAM = 17  # keeps these random numbers apart from others made of the same seed (see data/dataset.py)


def label_subset(groups: Sequence[str], labels: np.ndarray, fraction: float, seed: int = 0) -> np.ndarray:
    """Positions of the images to train on.

    Whole groups are taken, as many as come nearest to the fraction of the images, and at least so many that every
    finding some image shows is shown by a chosen one.  With the same seed a smaller fraction's images are among a
    larger one's, and the choice does not depend on the order of the images.

    Args:
        groups: what must not be torn apart (:func:`paddle_cxr.data.splits.patients_of`), one entry an image.
        labels: float ``[N, K]``: 1 present, 0 absent, NaN unknown.
        fraction: above 0, at most 1.
        seed: another seed, another choice.

    Returns:
        int64 ``[n]``, rising.
    """
    if fraction >= 1:
        return np.arange(len(groups))
    _, group_of = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    order, needed = stratified_order(group_of, np.asarray(labels) == 1, seed)
    ends = np.cumsum(np.bincount(group_of)[order])
    taken = max(needed, 1 + int(np.abs(ends - fraction * len(groups)).argmin()))
    return np.flatnonzero(np.isin(group_of, order[:taken]))


def stratified_order(group_of: np.ndarray, positive: np.ndarray, seed: int) -> tuple[np.ndarray, int]:
    """An order of groups, and how many of the first it takes to show every finding.

    Args:
        group_of: int ``[N]``, the group 0 … G - 1 of every image.
        positive: bool ``[N, K]``.
        seed: decides among equals.

    Returns:
        The groups in order, int64 ``[G]``, and a number of groups.
    """
    kinds = _kinds(group_of, positive)
    chance = np.random.default_rng((_STREAM, seed)).permutation(len(kinds))
    rarest_first = [kind for kind in np.argsort(kinds.sum(axis=0), kind="stable") if kinds[:, kind].any()]
    place = np.full(len(kinds), np.nan)
    for kind in rarest_first:
        members = np.flatnonzero(kinds[:, kind])
        if not (place[members] == 0).any():
            place[members[chance[members].argmin()]] = 0
    needed = int((place == 0).sum())
    for kind in rarest_first:
        members = np.flatnonzero(kinds[:, kind])
        waits = np.isnan(place[members])
        waiting = members[waits]
        waiting = waiting[np.argsort(chance[waiting])]
        place[waiting] = (_free_slots(place[members[~waits]], len(members)) + 0.5) / len(members)
    return np.lexsort((chance, place)), needed


def _kinds(group_of: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """What each group shows, bool ``[G, K + 1]``: every finding, and last whether it shows none."""
    shows = np.zeros((int(group_of.max()) + 1, positive.shape[1]), bool)
    np.logical_or.at(shows, group_of, positive)
    return np.concatenate([shows, ~shows.any(axis=1, keepdims=True)], axis=1)


def _free_slots(places: np.ndarray, slots: int) -> np.ndarray:
    """The slots of 0 … ``slots`` - 1 that are left, rising, when each of ``places`` (0 … 1) takes one near it.

    They take theirs in rising order: each the one it lies in, or the next that is free; none beyond the last.
    """
    steps = np.arange(len(places))
    taken = np.maximum.accumulate(np.floor(np.sort(places) * slots).astype(np.int64) - steps) + steps
    taken = np.minimum(taken, slots - len(places) + steps)
    return np.setdiff1d(np.arange(slots), taken)
