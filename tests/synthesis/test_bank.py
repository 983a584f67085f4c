"""Banks of known-bad images: written and read again, and folders that are wrong."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paddle_cxr.errors import UserError
from paddle_cxr.synthesis.quality import bank as bank_module
from paddle_cxr.synthesis.quality.bank import load_bank, probe_of, read_bank, write_bank
from paddle_cxr.synthesis.similarity import Bank

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(5, 8)).astype(np.float32)
FILES = ["a.png", "b/坏.png", 'with "quotes", and\nlines.png', "=1+1.png", ""]


class Encoder:
    """Features are a fixed mixture of a picture's rows, as some weights would make them."""

    title, dim = "ResNet18", 8

    def __init__(self, seed):
        self.weights = np.random.default_rng(seed).normal(size=(8, 224)).astype(np.float32)

    def encode(self, images):
        return np.stack([self.weights @ image.mean(axis=1) for image in images]).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    write_bank(tmp_path / "bank", FEATURES, "RAD-DINO", FILES, False)
    return tmp_path / "bank"


def test_a_bank_comes_back_as_it_was(folder):
    found = load_bank(folder, "RAD-DINO", 8)
    np.testing.assert_array_equal(found.features, FEATURES)
    assert found.files == FILES and found.demo is False
    others = RNG.normal(size=(40, 8))
    np.testing.assert_array_equal(read_bank(folder, "RAD-DINO", 8).nearest(others).similarity,
                                  Bank(FEATURES).nearest(others).similarity)


def test_a_bank_is_replaced_and_phantoms_stay_marked(folder):
    write_bank(folder, FEATURES[:2], "other", FILES[:2], True)
    assert load_bank(folder, "other", 8).demo and len(read_bank(folder, "other", 8)) == 2


def test_the_same_title_with_other_weights_is_refused(tmp_path):
    write_bank(tmp_path, FEATURES, Encoder.title, FILES, False, probe_of(Encoder(1)))
    rounded = probe_of(Encoder(1)) * np.float32(1 + 1e-6)
    assert len(read_bank(tmp_path, "ResNet18", 8, rounded)) == 5
    with pytest.raises(UserError, match="ResNet18.*权重不同"):
        read_bank(tmp_path, "ResNet18", 8, probe_of(Encoder(2)))


def change(folder, **values):
    file = folder / "bank.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(("damage", "words"), [
    (lambda f: (f / "bank.json").unlink(), ["bank.json"]),
    (lambda f: f.rename(f.with_name("gone")), ["不存在"]),
    (lambda f: (f / "bank.json").write_text("{"), ["bank.json", "损坏"]),
    (lambda f: (f / "bank.json").write_text("[" * 100_000), ["bank.json", "损坏"]),
    (lambda f: change(f, images="5"), ["bank.json", "损坏"]),
    (lambda f: change(f, probe=[1.0]), ["bank.json", "损坏"]),
    (lambda f: change(f, probe=["a"] * 8), ["bank.json", "损坏"]),
    (lambda f: change(f, images=4), ["不完整", "4"]),
    (lambda f: change(f, images=0), ["不完整"]),
    (lambda f: change(f, encoder="ResNet18"), ["ResNet18", "RAD-DINO", "编码器"]),
    (lambda f: change(f, dim=768), ["768", "8 维"]),
    (lambda f: (f / "features.npy").unlink(), ["features.npy"]),
    (lambda f: (f / "features.npy").write_bytes((f / "features.npy").read_bytes()[:150]), ["features.npy", "损坏"]),
    (lambda f: np.save(f / "features.npy", np.array([{}], object), allow_pickle=True), ["features.npy", "损坏"]),
    (lambda f: np.save(f / "features.npy", FEATURES * np.nan), ["bank", "NaN"]),
    (lambda f: (f / "images.csv").unlink(), ["images.csv"]),
    (lambda f: (f / "images.csv").write_text("file\na\n"), ["不完整", "1 行"]),
    (lambda f: (f / "images.csv").write_bytes(b"file\n\xff\n"), ["images.csv"]),
    (lambda f: (np.save(f / "features.npy", FEATURES[:0]), (f / "images.csv").write_text("file\n"),
                change(f, images=0)), ["空的"]),
])
def test_one_clear_line_for_what_is_no_bank(folder, damage, words):
    damage(folder)
    with pytest.raises(UserError) as error:
        read_bank(folder, "RAD-DINO", 8)
    assert all(word in str(error.value) for word in [str(folder.name), *words]), error.value


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(
    inner, max_size=3) | st.dictionaries(st.sampled_from(["encoder", "dim", "images", "demo", "probe"]), inner)))
def test_any_bank_json(folder, content):
    (folder / "bank.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="bank"):
        read_bank(folder, "RAD-DINO", 8)


def test_nothing_to_write_is_said(tmp_path):
    with pytest.raises(UserError, match="没有坏图"):
        write_bank(tmp_path, FEATURES[:0], "x", [], False)
    with pytest.raises(UserError, match="文件名"):
        write_bank(tmp_path, FEATURES, "x", ["a"], False)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_leaves_no_half_bank(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bank_module.np, "save", full)
    with pytest.raises(UserError, match="No space left"):
        write_bank(folder, FEATURES[:2], "other", FILES[:2], False)
    with pytest.raises(UserError, match="bank.json"):
        read_bank(folder, "RAD-DINO", 8)
