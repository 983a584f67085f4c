"""The U-Net while it draws: what is the same for a whole batch or in every step is computed once.

The time is the same for all images of a batch, and a prompt's keys and values in cross-attention are the same in every
step.  This saves some per cent of a small U-Net's time on a CPU (``benchmarks/drawing.py``), and it is what makes an
image independent of its place in the batch: where threads share a product of matrices of few or of an odd number of
rows, the sums of one and the same row were rounded differently at different places.
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
def prepared_for_drawing(unet: Layer) -> Iterator[None]:
    """Within, ``unet`` is asked about one context only, and about one time for all images of a batch.

    Attention with more than the plain steps, and what ppdiffusers replaced by a GPU's fused one, is left as it is.
    """
    from ppdiffusers.models.attention_processor import Attention, AttnProcessor

    layers = [layer for layer in unet.sublayers() if isinstance(layer, Attention)]
    plain = [layer for layer in layers if type(layer.processor) is AttnProcessor and _is_plain(layer)]
    original = [layer.processor for layer in plain]
    for layer in plain:
        layer.processor = _PlainAttention()
    # The first row stands for all: everything that follows adds it to [B, C, h, w].
    one_time = unet.time_embedding.register_forward_pre_hook(lambda _, given: (given[0][:1], *given[1:]))
    try:
        yield
    finally:
        one_time.remove()
        for layer, processor in zip(plain, original, strict=True):
            layer.processor = processor


def _is_plain(layer: Any) -> bool:
    """Whether a layer is softmax(q k / sqrt(d)) v and nothing more."""
    extras = (layer.group_norm, layer.spatial_norm, layer.norm_cross, layer.added_kv_proj_dim)
    return all(one is None for one in extras) and not layer.residual_connection and layer.rescale_output_factor == 1


class _PlainAttention:
    """Multi-head attention for one layer; keys and values of a context are kept from the first call."""

    def __init__(self) -> None:
        self._kept: tuple[Tensor, Tensor] | None = None

    def __call__(self, layer: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
                 attention_mask: Tensor | None = None, **_: Any) -> Tensor:
        """[B, L, C] → [B, L, C]; keys and values from ``encoder_hidden_states`` [B, M, D] where given."""
        if encoder_hidden_states is None:
            key, value = (_by_head(make(hidden_states), layer.heads) for make in (layer.to_k, layer.to_v))
        else:
            if self._kept is None:
                key, value = (_by_head(_row_by_row(make, encoder_hidden_states), layer.heads)
                              for make in (layer.to_k, layer.to_v))
                self._kept = key, value
            key, value = self._kept
        query = _by_head(layer.to_q(hidden_states) * layer.scale, layer.heads)
        weights = F.softmax(paddle.matmul(query, key, transpose_y=True), axis=-1)  # [B, H, L, M]
        mixed = paddle.matmul(weights, value).transpose([0, 2, 1, 3]).flatten(2)
        return layer.to_out[0](mixed)


def _row_by_row(make: Layer, x: Tensor) -> Tensor:
    """``make(x)``, one row of the batch at a time: a prompt's 77 tokens are an odd number."""
    return paddle.concat([make(row) for row in x.split(x.shape[0])])


def _by_head(x: Tensor, heads: int) -> Tensor:
    """[B, L, H D] → [B, H, L, D]."""
    return x.reshape([x.shape[0], x.shape[1], heads, -1]).transpose([0, 2, 1, 3])
