"""How well predicted masks fit the true ones: at the size the images were published in, image by image."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paddle_cxr.data.findings import FindingsSource
from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.data.sampler import EvalSampler
from paddle_cxr.engine.distributed import World, gather_arrays, wait_for_all
from paddle_cxr.evaluation.bootstrap import interval, resamples, unit_of
from paddle_cxr.evaluation.metrics import jsonable, mean_defined
from paddle_cxr.evaluation.overlap import dice, iou
from paddle_cxr.evaluation.surface import hausdorff
from paddle_cxr.tasks.segmentation.data import SegmentationData
from paddle_cxr.tasks.segmentation.models import Segmenter, probabilities_of

METRICS = ("dice", "iou", "hd95", "hd95_mm")
AREAS = ("truth_pixels", "predicted_pixels")
PRESENT = "dice_present"  # Dice over the images on which there is something to find
SPACING = "pixel_spacing_mm"
"""Where a record (``extra``) has a pixel's height and width in mm, ``0.143 0.143``, if the data set knows it."""


@dataclass
class Scores:
    """What every annotated (image, finding) scored.

    Attributes:
        positions: int64 ``[R]``, the image; findings: int64 ``[R]``, the finding's number.
        areas: int64 ``[R, 2]``, pixels of the true and of the predicted mask.
        values: float64 ``[R, len(METRICS)]``, NaN where undefined.
    """

    positions: np.ndarray
    findings: np.ndarray
    areas: np.ndarray
    values: np.ndarray

    def of(self, metric: str) -> np.ndarray:
        """One metric, ``[R]``."""
        return self.values[:, METRICS.index(metric)]

    def present(self) -> np.ndarray:
        """Dice where there is something to find, ``[R]``; NaN elsewhere."""
        return np.where(self.areas[:, 0] > 0, self.of("dice"), np.nan)


def masks_at_full_size(found: np.ndarray, preprocess: Preprocess, shape: tuple[int, int], threshold: float
                       ) -> np.ndarray:
    """Probabilities ``[H, W]`` over the model's input → bool ``[h, w]`` over the image as published.

    Padding is undone.  What a crop cut away the model was not shown: it is predicted to be nothing there.
    """
    return preprocess.undo_geometry(found, shape) > threshold  # NaN is not above anything


def score(segmenter: Segmenter, data: SegmentationData, positions: np.ndarray, threshold: float, batch_size: int,
          world: World) -> Scores:
    """Score every annotated finding of the images at ``positions``; the ranks share the work, each gets all of it.

    Memory does not grow with the number of images: of each only the figures are kept.
    """
    source, segmenter_rows = data.images.source, [segmenter.findings.index(name) for name in data.findings]
    rows: list[tuple[float, ...]] = []
    for keys in EvalSampler(len(positions), batch_size, world.rank, world.size):
        chosen = positions[[key.position for key in keys]]
        images = np.stack([data.images.images[position] for position in chosen])
        found = probabilities_of(segmenter.model, segmenter.preprocess, images)[:, segmenter_rows]
        for position, maps in zip(chosen, found, strict=True):
            rows += score_image(maps, data, int(position), source, segmenter.preprocess, threshold)
    table = np.array(rows, np.float64).reshape(len(rows), 4 + len(METRICS))
    wait_for_all(world)  # the exchange itself waits half a minute only for a slower rank
    table = gather_arrays({"table": table}, world)["table"]
    order = {int(position): place for place, position in enumerate(positions)}
    table = table[np.lexsort((table[:, 1], [order[int(position)] for position in table[:, 0]]))]
    return Scores(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2:4].astype(np.int64),
                  table[:, 4:])


def score_image(maps: np.ndarray, data: SegmentationData, position: int, source: FindingsSource,
                preprocess: Preprocess, threshold: float) -> list[tuple[float, ...]]:
    """(position, finding, *AREAS, *METRICS) of every annotated finding of one image.

    Args:
        maps: probabilities ``[K, H, W]`` over the model's input, in the order of ``data.findings``.
    """
    shape = source.read(position).shape[:2]
    spacing = spacing_of(source.records[position].extra)
    rows = []
    for number in np.flatnonzero(data.annotated[position]):
        truth = source.mask(position, data.findings[number], shape)
        predicted = masks_at_full_size(maps[number], preprocess, shape, threshold)
        rows.append((position, int(number), int(truth.sum()), int(predicted.sum()), dice(predicted, truth),
                     iou(predicted, truth), hausdorff(truth, predicted),
                     hausdorff(truth, predicted, spacing=spacing) if spacing else np.nan))
    return rows


def spacing_of(extra: dict[str, str]) -> tuple[float, float] | None:
    """Height and width of a pixel in mm as a record tells it; None where it does not, or not sensibly."""
    try:
        height, width = (float(part) for part in extra[SPACING].replace(",", " ").split())
    except (KeyError, ValueError):
        return None
    return (height, width) if 0 < height < 100 and 0 < width < 100 else None


def summarise(scores: Scores, findings: Sequence[str], groups: Sequence[Hashable] | None, n: int = 1000, seed: int = 0
              ) -> dict[str, Any]:
    """Means over images with 95 % intervals over patients, ready for JSON.

    Args:
        scores: of some images.
        findings: the K keys.
        groups: R patient ids, of the rows of ``scores``; None where the data set knows no patients.
        n, seed: resamples of the bootstrap, and their seed.

    Returns:
        For every metric its value and ``<metric>_ci95``: the mean over findings of the mean over images where it is
        defined (None without any); ``per_finding``: name → the same for one finding, and ``images``,
        ``truth_empty``, ``both_empty``, ``missed`` (nothing predicted of what is there), ``false`` (something predicted
        where nothing is); ``bootstrap``.
    """
    # Rows of one image are drawn together, also where nobody knows the patient.
    unit = unit_of(groups if groups is not None else [f"image {one}" for one in scores.positions],
                   len(scores.positions))
    of = [scores.findings == k for k in range(len(findings))]
    names = [name for name in METRICS if name != "hd95_mm" or not np.isnan(scores.of(name)).all()] + [PRESENT]
    values = np.stack([scores.present() if name == PRESENT else scores.of(name) for name in names], axis=1)
    own = _means(values, of, np.ones((1, len(unit))))[0]
    parts = [_means(values, of, weights) for weights in resamples(unit, n, seed)]
    drawn = np.concatenate(parts) if parts else np.empty((0, *own.shape))
    unknown = groups is None or len(set(groups)) == len(set(scores.positions.tolist()))
    return {
        **_with_intervals(names, mean_defined(own.T), mean_defined(drawn.transpose(0, 2, 1))),
        "per_finding": {name: _with_intervals(names, own[k], drawn[:, k]) | _empty(scores.areas[of[k]])
                        for k, name in enumerate(findings)},
        "bootstrap": {"resamples": n, "unit": "sample" if unknown else "patient", "seed": seed}}


def _with_intervals(names: Sequence[str], own: np.ndarray, drawn: np.ndarray) -> dict[str, Any]:
    """``own`` ``[metrics]`` and, from the resamples ``drawn`` ``[B, metrics]``, their intervals."""
    return {key: value for m, name in enumerate(names)
            for key, value in ((name, jsonable(own[m])), (f"{name}_ci95", interval(drawn[:, m])))}


def _empty(areas: np.ndarray) -> dict[str, int]:
    """How often a mask of ``areas`` ``[R, 2]`` is empty; what that means: :mod:`paddle_cxr.evaluation.overlap`."""
    truth, predicted = (areas > 0).T
    return {"images": len(areas), "truth_empty": int((~truth).sum()), "both_empty": int((~truth & ~predicted).sum()),
            "missed": int((truth & ~predicted).sum()), "false": int((~truth & predicted).sum())}


def _means(values: np.ndarray, of: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Weighted means over the defined rows, ``[B, K, metrics]``; NaN without any.

    Args:
        values: ``[R, metrics]``; of: K times bool ``[R]``, the rows of each finding; weights: ``[B, R]``.
    """
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    with np.errstate(invalid="ignore"):
        return np.stack([(weights[:, rows] @ filled[rows]) / (weights[:, rows] @ known[rows].astype(np.float64))
                         for rows in of], axis=1)
