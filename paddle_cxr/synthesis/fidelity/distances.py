"""How far apart two clouds of features are, and which part of one lies inside the other.

All take features ``[N, D]`` of one encoder, rows in random order; products are made block by block in double precision.

References: Heusel et al. 2017 (arXiv:1706.08500) for the Fréchet distance, Bińkowski et al. 2018 (arXiv:1801.01401) for
the kernel distance, Kynkäänniemi et al. 2019 (arXiv:1904.06991) for improved precision and recall, Naeem et al. 2020
(arXiv:2002.09797) for density and coverage.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_ROWS = 1024  # rows of a product at a time: with 10,000 columns in double precision 80 MB


def frechet_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Squared Fréchet (2-Wasserstein) distance of the normal distributions fitted to two clouds; ≥ 0.

    |μ₁ − μ₂|² + tr C₁ + tr C₂ − 2 tr (C₁ C₂)^½.  On Inception features this is FID; on another encoder it has another
    scale.  The estimate is biased upwards, the more so the fewer images: compare figures of equal N only.

    Args:
        one, other: ``[N, D]``, ``[M, D]``, N and M ≥ 2.

    Raises:
        ValueError: fewer than two rows.
    """
    if min(len(one), len(other)) < 2:
        raise ValueError("a covariance needs at least two rows")
    (mean, cov), (mean_, cov_) = moments(one), moments(other)
    # The eigenvalues of C1 C2 are the squared singular values of C1^½ C2^½, which need no square root of a matrix that
    # is not symmetric, and lose no digits where the covariances are singular (N < D).
    overlap = np.linalg.svd(_root(cov) @ _root(cov_), compute_uv=False).sum()
    return max(0.0, float(np.sum((mean - mean_)**2) + np.trace(cov) + np.trace(cov_) - 2 * overlap))


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean ``[D]`` and sample covariance ``[D, D]``, float64."""
    mean = sum(block.sum(axis=0) for block in _blocks(features)) / len(features)
    scatter = sum((block - mean).T @ (block - mean) for block in _blocks(features))
    return mean, scatter / (len(features) - 1)


def _root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric root of a positive semi-definite matrix; eigenvalues that rounding made negative count as 0."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def kernel_distance(one: np.ndarray, other: np.ndarray, subsets: int, size: int, seed: int) -> tuple[float, float]:
    """Kernel distance (KID): squared maximum mean discrepancy with the kernel (x·y / D + 1)³.

    Unbiased: its expectation is 0 for equal distributions whatever N, so single values may be negative.

    Args:
        one, other: ``[N, D]``, ``[M, D]``.
        subsets: how many pairs of random subsets; size: images in each, at most N and M, at least 2.
        seed: of the subsets.

    Returns:
        Mean over the subsets, and their standard deviation (n − 1 below the line).  Subsets overlap: the deviation says
        how much one subset's value varies, not how certain the mean is.
    """
    rng = np.random.default_rng(seed)
    values = [_mmd(*(np.asarray(part[np.sort(rng.choice(len(part), size, replace=False))], np.float64)
                     for part in (one, other))) for _ in range(subsets)]
    return float(np.mean(values)), float(np.std(values, ddof=1))


def _mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased estimate of the squared discrepancy of two samples of n each: a point is not compared with itself."""
    n = len(x)
    within = sum(kernel.sum() - np.trace(kernel) for kernel in (_kernel(x, x), _kernel(y, y)))
    return float(within / (n * (n - 1)) - 2 * _kernel(x, y).mean())


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1)**3


class Manifold(NamedTuple):
    """Which part of each cloud lies in the other one's neighbourhoods, see :func:`precision_recall`."""

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall(real: np.ndarray, generated: np.ndarray, k: int, coverage_k: int) -> Manifold:
    """Precision and recall (Kynkäänniemi), density and coverage (Naeem), of a generated cloud against a real one.

    The ball round a point reaches to its k-th nearest neighbour in the same cloud.  Precision: share of the generated
    points in a ball of a real one (do they look real?).  Recall: share of the real points in a ball of a generated one
    (are all kinds drawn?).  Density: in how many real balls a generated point lies, over k; may exceed 1.  Coverage:
    share of the real balls that hold a generated point.  All depend on N: compare figures of equal N only.

    Args:
        real, generated: ``[N, D]``, ``[M, D]``, more rows than ``k`` and ``coverage_k``.
        k: of precision and recall; coverage_k: of density and coverage.

    Raises:
        ValueError: too few rows.
    """
    if min(len(real), len(generated)) <= max(k, coverage_k):
        raise ValueError(f"{k} and {coverage_k} neighbours need more than {min(len(real), len(generated))} rows")
    # About the real mean: squares are then small, and their differences exact enough.
    mean = moments(real)[0]
    real, generated = real - mean, generated - mean
    real_balls, wide_balls = _radii(real, k), _radii(real, coverage_k)
    generated_balls = _radii(generated, k)
    precise, recalled = np.zeros(len(generated), bool), np.zeros(len(real), bool)
    covered, inside = np.zeros(len(real), bool), 0
    for start in range(0, len(generated), _ROWS):
        rows = slice(start, start + _ROWS)
        distances = _squared_distances(generated[rows], real)  # [r, N]
        precise[rows] = (distances <= real_balls).any(axis=1)
        recalled |= (distances <= generated_balls[rows, None]).any(axis=0)
        in_wide = distances <= wide_balls
        inside += int(in_wide.sum())
        covered |= in_wide.any(axis=0)
    return Manifold(float(precise.mean()), float(recalled.mean()), inside / (coverage_k * len(generated)),
                    float(covered.mean()))


def _radii(points: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of each point to its k-th nearest other one, ``[N]``."""
    result = np.empty(len(points))
    for start in range(0, len(points), _ROWS):
        distances = _squared_distances(points[start:start + _ROWS], points)
        own = np.arange(len(distances))
        distances[own, start + own] = -1.0  # whatever rounding made of 0: the point itself comes first, the k-th after
        result[start:start + _ROWS] = np.partition(distances, k, axis=1)[:, k]
    return result


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    squares = (np.einsum("ij,ij->i", part, part) for part in (x, y))
    return np.maximum(next(squares)[:, None] + next(squares) - 2 * x @ y.T, 0)


def _blocks(features: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(features), _ROWS):
        yield np.asarray(features[start:start + _ROWS], np.float64)
