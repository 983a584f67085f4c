"""Similarity to known-bad images against the plain computation, its blocks, its figure, and features that are wrong."""

import importlib.util
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from PIL import Image

from paddle_cxr.errors import UserError
from paddle_cxr.plots.similarity import plot_similarity
from paddle_cxr.synthesis import similarity
from paddle_cxr.synthesis.similarity import THRESHOLD, Bank, read_features, suggest_threshold

ENGINES = ["blas"] + ["faiss"] * (importlib.util.find_spec("faiss") is not None)


def direct(features, bank):
    """All cosines in double precision, [N, M], as one would write them down; rows of zeros are like nothing."""
    units = []
    for rows in (features, bank):
        rows = rows.astype(np.float64)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        units.append(np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0))
    return units[0] @ units[1].T


def check(found, features, bank):
    cosines = direct(features, bank)
    largest = cosines.max(axis=1)
    np.testing.assert_allclose(found.similarity, largest, rtol=0, atol=1e-12)
    np.testing.assert_allclose(cosines[np.arange(len(features)), found.index], largest, rtol=0, atol=1e-12)
    # Of several that are equal but for rounding, the first.
    assert (found.index <= (cosines >= largest[:, None] - 5e-16).argmax(axis=1)).all()


def cloud(rng, count, dim=64):
    """Features that are somewhat alike, as those of real encoders."""
    return (rng.normal(size=(count, dim)) + 0.5).astype(np.float32)


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.param


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(similarity, "_ROWS", 7)
    monkeypatch.setattr(similarity, "_COLUMNS", 5)


# --- against the plain computation -------------------------------------------------------------------------------

@pytest.mark.parametrize("images", [1, 30, 2500])
@pytest.mark.parametrize("bad", [1, 2, 40])
def test_nearest_equals_the_plain_computation(engine, images, bad):
    rng = np.random.default_rng(images + bad)
    features, bank = cloud(rng, images), cloud(rng, bad)
    check(Bank(bank, engine).nearest(features), features, bank)


@settings(max_examples=60)
@given(st.data())
def test_any_small_integers(data):
    """Many exact ties, zeros, opposite vectors."""
    matrix = nps.arrays(np.float32, st.tuples(st.integers(1, 12), st.just(3)), elements=st.integers(-2, 2))
    features, bank = data.draw(matrix), data.draw(matrix)
    for engine in ENGINES:
        check(Bank(bank, engine).nearest(features), features, bank)


def test_decisions_next_to_the_threshold(engine):
    """Cosines within single precision's rounding of the threshold, on both sides, where float32 is right by chance."""
    rng = np.random.default_rng(0)
    bank = cloud(rng, 20, 256)
    one = bank[3] / np.linalg.norm(bank[3])
    other = rng.normal(size=(4000, 256))
    other -= (other @ one)[:, None] * one
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    wanted = THRESHOLD + rng.uniform(-3e-7, 3e-7, 4000)
    features = 5 * (wanted[:, None] * one + np.sqrt(1 - wanted**2)[:, None] * other)
    bank = bank[3:4]
    expected = direct(features, bank).max(axis=1) > THRESHOLD
    assert 1000 < expected.sum() < 3000
    units = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    assert (((units @ one.astype(np.float32)) > THRESHOLD) != expected).sum() > 50
    np.testing.assert_array_equal(Bank(bank, engine).nearest(features).over(), expected)


def test_exactly_the_threshold_is_kept(engine):
    found = Bank(np.array([[1, 0, 0, 0]], np.float32), engine).nearest(np.array([[3, 3, 3, 3]], np.float32))
    assert found.similarity.tolist() == [0.5] and not found.over().any()


def test_bad_images_that_hardly_differ(engine):
    """Differences that single precision does not see decide which member it is."""
    rng = np.random.default_rng(1)
    bank = np.repeat(rng.normal(size=(1, 128)), 30, axis=0)
    bank += 1e-9 * rng.normal(size=bank.shape)
    features = rng.normal(size=(300, 128))
    found = Bank(bank, engine).nearest(features)
    check(found, features, bank)
    assert len(set(found.index)) > 5


def test_copies_in_the_bank_name_the_first(engine):
    rng = np.random.default_rng(2)
    bank = cloud(rng, 10)
    found = Bank(np.concatenate([bank, bank, bank]), engine).nearest(np.concatenate([bank, 7 * bank]))
    assert found.index.tolist() == [*range(10)] * 2
    assert found.similarity.max() <= 1.0 and found.similarity.min() > 1 - 1e-12


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("count", [6, 7, 8, 29])
def test_small_blocks(engine, count):
    rng = np.random.default_rng(count)
    copies = np.repeat(cloud(rng, 4), 6, axis=0)
    for features, bank in ((cloud(rng, count), cloud(rng, count)), (copies, copies)):
        check(Bank(bank, engine).nearest(features), features, bank)


def test_blocks_and_company_change_no_bit(engine, monkeypatch):
    rng = np.random.default_rng(3)
    features, bank = cloud(rng, 300, 512), cloud(rng, 50, 512)
    bank[20:25] = bank[3] + 1e-7
    whole = Bank(bank, engine).nearest(features)
    monkeypatch.setattr(similarity, "_ROWS", 13)
    monkeypatch.setattr(similarity, "_COLUMNS", 9)
    cut = Bank(bank, engine)
    for found, part in [(cut.nearest(features), slice(None)),
                        *((cut.nearest(features[i:i + 1]), slice(i, i + 1)) for i in range(20))]:
        np.testing.assert_array_equal(found.similarity, whole.similarity[part])
        np.testing.assert_array_equal(found.index, whole.index[part])


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
def test_length_means_nothing(engine, scale):
    rng = np.random.default_rng(4)
    features, bank = cloud(rng, 20), cloud(rng, 5)
    found = Bank(bank, engine).nearest((features.astype(np.float64) * scale).astype(np.float32))
    np.testing.assert_allclose(found.similarity, direct(features, bank).max(axis=1), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int16])
def test_number_types(engine, dtype):
    rng = np.random.default_rng(5)
    features, bank = ((4 * cloud(rng, count)).astype(dtype) for count in (30, 10))
    check(Bank(bank, engine).nearest(features), features, bank)


def test_the_error_bound_holds_in_any_order():
    """Single precision's worst order of summation, against exact fractions."""
    rng = np.random.default_rng(6)
    for dim in (3, 64, 1000):
        a, b = (vector / np.linalg.norm(vector) for vector in np.abs(rng.normal(size=(2, dim))))
        total = np.float32(0)
        for x, y in zip(a.astype(np.float32), b.astype(np.float32), strict=True):
            total += x * y
        exact = sum(Fraction(x) * Fraction(y) for x, y in zip(a.tolist(), b.tolist(), strict=True))
        assert abs(Fraction(float(total)) - exact) <= similarity._error_of_single(dim)


@pytest.mark.usefixtures("small_blocks")
def test_among_itself_leaves_the_row_itself_out(engine):
    bank = cloud(np.random.default_rng(7), 23)
    cosines = direct(bank, bank)
    np.fill_diagonal(cosines, -1)
    found = Bank(bank, engine).among_itself()
    np.testing.assert_allclose(found.similarity, cosines.max(axis=1), atol=1e-12)
    np.testing.assert_array_equal(found.index, cosines.argmax(axis=1))
    copies = Bank(np.concatenate([bank, bank]), engine).among_itself()
    assert copies.index.tolist() == [*range(23, 46), *range(23)] and copies.similarity.min() > 1 - 1e-12


def test_a_large_bank_goes_to_faiss(monkeypatch):
    if "faiss" not in ENGINES:
        pytest.skip("faiss-cpu is not installed")
    used = []
    original = similarity._faiss_search
    monkeypatch.setattr(similarity, "_faiss_search", lambda bank: used.append(len(bank)) or original(bank))
    monkeypatch.setattr(similarity, "_LARGE", 10)
    rng = np.random.default_rng(8)
    for count in (9, 10):
        features, bank = cloud(rng, 30), cloud(rng, count)
        check(Bank(bank).nearest(features), features, bank)
    assert used == [10]


def test_no_images(engine):
    found = Bank(cloud(np.random.default_rng(0), 3), engine).nearest(np.zeros((0, 64), np.float32))
    assert found.similarity.shape == found.index.shape == found.over().shape == (0,)


# --- files and memory --------------------------------------------------------------------------------------------

def test_a_memory_mapped_file(tmp_path, engine):
    rng = np.random.default_rng(10)
    features, bank = cloud(rng, 3000), cloud(rng, 20)
    np.save(tmp_path / "features.npy", features)
    mapped = read_features(tmp_path / "features.npy")
    assert isinstance(mapped, np.memmap)
    check(Bank(bank, engine).nearest(mapped), features, bank)
    np.save(tmp_path / "none.npy", features[:0])
    assert len(Bank(bank, engine).nearest(read_features(tmp_path / "none.npy")).index) == 0


@pytest.mark.slow
def test_memory_stays_bounded(tmp_path):
    """400 MB of features and 50 million cosines; beside the file's own pages, the search takes little."""
    code = f"""
import resource, numpy as np
from paddle_cxr.synthesis.similarity import Bank, read_features
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
file = np.lib.format.open_memmap({str(tmp_path / "f.npy")!r}, "w+", np.float32, (200_000, 512))
file[:] = np.random.default_rng(0).standard_normal((1, 512), dtype=np.float32); file[:, 0] = np.arange(200_000)
bank = Bank(np.random.default_rng(1).standard_normal((1000, 512), dtype=np.float32))
before = peak()
bank.nearest(read_features({str(tmp_path / "f.npy")!r}))
print(before, peak())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    before, after = map(float, run.stdout.split())
    assert after - before < 100 + 400  # MB: what the search takes, and the pages of the file


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"not an array at all", b"PK\x03\x04 broken zip"])
def test_a_broken_file_is_one_clear_line(tmp_path, content):
    file = tmp_path / "特征.npy"
    file.write_bytes(content)
    with pytest.raises(UserError, match="特征.npy"):
        read_features(file)


def test_files_that_are_no_features(tmp_path):
    with pytest.raises(UserError, match="找不到.*none.npy"):
        read_features(tmp_path / "none.npy")
    np.save(tmp_path / "pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=np.zeros(3))
    np.save(tmp_path / "vector.npy", np.zeros(3))
    np.save(tmp_path / "text.npy", np.array([["a"]]))
    for name in ("pickle.npy", "two.npz", "vector.npy", "text.npy"):
        with pytest.raises(UserError, match=name):
            read_features(tmp_path / name)


# --- features that are wrong -------------------------------------------------------------------------------------

def test_an_empty_bank_is_one_clear_line(engine):
    with pytest.raises(UserError, match="空"):
        Bank(np.zeros((0, 8), np.float32), engine)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_names_its_row(engine, value):
    features = cloud(np.random.default_rng(0), 2000)
    broken = features.copy()
    broken[1500, 3] = value
    with pytest.raises(UserError, match="第 1500 行"):
        Bank(features, engine).nearest(broken)
    with pytest.raises(UserError, match="坏图库.*第 1500 行"):
        Bank(broken, engine)


def test_widths_that_differ_name_both(engine):
    with pytest.raises(UserError, match="512 .*768 "):
        Bank(np.ones((3, 768)), engine).nearest(np.ones((2, 512)))


@pytest.mark.parametrize("features", [np.zeros(3), np.zeros((2, 0)), np.array([["a"]]), np.zeros((1, 2), complex)])
def test_no_matrix_of_numbers(engine, features):
    with pytest.raises(UserError, match="矩阵"):
        Bank(features, engine)


def test_one_member_has_no_others():
    with pytest.raises(UserError, match="只有 1 张"):
        Bank(np.ones((1, 3))).among_itself()


def test_without_faiss_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match="faiss-cpu"):
        Bank(np.ones((2, 3)), "faiss")


def test_importing_it_is_light():
    code = ("import sys, paddle_cxr.synthesis.similarity, paddle_cxr.synthesis.encoders\n"
            "assert not {'paddle', 'faiss', 'matplotlib'} & set(sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# --- calibration -------------------------------------------------------------------------------------------------

numbers = nps.arrays(np.float64, st.integers(1, 20), elements=st.integers(-8, 8).map(lambda value: value / 8))


@given(numbers, numbers)
def test_no_threshold_separates_better(good, bad):
    def youden(threshold):
        return np.mean(bad > threshold) - np.mean(good > threshold)

    best = max(map(youden, np.linspace(-1.03, 1.03, 400)))
    assert youden(suggest_threshold(good, bad)) == pytest.approx(best)


def test_two_groups_are_parted_half_way():
    assert suggest_threshold(np.array([0.1, 0.2]), np.array([0.6, 0.9])) == pytest.approx(0.4)


def test_calibration_needs_both_groups():
    with pytest.raises(UserError, match="至少一张"):
        suggest_threshold(np.zeros(0), np.ones(3))


@pytest.mark.parametrize("demo", [False, True])
def test_the_figure(tmp_path, demo, recwarn):
    rng = np.random.default_rng(0)
    path = plot_similarity(rng.normal(0.2, 0.05, 300), rng.normal(0.7, 0.1, 40), 0.5, "RAD-DINO", tmp_path / "a.png",
                           demo=demo)
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width == 792 and (image.height > 520) is demo
    assert not [str(one.message) for one in recwarn if "lyph" in str(one.message)]


def test_the_figure_of_equal_values(tmp_path):
    assert plot_similarity(np.ones(3), np.ones(2), 1.0, "编码器" * 30, tmp_path / "a.png").is_file()
