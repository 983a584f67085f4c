"""Augmentations of one training picture: uint8 in, uint8 of the same shape out.

The seven of the blog (brightness, contrast, colour, sharpness, flip, rotation, noise) with its ranges, and four that
recipes may add.  Each is a class of three parts: *when* (``prob``), *how much* (:meth:`RandomTransform.sample` draws
the amount) and *what* (:meth:`RandomTransform.apply` does it, with no randomness left).  The version for whole batches
in :mod:`paddle_cxr.data.device_augment` draws from the same :meth:`~RandomTransform.sample`.

In a recipe::

    transform_ops:
      - name: RandomOrder
        transforms:
          - {name: RandomBrightness, low: 0.5, high: 1.5, prob: 0.5}
          - {name: RandomRotation, degrees: 30}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from paddle_cxr import registry
from paddle_cxr.errors import UserError
from paddle_cxr.registry import register

Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]

_LEVELS = np.arange(256, dtype=np.float32)


# --- putting transforms together ------------------------------------------------------------------------------------

class Compose:
    """Apply ``transforms`` one after another."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for transform in self.transforms:
            image = transform(image, rng)
        return image


@register("transform")
class RandomOrder:
    """Apply all of ``transforms`` (a list of components; a list inside it stays in its order) in random order."""

    def __init__(self, transforms: list[Any], yaml_path: str = "transforms") -> None:
        self.transforms = build_transforms(transforms, yaml_path).transforms

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for index in rng.permutation(len(self.transforms)):
            image = self.transforms[index](image, rng)
        return image


def build_transforms(specs: list[Any] | None, path: str) -> Compose:
    """One callable from the recipe's list of components.

    Args:
        specs: components ``{name: X, ...}``, or lists of them, or None for no augmentation.
        path: YAML path of the list, for errors.

    Raises:
        UserError: naming the YAML path of what is wrong.
    """
    if not isinstance(specs, list | None):
        raise UserError(f"{path}：应为列表（每项一个 {{name: 组件名, 参数…}}），现在是 {specs!r}")
    return Compose([_build(spec, f"{path}.{index}") for index, spec in enumerate(specs or [])])


def _build(spec: Any, path: str) -> Transform:
    if isinstance(spec, list):
        return build_transforms(spec, path)
    try:
        return registry.build("transform", spec, path, yaml_path=f"{path}.transforms")
    except ValueError as error:  # a value out of range, which only the component itself can tell
        raise UserError(f"{path}（{spec['name']}）：{error}") from None


# --- one random transform -------------------------------------------------------------------------------------------

class RandomTransform:
    """Base: with probability ``prob`` draw an amount and apply it.

    ``neutral`` is the amount that changes nothing (a number, or a 2 × 3 matrix).
    """

    neutral: Any = 1.0

    def __init__(self, prob: float) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f"prob 应在 0 到 1 之间，现在是 {prob}")
        self.prob = prob

    def sample(self, rng: np.random.Generator, count: int, size: tuple[int, int]) -> np.ndarray:
        """Draw ``count`` amounts for pictures of ``size`` (H, W): ``[count]`` or, for movements, ``[count, 2, 3]``."""
        raise NotImplementedError

    def apply(self, image: np.ndarray, amount: Any) -> np.ndarray:
        """Change uint8 ``image`` ``[H, W]`` or ``[H, W, 3]`` by ``amount``; the result has the same shape."""
        raise NotImplementedError

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() >= self.prob:
            return image
        return self.apply(image, self.sample(rng, 1, image.shape[:2])[0])


class _Uniform(RandomTransform):
    """Amount: uniform in [low, high]."""

    def __init__(self, low: float, high: float, prob: float) -> None:
        super().__init__(prob)
        if not 0 <= low <= high:
            raise ValueError(f"应有 0 ≤ low ≤ high，现在 low={low}、high={high}")
        self.low, self.high = low, high

    def sample(self, rng: np.random.Generator, count: int, size: tuple[int, int]) -> np.ndarray:
        return rng.uniform(self.low, self.high, count)


class _Factor(_Uniform):
    """Amount: a factor uniform in [low, high], 1 changes nothing."""

    def __init__(self, low: float = 0.5, high: float = 1.5, prob: float = 0.5) -> None:
        super().__init__(low, high, prob)


@register("transform")
class RandomBrightness(_Factor):
    """Multiply grey levels by a factor, as PIL's ``ImageEnhance.Brightness``."""

    def apply(self, image: np.ndarray, amount: float) -> np.ndarray:
        return look_up(image, _LEVELS * amount)


@register("transform")
class RandomContrast(_Factor):
    """Stretch grey levels about the picture's mean grey, as PIL's ``ImageEnhance.Contrast``."""

    def apply(self, image: np.ndarray, amount: float) -> np.ndarray:
        grey = image if image.ndim == 2 else np.asarray(Image.fromarray(image).convert("L"))
        mean = math.floor(grey.mean() + 0.5)
        return look_up(image, mean + amount * (_LEVELS - mean))


@register("transform")
class RandomColor(_Factor):
    """Change the saturation, as PIL's ``ImageEnhance.Color``; a grey picture has none and stays as it is."""

    def apply(self, image: np.ndarray, amount: float) -> np.ndarray:
        return image if image.ndim == 2 else np.asarray(ImageEnhance.Color(Image.fromarray(image)).enhance(amount))


@register("transform")
class RandomSharpness(_Factor):
    """Add (factor > 1) or remove (< 1) the difference to a smoothed picture, as PIL's ``ImageEnhance.Sharpness``."""

    def apply(self, image: np.ndarray, amount: float) -> np.ndarray:
        pixels = image.astype(np.int16)  # 13 · 255 fits, and half the memory traffic of float32
        inner = pixels[1:-1, 1:-1]
        rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
        difference = 9 * inner - (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:])  # 13 · (picture - smoothed picture),
        # smoothed by PIL's SMOOTH kernel: centre 5, neighbours 1, over 13
        sharper = difference * np.float32((amount - 1) / 13)
        sharper += inner
        result = image.copy()  # the outermost pixels have no full neighbourhood and stay
        result[1:-1, 1:-1] = to_uint8(sharper)
        return result


@register("transform")
class RandomGamma(_Factor):
    """Raise grey levels (0…1) to a power between ``low`` and ``high``; half of the draws brighten, half darken if
    low · high = 1, because the logarithm is drawn uniformly."""

    def __init__(self, low: float = 0.8, high: float = 1.25, prob: float = 0.5) -> None:
        super().__init__(low, high, prob)
        if low == 0:
            raise ValueError("low 应大于 0")

    def sample(self, rng: np.random.Generator, count: int, size: tuple[int, int]) -> np.ndarray:
        return np.exp(rng.uniform(math.log(self.low), math.log(self.high), count))

    def apply(self, image: np.ndarray, amount: float) -> np.ndarray:
        return look_up(image, 255 * (_LEVELS / 255) ** amount)


@register("transform")
class GaussianNoise(_Uniform):
    """Add noise of standard deviation uniform in [low, high] grey levels.

    Added in float, then clipped: the blog casts the noise to uint8 first, so that a negative value wraps to bright.
    """

    neutral = 0.0

    def __init__(self, low: float = 0.0, high: float = 10.0, prob: float = 0.5) -> None:
        super().__init__(low, high, prob)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() >= self.prob:
            return image
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        noise *= self.sample(rng, 1, image.shape[:2])[0]
        noise += image
        return to_uint8(noise)


@register("transform")
class GaussianBlur(_Uniform):
    """Blur by a Gaussian of standard deviation uniform in [low, high] pixels (Pillow's, made of box blurs)."""

    neutral = 0.0

    def __init__(self, low: float = 0.1, high: float = 3.0, prob: float = 0.5) -> None:
        super().__init__(low, high, prob)

    def apply(self, image: np.ndarray, amount: float) -> np.ndarray:
        return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(float(amount))))


# --- moving pixels --------------------------------------------------------------------------------------------------

class _Movement(RandomTransform):
    """Amount: the 2 × 3 matrix from a place in the result to the place in the picture whose grey level goes there.

    Places are (x, y) in pixels with a pixel's centre at one half, PIL's convention.  Outside the picture is black.
    """

    neutral = np.eye(2, 3)

    def apply(self, image: np.ndarray, amount: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(image)
        moved = picture.transform(picture.size, Image.Transform.AFFINE, amount.ravel().tolist(),
                                  Image.Resampling.BILINEAR)
        return np.asarray(moved)


@register("transform")
class RandomAffine(_Movement):
    """Rotate by up to ±``degrees``, shift by up to ±``translate`` of each side, zoom by a factor in ``scale``."""

    def __init__(self, degrees: float = 10.0, translate: float = 0.05, scale: tuple[float, float] = (0.95, 1.05),
                 prob: float = 0.5) -> None:
        super().__init__(prob)
        if degrees < 0 or not 0 <= translate < 1 or not 0 < scale[0] <= scale[1]:
            raise ValueError(f"应有 degrees ≥ 0、0 ≤ translate < 1、0 < scale[0] ≤ scale[1]，"
                             f"现在 degrees={degrees}、translate={translate}、scale={list(scale)}")
        self.degrees, self.translate, self.scale = degrees, translate, scale

    def sample(self, rng: np.random.Generator, count: int, size: tuple[int, int]) -> np.ndarray:
        height, width = size
        angle = np.radians(rng.uniform(-self.degrees, self.degrees, count))
        zoom = rng.uniform(*self.scale, count)
        shift_x = rng.uniform(-self.translate, self.translate, count) * width
        shift_y = rng.uniform(-self.translate, self.translate, count) * height
        # The inverse of: turn counter-clockwise (as seen, y pointing down) and zoom about the centre, then shift.
        cosine, sine = np.cos(angle) / zoom, np.sin(angle) / zoom
        from_x, from_y = width / 2 + shift_x, height / 2 + shift_y
        return np.stack([cosine, -sine, width / 2 - cosine * from_x + sine * from_y,
                         sine, cosine, height / 2 - sine * from_x - cosine * from_y], axis=1).reshape(count, 2, 3)


@register("transform")
class RandomRotation(RandomAffine):
    """Rotate about the centre by an angle uniform in ±``degrees``, as PIL's ``rotate``; corners become black."""

    def __init__(self, degrees: float = 30.0, prob: float = 0.5) -> None:
        super().__init__(degrees, translate=0.0, scale=(1.0, 1.0), prob=prob)


@register("transform")
class RandomResizedCrop(_Movement):
    """Cut out a rectangle and enlarge it to the full size (Szegedy et al. 2015).

    Args:
        scale: the rectangle's share of the area; ratio: its width over its height, drawn log-uniformly.  A side that
            would be longer than the picture's is as long as the picture's.
    """

    def __init__(self, scale: tuple[float, float] = (0.6, 1.0), ratio: tuple[float, float] = (0.75, 4 / 3),
                 prob: float = 1.0) -> None:
        super().__init__(prob)
        if not 0 < scale[0] <= scale[1] <= 1 or not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"应有 0 < scale[0] ≤ scale[1] ≤ 1、0 < ratio[0] ≤ ratio[1]，"
                             f"现在 scale={list(scale)}、ratio={list(ratio)}")
        self.scale, self.ratio = scale, ratio

    def sample(self, rng: np.random.Generator, count: int, size: tuple[int, int]) -> np.ndarray:
        height, width = size
        area = rng.uniform(*self.scale, count)
        ratio = np.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), count)) * height / width
        share_x, share_y = np.minimum(np.sqrt(area * ratio), 1), np.minimum(np.sqrt(area / ratio), 1)
        left, top = rng.random(count) * (1 - share_x) * width, rng.random(count) * (1 - share_y) * height
        zero = np.zeros(count)
        return np.stack([share_x, zero, left, zero, share_y, top], axis=1).reshape(count, 2, 3)


@register("transform")
class RandomHorizontalFlip(RandomTransform):
    """Mirror left and right.  Not for pairs with a report: "left lung" would become wrong."""

    neutral = 0.0

    def __init__(self, prob: float = 0.5) -> None:
        super().__init__(prob)

    def sample(self, rng: np.random.Generator, count: int, size: tuple[int, int]) -> np.ndarray:
        return np.ones(count)

    def apply(self, image: np.ndarray, amount: float) -> np.ndarray:
        return np.ascontiguousarray(image[:, ::-1])


# --- arithmetic -----------------------------------------------------------------------------------------------------

def look_up(image: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Replace grey level g by ``levels[g]`` (float ``[256]``; rounded, clipped): one table instead of float maths."""
    return np.take(to_uint8(levels), image)


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Round and clip float ``values`` to 0…255, overwriting them: fresh memory costs more than the arithmetic."""
    np.rint(values, out=values)
    np.clip(values, 0, 255, out=values)
    return values.astype(np.uint8)
