"""What a finding is, where it may lie, and the registry of the functions that draw findings (in drawers.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from paddle_cxr.data.phantom.anatomy import Anatomy
from paddle_cxr.data.phantom.body import Scene

ONE_SIDE = ("left", "right")
ANY_SIDE = ("left", "right", "bilateral")
# Depth range of each zone (0 apex, 1 costophrenic angle) and reach of each region (0 mediastinum, 1 chest wall).
ZONES = {"upper": (0.08, 0.33), "middle": (0.33, 0.58), "lower": (0.58, 0.86), "all": (0.10, 0.86)}
REGIONS = {"central": (0.08, 0.45), "peripheral": (0.60, 0.95), "all": (0.08, 0.92)}


@dataclass(frozen=True)
class Finding:
    """A finding to draw. What is left None is drawn at random from the finding's usual presentations.

    ``side``: left, right or bilateral (of the patient). ``zone``: upper, middle, lower or all. ``region``: central,
    peripheral or all. ``severity``: 0 < s <= 1.
    """

    name: str
    side: str | None = None
    zone: str | None = None
    region: str | None = None
    severity: float | None = None


@dataclass(frozen=True)
class Place:
    """A finding's presentation with nothing left open."""

    name: str
    side: str
    zone: str
    region: str
    severity: float

    @property
    def sides(self) -> tuple[str, ...]:
        return ("right", "left") if self.side == "bilateral" else (self.side,)


@dataclass(frozen=True, eq=False)
class Lesion:
    """What a drawer returns; arrays [size, size].

    ``fill``: float32, share of the lung's air replaced by fluid or cells; below 0 where there is more air than normal.
    ``extent``: bool, where the lesion is. ``bare``: bool, where no lung markings are left. ``extra``: float32,
    attenuation added whatever lies there.
    """

    fill: np.ndarray | float
    extent: np.ndarray
    bare: np.ndarray | None = None
    extra: np.ndarray | float = 0.0


Painter = Callable[[Scene, Place, np.random.Generator], Lesion]


@dataclass(frozen=True)
class Drawer:
    """One entry of the registry: how to draw a finding, and where it can and usually does occur."""

    name: str
    paint: Painter
    usual: tuple[tuple[str, str, str], ...]
    sides: tuple[str, ...]
    zones: tuple[str, ...]
    regions: tuple[str, ...]
    in_lung: bool
    reshape: Callable[[Anatomy, Place], Anatomy] | None


DRAWERS: dict[str, Drawer] = {}


def drawer(
    name: str,
    *,
    usual: Sequence[tuple[str, str, str]],
    sides: tuple[str, ...] = ANY_SIDE,
    zones: tuple[str, ...] = tuple(ZONES),
    regions: tuple[str, ...] = tuple(REGIONS),
    in_lung: bool = True,
    reshape: Callable[[Anatomy, Place], Anatomy] | None = None,
) -> Callable[[Painter], Painter]:
    """Register a drawer.

    Args:
        name: what users write.
        usual: (side, zone, region) of the presentations that are drawn, equally often, when none is asked for.
        sides, zones, regions: what may be asked for.
        in_lung: clip ``fill`` and ``extent`` to the visible lung.
        reshape: changes the anatomy before anything is drawn, for findings that are a change of shape.
    """

    def register(paint: Painter) -> Painter:
        DRAWERS[name] = Drawer(name, paint, tuple(usual), sides, zones, regions, in_lung, reshape)
        return paint

    return register


def place(finding: Finding, rng: np.random.Generator) -> Place:
    """Settle what ``finding`` leaves open. Always consumes two random values.

    Raises:
        ValueError: unknown finding, or a side, zone or region it cannot have; names those it can.
    """
    if finding.name not in DRAWERS:
        raise ValueError(f"unknown finding {finding.name!r}; accepted: {', '.join(sorted(DRAWERS))}")
    d = DRAWERS[finding.name]
    asked = (finding.side, finding.zone, finding.region)
    for kind, value, accepted in zip(("side", "zone", "region"), asked, (d.sides, d.zones, d.regions), strict=True):
        if value is not None and value not in accepted:
            raise ValueError(f"{finding.name} cannot have {kind} {value!r}; accepted: {', '.join(accepted)}")
    pick, severity = float(rng.random()), 0.5 + 0.5 * float(rng.random())
    if finding.severity is not None:
        if not 0.0 < finding.severity <= 1.0:
            raise ValueError(f"severity must be above 0 and at most 1, not {finding.severity}")
        severity = finding.severity
    # Of the usual presentations keep those that agree with the most of what was asked (left covid is rare, not wrong).
    agree = [sum(a == u for a, u in zip(asked, usual, strict=True)) for usual in d.usual]
    options = [u for u, n in zip(d.usual, agree, strict=True) if n == max(agree)]
    chosen = options[int(pick * len(options))]
    side, zone, region = (a or u for a, u in zip(asked, chosen, strict=True))
    return Place(finding.name, side, zone, region, severity)
