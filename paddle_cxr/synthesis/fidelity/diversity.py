"""How alike the images of a set are to each other: a generator that always draws the same patient has no diversity.

Multi-scale structural similarity: Wang, Simoncelli and Bovik 2003; as a measure of diversity: Odena et al. 2017
(arXiv:1610.09585).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence

import numpy as np

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, finest first (Wang 2003, section 3.2)
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * 255)**2, (0.03 * 255)**2
SMALLEST = (_WINDOW - 1) * 2**(len(WEIGHTS) - 1) + 1  # below it the coarsest scale is smaller than the window


def ms_ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Multi-scale structural similarity of two grey images, 0 … 1; 1 for equal ones.

    Gaussian window of 11 pixels (σ 1.5) where it fits wholly, K₁ 0.01, K₂ 0.03, five scales halved by 2 × 2 means;
    structure and contrast at every scale, luminance at the coarsest.  A negative factor counts as 0.

    Args:
        one, other: ``[S, S]``, grey levels 0 … 255, S a multiple of 16 and ≥ 161.

    Raises:
        ValueError: another shape.
    """
    if one.shape != other.shape or one.ndim != 2 or one.shape[0] != one.shape[1]:
        raise ValueError(f"two square images of one size, not {one.shape} and {other.shape}")
    if one.shape[0] % 2**(len(WEIGHTS) - 1) or one.shape[0] < SMALLEST:
        raise ValueError(f"side must be a multiple of 16 and at least {SMALLEST}, not {one.shape[0]}")
    x, y = one.astype(np.float64), other.astype(np.float64)
    result = 1.0
    for scale, weight in enumerate(WEIGHTS):
        luminance, contrast = _terms(x, y)
        last = scale == len(WEIGHTS) - 1
        factor = np.mean(luminance * contrast if last else contrast)
        result *= max(0.0, float(factor))**weight
        x, y = _halved(x), _halved(y)
    return float(result)


def _terms(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Luminance, and contrast times structure, of every window."""
    blur = _blur(len(x))
    mean_x, mean_y = blur(x), blur(y)
    variance_x, variance_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return luminance, (2 * covariance + _C2) / (variance_x + variance_y + _C2)


@functools.cache
def _blur(size: int) -> Callable[[np.ndarray], np.ndarray]:
    """The Gaussian window as a matrix: two products do what a separable filter does, at the BLAS's speed."""
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    window = np.exp(-offsets**2 / (2 * _SIGMA**2))
    matrix = np.zeros((size - _WINDOW + 1, size))
    for row in range(len(matrix)):
        matrix[row, row:row + _WINDOW] = window / window.sum()
    return lambda image: matrix @ image @ matrix.T


def _halved(image: np.ndarray) -> np.ndarray:
    half = len(image) // 2
    return image[:2 * half, :2 * half].reshape(half, 2, half, 2).mean(axis=(1, 3))


def draw_pairs(groups: Sequence[Hashable], count: int, seed: int) -> np.ndarray:
    """Random pairs of different images of one group: images of two classes differ whatever the generator does.

    Args:
        groups: the group of each image; groups of one image give no pair.
        count: pairs; seed: of them.

    Returns:
        int64 ``[count, 2]``, or fewer rows where the groups have fewer different pairs; a group gets pairs in
        proportion to its images.
    """
    rng = np.random.default_rng(seed)
    members: dict[Hashable, list[int]] = {}
    for position, group in enumerate(groups):
        members.setdefault(group, []).append(position)
    usable = [position for position, group in enumerate(groups) if len(members[group]) > 1]
    there_are = sum(len(one) * (len(one) - 1) // 2 for one in members.values())
    found: set[tuple[int, int]] = set()
    while len(found) < min(count, there_are):
        first = usable[rng.integers(len(usable))]
        second = members[groups[first]][rng.integers(len(members[groups[first]]))]
        if first != second:
            found.add((min(first, second), max(first, second)))
    return np.array(sorted(found), np.int64).reshape(-1, 2)
