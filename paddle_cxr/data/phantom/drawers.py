"""What disease does to a film: one small function a finding.

A *drawer* gets the healthy :class:`Scene`, the place it should draw at and its own random stream, and returns a
:class:`Lesion`: which share of the air is replaced by something denser, where that counts as the lesion, and so on. It
never sees grey levels, so a finding looks right at every exposure. To add one, write a function here and decorate it:

    @drawer("cyst", sides=ONE_SIDE, usual=[("left", "upper", "peripheral")])
    def _cyst(scene, where, rng):
        '''Thin-walled, air-filled.'''
        ...

and give it its words in report.py.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from paddle_cxr.data.phantom.anatomy import Anatomy, heart_outline
from paddle_cxr.data.phantom.body import Scene, branches
from paddle_cxr.data.phantom.canvas import smooth_noise
from paddle_cxr.data.phantom.findings import ANY_SIDE, ONE_SIDE, REGIONS, ZONES, Lesion, Place, drawer


def _within(bounds: tuple[float, float], t: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * t


def _spot(scene: Scene, where: Place, side: str, rng: np.random.Generator) -> tuple[float, float]:
    """A random point of the zone and region, patient units, moved outwards until lung is seen there (not the heart)."""
    u, f = _within(REGIONS[where.region], float(rng.random())), _within(ZONES[where.zone], float(rng.random()))
    x, y = scene.anatomy.spot(side, u, f)
    while u < 0.9 and not scene.shows_lung(x, y):
        u += 0.08
        x, y = scene.anatomy.spot(side, u, f)
    return x, y


def _bump(scene: Scene, x: float, y: float, rx: float, ry: float, ragged: np.ndarray) -> np.ndarray:
    """Soft-edged patch on the coarse grid, 0..1; ``ragged`` (about -1..1) eats into its edge."""
    dx, dy = (scene.grid.x - np.float32(x)) / np.float32(rx), (scene.grid.y - np.float32(y)) / np.float32(ry)
    return np.clip((np.float32(1.15) - dx * dx - dy * dy + np.float32(0.60) * ragged) * np.float32(0.85), 0, 1)


def _patches(
    scene: Scene, where: Place, side: str, rng: np.random.Generator, count: int, radius: float, ragged: float = 1.0
) -> np.ndarray:
    """Union of ``count`` patches in one lung, on the coarse grid, 0..1; each has its own density."""
    edge = np.float32(ragged) * smooth_noise(rng, (14, 28))
    total = np.zeros_like(scene.grid.x)
    for _ in range(count):
        x, y = _spot(scene, where, side, rng)
        r = radius * (0.75 + 0.5 * float(rng.random()))
        patch = _bump(scene, x, y, r / 1.15, r * 1.15, edge) * np.float32(0.75 + 0.25 * float(rng.random()))
        total = np.maximum(total, patch)
    return total * scene.grid.side(side)


def _round_hilum(scene: Scene, side: str, reach: float) -> np.ndarray:
    """1 at the hilum falling to 0 at ``reach`` (patient units) from it, on the coarse grid; taller than wide."""
    x, y = scene.anatomy.hilum(side)
    dx = (scene.grid.x - np.float32(x)) / np.float32(reach)
    dy = (scene.grid.y - np.float32(y) - np.float32(0.06)) / np.float32(reach * 1.25)
    return np.maximum(np.float32(0), np.float32(1) - dx * dx - dy * dy) * scene.grid.side(side)


@drawer("covid", usual=[("bilateral", "lower", "peripheral")] * 3 + [("bilateral", "all", "peripheral")])
def _covid(scene: Scene, where: Place, rng: np.random.Generator) -> Lesion:
    """COVID-like: ground-glass patches along the pleura, mostly below, the denser ones consolidated in their core."""
    s = where.severity
    glass = np.zeros_like(scene.grid.x)
    core = np.zeros_like(scene.grid.x)
    for side in where.sides:
        glass = np.maximum(glass, _patches(scene, where, side, rng, 4 + round(2 * s), 0.17 + 0.06 * s, ragged=0.8))
        core = np.maximum(core, _patches(scene, where, side, rng, 2 + round(3 * s), 0.06 + 0.04 * s, ragged=0.6))
    grain = np.float32(1.0) + np.float32(0.14) * smooth_noise(rng, (26, 60))
    core = core * np.minimum(np.float32(1), glass * 2)
    fill = np.maximum(glass * np.float32(0.70 + 0.16 * s), core * np.float32(0.82 + 0.14 * s)) * grain
    return Lesion(scene.fit(np.clip(fill, 0, 1)), scene.fit(glass) > 0.3)


@drawer("viral", usual=[("bilateral", "all", "central")])
def _viral(scene: Scene, where: Place, rng: np.random.Generator) -> Lesion:
    """Viral-pneumonia-like: thickened bronchial walls fan out of the hila into a net of interstitial streaks."""
    s = where.severity
    near = np.zeros_like(scene.grid.x)
    walls = scene.layer()
    for side in where.sides:
        near = np.maximum(near, _round_hilum(scene, side, 0.50 + 0.16 * s))
        for lines, widths in branches(scene.anatomy, side, rng):
            walls.strokes(lines, 0.7 * widths + 0.006, 120.0 + 90.0 * s + np.zeros_like(widths))
    low, high = ZONES[where.zone]
    spread = np.minimum(np.float32(1), near * np.float32(1.7))
    if where.zone != "all":
        edge = np.minimum(scene.grid.f - np.float32(low), np.float32(high) - scene.grid.f)
        spread = spread * np.clip(edge * 10 + np.float32(0.5), 0, 1)
    # Where a smooth random field crosses zero it draws closed, branching lines: a net, as thickened septa do.
    net = np.zeros_like(near)
    for cells, weight in ((16, 0.6), (30, 0.4)):
        field = smooth_noise(rng, (cells,))
        net += np.float32(weight) * np.maximum(np.float32(0), np.float32(1) - np.float32(2.6) * np.abs(field))
    haze = np.float32(0.20 + 0.14 * s) * near
    reach = scene.fit(spread)
    mesh = scene.fit(spread * (haze + np.float32(0.52 + 0.36 * s) * net))
    fill = mesh + reach * walls.array() * np.float32(0.34 + 0.16 * s)
    return Lesion(np.clip(fill, 0, 1), reach > 0.35)


@drawer("consolidation", usual=[(s, z, "all") for s in ONE_SIDE for z in ("upper", "middle", "lower", "lower")])
def _consolidation(scene: Scene, where: Place, rng: np.random.Generator) -> Lesion:
    """Dense opacity of most of a lobe, in which vessels drown and some air-filled bronchi stay dark."""
    s = where.severity
    patch = np.zeros_like(scene.grid.x)
    for side in where.sides:
        patch = np.maximum(patch, _patches(scene, where, side, rng, 2, 0.15 + 0.12 * s, ragged=0.5))
    mottle = np.float32(1.0) + np.float32(0.10) * smooth_noise(rng, (30, 60))
    return Lesion(scene.fit(np.clip(patch * mottle * np.float32(0.70 + 0.25 * s), 0, 1)), scene.fit(patch) > 0.3)


@drawer("effusion", zones=("lower",), regions=("all",), usual=[(s, "lower", "all") for s in ANY_SIDE])
def _effusion(scene: Scene, where: Place, rng: np.random.Generator) -> Lesion:
    """Pleural fluid: blunts the angle, then climbs the chest wall with a meniscus that is concave upwards."""
    u, f = scene.grid.u, scene.grid.f
    fill = np.zeros_like(u)
    for side in where.sides:
        level = 0.90 - 0.36 * where.severity * (0.85 + 0.3 * float(rng.random()))
        out = np.clip(u, 0, 1)
        line = np.float32(level + 0.07) - np.float32(0.20) * out * out * out
        fill = np.maximum(fill, np.clip((f - line) * 14, 0, 1) * scene.grid.side(side))
    full = scene.fit(fill)
    return Lesion(np.clip(full, 0, 1) * np.float32(0.93), full > 0.5)


@drawer("nodule", sides=ONE_SIDE, usual=[(s, z, "all") for s in ONE_SIDE for z in ("upper", "middle", "lower")])
def _nodule(scene: Scene, where: Place, rng: np.random.Generator) -> Lesion:
    """Round, well-defined opacity of 1 to 3 cm."""
    x, y = _spot(scene, where, where.side, rng)
    r = 0.035 + 0.045 * where.severity
    shape = scene.fit(_bump(scene, x, y, r, r * (0.85 + 0.3 * float(rng.random())), np.zeros_like(scene.grid.x)))
    return Lesion(shape * np.float32(0.60 + 0.25 * where.severity), shape > 0.4)


@drawer(
    "pneumothorax", sides=ONE_SIDE, zones=("upper", "all"), regions=("peripheral",),
    usual=[(s, "upper", "peripheral") for s in ONE_SIDE],
)  # fmt: skip
def _pneumothorax(scene: Scene, where: Place, rng: np.random.Generator) -> Lesion:
    """Air round a collapsing lung: dark, without markings, bounded by the thin line of the visceral pleura."""
    s = where.severity
    gap = 0.14 + 0.42 * s
    bottom = 0.95 if where.zone == "all" else 0.55 + 0.25 * s
    apex = 0.04 + 0.12 * s
    f = np.linspace(apex, bottom, 24)
    t = (f - apex) / (bottom - apex)
    edge = 1.0 - gap * np.sqrt(1.0 - t * t)  # the lung's new outer border, as the coordinate u
    lateral = np.array([scene.anatomy.spot(where.side, u, d) for u, d in zip(edge, f, strict=True)])

    def at(u: float, f: float) -> tuple[float, float]:
        return scene.anatomy.spot(where.side, u, f)

    line = np.concatenate([[at(0.12, apex + 0.05), at(0.55 * float(edge[0]), apex - 0.03)], lateral])
    lung_left = np.concatenate([line, [at(1.3, bottom), at(1.3, 1.3), at(-0.5, 1.3), at(-0.5, apex)]])
    collapsed = scene.layer().polygons([lung_left], 255).array()
    free = (np.float32(1) - collapsed) * scene.side(where.side)
    pleura = scene.layer().strokes(line[None], np.full((1, len(line) - 1), 0.012), np.full((1, len(line) - 1), 255.0))
    return Lesion(
        np.float32(-0.20) * free, free > 0.5, bare=free > 0.5, extra=np.float32(0.10) * pleura.array() * scene.lung
    )


@drawer("atelectasis", zones=("middle", "lower"), usual=[(s, "lower", "all") for s in ANY_SIDE])
def _atelectasis(scene: Scene, where: Place, rng: np.random.Generator) -> Lesion:
    """Plate-like: one to three nearly level dense bands above the diaphragm."""
    plates = scene.layer()
    for side in where.sides:
        for _ in range(1 + round(2 * where.severity)):
            x, y = _spot(scene, where, side, rng)
            half = (0.10 + 0.10 * where.severity) * (0.8 + 0.4 * float(rng.random()))
            rise, sag = rng.uniform(-0.35, 0.35), rng.uniform(-0.03, 0.03)
            t = np.linspace(-1, 1, 9)
            line = np.stack([x + half * t, y + half * rise * t + sag * t * t], axis=1)[None]
            width = (0.018 + 0.022 * where.severity) * (1.0 - 0.5 * np.abs(t[:-1] + 0.125))[None]
            plates.strokes(line, width, np.full_like(width, 255.0))
    ink = plates.array() * np.logical_or.reduce([scene.side(side) for side in where.sides])
    return Lesion(ink * np.float32(0.60 + 0.2 * where.severity), ink > 0.3)


@drawer("oedema", sides=("bilateral",), zones=("all",), regions=("central",), usual=[("bilateral", "all", "central")])
def _oedema(scene: Scene, where: Place, rng: np.random.Generator) -> Lesion:
    """Fluid from the hila outwards, shaped like a bat's wings, and short level Kerley lines at the pleura."""
    s = where.severity
    wings = np.zeros_like(scene.grid.x)
    septa = scene.layer()
    for side in where.sides:
        wings = np.maximum(wings, _round_hilum(scene, side, 0.42 + 0.20 * s))
        for f in 0.62 + 0.22 * rng.random(8):
            ends = [scene.anatomy.spot(side, u, f + 0.012 * (u - 0.9)) for u in (0.84, 0.985)]
            septa.strokes(np.array([ends]), np.array([[0.007]]), np.array([[230.0]]))
    cloud = np.clip(wings * (np.float32(1.0) + np.float32(0.22) * smooth_noise(rng, (12, 26))) * np.float32(1.4), 0, 1)
    soft = scene.fit(cloud)
    fill = soft * np.float32(0.38 + 0.35 * s) + septa.array() * np.float32(0.5)
    return Lesion(np.clip(fill, 0, 1), soft > 0.3)


def _enlarge_heart(a: Anatomy, where: Place) -> Anatomy:
    return replace(a, heart_left=0.70 + 0.16 * where.severity, heart_right=a.heart_right + 0.05 * where.severity)


@drawer(
    "cardiomegaly", sides=("bilateral",), zones=("lower",), regions=("central",),
    usual=[("bilateral", "lower", "central")], in_lung=False, reshape=_enlarge_heart,
)  # fmt: skip
def _cardiomegaly(scene: Scene, where: Place, rng: np.random.Generator) -> Lesion:
    """The heart is wider than half the chest; the anatomy was reshaped already, here it is only marked."""
    return Lesion(0.0, scene.layer().polygons([heart_outline(scene.anatomy)], 255).array() > 0.5)
