"""DINOv2 against PyTorch's numbers."""

import json
from pathlib import Path

import numpy as np
import paddle
import pydantic
import pytest

from paddle_cxr.errors import UserError
from paddle_cxr.models.dinov2 import Dinov2, Dinov2Config, weights_from_torch
from paddle_cxr.weights import apply_weights, read_safetensors

FIXTURES = Path(__file__).parents[1] / "fixtures" / "dinov2"
NAMES = sorted(folder.name for folder in FIXTURES.iterdir())
SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28}


def load(name):
    folder = FIXTURES / name
    model = Dinov2(Dinov2Config(**json.loads((folder / "config.json").read_text())))
    apply_weights(model, weights_from_torch(model, read_safetensors(folder / "model.safetensors")[0]), {}, path=folder)
    model.eval()
    return model, read_safetensors(folder / "expected.safetensors")[0]


@pytest.mark.parametrize("name", NAMES)
def test_tokens_equal_pytorchs(name):
    model, expected = load(name)
    for number in range(3):
        tokens = expected[f"{number}.tokens"]
        found = model(paddle.to_tensor(expected[f"{number}.pixels"][None])).numpy()[0]
        assert np.abs(tokens).max() > 1  # large enough for an error to show
        np.testing.assert_allclose(found, tokens, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_other_sizes_interpolate_positions_as_pytorch_does(name):
    model, expected = load(name)
    grids = set()
    for number in range(3):
        levels = expected[f"free.{number}.levels"]
        found = model(paddle.to_tensor(levels[None].astype(np.float32) / 127.5 - 1)).numpy()[0]
        np.testing.assert_allclose(found, expected[f"free.{number}.tokens"], rtol=0, atol=1e-5)
        grids.add(len(found) - 1)
    assert min(grids) < model.config.grid**2 < max(grids)


def test_company_changes_nothing():
    model, expected = load("like_rad_dino")
    images = paddle.to_tensor(np.stack([expected[f"{number}.pixels"] for number in range(3)]))
    together = model(images).numpy()
    for number in range(3):
        np.testing.assert_allclose(together[number], model(images[number:number + 1]).numpy()[0], atol=1e-5)


def test_names_and_shapes_of_the_published_vit_b14():
    """What model.safetensors of microsoft/rad-dino holds."""
    with paddle.LazyGuard():
        model = Dinov2(Dinov2Config(image_size=518))
    state = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert len(state) == 4 + 12 * 18 + 2
    assert sum(int(np.prod(shape)) for shape in state.values()) == 86_579_712
    assert state["embeddings.position_embeddings"] == (1, 1 + 37 * 37, 768)
    assert state["embeddings.patch_embeddings.projection.weight"] == (768, 3, 14, 14)
    for name in ("attention.attention.query.weight", "attention.output.dense.bias", "layer_scale2.lambda1",
                 "mlp.fc1.weight", "norm2.bias"):
        assert f"encoder.layer.11.{name}" in state


def test_the_mask_token_is_left_out_and_nothing_else():
    model = Dinov2(Dinov2Config(**SMALL))
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()} | {
        "embeddings.mask_token": np.zeros((1, 8), np.float32)}
    assert set(state) - set(weights_from_torch(model, state)) == {"embeddings.mask_token"}


def test_registers_are_refused():
    """A DINOv2 with registers is another network, whose results would silently be wrong."""
    model = Dinov2(Dinov2Config(**SMALL))
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match="register_tokens"):
        apply_weights(model, state | {"embeddings.register_tokens": np.zeros((1, 4, 8), np.float32)}, {}, path="x")


@pytest.mark.parametrize(("key", "value"), [
    ("hidden_size", 0), ("hidden_size", "wide"), ("num_hidden_layers", 10**9), ("num_attention_heads", 3),
    ("hidden_act", "relu"), ("use_swiglu_ffn", True), ("patch_size", 29), ("image_size", [28, 28]),
    ("layer_norm_eps", 0), ("layer_norm_eps", float("nan")), ("mlp_ratio", -1), ("num_channels", 0)])
def test_what_no_network_can_be_built_from(key, value):
    with pytest.raises(pydantic.ValidationError, match=key):
        Dinov2Config(**SMALL | {key: value})
