"""Cross-attention while drawing: the keys and values of a prompt are the same in every step, so they are made once.

For a small U-Net on a CPU that and the plainer arithmetic below save some per cent of the time; see
``benchmarks/drawing.py``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import paddle
import paddle.nn.functional as F

if TYPE_CHECKING:
    from paddle import Tensor
    from paddle.nn import Layer


@contextlib.contextmanager
def reusing_keys_and_values(unet: Layer) -> Iterator[None]:
    """Within, ``unet`` is asked about one context only, and computes that context's keys and values only once.

    Layers with more than plain attention, and those that ppdiffusers gave a GPU's fused attention, are left alone.
    """
    from ppdiffusers.models.attention_processor import Attention, AttnProcessor

    layers = [layer for layer in unet.sublayers() if isinstance(layer, Attention)]
    plain = [layer for layer in layers if type(layer.processor) is AttnProcessor and _is_plain(layer)]
    original = [layer.processor for layer in plain]
    for layer in plain:
        layer.processor = _PlainAttention()
    try:
        yield
    finally:
        for layer, processor in zip(plain, original, strict=True):
            layer.processor = processor


def _is_plain(layer: Any) -> bool:
    """Whether a layer is softmax(q k / sqrt(d)) v and nothing more."""
    extras = (layer.group_norm, layer.spatial_norm, layer.norm_cross, layer.added_kv_proj_dim)
    return not any(extras) and not layer.residual_connection and layer.rescale_output_factor == 1


class _PlainAttention:
    """Multi-head attention for one layer; keys and values of a context are kept from the first call."""

    def __init__(self) -> None:
        self._kept: tuple[Tensor, Tensor] | None = None

    def __call__(self, layer: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
                 attention_mask: Tensor | None = None, **_: Any) -> Tensor:
        """[B, L, C] → [B, L, C]; keys and values from ``encoder_hidden_states`` [B, M, D] where given."""
        query = _by_head(layer.to_q(hidden_states * layer.scale) if layer.to_q.bias is None
                         else layer.to_q(hidden_states) * layer.scale, layer.heads)
        if encoder_hidden_states is None:
            key, value = (_by_head(make(hidden_states), layer.heads) for make in (layer.to_k, layer.to_v))
        else:
            if self._kept is None:
                key, value = (_row_by_row(make, encoder_hidden_states) for make in (layer.to_k, layer.to_v))
                self._kept = _by_head(key, layer.heads), _by_head(value, layer.heads)
            key, value = self._kept
        weights = F.softmax(paddle.matmul(query, key, transpose_y=True), axis=-1)
        mixed = paddle.matmul(weights, value).transpose([0, 2, 1, 3]).flatten(2)
        return layer.to_out[0](mixed)


def _row_by_row(make: Layer, x: Tensor) -> Tensor:
    """``make(x)``, one row of the batch at a time.

    A prompt's 77 tokens are an odd number: in a product of the whole batch, which threads share, the sum of a row was
    rounded differently at different places of the batch.
    """
    return paddle.concat([make(row) for row in x.split(x.shape[0])])


def _by_head(x: Tensor, heads: int) -> Tensor:
    """[B, L, H D] → [B, H, L, D]."""
    return x.reshape([x.shape[0], x.shape[1], heads, -1]).transpose([0, 2, 1, 3])
