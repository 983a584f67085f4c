"""RAD-DINO's folder and pre-processing against the original's, ResNet features, and folders that are wrong."""

import json
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
from helpers import change
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.errors import UserError
from paddle_cxr.models import ResNet18
from paddle_cxr.registry import components
from paddle_cxr.synthesis.encoders import ImagePreprocessing, RadDino, ResNetFeatures
from paddle_cxr.weights import read_safetensors, save_weights, write_safetensors

FIXTURES = Path(__file__).parents[1] / "fixtures" / "dinov2"
NAMES = sorted(folder.name for folder in FIXTURES.iterdir())
PUBLISHED = {"size": {"shortest_edge": 518}, "crop_size": {"height": 518, "width": 518}, "resample": 3,
             "image_mean": [0.5307] * 3, "image_std": [0.2583] * 3}


def expected_of(name):
    return read_safetensors(FIXTURES / name / "expected.safetensors")[0]


@pytest.fixture
def folder(tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(FIXTURES / "like_rad_dino", tmp_path / "rad-dino"))


def films(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (40 + i, 60 - i), dtype=np.uint8) for i in range(count)]


# --- RAD-DINO ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", NAMES)
def test_preprocessing_equals_the_originals(name):
    expected = expected_of(name)
    preprocess = ImagePreprocessing(**json.loads((FIXTURES / name / "preprocessor_config.json").read_text()))
    for number in range(3):
        np.testing.assert_allclose(preprocess(expected[f"{number}.image"]), expected[f"{number}.pixels"], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_equal_the_originals_from_the_image_on(name):
    expected = expected_of(name)
    encoder = RadDino(str(FIXTURES / name), batch_size=2)
    found = encoder.encode([expected[f"{number}.image"] for number in range(3)])
    assert found.dtype == np.float32 and encoder.title == name
    assert found.shape == (3, encoder.dim)
    np.testing.assert_allclose(found, [expected[f"{number}.tokens"][0] for number in range(3)], atol=1e-5)


def test_batches_and_colour_change_nothing():
    images = films(5)
    together = RadDino(str(FIXTURES / "other"), batch_size=4).encode(images)
    one_by_one = RadDino(str(FIXTURES / "other"), batch_size=1)
    np.testing.assert_allclose(together, one_by_one.encode(images), atol=1e-5)
    np.testing.assert_allclose(together, one_by_one.encode([np.stack([image] * 3, axis=-1) for image in images]),
                               atol=1e-5)


def test_no_images():
    assert RadDino(str(FIXTURES / "other")).encode([]).shape == (0, 10)


def test_the_published_preprocessing_keeps_the_middle_of_a_film():
    film = np.zeros((400, 600), np.uint8)
    film[:, 100:500] = 255
    pixels = ImagePreprocessing(**PUBLISHED)(film)
    assert pixels.shape == (3, 518, 518)
    np.testing.assert_allclose(pixels[:, :, 4:-4], (1 - 0.5307) / 0.2583, rtol=1e-5)  # the filter blurs the edges


@settings(max_examples=30)
@given(st.integers(1, 3000), st.integers(1, 3000))
def test_any_shape_of_image(height, width):
    preprocess = ImagePreprocessing(**PUBLISHED | {"size": {"shortest_edge": 20},
                                                   "crop_size": {"height": 18, "width": 24}})
    assert preprocess(np.full((height, width), 128, np.uint8)).shape == (3, 18, 24)


def test_a_strip_is_not_enlarged_to_millions_of_pixels(monkeypatch):
    sizes = []
    original = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda image, size, *rest: sizes.append(size) or original(
        image, size, *rest))
    pixels = ImagePreprocessing(**PUBLISHED)(np.full((1, 60_000), 9, np.uint8))
    assert pixels.shape == (3, 518, 518) and np.prod(sizes[0]) < 1e7


# --- folders that are wrong --------------------------------------------------------------------------------------

def test_no_folder(tmp_path):
    with pytest.raises(UserError, match="找不到.*nowhere"):
        RadDino(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"缺 {name}"):
        RadDino(str(folder))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe{", b"[1, 2]", b"[" * 100_000])
def test_a_damaged_file_is_named(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=name) as caught:
        RadDino(str(folder))
    assert "\n" not in str(caught.value)


def test_a_pickle_is_not_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickle"):
        RadDino(str(folder))


@pytest.mark.parametrize(("name", "key", "value"), [
    ("config.json", "model_type", "dinov2_with_registers"), ("config.json", "model_type", "delete"),
    ("config.json", "use_swiglu_ffn", True), ("config.json", "num_channels", 1), ("config.json", "hidden_size", 10**12),
    ("preprocessor_config.json", "do_center_crop", False), ("preprocessor_config.json", "size", {"height": 9}),
    ("preprocessor_config.json", "crop_size", {"height": 10**6, "width": 10**6}),
    ("preprocessor_config.json", "crop_size", {"height": 13, "width": 42}),
    ("preprocessor_config.json", "image_std", [0.1, 0, 0.1]), ("preprocessor_config.json", "image_mean", [0.5]),
    ("preprocessor_config.json", "image_mean", "delete"), ("preprocessor_config.json", "resample", 9),
    ("preprocessor_config.json", "rescale_factor", float("nan"))])
def test_a_wrong_value_names_file_and_key(folder, name, key, value):
    change(folder / name, **{key: value})
    with pytest.raises(UserError, match=f"{name}.*{key}"):
        RadDino(str(folder))


def test_weights_of_another_size_name_the_shape(folder):
    change(folder / "config.json", num_hidden_layers=3)
    with pytest.raises(UserError, match="encoder.layer.2"):
        RadDino(str(folder))
    change(folder / "config.json", num_hidden_layers=2, image_size=56)
    with pytest.raises(UserError, match=r"position_embeddings \[1, 10, 12\] 应为 \[1, 17, 12\]"):
        RadDino(str(folder))


def test_weights_with_nan_do_not_pass_as_features(folder):
    state, _ = read_safetensors(folder / "model.safetensors")
    state["layernorm.bias"] = np.full(12, np.nan, np.float32)
    write_safetensors(folder / "model.safetensors", state)
    with pytest.raises(UserError, match="NaN"):
        RadDino(str(folder)).encode(films(1))


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"device": "gpu:99"}])
def test_arguments_out_of_range(arguments):
    with pytest.raises(UserError):
        RadDino(str(FIXTURES / "other"), **arguments)


def test_a_batch_that_memory_cannot_hold_names_the_key(monkeypatch):
    encoder = RadDino(str(FIXTURES / "other"), batch_size=2)

    def full(batch):
        raise RuntimeError("ResourceExhaustedError: Out of memory error on GPU 0.")

    monkeypatch.setattr(encoder, "_model", full)
    with pytest.raises(UserError, match="RadDino.batch_size.*不够"):
        encoder.encode(films(3))


# --- the project's own classifier --------------------------------------------------------------------------------

SHAPE = [1, 48, 48]


@pytest.fixture
def checkpoint(tmp_path):
    """What a training writes, of random weights."""
    paddle.seed(0)
    save(tmp_path / "best", ResNet18(class_num=3, in_channels=1))
    return tmp_path / "best"


def save(folder, model, **changes):
    meta = {"architecture": "ResNet18", "classes": [], "preprocess": Preprocess(tuple(SHAPE)).to_dict(),
            "image_shape": SHAPE, "demo_data": True} | changes
    save_weights(folder, model.state_dict(), meta)


def test_features_are_those_before_the_last_layer(checkpoint):
    encoder = ResNetFeatures(str(checkpoint), batch_size=2)
    found = encoder.encode(films(3))
    assert found.dtype == np.float32 and found.shape == (3, encoder.dim) == (3, 512) and found.min() >= 0
    assert encoder.title == "ResNet18（phantom）"
    model = ResNet18(class_num=3, in_channels=1)
    state, _ = read_safetensors(checkpoint / "model.safetensors")
    model.set_state_dict({name: paddle.to_tensor(value) for name, value in state.items()})
    model.eval()
    preprocess = Preprocess(tuple(SHAPE))
    inputs = preprocess.normalize(np.stack([preprocess.geometry(film) for film in films(3)]))
    logits = found @ state["fc.weight"] + state["fc.bias"]
    np.testing.assert_allclose(logits, model(paddle.to_tensor(inputs)).numpy(), rtol=1e-3, atol=1e-4)


def test_an_output_folder_stands_for_its_best_weights(tmp_path):
    paddle.seed(1)
    for name in ("latest", "best"):
        save(tmp_path / "run" / "checkpoints" / name, ResNet18(class_num=2, in_channels=1))
    run, best, latest = (ResNetFeatures(str(tmp_path / "run" / place)).encode(films(1)) for place in
                         ("", "checkpoints/best", "checkpoints/latest"))
    np.testing.assert_array_equal(run, best)
    assert np.abs(run - latest).max() > 1e-3


def test_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="找不到"):
        ResNetFeatures(str(tmp_path / "nowhere"))
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match="没有检查点"):
        ResNetFeatures(str(tmp_path / "run"))


@pytest.mark.parametrize(("changes", "said"), [
    ({"architecture": "Ensemble"}, "Ensemble"), ({"architecture": None}, "None"), ({"architecture": "ResNet19"}, "19"),
    ({"architecture": "ResNet34"}, "缺少"), ({"preprocess": None}, "preprocess"),
    ({"preprocess": {"a": 1}}, "preprocess"), ({"preprocess": {"image_shape": [3, 48, 48]}}, "conv1")])
def test_records_that_do_not_fit(tmp_path, changes, said):
    save(tmp_path / "x", ResNet18(class_num=2, in_channels=1), **changes)
    with pytest.raises(UserError, match=said):
        ResNetFeatures(str(tmp_path / "x"))


def test_both_are_registered():
    assert {"RadDino", "ResNetFeatures"} <= set(components("encoder"))
