"""How well a mask or a map shows where something is: IoU, Dice, the pointing game, contrast-to-noise ratio.

A *map* is warm where a model sees a finding; NaN marks pixels the model was not shown (cut away by a crop).  Those
pixels count nowhere: not as found, not as missed.  Above a threshold the map becomes a mask.  Where something is not
defined the answer is NaN, and the docstring says when; an empty mask is not undefined but decided:

* both masks empty: nothing was there and nothing was found, IoU and Dice are 1 (as in the SIIM-ACR challenge);
* one of them empty: 0.

References: Jaccard (1912); Dice (1945); Zhang et al., "Top-down Neural Attention by Excitation Backprop" (2018) for the
pointing game; Boecking et al., "Making the Most of Text Semantics to Improve Biomedical Vision–Language Processing"
(BioViL, 2022), arXiv:2204.09817, for the contrast-to-noise ratio.
"""

from __future__ import annotations

import numpy as np

SWEEP = (0.1, 0.2, 0.3, 0.4, 0.5)
"""The fixed thresholds over which earlier papers (BioViL, MS-CXR) average, chosen by nobody for a given model."""


def iou(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union (Jaccard index) of two bool masks of one shape, 0 … 1; 1 where both are empty."""
    predicted, truth = _masks(predicted, truth)
    union = int((predicted | truth).sum())
    return int((predicted & truth).sum()) / union if union else 1.0


def dice(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Dice coefficient 2 |A ∩ B| / (|A| + |B|) of two bool masks of one shape, 0 … 1; 1 where both are empty."""
    predicted, truth = _masks(predicted, truth)
    both = int(predicted.sum()) + int(truth.sum())
    return 2 * int((predicted & truth).sum()) / both if both else 1.0


def overlap_curve(heat: np.ndarray, truth: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """:func:`iou` and :func:`dice` of ``heat >= t`` for many thresholds at once.

    Args:
        heat: float ``[h, w]``, NaN where the model was not shown the picture.
        truth: bool ``[h, w]``.
        thresholds: float ``[T]``.

    Returns:
        float64 ``[T]`` each.  Sorting once makes a threshold cost next to nothing: 400 of them as much as a few.
    """
    truth, seen = _map(heat, truth)
    inside, outside = np.sort(heat[seen & truth]), np.sort(heat[seen & ~truth])
    hit, false = (len(values) - np.searchsorted(values, thresholds, side="left") for values in (inside, outside))
    union = len(inside) + false  # missed + hit + false alarms
    nothing = union == 0
    return (np.where(nothing, 1.0, hit / np.maximum(union, 1)),
            np.where(nothing, 1.0, 2 * hit / np.maximum(len(inside) + hit + false, 1)))


def pointing_game(heat: np.ndarray, truth: np.ndarray) -> float:
    """Whether the warmest pixel lies in the finding: 1 or 0, without the 15 pixels of tolerance of the first paper.

    Where several pixels are equally warm: the share of them that lie in it, what choosing one at random would win.  A
    map that is the same everywhere thus wins what a blind guess wins.  NaN where no pixel of the finding was shown.

    Args: as of :func:`overlap_curve`.
    """
    truth, seen = _map(heat, truth)
    if not (seen & truth).any():
        return float("nan")
    return float(truth[seen & (heat == heat[seen].max())].mean())


def contrast_to_noise(heat: np.ndarray, truth: np.ndarray) -> float:
    """How far the finding stands out from the rest: (μ_in - μ_out) / sqrt(σ²_in + σ²_out), *with its sign*.

    BioViL publishes the absolute value, |CNR|, which also rewards a map that is cold where the finding is; take
    ``abs()`` of this to compare.  Variances are those of all the pixels (divided by n).

    0 for a map that is the same everywhere.  NaN where there is no pixel inside or none outside, and where the map is
    constant on both sides at different values (no noise to compare with).

    Args: as of :func:`overlap_curve`.
    """
    truth, seen = _map(heat, truth)
    inside, outside = heat[seen & truth], heat[seen & ~truth]
    if not len(inside) or not len(outside):
        return float("nan")
    (mean_in, var_in), (mean_out, var_out) = _moments(inside), _moments(outside)
    noise = np.sqrt(var_in + var_out)
    if noise == 0:
        return 0.0 if mean_in == mean_out else float("nan")
    return float((mean_in - mean_out) / noise)


def stretched(heat: np.ndarray) -> np.ndarray:
    """A map stretched to 0 … 1 by its own smallest and largest value; 0 throughout where these are the same."""
    low, high = np.nanmin(heat), np.nanmax(heat)
    return (heat - low) / (high - low) if high > low else heat * 0.0


def best_threshold(curves: np.ndarray, thresholds: np.ndarray) -> float:
    """The threshold with the highest mean; the lowest of them where several are equal.

    Args:
        curves: float ``[N, T]`` of :func:`overlap_curve`, of *validation* maps: on the test maps it were optimistic.
        thresholds: float ``[T]``, ascending.
    """
    return float(thresholds[int(np.argmax(np.mean(curves, axis=0)))])


def _masks(predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predicted, truth = np.asarray(predicted, bool), np.asarray(truth, bool)
    if predicted.shape != truth.shape:  # numpy would spread one over the other
        raise ValueError(f"masks of different shapes: {predicted.shape} and {truth.shape}")
    return predicted, truth


def _map(heat: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The truth, and which pixels were seen."""
    seen, truth = _masks(~np.isnan(heat), truth)
    return truth, seen


def _moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and variance; exact for equal values, whose mean a sum in floating point may miss."""
    if values.min() == values.max():
        return float(values[0]), 0.0
    return float(values.mean()), float(values.var())
