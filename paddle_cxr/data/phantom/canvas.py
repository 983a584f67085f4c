"""Drawing on pixels: layers of polygons and strokes, and smooth random fields, all in patient units.

Every per-pixel operation in this package is a sum, product, quotient, square root, comparison or table look-up. Those
are exactly rounded on every machine; vectorised exp, sin or a long float sum are not, and one unit in the last place is
enough to flip a grey level. That is what keeps a phantom bit-identical across NumPy versions and processors.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from paddle_cxr.data.phantom.anatomy import Pose

COARSE = 128  # side of the grid smooth things are computed on, whatever the size of the picture


@lru_cache(maxsize=4)
def picture_grid(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres of an n x n picture as float32 columns and rows in [-1, 1], shapes [1, n] and [n, 1]."""
    c = ((np.arange(n, dtype=np.float32) + np.float32(0.5)) * np.float32(2.0 / n)) - np.float32(1.0)
    return c[None, :], c[:, None]


def supersampling(size: int) -> int:
    """How many canvas pixels wide a picture pixel is drawn: small pictures need more to keep thin lines thin."""
    return 2 if size >= 160 else 4


class Layer:
    """An 8-bit canvas of ``size`` x ``size`` picture pixels, drawn ``factor`` times finer and averaged down."""

    def __init__(self, size: int, pose: Pose, factor: int | None = None) -> None:
        self.factor = factor or supersampling(size)
        self.side = size * self.factor
        self.pose = pose
        self.image = Image.new("L", (self.side, self.side))
        self._pen = ImageDraw.Draw(self.image)

    def polygons(self, shapes: Sequence[np.ndarray], value: int) -> Layer:
        """Fill outlines [n, 2] (patient units) with ``value``; later shapes cover earlier ones."""
        flat = self.pose.to_pixels(np.concatenate(shapes), self.side).ravel().tolist()  # all at once: calls cost most
        start = 0
        for shape in shapes:
            self._pen.polygon(flat[start : start + 2 * len(shape)], fill=value)
            start += 2 * len(shape)
        return self

    def bands(self, edges: tuple[np.ndarray, np.ndarray], value: int, rim: int, rim_width: float) -> Layer:
        """Fill bands given by their two edges [k, n, 2] each; ``rim`` is the value of the edges (bone cortex)."""
        first, second = (self.pose.to_pixels(e, self.side) for e in edges)
        width = max(1, round(rim_width * self.pose.scale * self.side / 2))
        for ring in np.concatenate([first, second[:, ::-1]], axis=1).reshape(len(first), -1).tolist():
            self._pen.polygon(ring, fill=value)
        for line in np.concatenate([first, second]).reshape(2 * len(first), -1).tolist():
            self._pen.line(line, fill=rim, width=width)
        return self

    def strokes(self, lines: np.ndarray, widths: np.ndarray, values: np.ndarray) -> Layer:
        """Draw polylines [k, n, 2]; ``widths`` [k, n - 1] in patient units, ``values`` [k, n - 1] in 0..255.

        A stroke thinner than a canvas pixel is drawn one pixel wide and fainter, so that its weight in the picture does
        not depend on the picture's size.
        """
        points = self.pose.to_pixels(lines, self.side).tolist()
        wide = widths * (self.pose.scale * self.side / 2)
        whole = np.maximum(1, np.rint(wide)).astype(int)
        ink = np.clip(values * np.minimum(1.0, wide / whole), 0, 255).astype(int).tolist()
        for line, ws, vs in zip(points, whole.tolist(), ink, strict=True):
            for a, b, w, v in zip(line[:-1], line[1:], ws, vs, strict=True):
                self._pen.line((a[0], a[1], b[0], b[1]), fill=v, width=w)
        return self

    def array(self) -> np.ndarray:
        """The layer as float32 [size, size] in 0..1."""
        return np.asarray(self.image.reduce(self.factor), np.float32) * np.float32(1 / 255)


def resize(field: np.ndarray, size: int) -> np.ndarray:
    """Smoothly resample a float32 field to [size, size]."""
    if field.shape == (size, size):
        return field
    return np.asarray(Image.fromarray(field).resize((size, size), Image.Resampling.BICUBIC))


def blur(field: np.ndarray, tiles: int) -> np.ndarray:
    """Blur by averaging down to ``tiles`` x ``tiles`` values and interpolating back: cheap, and enough for shadows."""
    n = len(field)
    small = Image.fromarray(field).resize((tiles, tiles), Image.Resampling.BOX)
    return np.asarray(small.resize((n, n), Image.Resampling.BICUBIC))


def smooth_noise(rng: np.random.Generator, cells: Sequence[int], n: int = COARSE) -> np.ndarray:
    """Random field float32 [n, n], roughly -2..2: one octave per entry of ``cells`` (bumps across the picture).

    The first octave is the strongest; each further one weighs 0.6 of the one before.
    """
    total = np.zeros((n, n), np.float32)
    weight = np.float32(1.0)
    for c in cells:
        total += weight * resize(rng.standard_normal((c, c), dtype=np.float32), n)
        weight *= np.float32(0.6)
    return total
