"""The deterministic half of the input: what training, evaluation, prediction and export must all do alike.

It comes in two steps, so that the slow one is done once and its result fits in little memory:

* :meth:`Preprocess.geometry` turns a decoded picture of any size into a small uint8 picture (this is what the cache
  of :mod:`paddle_cxr.data.cache` holds and what the augmentations work on);
* :meth:`Preprocess.normalize` turns a batch of those into the float tensor the model eats.

A grey picture stays one channel until the last moment, also for a model that wants three: a third of the memory.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from paddle_cxr.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import paddle

# Raised by hand when geometry() changes what it returns, so that no cache made before is taken for current.
GEOMETRY_VERSION = 1

DEFAULT_MEAN, DEFAULT_STD = 0.5, 0.25  # grey level mean and s.d. of chest films scaled to 0…1, rounded

# A standard deviation below one grey level is a blank picture, not contrast worth amplifying.
_SMALLEST_STD = 1.0

_CHOICES = {"resize": ("squash", "letterbox", "crop"), "normalize": ("fixed", "per_image"),
            "equalize": ("none", "hist", "clahe")}


class Preprocess:
    """Size, grey levels and channels of the model's input.

    Args:
        image_shape: (C, H, W) of the model's input, C = 1 or 3.
        resize: ``squash`` scales both sides freely (the blog's way); ``letterbox`` keeps the proportions and pads with
            black; ``crop`` keeps the proportions and cuts the longer side at both ends.
        mean, std: mean and standard deviation of grey levels scaled to 0…1, one value for all channels or one each;
            None means 0.5 and 0.25.  Not used with ``normalize: per_image``.
        normalize: ``fixed``: (x / 255 - mean) / std; ``per_image``: every image to mean 0 and s.d. 1 by itself, which
            takes exposure differences between hospitals away.
        equalize: ``hist``: histogram equalisation; ``clahe``: contrast-limited adaptive histogram equalisation.
        color: keep the colours of a colour picture.  X-rays are grey, so by default everything is turned to grey and
            a 3-channel model gets the same grey three times.

    Raises:
        UserError: values that do not fit together.
    """

    def __init__(self, image_shape: tuple[int, int, int], resize: Literal["squash", "letterbox", "crop"] = "squash",
                 mean: list[float] | None = None, std: list[float] | None = None,
                 normalize: Literal["fixed", "per_image"] = "fixed",
                 equalize: Literal["none", "hist", "clahe"] = "none", color: bool = False) -> None:
        shape = list(image_shape)
        if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1:
            raise UserError(f"image_shape 应为 [通道数 1 或 3, 高, 宽]，现在是 {shape}")
        for name, value in (("resize", resize), ("normalize", normalize), ("equalize", equalize)):
            if value not in _CHOICES[name]:
                raise UserError(f"{name} 应为 {'、'.join(_CHOICES[name])} 之一，现在是 {value!r}")
        if color and shape[0] != 3:
            raise UserError(f"color: true 需要 3 通道的 image_shape，现在是 {shape}")
        if color and equalize != "none":
            raise UserError(f"equalize: {equalize} 只用于灰度图，请改为 none，或设 color: false")
        for name, values in (("mean", mean), ("std", std)):
            if values is not None and len(values) not in (1, shape[0]):
                raise UserError(f"{name} 应有 1 个或 {shape[0]} 个值（等于图像通道数），现在是 {values}")
        if std is not None and min(std) <= 0:
            raise UserError(f"std 应大于 0，现在是 {std}")
        self.image_shape: tuple[int, int, int] = (shape[0], shape[1], shape[2])
        self.resize, self.equalize, self.color = resize, equalize, color
        self.mean, self.std, self.normalization = mean, std, normalize

    # --- step one: uint8 in, uint8 out, once per image -------------------------------------------------------------

    @property
    def cached_shape(self) -> tuple[int, ...]:
        """Shape of what :meth:`geometry` returns: (H, W), or (H, W, 3) with ``color``."""
        height, width = self.image_shape[1:]
        return (height, width, 3) if self.color else (height, width)

    def geometry(self, image: np.ndarray) -> np.ndarray:
        """Grey or RGB, resized, equalised.

        Args:
            image: uint8 ``[h, w]`` (grey) or ``[h, w, 3]`` (RGB), of any size.

        Returns:
            uint8 of :attr:`cached_shape`, whatever the picture was, so that batches are homogeneous.
        """
        picture = Image.fromarray(image).convert("RGB" if self.color else "L")
        picture = _resize(picture, self.image_shape[1:], self.resize)
        # Equalised before padding, or the black border would count as part of the film.
        if self.equalize == "hist":
            picture = ImageOps.equalize(picture)
        pixels = clahe(np.asarray(picture)) if self.equalize == "clahe" else np.asarray(picture)
        return _pad(pixels, self.image_shape[1:])

    def mask_geometry(self, mask: np.ndarray) -> np.ndarray:
        """A mask of the picture as published → the mask of what :meth:`geometry` makes of it.

        Args:
            mask: bool ``[h, w]``, of the picture's size.

        Returns:
            bool ``[H, W]``: a pixel is in the mask where half of what it shows or more is; padding is not.
        """
        share = Image.fromarray(np.asarray(mask, bool).astype(np.float32))
        size, box = _placement(share.size[::-1], self.image_shape[1:], self.resize)
        # PIL's box filter: the mean of the pixels whose centres a new pixel covers; the nearest where it is enlarged.
        share = share.resize(size[::-1], Image.Resampling.BOX, box=box)
        return _pad(np.asarray(share) >= 0.5, self.image_shape[1:])

    def undo_geometry(self, values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Values over the model's input → over the picture as published: the way back from :meth:`geometry`.

        Bilinear between the centres of the values, the outermost ones reaching on to the edge.  Padding is cut away:
        where there is a value for every pixel of the input, none of the padding's enters the result.

        Args:
            values: finite float ``[H', W']``, spread evenly over the input: one a pixel, or a coarser map of regions.
            shape: (h, w) of the picture as published.

        Returns:
            float64 ``[h, w]``; NaN where the picture was cropped away.
        """
        size, box = _placement(shape, self.image_shape[1:], self.resize)
        left, top, right, bottom = box or (0, 0, shape[1], shape[0])
        values = np.asarray(values, np.float64)
        rows = _way_back(shape[0], (top, bottom), size[0], self.image_shape[1], values.shape[0])
        columns = _way_back(shape[1], (left, right), size[1], self.image_shape[2], values.shape[1])
        down = _between(values[rows.before], values[rows.after], rows.weight[:, None])
        return _between(down[:, columns.before], down[:, columns.after], columns.weight)

    def geometry_dict(self) -> dict[str, Any]:
        """The settings that decide what :meth:`geometry` returns: part of the cache's key."""
        return {"version": GEOMETRY_VERSION, "shape": list(self.cached_shape), "resize": self.resize,
                "equalize": self.equalize}

    # --- step two: the model's float input, every time a batch is used ---------------------------------------------

    def normalize(self, batch: np.ndarray) -> np.ndarray:
        """Scale and shift a batch on the CPU, with numpy.

        Args:
            batch: ``[N, H, W]`` or ``[N, H, W, 3]``, grey levels 0…255, uint8 or float.

        Returns:
            float32 ``[N, C, H, W]``.
        """
        values = batch[:, None] if batch.ndim == 3 else batch.transpose(0, 3, 1, 2)
        values = np.ascontiguousarray(values, dtype=np.float32)
        if self.normalization == "per_image":
            mean = values.mean(axis=(1, 2, 3), keepdims=True)
            std = np.maximum(values.std(axis=(1, 2, 3), keepdims=True), _SMALLEST_STD)
            values = (values - mean) / std
            return np.repeat(values, self.image_shape[0], axis=1) if values.shape[1] != self.image_shape[0] else values
        scale, shift = self._scale_and_shift()
        return values * scale + shift  # [N, 1, H, W] spreads over the channels of scale and shift

    def normalize_tensor(self, batch: paddle.Tensor) -> paddle.Tensor:
        """:meth:`normalize` on the device the batch is on: same shapes, equal to 1e-6."""
        import paddle

        values = batch.astype("float32")
        values = values.unsqueeze(1) if values.ndim == 3 else values.transpose([0, 3, 1, 2])
        channels = self.image_shape[0]
        if self.normalization == "per_image":
            centred = values - values.mean(axis=[1, 2, 3], keepdim=True)
            std = (centred * centred).mean(axis=[1, 2, 3], keepdim=True).sqrt()
            values = centred / std.clip(min=_SMALLEST_STD)
            return values.expand([-1, channels, -1, -1]) if values.shape[1] != channels else values
        # Channel by channel: Paddle's broadcast of [N, 1, H, W] against [1, C, 1, 1] takes ten times as long on a CPU.
        planes = [values] * channels if values.shape[1] == 1 else values.split(channels, axis=1)
        scale, shift = self._scale_and_shift()
        planes = [paddle.scale(plane, float(a), bias=float(b))
                  for plane, a, b in zip(planes, scale.ravel(), shift.ravel(), strict=True)]
        return paddle.concat(planes, axis=1) if channels > 1 else planes[0]

    def _scale_and_shift(self) -> tuple[np.ndarray, np.ndarray]:
        """float32 ``[1, C, 1, 1]`` each, such that (x / 255 - mean) / std = x · scale + shift."""
        channels = self.image_shape[0]
        mean = np.broadcast_to(np.asarray(self.mean or [DEFAULT_MEAN], dtype=np.float64), channels)
        std = np.broadcast_to(np.asarray(self.std or [DEFAULT_STD], dtype=np.float64), channels)
        scale, shift = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)
        return scale.reshape(1, channels, 1, 1), shift.reshape(1, channels, 1, 1)

    # --- on record beside weights and exported models ---------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Every setting as JSON-able values; :meth:`from_dict` is its inverse."""
        return {"image_shape": list(self.image_shape), "resize": self.resize, "mean": self.mean, "std": self.std,
                "normalize": self.normalization, "equalize": self.equalize, "color": self.color}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Preprocess:
        """Rebuild from what :meth:`to_dict` recorded; raises :class:`UserError` on a key this version does not know."""
        known = list(inspect.signature(cls).parameters)
        for key in settings:
            if key not in known:
                raise UserError(f"预处理记录中有不认识的键 {key!r}{did_you_mean(key, known)}"
                                f"（可用：{'、'.join(known)}）")
        if "image_shape" not in settings:
            raise UserError("预处理记录中缺少 image_shape")
        return cls(**settings)


def _resize(picture: Image.Image, size: tuple[int, int], how: str) -> Image.Image:
    """Resize to ``size`` = (H, W); ``letterbox`` returns the picture before padding (one side may be shorter).

    Bilinear in PIL widens its filter when it shrinks, so ribs do not alias; it is what the ImageNet weights were
    trained with, and unlike Lanczos it draws no bright rims along edges.  reducing_gap 3 first averages whole blocks
    where a film shrinks more than six-fold (4000-pixel originals): several times faster, nearly the same picture.
    """
    (height, width), box = _placement((picture.height, picture.width), size, how)
    return picture.resize((width, height), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)


def _placement(shape: tuple[int, int], size: tuple[int, int], how: str
               ) -> tuple[tuple[int, int], tuple[float, float, float, float] | None]:
    """What part of a picture is shown how large.

    Args:
        shape: (h, w) of the picture; size: (H, W) of the model's input; how: ``resize``.

    Returns:
        (H, W) of what is shown, before padding, and what is: (left, top, right, bottom) in pixels of the picture, None
        for all of it.
    """
    height, width = size
    if how == "letterbox":
        scale = min(width / shape[1], height / shape[0])
        return (min(height, max(1, round(shape[0] * scale))), min(width, max(1, round(shape[1] * scale)))), None
    if how == "crop":
        scale = max(width / shape[1], height / shape[0])
        cut_x, cut_y = (shape[1] - width / scale) / 2, (shape[0] - height / scale) / 2
        return size, (max(cut_x, 0), max(cut_y, 0), min(shape[1] - cut_x, shape[1]), min(shape[0] - cut_y, shape[0]))
    return size, None


class _WayBack(NamedTuple):
    """For every pixel along a side of the picture: the values before and after it, and the weight of the latter."""

    before: np.ndarray  # int64 [length]
    after: np.ndarray
    weight: np.ndarray  # float64 [length], NaN where the picture was not shown


def _way_back(length: int, shown: tuple[float, float], scaled: int, side: int, values: int) -> _WayBack:
    """Where pixels of the picture lie among the values of a map, along one side.

    Args:
        length: of the picture; shown: from where to where of it was shown; scaled: pixels of the input that show it.
        side: of the input, with padding; values: how many the map has over it.
    """
    centres = np.arange(length) + 0.5
    place = (centres - shown[0]) * (scaled / (shown[1] - shown[0]))  # in input pixels, from the first with any
    # Not further out than the outermost pixels' centres: beyond them the padding would be mixed in.
    place = np.clip(place, 0.5, scaled - 0.5) + (side - scaled) // 2
    place = np.clip(place * (values / side) - 0.5, 0, values - 1)
    before = np.floor(place).astype(np.int64)
    weight = np.where((centres >= shown[0]) & (centres <= shown[1]), place - before, np.nan)
    return _WayBack(before, np.minimum(before + 1, values - 1), weight)


def _between(before: np.ndarray, after: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The weighted mean, written so that equal values stay exactly equal."""
    return before + weight * (after - before)


def _pad(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Centre ``image`` ``[h, w]`` or ``[h, w, 3]`` on black of ``size`` = (H, W), h ≤ H and w ≤ W."""
    if image.shape[:2] == tuple(size):
        return np.ascontiguousarray(image)
    top, left = (size[0] - image.shape[0]) // 2, (size[1] - image.shape[1]) // 2
    padded = np.zeros((*size, *image.shape[2:]), image.dtype)
    padded[top:top + image.shape[0], left:left + image.shape[1]] = image
    return padded


def clahe(image: np.ndarray, tiles: int = 8, clip_limit: float = 2.0) -> np.ndarray:
    """Contrast-limited adaptive histogram equalisation (Zuiderveld, Graphics Gems IV, 1994).

    Every tile gets its own equalising table; the clip limit keeps flat regions from being blown up into noise; each
    pixel blends the tables of the four tile centres around it, so no tile border shows.  Equals OpenCV's within one
    grey level; written here because it is thirty lines and OpenCV would be a heavy dependency for one function.

    Args:
        image: uint8 ``[h, w]``.
        tiles: tiles along each side.
        clip_limit: tallest histogram bin allowed, as a multiple of the mean bin.

    Returns:
        uint8 ``[h, w]``.
    """
    height, width = image.shape
    tile_h, tile_w = -(-height // tiles), -(-width // tiles)
    padded = np.pad(image, ((0, tile_h * tiles - height), (0, tile_w * tiles - width)), mode="reflect")
    blocks = padded.reshape(tiles, tile_h, tiles, tile_w).swapaxes(1, 2).reshape(tiles * tiles, tile_h * tile_w)
    tables = np.stack([_clipped_table(block, clip_limit) for block in blocks]).reshape(tiles, tiles, 256)

    above, below, down = (part[:, None] for part in _between_centres(height, tile_h, tiles))
    left, after, right = _between_centres(width, tile_w, tiles)
    upper = (1 - right) * tables[above, left, image] + right * tables[above, after, image]
    lower = (1 - right) * tables[below, left, image] + right * tables[below, after, image]
    return np.rint((1 - down) * upper + down * lower).astype(np.uint8)


def _clipped_table(block: np.ndarray, clip_limit: float) -> np.ndarray:
    """float32 ``[256]``: old grey level → new one, from the clipped histogram of the pixels in ``block``."""
    histogram = np.bincount(block, minlength=256)
    limit = max(int(clip_limit * block.size / 256), 1)
    excess = int(np.maximum(histogram - limit, 0).sum())
    histogram = np.minimum(histogram, limit) + excess // 256
    left_over = excess % 256
    if left_over:  # spread evenly over the grey levels
        step = max(256 // left_over, 1)
        histogram[np.arange(0, 256, step)[:left_over]] += 1
    return np.clip(np.rint(histogram.cumsum() * (255 / block.size)), 0, 255).astype(np.float32)


def _between_centres(length: int, tile: int, tiles: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per pixel along a side: the tile centres before and after it and the weight of the latter, ``[length]`` each."""
    place = np.arange(length, dtype=np.float32) / tile - 0.5
    before = np.floor(place).astype(np.int64)
    weight = (place - before).astype(np.float32)
    return np.clip(before, 0, tiles - 1), np.clip(before + 1, 0, tiles - 1), weight
