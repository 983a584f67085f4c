"""The patient: every measure that makes one phantom's body differ from another's, and the outlines they imply.

Lengths are in *patient units*: 1.0 is half the side of the picture, the origin is the middle of the film, x grows to
the right of the picture (the patient's **left**) and y grows downwards. "Depth" ``f`` measures down the lungs: 0 at the
apex, 1 at the costophrenic angle. Nothing here knows about pixels, findings or the class that will be drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Points = np.ndarray  # float64 [n, 2], patient units

SIDES = ("right", "left")  # in reading order of the picture: the patient's right lung is on the image's left
SIGN = {"right": -1.0, "left": 1.0}

# Half width of the ribcage at depth f, as a fraction of its widest: lungs, ribs and lung coordinates share this curve.
_RIBCAGE_F = np.array([-0.10, 0.00, 0.05, 0.16, 0.32, 0.52, 0.72, 0.88, 1.00, 1.30])
_RIBCAGE_X = np.array([0.30, 0.42, 0.58, 0.74, 0.86, 0.945, 0.99, 1.0, 0.985, 0.93])
MEDIAL = 0.15  # where the lung ends towards the spine, as a fraction of the ribcage's half width


@dataclass(frozen=True)
class Pose:
    """How the patient stands before the detector: picture = scale * rotate(patient) + shift."""

    cos: float
    sin: float
    scale: float
    dx: float
    dy: float

    def to_pixels(self, points: np.ndarray, canvas: int) -> np.ndarray:
        """Patient units [..., 2] to pixel coordinates [..., 2] on a canvas of ``canvas`` x ``canvas`` pixels."""
        x, y = points[..., 0], points[..., 1]
        half = canvas / 2.0
        u = (self.scale * (self.cos * x - self.sin * y) + self.dx + 1.0) * half
        v = (self.scale * (self.sin * x + self.cos * y) + self.dy + 1.0) * half
        pixels = np.empty(points.shape)
        pixels[..., 0], pixels[..., 1] = u, v
        return pixels

    def to_patient(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Picture coordinates in [-1, 1] to patient units (the inverse of the pose)."""
        u, v = u - np.float32(self.dx), v - np.float32(self.dy)
        c, s = np.float32(self.cos / self.scale), np.float32(self.sin / self.scale)
        return c * u + s * v, c * v - s * u


@dataclass(frozen=True)
class Anatomy:
    """One patient. Fractions are of lung height (``*_f``), or plain factors around 1 where no unit is given."""

    top: float  # y of the lung apices
    height: float  # apex to costophrenic angle
    width: float  # half width of the ribcage at its widest
    dome_f: float  # depth of the right diaphragm dome; the left one lies lower
    dome_drop_f: float
    fat: float  # soft tissue outside the ribcage, patient units
    stoutness: float  # how much the soft tissue attenuates
    aeration: float  # how much air darkens the lungs
    heart_left: float  # reach of the left heart border, fraction of ribcage half width
    heart_right: float
    heart_f: float  # vertical shift of the heart
    knob: float  # radius of the aortic knob
    tilt: float  # patient turned about the long axis: the mediastinum moves sideways
    rib_slope: float
    rib_width: float
    rib_shift_f: float
    rib_density: float
    clavicle_f: float
    clavicle_rise: float
    shoulder: float  # y of the shoulder line
    arm_gap: float  # distance between the chest wall and the arm; negative where they overlap
    breast: float  # 0 for none
    breast_f: float
    vessel_density: float
    vessel_width: float
    gas: float  # radius of the gastric bubble, 0 for none
    spine_density: float
    pose: Pose
    wobble: tuple[float, ...]  # small independent offsets that keep left and right from mirroring each other

    def y(self, f: float | np.ndarray) -> float | np.ndarray:
        """Depth to y."""
        return self.top + f * self.height

    def f(self, y: np.ndarray) -> np.ndarray:
        """y to depth."""
        return (y - np.float32(self.top)) / np.float32(self.height)

    def ribcage(self, f: float | np.ndarray) -> np.ndarray:
        """Half width of the ribcage at depth f, patient units."""
        return self.width * np.interp(f, _RIBCAGE_F, _RIBCAGE_X)

    def spot(self, side: str, u: float, f: float) -> tuple[float, float]:
        """Lung coordinates (u: 0 at the mediastinum, 1 at the chest wall; f: depth) to patient units."""
        inner = MEDIAL * self.width
        return SIGN[side] * (inner + u * (float(self.ribcage(f)) - inner)), float(self.y(f))

    def hilum(self, side: str) -> tuple[float, float]:
        """Centre of a hilum, patient units; the left one sits slightly higher, as in life."""
        return (
            SIGN[side] * (0.20 if side == "right" else 0.23) * self.width + self.tilt,
            float(self.y(0.475 if side == "right" else 0.445)),
        )


def sample_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw one patient. Consumes a fixed number of random values, whatever comes out."""
    r = rng.random(30)
    wobble = tuple(float(v) for v in rng.uniform(-1.0, 1.0, 16))

    def between(i: int, low: float, high: float) -> float:
        return low + (high - low) * float(r[i])

    angle = math.radians(between(0, -4.0, 4.0))
    pose = Pose(
        math.cos(angle), math.sin(angle), between(1, 0.92, 1.08), between(2, -0.05, 0.05), between(3, -0.06, 0.06)
    )
    stout = between(4, 0.0, 1.0)
    stoutness = 0.88 + 0.26 * stout
    top = between(5, -0.80, -0.66)
    gap = between(24, -0.16, 0.12)
    return Anatomy(
        top=top,
        height=between(6, 1.10, 1.40),
        width=between(7, 0.68, 0.82),
        dome_f=between(8, 0.82, 0.87),
        dome_drop_f=between(9, 0.015, 0.05),
        fat=0.07 + 0.14 * stout * stout + between(10, 0.0, 0.03),
        stoutness=stoutness,
        aeration=between(11, 0.49, 0.61) * stoutness,
        heart_left=between(12, 0.53, 0.66),
        heart_right=between(13, 0.25, 0.33),
        heart_f=between(14, -0.02, 0.03),
        knob=between(15, 0.075, 0.115),
        tilt=between(16, -0.03, 0.03),
        rib_slope=between(17, 0.8, 1.25),
        rib_width=between(18, 0.85, 1.2),
        rib_shift_f=between(19, -0.045, 0.045),
        rib_density=between(20, 0.45, 1.0),
        clavicle_f=between(21, 0.09, 0.17),
        clavicle_rise=between(22, 0.04, 0.17),
        shoulder=top - between(23, 0.04, 0.16),
        arm_gap=gap if gap > 0.035 else -0.08,  # a slit thinner than that looks like a scratch on the film
        breast=max(0.0, between(25, -1.0, 1.0)),
        breast_f=between(26, 0.72, 0.86),
        vessel_density=between(27, 0.5, 0.95),
        vessel_width=between(28, 0.8, 1.2),
        gas=max(0.0, between(29, -0.05, 0.15)),
        spine_density=0.7 + 0.3 * abs(wobble[15]),
        pose=pose,
        wobble=wobble,
    )


@lru_cache(maxsize=8)
def _spline_weights(n: int) -> np.ndarray:
    t = np.arange(n) / n
    return 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], axis=1
    )


def closed_curve(points: np.ndarray, n: int = 5) -> Points:
    """Smooth closed outline [k * n, 2] through k control points [k, 2] (a Catmull-Rom spline)."""
    w = _spline_weights(n)
    # Written as sums, not as a matrix product: BLAS kernels differ between processors in the last bit, sums do not.
    parts = [w[:, None, j, None] * np.roll(points, 1 - j, axis=0)[None] for j in range(4)]
    curve = parts[0] + parts[1] + parts[2] + parts[3]
    return curve.transpose(1, 0, 2).reshape(-1, 2)


@lru_cache(maxsize=8)
def _unit_circle(n: int) -> np.ndarray:
    a = np.arange(n) * (2 * math.pi / n)
    return np.stack([np.cos(a), np.sin(a)], axis=1)


def disc(x: float, y: float, rx: float, ry: float, n: int = 20) -> Points:
    """Ellipse as a polygon [n, 2]."""
    return _unit_circle(n) * (rx, ry) + (x, y)


def lung_outline(a: Anatomy, side: str) -> Points:
    """The lung down to the diaphragm, including what lies behind the heart."""
    w = a.wobble[:6] if side == "right" else a.wobble[6:12]
    dome = a.dome_f + (a.dome_drop_f if side == "left" else 0.0)
    angle = 1.0 + 0.02 * w[0] + (a.dome_drop_f if side == "left" else 0.0) * 0.5
    f = np.array([0.055, 0.0, 0.045, 0.16, 0.32, 0.52, 0.72, 0.88])
    lateral = np.stack([a.ribcage(f) / a.width, f], axis=1)
    lateral[0, 0] = 0.25 + 0.02 * w[1]
    lateral[1, 1] += 0.012 * w[2]
    base = [
        (0.985, angle),
        (0.90, dome + 0.62 * (angle - dome)),
        (0.74, dome + 0.20 * (angle - dome)),
        (0.54 + 0.04 * w[3], dome),
        (0.35, dome + 0.02 + 0.01 * w[4]),
        (0.20, dome + 0.06),
    ]
    medial = [(MEDIAL, 0.78), (MEDIAL, 0.55), (MEDIAL, 0.35), (0.165 + 0.015 * w[5], 0.16)]
    points = np.concatenate([lateral, np.array(base), np.array(medial)])
    return closed_curve(np.stack([SIGN[side] * a.width * points[:, 0], a.y(points[:, 1])], axis=1))


def heart_outline(a: Anatomy) -> Points:
    """Heart and great vessels below the aortic arch; two thirds of it left of the midline."""
    left, right = a.heart_left, a.heart_right
    points = np.array(
        [
            (-0.17, 0.24), (-0.18, 0.40), (-0.20, 0.50), (-right * 0.93, 0.60), (-right, 0.71), (-right * 0.90, 0.83),
            (-0.15, 0.95), (0.15, 0.98), (left * 0.80, 0.95), (left * 0.98, 0.88), (left, 0.80), (left * 0.90, 0.69),
            (left * 0.70, 0.57), (0.30, 0.47), (0.25, 0.40), (0.20, 0.34), (0.12, 0.28),
        ]
    )  # fmt: skip
    below_arch = np.clip((points[:, 1] - 0.3) / 0.2, 0.0, 1.0)
    return closed_curve(np.stack([a.width * points[:, 0] + a.tilt, a.y(points[:, 1] + a.heart_f * below_arch)], axis=1))


def mediastinum_outline(a: Anatomy) -> Points:
    """The band between the lungs above the heart: great vessels, trachea, spine."""
    points = np.array(
        [(-0.24, -0.25), (-0.19, 0.04), (-0.16, 0.2), (-0.18, 0.45),
         (0.18, 0.45), (0.15, 0.2), (0.17, 0.04), (0.24, -0.25)]
    )  # fmt: skip
    return np.stack([a.width * points[:, 0] + a.tilt, a.y(points[:, 1])], axis=1)


def aortic_knob(a: Anatomy) -> Points:
    """Outline of the aortic arch seen end on, at the left of the upper mediastinum."""
    return disc(0.155 * a.width + a.tilt, float(a.y(0.305)), a.knob, a.knob * 1.15)


def body_outlines(a: Anatomy) -> list[Points]:
    """Neck with shoulders and trunk, then each arm; closed polygons."""
    chest = a.width + a.fat
    half = np.array(
        [(0.20, -1.6), (0.21, a.shoulder - 0.16), (0.30, a.shoulder - 0.06), (0.62, a.shoulder + 0.02),
         (chest + 0.16, a.shoulder + 0.14), (chest + 0.22, a.shoulder + 0.34), (chest + 0.10, -0.22),
         (chest + 0.015, 0.02), (chest, 0.4), (chest + 0.02, 0.8), (chest + 0.02, 1.6)]
    )  # fmt: skip
    trunk = np.concatenate([half, half[::-1] * np.array([-1.0, 1.0])])
    outlines = [trunk]
    for side, w in (("right", a.wobble[12]), ("left", a.wobble[13])):
        inner = chest + a.arm_gap * (1.0 + 0.3 * w)
        arm = np.array(
            [(chest + 0.08, a.shoulder + 0.10), (chest + 0.38, a.shoulder + 0.30), (inner + 0.46, 0.2),
             (inner + 0.44, 1.6), (inner + 0.12, 1.6), (inner + 0.04, 0.5), (chest + 0.02, -0.05)]
        )  # fmt: skip
        outlines.append(arm * np.array([SIGN[side], 1.0]))
    return outlines


def rib_centrelines(a: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    """Centre lines of the ribs: posterior [22, 12, 2] and anterior [18, 10, 2], patient units.

    A rib leaves the spine nearly level, falls towards the chest wall (posterior arc), turns there and comes back
    inwards more steeply (anterior arc), ending where its cartilage, which X-rays hardly see, begins.
    """
    i = np.arange(11.0)
    origin = -0.035 + 0.094 * i + a.rib_shift_f
    drop = (0.10 + 0.013 * i) * a.rib_slope
    reach = a.ribcage(origin + drop) + 0.012
    back = np.linspace(0.0, math.pi / 2, 12)
    start = 0.07
    x = start + (reach[:, None] - start) * np.sin(back)
    y = origin[:, None] + drop[:, None] * (1 - np.cos(back)) - 0.018 * np.sin(2 * back)
    posterior = np.stack([x, a.y(y)], axis=-1)

    front = np.linspace(0.0, 1.25, 10)
    fall = (0.11 + 0.014 * i[:9]) * a.rib_slope
    end = (0.34 + 0.022 * i[:9]) * a.width
    x = end[:, None] + (reach[:9, None] - end[:, None]) * np.cos(front)
    y = (origin + drop)[:9, None] + fall[:, None] * (0.6 * np.sin(front) + 0.5 * front)
    anterior = np.stack([x, a.y(y)], axis=-1)

    def both(arcs: np.ndarray, shift: float) -> np.ndarray:
        other = arcs * np.array([-1.0, 1.0])
        other[..., 1] += shift
        return np.concatenate([other, arcs])

    return both(posterior, 0.012 * a.wobble[14]), both(anterior, 0.012 * a.wobble[14])


def ribbons(centre: np.ndarray, half_width: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both edges of bands along centre lines [k, n, 2], each [k, n, 2]; ``half_width`` broadcasts over [k, n]."""
    step = np.gradient(centre, axis=1)
    length = np.sqrt(step[..., 0] ** 2 + step[..., 1] ** 2) + 1e-9
    normal = np.stack([-step[..., 1], step[..., 0]], axis=-1) / length[..., None]
    offset = normal * np.broadcast_to(np.asarray(half_width, float), length.shape)[..., None]
    return centre + offset, centre - offset


def clavicle_centrelines(a: Anatomy) -> np.ndarray:
    """Centre lines [2, 12, 2], right clavicle first: a flat S from the breastbone up to the shoulder."""
    t = np.linspace(0.0, 1.0, 12)
    lines = []
    for side, w in (("right", a.wobble[3]), ("left", a.wobble[9])):
        x = 0.075 + (a.width + 0.12 - 0.075) * t
        rise = min(a.clavicle_rise * (1.0 + 0.3 * w), float(a.y(a.clavicle_f)) - a.shoulder - 0.12)
        y = float(a.y(a.clavicle_f)) - rise * t - 0.035 * np.sin(2 * math.pi * t)
        lines.append(np.stack([SIGN[side] * x + a.tilt * (1 - t), y], axis=1))
    return np.stack(lines)
