"""DeBERTa-v2 against PyTorch's numbers, and its shortcuts against the plain way."""

import json
from pathlib import Path

import numpy as np
import paddle
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_cxr.models.deberta import (
    DebertaConfig,
    DebertaForTokenClassification,
    by_distance,
    relative_position,
    weights_from_torch,
)
from paddle_cxr.weights import apply_weights, read_safetensors

FIXTURES = Path(__file__).parents[1] / "fixtures" / "deberta"
SHAPES = sorted(folder.name for folder in (FIXTURES / "logits").iterdir())
SMALL = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


def load(name):
    folder = FIXTURES / "logits" / name
    config = DebertaConfig(**json.loads((folder / "config.json").read_text()))
    model = DebertaForTokenClassification(config, 3)
    apply_weights(model, weights_from_torch(model, read_safetensors(folder / "model.safetensors")[0]), {}, path=folder)
    model.eval()
    return model, read_safetensors(folder / "expected.safetensors")[0]


@pytest.mark.parametrize("name", SHAPES)
def test_logits_equal_pytorchs(name):
    model, expected = load(name)
    for batch in range(len(expected) // 3):
        ids, mask, logits = (expected[f"{batch}.{part}"] for part in ("ids", "mask", "logits"))
        found = model(paddle.to_tensor(ids), paddle.to_tensor(mask)).numpy()
        assert np.abs(logits).max() > 0.3  # large enough for an error to show
        np.testing.assert_allclose(found[mask > 0], logits[mask > 0], rtol=0, atol=1e-5)


def test_the_shapes_cover_every_branch():
    configs = [DebertaConfig(**json.loads((FIXTURES / "logits" / name / "config.json").read_text())) for name in SHAPES]
    for key in ("pos_att_type", "share_att_key", "position_buckets", "max_relative_positions", "conv_kernel_size",
                "norm_rel_ebd", "position_biased_input", "relative_attention", "embedding_size", "type_vocab_size"):
        assert len({getattr(config, key) for config in configs}) > 1, key


def test_buckets_equal_pytorchs_at_the_published_size():
    expected = read_safetensors(FIXTURES / "buckets.safetensors")[0]
    config = DebertaConfig(**SMALL, position_buckets=256, max_position_embeddings=512, relative_attention=True)
    np.testing.assert_array_equal(relative_position(expected["distances"], config) - 256, expected["buckets"])


@given(st.integers(2, 300), st.integers(8, 600), st.booleans())
def test_rows_grow_with_distance_and_stay_in_the_table(buckets, reach, bucketed):
    config = DebertaConfig(**SMALL, position_buckets=buckets if bucketed and buckets // 2 <= reach - 2 else -1,
                           max_relative_positions=reach)
    rows = relative_position(np.arange(1 - reach, reach), config)
    assert 0 <= rows.min() and rows.max() < 2 * config.span
    assert (np.diff(rows) >= 0).all() and rows[reach - 1] == config.span


@settings(max_examples=30)
@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 9), st.integers(1, 4))
def test_by_distance_equals_gathering(batch, heads, length, width):
    rng = np.random.default_rng(0)
    content = rng.normal(size=(batch, heads, length, width)).astype(np.float32)
    table = rng.normal(size=(heads, 2 * length, width)).astype(np.float32)
    i, j = np.mgrid[:length, :length]
    expected = np.einsum("bhid,hijd->bhij", content, table[:, length - 1 + j - i])
    found = by_distance(paddle.to_tensor(content), paddle.to_tensor(table)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["v3", "convolution"])
def test_padding_and_company_change_nothing(name):
    model, _ = load(name)
    rng = np.random.default_rng(1)
    ids = rng.integers(4, 24, (3, 20))
    mask = (np.arange(20) < np.array([[20], [11], [2]])).astype(np.float32)
    together = model(paddle.to_tensor(ids), paddle.to_tensor(mask)).numpy()
    for row, length in enumerate((20, 11, 2)):
        alone = model(paddle.to_tensor(ids[row:row + 1, :length]), paddle.ones([1, length])).numpy()
        np.testing.assert_allclose(together[row, :length], alone[0], atol=1e-5)


def test_position_numbers_of_old_files_are_left_out():
    model = DebertaForTokenClassification(DebertaConfig(**SMALL), 3)
    state = {"deberta.embeddings.position_ids": np.arange(4), "classifier.weight": np.zeros((3, 8)),
             "classifier.bias": np.zeros(3)}
    assert {name: value.shape for name, value in weights_from_torch(model, state).items()} == \
           {"classifier.weight": (8, 3), "classifier.bias": (3,)}


@pytest.mark.parametrize("written", ["p2c|c2p", "P2C | c2p", ["p2c", "c2p"]])
def test_pos_att_type_in_all_its_spellings(written):
    assert DebertaConfig(**SMALL, pos_att_type=written).pos_att_type == ("p2c", "c2p")


@pytest.mark.parametrize("written", [None, "none", "", []])
def test_no_pos_att_type(written):
    config = DebertaConfig(**SMALL, pos_att_type=written)
    assert config.pos_att_type == ()


@pytest.mark.parametrize(("key", "value"), [
    ("vocab_size", 0), ("hidden_size", "wide"), ("num_hidden_layers", 10**9), ("num_attention_heads", 3),
    ("hidden_act", "swish"), ("pos_att_type", "p2p"), ("norm_rel_ebd", "batch_norm"), ("conv_kernel_size", -1),
    ("conv_groups", 5), ("layer_norm_eps", 0), ("max_position_embeddings", 2), ("position_buckets", 1),
    ("position_buckets", 2000), ("pad_token_id", 9)])
def test_what_no_network_can_be_built_from(key, value):
    with pytest.raises(pydantic.ValidationError, match=key):
        DebertaConfig(**SMALL | {key: value})
