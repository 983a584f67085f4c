"""The fidelity figures against independent computations, closed forms, and clouds whose answer is known."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.stats import binomtest
from sklearn.metrics.pairwise import polynomial_kernel

from paddle_cxr.data.records import ClassInfo
from paddle_cxr.synthesis.fidelity import distances
from paddle_cxr.synthesis.fidelity.agreement import agreement, class_of, finding_and_side
from paddle_cxr.synthesis.fidelity.distances import frechet_distance, kernel_distance, precision_recall
from paddle_cxr.synthesis.fidelity.diversity import draw_pairs, ms_ssim
from paddle_cxr.synthesis.fidelity.intervals import wilson_interval
from paddle_cxr.synthesis.fidelity.memorisation import held_out, memorised
from paddle_cxr.synthesis.similarity import Bank


def cloud(seed, count, dim=8, shift=0.0):
    return (np.random.default_rng(seed).normal(size=(count, dim)) + shift).astype(np.float32)


@pytest.fixture(params=[1024, 7], ids=["one block", "many blocks"])
def block(request, monkeypatch):
    monkeypatch.setattr(distances, "_ROWS", request.param)


# --- Fréchet distance --------------------------------------------------------------------------------------------

def frechet_by_the_book(one, other):
    difference = one.mean(axis=0) - other.mean(axis=0)
    a, b = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    return difference @ difference + np.trace(a + b - 2 * sqrtm(a @ b).real)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("counts", [(60, 90), (300, 200)])
def test_frechet_equals_the_matrix_square_root(counts):
    rng = np.random.default_rng(0)
    one, other = (rng.normal(size=(count, 12)) @ rng.normal(size=(12, 12)) + rng.normal(size=12) for count in counts)
    assert frechet_distance(one, other) == pytest.approx(frechet_by_the_book(one, other), rel=1e-9)


def exactly(mean, covariance, count=50):
    """A cloud whose sample mean and covariance are what is asked for, to the last digits."""
    raw = np.random.default_rng(3).normal(size=(count, len(mean)))
    raw -= raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False))).T
    return white @ np.linalg.cholesky(covariance).T + mean


def test_frechet_of_known_gaussians():
    """Diagonal covariances: |μ₁ − μ₂|² + Σ (σ₁ − σ₂)²."""
    first, second = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 0.5])
    one = exactly(np.zeros(3), np.diag(first**2))
    other = exactly(np.array([1.0, 0.0, 2.0]), np.diag(second**2))
    assert frechet_distance(one, other) == pytest.approx(5 + np.sum((first - second)**2), rel=1e-10)
    assert frechet_distance(one, one + 3) == pytest.approx(27, rel=1e-10)


def test_frechet_with_fewer_images_than_features():
    """Singular covariances, where a general root loses digits: the nuclear norm of a product of data matrices."""
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(10, 40)), 2 * rng.normal(size=(15, 40)) + 1
    centred = [(part - part.mean(axis=0)) / np.sqrt(len(part) - 1) for part in (one, other)]
    difference = one.mean(axis=0) - other.mean(axis=0)
    expected = difference @ difference + sum(np.sum(part**2) for part in centred) - 2 * np.linalg.norm(
        centred[0] @ centred[1].T, "nuc")
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-6)


def test_frechet_is_biased_upwards_by_few_images():
    same = [frechet_distance(cloud(1, count, 16), cloud(2, count, 16)) for count in (20, 80, 320, 1280)]
    assert same == sorted(same, reverse=True) and same[0] > 20 * same[-1]


@settings(max_examples=40)
@given(st.integers(0, 2**20), st.integers(2, 9), st.integers(2, 9), st.integers(1, 5))
def test_frechet_is_symmetric_and_not_negative(seed, n, m, dim):
    one, other = cloud(seed, n, dim), cloud(seed + 1, m, dim, shift=0.5)
    there, back = frechet_distance(one, other), frechet_distance(other, one)
    assert there >= 0 and there == pytest.approx(back, rel=1e-6, abs=1e-6)


# --- kernel distance ---------------------------------------------------------------------------------------------

def test_kid_of_everything_equals_a_double_loop():
    one, other = (part.astype(np.float64) for part in (cloud(1, 12), cloud(2, 12, shift=0.3)))
    x, y, z = (polynomial_kernel(*pair, degree=3, gamma=1 / 8, coef0=1)
               for pair in ((one, one), (other, other), (one, other)))
    within = sum(x[i, j] + y[i, j] for i in range(12) for j in range(12) if i != j) / (12 * 11)
    expected = within - 2 * sum(z[i, j] for i in range(12) for j in range(12)) / 144
    mean, spread = kernel_distance(one, other, subsets=3, size=12, seed=0)
    assert mean == pytest.approx(expected, rel=1e-9) and spread < 1e-12


def test_kid_is_unbiased_and_frechet_is_not():
    values = [kernel_distance(cloud(2 * i, 30, 16), cloud(2 * i + 1, 30, 16), 5, 15, i)[0] for i in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    assert min(values) < 0 < max(values)
    far = kernel_distance(cloud(1, 30, 16), cloud(2, 30, 16, shift=1), 5, 15, 0)[0]
    assert far > max(values)


def test_kid_depends_on_its_seed_only():
    one, other = cloud(1, 40), cloud(2, 50)
    assert kernel_distance(one, other, 10, 20, 7) == kernel_distance(one, other, 10, 20, 7)
    assert kernel_distance(one, other, 10, 20, 7) != kernel_distance(one, other, 10, 20, 8)


# --- precision and recall ----------------------------------------------------------------------------------------

def precision_recall_by_the_book(real, generated, k, coverage_k):
    def radius(points, i, k):
        return sorted(np.linalg.norm(points[i] - points[j]) for j in range(len(points)) if j != i)[k - 1]

    def inside(point, points, radii):
        return [np.linalg.norm(point - other) <= r for other, r in zip(points, radii, strict=True)]

    balls, own = ([radius(points, i, k) for i in range(len(points))] for points in (real, generated))
    wide = [radius(real, i, coverage_k) for i in range(len(real))]
    hits = np.array([inside(point, real, wide) for point in generated])
    return (np.mean([any(inside(point, real, balls)) for point in generated]),
            np.mean([any(inside(point, generated, own)) for point in real]),
            hits.sum() / (coverage_k * len(generated)), hits.any(axis=0).mean())


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0])
def test_precision_and_recall_equal_brute_force(shift):
    real, generated = cloud(1, 40, 3).astype(np.float64), cloud(2, 30, 3, shift).astype(np.float64)
    found = precision_recall(real, generated, 3, 5)
    np.testing.assert_allclose(found, precision_recall_by_the_book(real, generated, 3, 5), atol=1e-12)


def test_clouds_far_apart_share_nothing():
    assert precision_recall(cloud(1, 50), cloud(2, 50, shift=100), 3, 5) == (0, 0, 0, 0)


def test_one_distribution_shares_nearly_all():
    found = precision_recall(cloud(1, 500, 2), cloud(2, 500, 2), 3, 5)
    assert min(found) > 0.9 and found.density < 1.2


def test_a_copy_shares_all():
    found = precision_recall(cloud(1, 50), cloud(1, 50), 3, 5)
    assert found[:2] == (1, 1) and found.coverage == 1


def test_a_dropped_mode_lowers_recall_and_not_precision():
    real = np.concatenate([cloud(1, 200, 4), cloud(2, 200, 4, shift=50)])
    whole = precision_recall(real, np.concatenate([cloud(3, 200, 4), cloud(4, 200, 4, shift=50)]), 3, 5)
    half = precision_recall(real, cloud(5, 400, 4), 3, 5)
    assert half.precision > 0.8 and abs(half.precision - whole.precision) < 0.1
    assert half.recall < 0.55 < whole.recall and half.coverage < 0.55 < whole.coverage


def test_too_few_points_for_the_neighbours():
    with pytest.raises(ValueError, match="more than"):
        precision_recall(cloud(1, 5), cloud(2, 9), 3, 5)


# --- MS-SSIM -----------------------------------------------------------------------------------------------------

def wave(seed, size):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    levels = 128 + 80 * np.sin(2 * np.pi * (rows * (1 + seed % 3) + columns * (seed % 5) / 2))
    return np.clip(np.rint(levels + rng.normal(0, 12, (size, size))), 0, 255).astype(np.uint8)


# Of the package pytorch-msssim, data_range 255, its window in single precision; 0 where one of its factors is negative.
@pytest.mark.parametrize(("size", "one", "other", "expected"), [
    (176, 1, 4, 0.030246331793329542), (176, 2, 8, 0.03803440638582335), (176, 1, 2, 0.0), (176, 3, 6, 0.0),
    (192, 1, 4, 0.03453268738517528), (256, 1, 2, 0.04012418270994566), (256, 1, 4, 0.060730526337139414)])
def test_ms_ssim_equals_another_implementation(size, one, other, expected):
    assert ms_ssim(wave(one, size), wave(other, size)) == pytest.approx(expected, abs=5e-6)
    assert ms_ssim(wave(other, size), wave(one, size)) == pytest.approx(expected, abs=5e-6)


def test_ms_ssim_of_a_noisy_copy():
    film = wave(1, 192)
    noisy = np.clip(np.rint(film + np.random.default_rng(9).normal(0, 20, film.shape)), 0, 255).astype(np.uint8)
    assert ms_ssim(film, noisy) == pytest.approx(0.8898965589453194, abs=1e-6)
    assert ms_ssim(film, film) == pytest.approx(1)


@pytest.mark.parametrize(("one", "other"), [((160, 160), (160, 160)), ((192, 208), (192, 208)),
                                            ((180, 180), (180, 180)), ((192, 192), (176, 176))])
def test_ms_ssim_refuses_other_shapes(one, other):
    with pytest.raises(ValueError):
        ms_ssim(np.zeros(one, np.uint8), np.zeros(other, np.uint8))


@given(st.lists(st.sampled_from("abcd"), max_size=12), st.integers(1, 40), st.integers(0, 9))
def test_pairs_are_different_images_of_one_group(groups, count, seed):
    pairs = draw_pairs(groups, count, seed)
    possible = sum(a == b for a, b in itertools.combinations(groups, 2))
    assert len(pairs) == min(count, possible) == len({tuple(pair) for pair in pairs})
    assert all(one < other and groups[one] == groups[other] for one, other in pairs)


# --- memorisation ------------------------------------------------------------------------------------------------

def test_planted_copies_are_found_and_fresh_draws_are_not():
    training, real, fresh = cloud(1, 2000, 64), cloud(2, 1000, 64), cloud(3, 500, 64)
    bank = Bank(training)
    limit = held_out(bank, real, 0.01)
    assert limit.nearest.over(limit.threshold).sum() <= 10
    assert memorised(bank, fresh, limit.threshold).count <= 15
    noise = 0.1 * cloud(4, 50, 64)
    planted = fresh.copy()
    planted[:50] = training[100:150] + noise  # slightly changed
    planted[50:80] = training[:30]
    found = memorised(bank, planted, limit.threshold)
    assert found.nearest.over(limit.threshold)[:80].all() and found.count <= 95
    assert found.nearest.index[:50].tolist() == [*range(100, 150)]
    assert found.interval[0] < found.share < found.interval[1]


def test_held_out_images_that_are_training_images_do_not_count():
    training, real = cloud(1, 300, 32), cloud(2, 200, 32)
    clean = held_out(Bank(training), real, 0.01)
    mixed = held_out(Bank(training), np.concatenate([training[:50], real]), 0.01)
    assert mixed.threshold == clean.threshold and mixed.used.tolist() == [*range(50, 250)]
    with pytest.raises(ValueError, match="held-out"):
        held_out(Bank(training), training, 0.01)


# --- label agreement ---------------------------------------------------------------------------------------------

CLASSES = tuple(ClassInfo(name, name, name, aliases) for name, aliases in (
    ("NORMAL", ()), ("effusion_left", ()), ("effusion_right", ()), ("Viral Pneumonia", ("viral",))))


def test_agreement_is_counted_exactly():
    wanted = [0, 0, 1, 1, 2, 2, 3, None]
    found = agreement(wanted, np.array([0, 1, 1, 2, 2, 3, 3, 0]), CLASSES)
    assert found.overall == (4, 7) and [one[:] for one in found.per_class] == [(1, 2), (1, 2), (1, 2), (1, 1)]
    assert found.confusion.tolist() == [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1]]
    assert found.side == (2, 4)  # a class without side is not the right side
    assert found.left_out == 1
    assert agreement([0], np.array([0]), CLASSES[:1]).side is None
    assert agreement([None], np.array([0]), CLASSES).overall.share is None


@pytest.mark.parametrize(("labels", "side", "expected"), [
    ({"normal"}, None, 0), (set(), None, 0), ({"effusion"}, "left", 1), ({"effusion"}, "right", 2),
    ({"Effusion Left"}, None, 1), ({"effusion:right"}, None, 2), ({"effusion"}, None, None), ({"viral"}, "left", 3),
    ({"VIRAL PNEUMONIA"}, None, 3), ({"effusion", "viral"}, "left", None), ({"mass"}, None, None), (None, None, None)])
def test_the_class_an_image_was_drawn_for(labels, side, expected):
    labels = None if labels is None else frozenset(labels)
    assert class_of(labels, side, CLASSES, "normal") == expected


@pytest.mark.parametrize(("name", "expected"), [
    ("effusion_left", ("effusion", "left")), ("left pleural effusion", ("pleural effusion", "left")),
    ("nodule", ("nodule", None)), ("左侧积液", ("左侧积液", None)), ("left right", ("", None)), ("", ("", None))])
def test_sides_in_names(name, expected):
    assert finding_and_side(name) == expected


@pytest.mark.parametrize(("successes", "total"), [(0, 1), (0, 50), (1, 50), (25, 50), (50, 50), (170, 200)])
def test_wilson_equals_scipy(successes, total):
    expected = binomtest(successes, total).proportion_ci(method="wilson")
    assert wilson_interval(successes, total) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_importing_the_command_is_light():
    code = ("import sys, paddle_cxr.synthesis.fidelity.run, paddle_cxr.synthesis.fidelity.distances\n"
            "assert not {'paddle', 'matplotlib', 'scipy', 'sklearn'} & set(sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
