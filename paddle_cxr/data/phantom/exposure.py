"""From attenuation to grey levels: tube, detector, window levelling and the edges of the film.

The levelling is what keeps a class from being readable off the brightness of a film. Like the automatic windowing of a
real detector it looks at grey levels only, and it brings the film's histogram most of the way to the one that this
patient's *healthy* film has. A histogram therefore says much about the patient and the exposure, and little about the
disease; that has to be seen. (All the way would hide it entirely, at the price of turning the healthy parts of a film
with large lesions darker than they are.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paddle_cxr.data.phantom.anatomy import Pose
from paddle_cxr.data.phantom.canvas import Layer, blur, picture_grid

_LEVELS = 1024  # attenuation 0..2 in steps of 1/512 before the tone curve
_LEVELLED = 0.65  # 1: the healthy histogram exactly; 0: none. In between, as a real detector, it comes most of the way.
_KNOTS = 48  # quantiles the levelling matches; fewer keep it smooth, more leave less of a trace in the histogram


@dataclass(frozen=True)
class Exposure:
    """How one film was taken and developed."""

    scatter: float  # share of the image formed by scattered, blurred radiation
    curve: float  # bend of the tone curve: small = bright areas saturate early
    gamma: float
    black: float  # grey level of unattenuated radiation, 0..1
    white: float  # grey level of the densest tissue, 0..1
    grain: float  # standard deviation of the noise at 224 pixels, grey levels 0..1
    slope: tuple[float, float]  # uneven beam: change of attenuation across and down the film
    border: tuple[float, float, float, float]  # collimated margins left, top, right, bottom in units of half a side
    skew: float  # rotation of the collimator, radians
    marker: bool  # the lead letter L beside the patient's left shoulder


def sample_exposure(rng: np.random.Generator) -> Exposure:
    """Draw the technique of one film. Consumes a fixed number of random values."""
    r = rng.random(14)
    margins = [max(0.0, 0.14 * float(v) - 0.08) for v in r[7:11]]
    black = 0.12 * float(r[3])
    return Exposure(
        scatter=0.08 + 0.16 * float(r[0]),
        curve=0.6 + 1.2 * float(r[1]),
        gamma=0.80 + 0.55 * float(r[2]),
        black=black,
        white=0.78 + 0.24 * float(r[4]),
        grain=0.004 + 0.022 * float(r[5]) ** 2,
        slope=(0.06 * (float(r[11]) - 0.5), 0.10 * (float(r[12]) - 0.5)),
        border=tuple(margins),
        skew=0.03 * (float(r[6]) - 0.5),
        marker=bool(r[13] < 0.5),
    )


def _tone(e: Exposure) -> np.ndarray:
    """The tone curve as a table [_LEVELS]: attenuation to grey level 0..1."""
    a = np.arange(_LEVELS, dtype=np.float64) * (2.0 / _LEVELS)
    grey = np.minimum(1.0, a * (1.25 + e.curve) / (a + e.curve) / 1.25)
    return e.black + (e.white - e.black) * grey**e.gamma


def _quantise(attenuation: np.ndarray) -> np.ndarray:
    return np.clip(attenuation * np.float32(_LEVELS / 2), 0, _LEVELS - 1).astype(np.uint16)


def _quantiles(levels: np.ndarray) -> np.ndarray:
    """Level below which each of ``_KNOTS`` equal shares of the pixels lies, with linear interpolation, [_KNOTS + 1]."""
    below = np.concatenate([[0], np.cumsum(np.bincount(levels.ravel(), minlength=_LEVELS))])
    wanted = np.linspace(0, below[-1], _KNOTS + 1)
    grows = np.concatenate([[True], below[1:] > below[:-1]])  # np.interp needs a strictly growing table
    return np.interp(wanted, below[grows], np.arange(_LEVELS + 1)[grows])


def _levelling(levels: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Table [_LEVELS] of float levels that gives ``levels`` the quantiles of ``target``."""
    have, want = _quantiles(levels), _quantiles(target)
    keep = np.concatenate([[True], np.diff(have) > 0])
    table = np.arange(_LEVELS, dtype=np.float64)
    return table + _LEVELLED * (np.interp(table, have[keep], want[keep]) - table)


def film_edges(e: Exposure, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks 0..1 [size, size]: inside the collimated field, and the lead marker."""
    left, top, right, bottom = e.border
    frame = Pose(1.0, e.skew, 1.0, 0.0, 0.0)  # for so small an angle its cosine is 1
    # Where a margin is zero the field must reach past the picture, or the skew would show as a black wedge.
    x0, y0, x1, y1 = (m - 1 if m > 0 else -1.2 for m in (left, top, right, bottom))
    field = Layer(size, frame).polygons([np.array([(x0, y0), (-x1, y0), (-x1, -y1), (x0, -y1)])], 255).array()
    letter = Layer(size, frame)
    if e.marker:
        x, y = 0.80 - right, -0.90 + top
        stem, foot = (0.022, 0.11), (0.075, 0.022)
        for w, h, dy in ((*stem, 0.0), (*foot, 0.088)):
            letter.polygons([np.array([(x, y + dy), (x + w, y + dy), (x + w, y + dy + h), (x, y + dy + h)])], 255)
    return field, letter.array()


def expose(
    attenuation: np.ndarray,
    healthy: np.ndarray,
    e: Exposure,
    edges: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
) -> np.ndarray:
    """Take the picture.

    Args:
        attenuation: the patient with findings, float32 [size, size], 0 (air) to about 1.5.
        healthy: the same patient without; only its histogram is used. Pass the same array for a healthy patient.
        e: technique, drawn independently of the findings.
        edges: what :func:`film_edges` gives for the same technique.
        rng: the noise stream.

    Returns:
        uint8 [size, size], bone bright and air dark.
    """
    size = len(attenuation)
    u, v = picture_grid(size)
    tilt = np.float32(e.slope[0]) * u + np.float32(e.slope[1]) * v + np.float32(1.0)

    def projected(a: np.ndarray) -> np.ndarray:
        return _quantise((a + np.float32(e.scatter) * (blur(a, 10) - a)) * tilt)

    levels = projected(attenuation)
    table = np.arange(_LEVELS, dtype=np.float64)
    if healthy is not attenuation:
        table = _levelling(levels, projected(healthy))
    grey = np.interp(table, np.arange(_LEVELS), _tone(e)).astype(np.float32)[levels]

    # A small picture is a large one averaged down, noise included.
    grain = np.float32(e.grain * min(1.0, size / 224))
    grey += grain * rng.standard_normal((size, size), dtype=np.float32) * (np.float32(0.5) + grey)
    field, letter = edges
    grey = np.maximum(grey * field, letter * np.float32(min(1.0, e.white)))
    return np.clip(grey * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)
