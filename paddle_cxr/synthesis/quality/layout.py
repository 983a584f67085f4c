"""Where are the lungs?  A hand-drawn frontal chest, matched at every plausible place and size.

A frontal chest radiograph is two dark lung fields with a bright mediastinum between them, a bright chest wall beside
them and a bright abdomen below. This module draws that arrangement a thousand and a half times (centre, apex, width,
height), and takes the best normalised cross-correlation with the picture (template matching; Brunelli, "Template
Matching Techniques in Computer Vision", 2009, section 3.1). Nothing is learnt: the shapes come from an anatomy book.

Matching the same templates with the picture turned by 90°, 180° and 270°, or inverted, tells those mistakes apart.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

_SIDE = 32  # the picture is shrunk to this square: coarse enough to lose ribs, fine enough to keep a mediastinum
_CHUNK = 64  # pictures matched by one matrix product: four turns of each fit the processor's cache

# Every plausible position, in parts of the picture's width and height. A film is centred on its patient: the lungs lie
# inside the picture, the midline near the middle. That is what a crop to one corner breaks.
_CENTRES = (0.42, 0.46, 0.50, 0.54, 0.58)
_APEXES = (-0.02, 0.03, 0.08, 0.13, 0.18, 0.23, 0.28, 0.33)
_WIDTHS = (0.48, 0.55, 0.62, 0.70, 0.80, 0.90, 1.00)
_HEIGHTS = (0.38, 0.45, 0.52, 0.60, 0.70, 0.80, 0.92)
_MARGIN = 0.04  # how far a lung may reach out of the picture


@dataclass(frozen=True, slots=True)
class Layout:
    """How well a picture matches a frontal chest. The first four are correlations, −1 … 1.

    Attributes:
        upright: best match as the picture stands.
        inverted: of the negative (black and white exchanged).
        sideways: turned by 90° or 270°, the better of the two.
        upside_down: turned by 180°.
        paler_lung: how much darker than the mediastinum the paler of the upright match's two lungs is, in local
            standard deviations; about 1.4, near or below 0 where there is one lung only (a lateral film, half a chest).
        box: left, top, right, bottom of the upright match's lungs, in parts of the picture's width and height, 0 … 1.
    """

    upright: float
    inverted: float
    sideways: float
    upside_down: float
    paler_lung: float
    box: tuple[float, float, float, float]


def find_layouts(images: Sequence[np.ndarray]) -> list[Layout]:
    """Match each picture (uint8 ``[H, W]``, any size) with the templates."""
    found = []
    for start in range(0, len(images), _CHUNK):
        found += _match(np.stack([_thumbnail(image) for image in images[start:start + _CHUNK]]))
    return found


def _match(pictures: np.ndarray) -> list[Layout]:
    """float32 ``[N, 32, 32]`` → N layouts."""
    bank = _bank()
    turned = np.stack([np.rot90(pictures, turns, axes=(1, 2)) for turns in range(4)])
    flat = turned.reshape(-1, _SIDE * _SIDE).T  # [1024, 4 N]
    mean = bank.support @ flat
    variance = bank.support @ (flat * flat) - mean * mean
    # A featureless picture has variance 0 and matches nothing.
    scores = bank.pattern @ flat / np.sqrt(np.maximum(variance, 1e-6) * bank.pixels[:, None])
    scores = scores.reshape(len(bank.boxes), 4, len(pictures))
    best, places = scores.max(axis=0), scores[:, 0].argmax(axis=0)
    return [Layout(float(best[0, n]), float(-scores[:, 0, n].min()), float(max(best[1, n], best[3, n])),
                   float(best[2, n]), _paler_lung(pictures[n], bank.parts[place]), tuple(map(float, bank.boxes[place])))
            for n, place in enumerate(places)]


def _paler_lung(picture: np.ndarray, parts: np.ndarray) -> float:
    left, middle, right = (float(picture[part].mean()) for part in parts)
    return middle - max(left, right)


def _thumbnail(image: np.ndarray) -> np.ndarray:
    """uint8 ``[H, W]`` → float32 ``[32, 32]``, brightness and contrast made the same everywhere.

    Without that, a burnt-out abdomen or a black collimator edge would outweigh the lungs.
    """
    small = np.asarray(Image.fromarray(image).resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32)
    smooth = _smoothing()
    detail = small - smooth @ small @ smooth.T
    spread = np.sqrt(smooth @ (detail * detail) @ smooth.T)
    return np.clip(detail / (spread + 3), -2, 2)  # 3 grey levels: less is noise and stays small


@functools.cache
def _smoothing() -> np.ndarray:
    """float32 ``[32, 32]``: Gaussian smoothing of one axis, σ about a lung's width, cut off at the edge."""
    places = np.arange(_SIDE)
    weights = np.exp(-0.5 * ((places[:, None] - places) / (0.22 * _SIDE)) ** 2)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Bank:
    """K templates.

    Attributes:
        pattern: float32 ``[K, 1024]``, mean 0 and length 1 over its support.
        support: float32 ``[K, 1024]``, 1/pixels where a template says something, 0 where it does not care.
        pixels: float32 ``[K]``, of the support.
        parts: bool ``[K, 3, 32, 32]``: the lung on the picture's left, the mediastinum, the other lung.
        boxes: float ``[K, 4]``, see :attr:`Layout.box`.
    """

    pattern: np.ndarray
    support: np.ndarray
    pixels: np.ndarray
    parts: np.ndarray
    boxes: np.ndarray


@functools.cache
def _bank() -> _Bank:
    grid = np.stack(np.meshgrid(_CENTRES, _APEXES, _WIDTHS, _HEIGHTS, indexing="ij"), -1).reshape(-1, 4)
    centre, apex, width, height = grid.T
    inside = ((apex + height < 1 + _MARGIN / 2) & (centre - width / 2 >= -_MARGIN - 1e-9)
              & (centre + width / 2 <= 1 + _MARGIN + 1e-9))
    centre, apex, width, height = grid[inside].T
    values = _draw(centre, apex, width, height)
    middle = (np.arange(_SIDE) + 0.5) / _SIDE
    leftmost = (middle < centre[:, None])[:, None, :]
    above = (middle < (apex + height)[:, None])[:, :, None]  # below it, as bright, lies the abdomen
    parts = np.stack([(values == -1) & leftmost, (values == 1) & above, (values == -1) & ~leftmost], axis=1)
    values = values.reshape(len(centre), -1)
    support = np.isfinite(values)
    pixels = support.sum(axis=1, keepdims=True)
    values = np.where(support, values, 0)
    pattern = (values - values.sum(axis=1, keepdims=True) / pixels) * support
    pattern /= np.linalg.norm(pattern, axis=1, keepdims=True)
    boxes = np.stack([centre - width / 2, apex, centre + width / 2, apex + height], axis=1).clip(0, 1)
    return _Bank(pattern.astype(np.float32), (support / pixels).astype(np.float32), pixels[:, 0].astype(np.float32),
                 parts, boxes)


def _draw(centre: np.ndarray, apex: np.ndarray, width: np.ndarray, height: np.ndarray) -> np.ndarray:
    """float ``[K, 32, 32]``: −1 lung, up to 1 what is bright beside it, NaN where films differ (neck, arms, air)."""
    middle = (np.arange(_SIDE) + 0.5) / _SIDE
    across = ((middle - centre[:, None]) / (width[:, None] / 2))[:, None, :]  # −1 … 1 from one lung's side to the other
    down = ((middle - apex[:, None]) / height[:, None])[:, :, None]  # 0 at the apex, 1 at the diaphragm
    aside = np.abs(across)
    within = np.clip(down, 0, 1)
    outer = 1 - 0.55 * (1 - within) ** 3  # a lung widens from its apex down
    lower = np.clip((within - 0.45) / 0.35, 0, 1)
    # The heart reaches far into the lung on the picture's right (the patient's left), a little on the other side.
    inner = 0.20 + 0.06 * within + np.where(across > 0, 0.22, 0.06) * lower
    image = np.full(np.broadcast_shapes(across.shape, down.shape), np.nan)
    abdomen = (down >= 1.08) & (down < 1.40) & (aside < 0.95)
    shoulders = (down > -0.12) & (down < 0) & (aside < 0.75)
    wall = (down > 0.1) & (down < 1) & (aside >= 1.05 * outer) & (aside < outer + 0.18)
    mediastinum = (down > -0.05) & (down < 1) & (aside <= 0.8 * inner)
    lung = (down > 0.03) & (down < 1) & (aside > inner) & (aside < outer)
    for region, value in ((abdomen, 1), (shoulders, 0.3), (wall, 0.6), (mediastinum, 1), (lung, -1)):
        image[region] = value
    return image
