"""Does the generator draw, or does it hand out what it was trained on?

For each generated image the most similar training image (cosine of the features).  How similar is too similar depends
on the encoder, so held-out real images say it: they cannot be copies, and yet some lie close to a training image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paddle_cxr.synthesis.fidelity.intervals import wilson_interval
from paddle_cxr.synthesis.similarity import Bank, Nearest

SAME = 1 - 1e-6  # cosine from which on two images are the same to the encoder


@dataclass(frozen=True)
class HeldOut:
    """What held-out real images say.

    Attributes:
        threshold: cosine that the closest of them exceed.
        nearest: of those that were used.
        used: int ``[n]``, their rows: the others are themselves among the training images.
    """

    threshold: float
    nearest: Nearest
    used: np.ndarray


@dataclass(frozen=True)
class Memorised:
    """How many images lie closer to a training image than the closest held-out ones.

    Attributes:
        count, total: too close ones, all; share: their ratio; interval: its 95 % Wilson interval.
        nearest: for each image the most similar training image.
    """

    count: int
    total: int
    nearest: Nearest

    @property
    def share(self) -> float:
        return self.count / self.total

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.count, self.total)


def held_out(training: Bank, features: np.ndarray, closest: float) -> HeldOut:
    """The similarity that only the ``closest`` share of held-out real images exceeds.

    Args:
        training: features of the images that the generator was trained on.
        features: ``[N, D]`` of real ones it was not; those that are in ``training`` all the same are left out.
        closest: share, for example 0.01.

    Raises:
        ValueError: all of them are in ``training``, or there are none.
    """
    nearest = training.nearest(features)
    used = np.flatnonzero(nearest.similarity < SAME)
    if not len(used):
        raise ValueError("no held-out image that is not a training image")
    similarity = nearest.similarity[used]
    threshold = float(np.quantile(similarity, 1 - closest, method="higher"))
    return HeldOut(threshold, Nearest(similarity, nearest.index[used]), used)


def memorised(training: Bank, features: np.ndarray, threshold: float) -> Memorised:
    """How many of ``features`` ``[N, D]``, N ≥ 1, are more similar to a training image than ``threshold``.

    A generator that does not memorise has about the share for which the threshold was chosen.
    """
    nearest = training.nearest(features)
    return Memorised(int(nearest.over(threshold).sum()), len(features), nearest)
