"""Spoiled copies of a good film: what a judge of images must reject.

A filter is only known to work once it has been seen to reject. These eleven kinds are the ways in which drawn and
collected chest X-rays usually go wrong; each function takes a film and returns a spoiled copy.

    from paddle_cxr.data.spoil import SPOILINGS
    bad = SPOILINGS["text"](film, other, np.random.default_rng(0))
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

# film, another film (only a collage looks at it), randomness → spoiled copy; all uint8 [H, W]
Spoiling = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def _blurred(film: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    sigma = rng.uniform(2, 6) * max(film.shape) / 512
    return np.asarray(Image.fromarray(film).filter(ImageFilter.GaussianBlur(sigma)))


def _inverted(film: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 255 - film


def _rotated(film: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(film, rng.choice((1, 3))))


def _cropped(film: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One corner, 40 … 60 % of either side."""
    height, width = (np.array(film.shape) * rng.uniform(0.4, 0.6)).astype(int)
    top, left = rng.choice((0, film.shape[0] - height)), rng.choice((0, film.shape[1] - width))
    return film[top:top + height, left:left + width].copy()


def _overexposed(film: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _to_uint8(film * rng.uniform(1.6, 2.5) + rng.uniform(0, 40))


def _posterised(film: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    levels = rng.integers(4, 17)
    return _to_uint8(np.floor(film / 256 * levels) * (255 / (levels - 1)))


def _collage(film: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two films side by side, four in a square, or one half of each: left and right, or above and below."""
    height, width = film.shape
    other = _resized(other, height, width)
    layout = rng.integers(4)
    if layout == 0:
        return np.hstack([film, other])
    if layout == 1:
        return np.vstack([np.hstack([film, other]), np.hstack([other, film])])
    joined = film.copy()
    half = np.s_[height // 2:] if layout == 2 else np.s_[:, width // 2:]
    joined[half] = other[half]
    return joined


def _noisy(film: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian, or salt and pepper."""
    if rng.random() < 0.5:
        return _to_uint8(film + rng.normal(0, rng.uniform(20, 50), film.shape))
    part, share = rng.random(film.shape), rng.uniform(0.02, 0.1)
    return np.where(part < share / 2, 0, np.where(part > 1 - share / 2, 255, film)).astype(np.uint8)


def _text(film: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two to five lines over the picture, in white or black."""
    height, width = film.shape
    picture = Image.fromarray(film)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(int(rng.uniform(height / 22, height / 8)))
    for line in range(rng.integers(2, 6)):
        words = str(rng.choice(("SAMPLE COPY", "PATIENT 0012345", "NOT FOR DIAGNOSIS", "www.example.org")))
        place = (rng.uniform(0, 0.25) * width, (0.15 + 0.15 * line) * height)
        pen.text(place, words, fill=int(rng.choice((0, 255))), font=font)
    return np.asarray(picture)


def _scene(film: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """No chest at all: a sky over land with some things in it, with the 1/f detail that photographs have."""
    height, width = film.shape
    rows, columns = np.mgrid[:height, :width] / max(height, width)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1
    waves = rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
    detail = np.fft.irfft2(waves / frequency, s=(height, width))
    picture = 110 + 25 * detail / detail.std()
    horizon = rng.uniform(0.3, 0.7) + 0.03 * np.sin(rng.uniform(5, 20) * columns)
    picture += np.where(rows < horizon, rng.uniform(30, 80), rng.uniform(-60, -10))
    for _ in range(rng.integers(3, 9)):
        y, x, tall, broad = rng.uniform((0, 0, 0.03, 0.03), (1, 1, 0.25, 0.25))
        inside = (np.abs(rows - y) / tall) ** 2 + (np.abs(columns - x) / broad) ** 2 < 1
        picture[inside] = 0.5 * picture[inside] + rng.uniform(0, 130)
    return _to_uint8(picture)


def _lateral(film: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One lung stretched to a whole film: a single dark field with the spine on one side, as seen from the side."""
    height, width = film.shape
    left = rng.choice((0, width - width // 2))
    return _resized(film[:, left:left + width // 2], height, width)


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


SPOILINGS: dict[str, Spoiling] = {
    "blurred": _blurred, "inverted": _inverted, "rotated": _rotated, "cropped": _cropped,
    "overexposed": _overexposed, "posterised": _posterised, "collage": _collage, "noise": _noisy, "text": _text,
    "scene": _scene, "lateral": _lateral}
"""Name → function. ``scene`` is the picture that shows no chest."""
