"""Patient, findings, exposure and report put together: the functions users call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paddle_cxr.data.phantom import drawers  # noqa: F401  (importing it fills DRAWERS)
from paddle_cxr.data.phantom.anatomy import sample_anatomy
from paddle_cxr.data.phantom.body import Scene, build_scene
from paddle_cxr.data.phantom.exposure import expose, film_edges, sample_exposure
from paddle_cxr.data.phantom.findings import DRAWERS, Finding, Lesion, Place, place
from paddle_cxr.data.phantom.report import Report, write_report

VERSION = 1  # raised by hand when the same arguments give another picture, so that no old cache is taken for current
CLASSES = ("normal", "viral", "covid")
"""The labels of the built-in three-class problem, in class order."""

Box = tuple[int, int, int, int]  # x, y, width, height in pixels; (x, y) is the box's top left pixel


@dataclass(frozen=True)
class PlacedFinding:
    """A finding as it was drawn.

    ``side`` is the patient's (left is on the picture's right). ``box`` holds all of it, ``boxes`` each side by itself;
    both are tight around the pixels in the lesion mask that this finding drew.
    """

    name: str
    side: str  # left, right, bilateral
    zone: str  # upper, middle, lower, all
    region: str  # central, peripheral, all
    severity: float  # above 0, at most 1
    box: Box
    boxes: tuple[Box, ...]


@dataclass(frozen=True, eq=False)
class Phantom:
    """One synthetic frontal chest radiograph with everything there is to know about it."""

    image: np.ndarray  # uint8 [size, size], bone bright and air dark
    label: str  # what was asked for: a class, or the findings' names joined by "+"
    findings: tuple[PlacedFinding, ...]
    lung_mask: np.ndarray  # uint8 [size, size], 0 or 255: lung that is not behind the heart or below the diaphragm
    lesion_mask: np.ndarray  # uint8 [size, size], 0 or 255: all findings together
    masks: tuple[np.ndarray, ...]  # bool [size, size], one for each of findings
    report: Report  # English: {"findings": ..., "impression": ...}
    report_zh: Report  # the same in Chinese

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Every finding's boxes, one a side, in the order of ``findings``."""
        return tuple(box for finding in self.findings for box in finding.boxes)


# One random stream for each thing that must not depend on the others. In particular neither patient nor technique nor
# noise ever sees a finding, so nothing but the disease itself can tell the classes apart.
_ANATOMY, _BODY, _EXPOSURE, _NOISE, _REPORT, _FINDINGS = range(6)


def _stream(seed: int, index: int, *purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, index, *purpose))))


def _requested(label: str | Sequence[Finding]) -> tuple[str, tuple[Finding, ...]]:
    """Name of the label and the findings it stands for."""
    if not isinstance(label, str):
        findings = tuple(label)
        return "+".join(f.name for f in findings) or "normal", findings
    if label == "normal":
        return label, ()
    if label not in DRAWERS:
        raise ValueError(f"unknown label {label!r}; accepted: normal, {', '.join(sorted(DRAWERS))}")
    return label, (Finding(label),)


@dataclass(frozen=True, eq=False)
class _Film:
    """A developed film and what is needed to describe it."""

    image: np.ndarray
    scene: Scene
    places: list[Place]
    extents: list[np.ndarray]  # bool [size, size], one for each place
    field: np.ndarray  # bool [size, size], inside the collimated field


def _render(findings: Sequence[Finding], seed: int, index: int, size: int) -> _Film:
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index must not be negative, not {seed} and {index}")
    if size < 32:
        raise ValueError(f"size must be at least 32 pixels, not {size}")
    anatomy = sample_anatomy(_stream(seed, index, _ANATOMY))
    streams = [_stream(seed, index, _FINDINGS, k) for k in range(len(findings))]
    places = [place(finding, rng) for finding, rng in zip(findings, streams, strict=True)]
    for p in places:
        reshape = DRAWERS[p.name].reshape
        if reshape is not None:
            anatomy = reshape(anatomy, p)
    scene = build_scene(anatomy, size, _stream(seed, index, _BODY))

    technique = sample_exposure(_stream(seed, index, _EXPOSURE))
    edges = film_edges(technique, size)
    field = edges[0] > 0.5
    healthy = attenuation = scene.healthy()
    extents = []
    if places:
        lesions = [DRAWERS[p.name].paint(scene, p, rng) for p, rng in zip(places, streams, strict=True)]
        attenuation = _with_lesions(scene, lesions)
        for p, lesion in zip(places, lesions, strict=True):
            extent = lesion.extent & field
            if DRAWERS[p.name].in_lung:
                extent &= scene.lung > 0.5
                if p.side != "bilateral":
                    extent &= scene.side(p.side)
            extents.append(extent)
    image = expose(attenuation, healthy, technique, edges, _stream(seed, index, _NOISE))
    return _Film(image, scene, places, extents, field)


def _with_lesions(scene: Scene, lesions: Sequence[Lesion]) -> np.ndarray:
    """Attenuation of the patient with the given lesions, float32 [size, size]."""
    air_left = np.ones_like(scene.air)
    markings = scene.vessels
    extra = np.zeros_like(scene.air)
    for lesion in lesions:
        air_left = air_left * (1 - lesion.fill)
        if lesion.bare is not None:
            markings = markings * ~lesion.bare
        extra += lesion.extra
    # A vessel is seen because air surrounds it: where the air is gone, so is the vessel (the silhouette sign).
    return scene.tissue - scene.air * air_left + markings * np.minimum(air_left, 1) + extra


def _tight_box(mask: np.ndarray) -> Box | None:
    """Smallest box around the True pixels of a mask; None if there are none."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return None
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1


def _placed(film: _Film, p: Place, extent: np.ndarray) -> PlacedFinding:
    parts = [extent]
    if p.side == "bilateral" and DRAWERS[p.name].in_lung:
        parts = [extent & film.scene.side(side) for side in p.sides]
    boxes = tuple(box for box in map(_tight_box, parts) if box is not None)
    box = _tight_box(extent) or (0, 0, 0, 0)
    return PlacedFinding(p.name, p.side, p.zone, p.region, p.severity, box, boxes)


def draw(label: str | Sequence[Finding], *, seed: int, index: int, size: int = 224) -> Phantom:
    """Draw one phantom.

    The same arguments give the same bits in every process, in any order. ``seed`` and ``index`` choose the patient and
    how the film is taken; ``label`` only adds disease: ``draw("normal", seed=1, index=7)`` and
    ``draw("covid", seed=1, index=7)`` show the same person before and during the illness.

    Args:
        label: ``"normal"``, the name of a drawer in :data:`DRAWERS`, or a sequence of :class:`Finding`.
        seed: names the collection, 0 or more.
        index: names the patient in it, 0 or more.
        size: side of the picture in pixels, 32 or more.

    Raises:
        ValueError: an unknown label, finding, side, zone or region; the message names the accepted ones.
    """
    name, findings = _requested(label)
    film = _render(findings, seed, index, size)
    lesion = np.zeros((size, size), bool)
    for extent in film.extents:
        lesion |= extent
    report, report_zh = write_report(film.places, _stream(seed, index, _REPORT))
    return Phantom(
        image=film.image,
        label=name,
        findings=tuple(_placed(film, p, e) for p, e in zip(film.places, film.extents, strict=True)),
        lung_mask=np.where((film.scene.lung > 0.5) & film.field, 255, 0).astype(np.uint8),
        lesion_mask=np.where(lesion, 255, 0).astype(np.uint8),
        masks=tuple(film.extents),
        report=report,
        report_zh=report_zh,
    )


def draw_image(label: str | Sequence[Finding], *, seed: int, index: int, size: int = 224) -> np.ndarray:
    """The picture of :func:`draw` alone, uint8 [size, size]: for classifiers, which need neither masks nor reports."""
    return _render(_requested(label)[1], seed, index, size).image
