"""The augmentations of :mod:`paddle_cxr.data.transforms` for a whole batch at once, on the device the batch is on.

For a fast GPU: a few CPU cores hand over decoded uint8 pictures, and the GPU augments a batch in the time the cores
would need for one picture.  The amounts are drawn on the host by the transforms' own ``sample``, so the ranges are the
same; the operations here are tested against the transforms' ``apply``.  Three differences, none of which training
notices: grey levels stay fractional between operations instead of being rounded; the random order is drawn once a
batch instead of once a picture (every picture still meets every order over the epochs, and a batch costs seven
operations instead of seven times seven on slices); and the noise itself comes from the device's generator, so CPU and
GPU draw different grains.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from paddle_cxr.data import transforms as T
from paddle_cxr.errors import UserError

# (images float32 [N, C, H, W] of 0…255, amounts float32 [N] or [N, 2, 3]) -> images, not yet clipped
_BatchOp = Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor]

_GREY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R 601, as PIL's convert("L")


class BatchAugment:
    """What a transform (or a list, or a random order of transforms) does, for a batch.

    Args:
        transform: built by :func:`paddle_cxr.data.transforms.build_transforms`.

    Raises:
        UserError: a transform without a version for the device.
    """

    def __init__(self, transform: T.Transform) -> None:
        _require_device_version(transform)
        self.transform = transform

    @paddle.no_grad()
    def __call__(self, images: paddle.Tensor, seed: int) -> paddle.Tensor:
        """Augment every picture by its own random amounts.

        Args:
            images: uint8 or float ``[N, H, W]`` or ``[N, H, W, 3]``, grey levels 0…255.
            seed: decides everything, on one kind of device; paddle's own random state is left as it was.

        Returns:
            float32 of the same shape, 0…255.
        """
        grey = images.ndim == 3
        batch = images.astype("float32")
        batch = batch.unsqueeze(1) if grey else batch.transpose([0, 3, 1, 2])
        with _seeded(seed):
            batch = _augment(batch, self.transform, np.random.default_rng(seed))
        return batch.squeeze(1) if grey else batch.transpose([0, 2, 3, 1])


def device_augment_from(specs: list[Any] | None, path: str) -> BatchAugment:
    """The device version of a recipe's ``transform_ops``; ``path`` is their YAML path, for errors.

    Raises:
        UserError: a mistake in the recipe, or a component without a version for the device.
    """
    transform = T.build_transforms(specs, path)
    try:
        return BatchAugment(transform)
    except UserError as error:
        raise UserError(f"{path}：{error}") from None


def _require_device_version(transform: T.Transform) -> None:
    if isinstance(transform, T.Compose | T.RandomOrder):
        for member in transform.transforms:
            _require_device_version(member)
    elif type(transform) not in _OPS:
        known = "、".join(["RandomOrder", *(kind.__name__ for kind in _OPS)])
        raise UserError(f"{type(transform).__name__} 没有在设备上运行的版本，"
                        f"请删去它，或设 augment_on: cpu（可用：{known}）")


def _augment(batch: paddle.Tensor, transform: T.Transform, rng: np.random.Generator) -> paddle.Tensor:
    if isinstance(transform, T.Compose | T.RandomOrder):
        members = transform.transforms
        order = rng.permutation(len(members)) if isinstance(transform, T.RandomOrder) else range(len(members))
        for index in order:
            batch = _augment(batch, members[index], rng)
        return batch
    count, _, height, width = batch.shape
    chosen = rng.random(count) < transform.prob
    amounts = transform.sample(rng, count, (height, width))
    amounts[~chosen] = transform.neutral  # a picture not chosen goes through the same arithmetic unchanged
    amounts = paddle.to_tensor(amounts.astype(np.float32), place=batch.place)
    return _OPS[type(transform)](batch, amounts).clip(0, 255)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Paddle's generators start from ``seed`` inside, and go on outside as if nothing had been drawn."""
    host = paddle.framework.core.default_cpu_generator()  # set_rng_state(…, "cpu") fails in Paddle 2.6
    saved, saved_host = paddle.get_rng_state(), host.get_state()
    paddle.seed(seed)
    try:
        yield
    finally:
        paddle.set_rng_state(saved)
        host.set_state(saved_host)


# --- the operations -------------------------------------------------------------------------------------------------

def _per_picture(amounts: paddle.Tensor) -> paddle.Tensor:
    """[N] -> [N, 1, 1, 1]"""
    return amounts.reshape([-1, 1, 1, 1])


def _grey(images: paddle.Tensor) -> paddle.Tensor:
    """[N, C, H, W] -> [N, 1, H, W]"""
    if images.shape[1] == 1:
        return images
    red, green, blue = _GREY_WEIGHTS
    return images[:, 0:1] * red + images[:, 1:2] * green + images[:, 2:3] * blue


def _brightness(images: paddle.Tensor, factors: paddle.Tensor) -> paddle.Tensor:
    return images * _per_picture(factors)


def _contrast(images: paddle.Tensor, factors: paddle.Tensor) -> paddle.Tensor:
    mean = _grey(images).mean(axis=[1, 2, 3], keepdim=True)
    return mean + (images - mean) * _per_picture(factors)


def _color(images: paddle.Tensor, factors: paddle.Tensor) -> paddle.Tensor:
    if images.shape[1] == 1:
        return images
    grey = _grey(images)
    return grey + (images - grey) * _per_picture(factors)


def _sharpness(images: paddle.Tensor, factors: paddle.Tensor) -> paddle.Tensor:
    inner = images[:, :, 1:-1, 1:-1]
    smooth = (F.avg_pool2d(images, kernel_size=3, stride=1) * 9 + inner * 4) / 13
    return images + F.pad((inner - smooth) * (_per_picture(factors) - 1), [1, 1, 1, 1])


def _gamma(images: paddle.Tensor, powers: paddle.Tensor) -> paddle.Tensor:
    return 255 * (images / 255) ** _per_picture(powers)


def _noise(images: paddle.Tensor, sigmas: paddle.Tensor) -> paddle.Tensor:
    return images + paddle.randn(images.shape) * _per_picture(sigmas)


def _flip(images: paddle.Tensor, mirrored: paddle.Tensor) -> paddle.Tensor:
    return paddle.where(_per_picture(mirrored) > 0, images.flip([3]), images)


def _move(images: paddle.Tensor, matrices: paddle.Tensor) -> paddle.Tensor:
    """``matrices`` ``[N, 2, 3]``: see :class:`paddle_cxr.data.transforms._Movement`."""
    height, width = images.shape[2:]
    x = (paddle.arange(width, dtype="float32") + 0.5).reshape([1, 1, -1])
    y = (paddle.arange(height, dtype="float32") + 0.5).reshape([1, -1, 1])
    # Written out instead of F.affine_grid, whose matrix product GPUs round to ten bits (TF32): 0.05 pixels.
    row_x, row_y = (matrices[:, row].unsqueeze([2, 3]) for row in (0, 1))  # [N, 3, 1, 1]
    from_x = row_x[:, 0] * x + row_x[:, 1] * y + row_x[:, 2]
    from_y = row_y[:, 0] * x + row_y[:, 1] * y + row_y[:, 2]
    grid = paddle.stack([from_x * (2 / width) - 1, from_y * (2 / height) - 1], axis=-1)  # [N, H, W, 2], -1…1
    # As in PIL: blend with the nearest pixel at the rim, and black wherever the place itself is outside.
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    inside = (grid.abs() <= 1).all(axis=-1).unsqueeze(1)
    return moved * inside.astype("float32")


_OPS: dict[type, _BatchOp] = {
    T.RandomBrightness: _brightness,
    T.RandomContrast: _contrast,
    T.RandomColor: _color,
    T.RandomSharpness: _sharpness,
    T.RandomGamma: _gamma,
    T.GaussianNoise: _noise,
    T.RandomHorizontalFlip: _flip,
    T.RandomRotation: _move,
    T.RandomAffine: _move,
    T.RandomResizedCrop: _move,
}
