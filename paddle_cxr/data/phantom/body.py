"""The healthy film: turns an Anatomy into layers of X-ray attenuation.

A radiograph shows how much was absorbed on the way: shadows add up. So the film is a sum of parts, kept apart until the
end because a finding changes them differently: disease fills *air* with fluid, hides or thickens *vessels*, and leaves
bone and fat alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from paddle_cxr.data.phantom import anatomy as an
from paddle_cxr.data.phantom.anatomy import MEDIAL, SIDES, SIGN, Anatomy
from paddle_cxr.data.phantom.canvas import COARSE, Layer, blur, picture_grid, resize, smooth_noise


@dataclass(frozen=True, eq=False)
class LungGrid:
    """Lung coordinates on the coarse grid, float32 [COARSE, COARSE] each, for placing smooth findings."""

    x: np.ndarray  # patient units
    y: np.ndarray
    u: np.ndarray  # 0 at the mediastinum, 1 at the chest wall
    f: np.ndarray  # 0 at the apex, 1 at the costophrenic angle

    def side(self, side: str) -> np.ndarray:
        """1.0 on that side of the patient's midline, 0.0 on the other."""
        return ((self.x > 0) == (SIGN[side] > 0)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything about one healthy patient at one picture size; arrays float32 [size, size] unless said otherwise."""

    anatomy: Anatomy
    size: int
    lung: np.ndarray  # 0..1, share of the pixel covered by visible lung (heart and diaphragm cut out)
    air: np.ndarray  # attenuation that the air in the lungs takes away, >= 0
    vessels: np.ndarray  # attenuation of vessels and airways walls inside the lungs, >= 0
    tissue: np.ndarray  # attenuation of all the rest: soft tissue, heart, bones

    @cached_property
    def grid(self) -> LungGrid:
        """Lung coordinates; computed only for patients who have a finding."""
        u, v = picture_grid(COARSE)
        x, y = self.anatomy.pose.to_patient(u, v)
        f = self.anatomy.f(y)
        reach = self.anatomy.ribcage(f).astype(np.float32)
        inner = np.float32(MEDIAL * self.anatomy.width)
        return LungGrid(x, y, (np.abs(x) - inner) / (reach - inner), f)

    def layer(self) -> Layer:
        """An empty canvas posed like the patient."""
        return Layer(self.size, self.anatomy.pose)

    def side(self, side: str) -> np.ndarray:
        """True on the pixels of that side of the patient's midline."""
        u, v = picture_grid(self.size)
        x, _ = self.anatomy.pose.to_patient(u, v)
        return (x > 0) == (SIGN[side] > 0)

    def shows_lung(self, x: float, y: float) -> bool:
        """Whether lung is visible at a point given in patient units."""
        column, row = self.anatomy.pose.to_pixels(np.array([x, y]), self.size).astype(int)
        return 0 <= row < self.size and 0 <= column < self.size and bool(self.lung[row, column] > 0.5)

    def fit(self, field: np.ndarray) -> np.ndarray:
        """A coarse field at the size of the picture."""
        return resize(field, self.size)

    def healthy(self) -> np.ndarray:
        """Attenuation of the patient without findings."""
        return self.tissue - self.air + self.vessels


def _soft_tissue(a: Anatomy, rng: np.random.Generator) -> np.ndarray:
    """Attenuation of everything without sharp edges, float32 [COARSE, COARSE]."""

    def layer() -> Layer:
        return Layer(COARSE, a.pose, factor=2)

    body = layer().polygons(an.body_outlines(a), 255).array()
    thick = blur(body, 8)
    total = np.float32(0.62 * a.stoutness) * body * (np.float32(0.30) + np.float32(0.70) * thick)

    # The belly is thick all through, so it is the brightest large area below the domes.
    belly = np.array([(-1.0, a.y(0.90)), (1.0, a.y(0.94)), (1.0, 1.7), (-1.0, 1.7)]) * np.array([a.width, 1.0])
    centre = layer().polygons([an.heart_outline(a)], 190)
    centre.polygons([an.mediastinum_outline(a), an.aortic_knob(a)], 150).polygons([belly], 235)
    total += np.float32(0.30) * blur(centre.array(), 32)

    spine_x, w = a.tilt * 0.4, 0.105
    column = np.array([(spine_x - w, -1.6), (spine_x + w, -1.6), (spine_x + w * 1.15, 1.6), (spine_x - w * 1.15, 1.6)])
    spine = layer().polygons([column], 150)
    step = 0.098 * a.height
    spaces: list[np.ndarray] = []
    spots: list[np.ndarray] = []
    for k in range(-5, 16):  # the discs between vertebral bodies let more through; pedicles and spinous process less
        y = a.top + (k + a.wobble[4] * 0.5) * step
        spaces.append(
            np.array([(spine_x - w, y), (spine_x + w, y), (spine_x + w, y + 0.022), (spine_x - w, y + 0.022)])
        )
        spots += [an.disc(spine_x + s * 0.075, y + 0.4 * step, 0.017, 0.026, 8) for s in (-1, 1)]
        spots.append(an.disc(spine_x, y + 0.6 * step, 0.013, 0.034, 8))
    spine.polygons(spaces, 118).polygons(spots, 225)
    total += np.float32(0.17 * a.spine_density) * spine.array() * body

    dark = layer()  # trachea and main bronchi, then stomach gas
    tx, carina = -0.012 + a.tilt, float(a.y(0.37))
    trachea = np.array([(tx - 0.05, -1.6), (tx + 0.05, -1.6), (tx + 0.047, carina), (tx + 0.18, carina + 0.15),
                        (tx + 0.15, carina + 0.18), (tx, carina + 0.06), (tx - 0.14, carina + 0.17),
                        (tx - 0.18, carina + 0.14), (tx - 0.05, carina)])  # fmt: skip
    dark.polygons([trachea], 130)
    if a.gas > 0.03:
        dome = float(a.y(a.dome_f + a.dome_drop_f))
        dark.polygons([an.disc(0.42 * a.width, dome + a.gas * 0.75 + 0.05, a.gas * 1.35, a.gas * 0.75)], 190)
    total -= np.float32(0.30) * blur(dark.array(), 64) * body

    if a.breast > 0.0:
        breasts = layer()
        for side in SIDES:
            x = SIGN[side] * 0.56 * a.width
            breasts.polygons([an.disc(x, float(a.y(a.breast_f - 0.16)), 0.42 * a.width, 0.30 + 0.1 * a.breast)], 255)
        total += np.float32(0.03 + 0.09 * a.breast) * blur(breasts.array(), 24) * body

    blades = layer()
    for side in SIDES:
        s = np.array([SIGN[side], 1.0])
        wing = np.array(
            [(0.93, 0.02), (1.25, 0.05), (1.22, 0.22), (1.06, 0.62), (0.98, 0.66), (0.90, 0.40), (0.88, 0.15)]
        )
        wing = np.stack([wing[:, 0] * (a.width + 0.02), a.y(wing[:, 1])], axis=1)
        blades.polygons([an.closed_curve(wing) * s], 110)
        x, y = a.width + a.fat + 0.10, a.shoulder + 0.26
        shaft = np.array([(x - 0.05, y), (x + 0.07, y), (x + 0.33 + a.arm_gap, 1.6), (x + 0.22 + a.arm_gap, 1.6)])
        blades.polygons([an.disc(x, y, 0.115, 0.12) * s, shaft * s], 200)
    total += np.float32(0.20 * a.rib_density) * blur(blades.array(), 64) * body

    total += np.float32(0.018) * smooth_noise(rng, (5, 11, 23)) * body
    return np.maximum(total, np.float32(0.0))


def _bones(a: Anatomy, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Attenuation of the ribs and of the clavicles, float32 [size, size] each."""
    posterior, anterior = an.rib_centrelines(a)
    width = 0.0235 * a.rib_width
    back = Layer(size, a.pose).bands(an.ribbons(posterior, width), 130, 215, 0.008).array()
    taper = width * np.linspace(1.0, 1.25, anterior.shape[1])
    front = Layer(size, a.pose).bands(an.ribbons(anterior, taper), 95, 150, 0.008).array()
    flare = 0.026 * a.rib_width * (1.0 + 0.5 * np.abs(np.linspace(-1.0, 1.0, 12)) ** 3)
    collar = Layer(size, a.pose).bands(an.ribbons(an.clavicle_centrelines(a), flare), 150, 220, 0.009).array()
    return np.float32(0.125 * a.rib_density) * (back + front), np.float32(0.19 * a.rib_density) * collar


Strokes = tuple[np.ndarray, np.ndarray]  # polylines [k, n, 2] and the width of each stretch [k, n - 1], patient units


def branches(a: Anatomy, side: str, rng: np.random.Generator) -> tuple[Strokes, Strokes]:
    """Vessels of one lung: the main branches out of the hilum, and the twigs they give off at an acute angle."""
    main, per = 9, 4
    hx, hy = a.hilum(side)
    # Angles from straight up (0) over the side (90) to straight down (180).
    angle = np.radians(np.linspace(-2.0, 186.0, main) + rng.uniform(-9, 9, main))
    length = (0.50 + 0.30 * rng.random(main)) * (0.75 + 0.25 * np.abs(np.cos(angle))) * a.height / 1.3
    bend = rng.uniform(-0.6, 0.6, main)
    root = np.array([hx, hy]) + 0.035 * rng.uniform(-1, 1, (main, 2))
    width = 0.026 * (0.7 + 0.5 * rng.random(main)) * a.vessel_width

    def grow(start: np.ndarray, angle: np.ndarray, length: np.ndarray, bend: np.ndarray, n: int) -> np.ndarray:
        heading = angle[:, None] + bend[:, None] * np.linspace(0.0, 1.0, n)
        heading += 0.22 * rng.uniform(-1, 1, heading.shape)  # vessels are never straight
        lines = np.empty((len(start), n + 1, 2))
        lines[:, 0] = start
        step = length[:, None] / n
        lines[:, 1:, 0] = start[:, :1] + np.cumsum(SIGN[side] * np.sin(heading) * step, axis=1)
        lines[:, 1:, 1] = start[:, 1:] - np.cumsum(np.cos(heading) * step, axis=1)
        return lines

    trunks = grow(root, angle, length, bend, 6)
    at = np.tile(np.arange(1, per + 1), main)
    parent = np.repeat(np.arange(main), per)
    turn = np.where(np.arange(main * per) % 2 == 0, 1.0, -1.0) * rng.uniform(0.35, 0.8, main * per)
    twigs = grow(trunks[parent, at], angle[parent] + turn, length[parent] * rng.uniform(0.25, 0.55, main * per),
                 -0.5 * turn, 3)  # fmt: skip
    twig_width = width[parent] * (0.62 - 0.08 * at)
    return (
        (trunks, width[:, None] * np.linspace(1.0, 0.3, 6)),
        (twigs, twig_width[:, None] * np.array([1.0, 0.7, 0.4])),
    )


def build_scene(a: Anatomy, size: int, rng: np.random.Generator) -> Scene:
    """Draw the healthy patient at ``size`` x ``size`` pixels; ``rng`` supplies vessels and texture."""
    soft = _soft_tissue(a, rng)
    lungs = [an.lung_outline(a, side) for side in SIDES]
    visible = Layer(size, a.pose).polygons(lungs, 255)
    visible.polygons([an.heart_outline(a), an.mediastinum_outline(a), an.aortic_knob(a)], 0)
    lung = visible.array()
    # Behind the heart there is still lung, but the heart in front takes most of the darkness away.
    behind = Layer(size, a.pose).polygons(lungs, 255).array()
    depth = blur(lung, 9)  # lungs are deepest away from their edges
    # Emphysema, fat, a turned patient: healthy lungs are unevenly dark too. Were they not, the mean of a coarse tile
    # would already give a patch of disease away.
    uneven = np.clip(np.float32(1.0) + np.float32(0.06) * smooth_noise(rng, (4, 7)), 0.6, 1.3).astype(np.float32)
    air = (np.float32(a.aeration) * resize(uneven, size)) * (
        np.float32(0.9) * lung * (np.float32(0.45) + np.float32(0.55) * depth) + np.float32(0.10) * behind
    )
    soft = resize(soft, size)
    air = np.minimum(air, np.float32(0.85) * soft)  # air removes shadow, it does not shine

    tree = Layer(size, a.pose)
    hubs = Layer(COARSE, a.pose, factor=2)
    for side in SIDES:
        trunks, twigs = branches(a, side, rng)
        for lines, widths in (twigs, trunks):  # trunks last, so that no twig cuts through a trunk's shadow
            # A vessel is a cylinder: the thinner, the less it absorbs.
            tree.strokes(lines, widths, 255 * np.sqrt(np.minimum(1.0, widths / 0.03)))
        x, y = a.hilum(side)
        hub = np.array([(x, y - 0.11), (x + 0.07, y - 0.03), (x + 0.05, y + 0.10), (x - 0.05, y + 0.12), (x - 0.07, y)])
        hubs.polygons([an.closed_curve(hub)], 255)
    texture = np.maximum(smooth_noise(rng, (34, 60)), np.float32(0.0))
    soft_parts = np.float32(0.13 * a.vessel_density) * blur(hubs.array(), 32) + np.float32(0.014) * texture
    vessels = (np.float32(0.17 * a.vessel_density) * tree.array() + resize(soft_parts, size)) * lung
    ribs, clavicles = _bones(a, size)
    # Kilovoltage and tone curve are set for the lungs: over the belly and the flanks ribs all but drown.
    tissue = soft + clavicles + ribs * (np.float32(0.25) + np.float32(0.75) * behind)
    return Scene(a, size, lung, air, vessels, tissue)
