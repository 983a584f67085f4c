"""Labelled pictures, augmented, as ``paddle.io`` asks for them one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from paddle_cxr.data.cache import PicturesOnDemand
    from paddle_cxr.data.transforms import Transform

# First word of the seeds: keeps the streams of shuffling and augmenting apart.
SHUFFLE_STREAM, AUGMENT_STREAM = 1, 2


class Key(NamedTuple):
    """Asks for one training picture: which one, and which of its augmented versions.

    Attributes:
        epoch: counted from 0.
        position: the picture, 0 … N - 1.
        repeat: how often the picture was drawn before in this epoch (0 unless drawing with replacement).
    """

    epoch: int
    position: int
    repeat: int = 0


class LabelledImages:
    """A map-style data set (``paddle.io.Dataset`` needs no more than length and item) of augmented pictures.

    Every version of every picture has its own random stream, so that what the model sees does not depend on the
    number of workers or ranks, on the batch size, or on where a run was interrupted.

    Args:
        images: uint8 ``[N, H, W]`` or ``[N, H, W, 3]``: array, memory map or pictures read on demand.
        labels: class numbers, ``[N]``.
        transform: the augmentation, or None.
        seed: of the augmentation.
    """

    def __init__(self, images: np.ndarray | PicturesOnDemand, labels: Sequence[int] | np.ndarray,
                 transform: Transform | None = None, seed: int = 0) -> None:
        self.images = images
        self.labels = np.asarray(labels, dtype=np.int64)
        if len(images) != len(self.labels):
            raise ValueError(f"{len(images)} images but {len(self.labels)} labels")
        self.transform, self.seed = transform, seed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: Key | tuple[int, int]) -> tuple[np.ndarray, np.int64, np.int64]:
        """Picture ``[H, W]`` or ``[H, W, 3]`` (uint8), its label, its position."""
        epoch, position, repeat = Key(*key)
        image = np.asarray(self.images[position])
        if self.transform is not None:
            image = self.transform(image, np.random.default_rng((AUGMENT_STREAM, self.seed, epoch, position, repeat)))
        return image, self.labels[position], np.int64(position)


def collate(samples: Sequence[tuple[np.ndarray, np.int64, np.int64]]) -> list[np.ndarray]:
    """Samples → [images uint8 ``[n, H, W(, 3)]``, labels int64 ``[n]``, positions int64 ``[n]``]."""
    images, labels, positions = zip(*samples, strict=True)
    return [np.stack(images), np.array(labels, np.int64), np.array(positions, np.int64)]
