"""Augmenting an image and its masks together: where a pixel of the one goes, that of the other goes too."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from paddle_cxr.data import transforms as T
from paddle_cxr.errors import UserError

_MOVING = (T.RandomAffine, T.RandomResizedCrop)  # amount: a 2 × 3 matrix; RandomRotation is a RandomAffine
_MIRRORING = (T.RandomHorizontalFlip,)
_GREY_LEVELS = (T.RandomBrightness, T.RandomContrast, T.RandomColor, T.RandomSharpness, T.RandomGamma,
                T.GaussianNoise, T.GaussianBlur)


class JointTransform:
    """A recipe's ``transform_ops`` for pictures whose last channels are masks (see :mod:`.data`).

    Grey levels change in the image only.  Masks are moved by the same matrix, each pixel of the result taking the
    nearest one: a bit is there or not, and half a bit would be another finding.

    Args:
        transform: built by :func:`paddle_cxr.data.transforms.build_transforms`.
        planes: how many channels at the end are masks.
    """

    def __init__(self, transform: T.Transform, planes: int = 1) -> None:
        self.transform, self.planes = transform, planes

    def __call__(self, stack: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 ``[H, W, C + planes]`` → the same shape."""
        colours = stack.shape[2] - self.planes
        image = stack[..., 0] if colours == 1 else stack[..., :colours]
        image, masks = _both(self.transform, np.ascontiguousarray(image), stack[..., colours:], rng)
        return np.concatenate([image[..., None] if colours == 1 else image, masks], axis=2)


def build_joint(specs: list[Any] | None, path: str, planes: int = 1) -> JointTransform:
    """One joint transform from the recipe's list of components.

    Raises:
        UserError: a mistake in the list, or a transform of which nobody said whether masks must follow it.
    """
    transform = T.build_transforms(specs, path)
    _check(transform, path)
    return JointTransform(transform, planes)


def _check(transform: T.Transform, path: str) -> None:
    if isinstance(transform, T.Compose | T.RandomOrder):
        for member in transform.transforms:
            _check(member, path)
    elif not isinstance(transform, (*_MOVING, *_MIRRORING, *_GREY_LEVELS)):
        raise UserError(f"{path}：{type(transform).__name__} 不能用于分割（掩膜不知道怎样跟着变），请删去")


def _both(transform: T.Transform, image: np.ndarray, masks: np.ndarray, rng: np.random.Generator
          ) -> tuple[np.ndarray, np.ndarray]:
    """The transformed image ``[H, W(, 3)]`` and masks ``[H, W, planes]``, from the same draws as the image alone."""
    if isinstance(transform, T.Compose | T.RandomOrder):
        members = transform.transforms
        order = rng.permutation(len(members)) if isinstance(transform, T.RandomOrder) else range(len(members))
        for number in order:
            image, masks = _both(members[number], image, masks, rng)
        return image, masks
    if isinstance(transform, _GREY_LEVELS):
        return transform(image, rng), masks
    if rng.random() >= transform.prob:
        return image, masks
    amount = transform.sample(rng, 1, image.shape[:2])[0]
    moved = [transform.apply(np.ascontiguousarray(plane), amount) if isinstance(transform, _MIRRORING)
             else move_nearest(plane, amount) for plane in np.moveaxis(masks, 2, 0)]
    return transform.apply(image, amount), np.stack(moved, axis=2)


def move_nearest(plane: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """uint8 ``[H, W]`` moved by a 2 × 3 matrix (see :class:`paddle_cxr.data.transforms.RandomAffine`), nearest pixel.

    Outside the picture is 0.
    """
    picture = Image.fromarray(np.ascontiguousarray(plane))
    return np.asarray(picture.transform(picture.size, Image.Transform.AFFINE, matrix.ravel().tolist(),
                                        Image.Resampling.NEAREST))
