"""DINOv2: a Vision Transformer that cuts an image into patches and lets every patch look at every other.

    image → patches of 14 x 14 pixels, each a vector      "tokens", as the words of a sentence
          → one more token that belongs to no patch       "CLS": in the end it stands for the whole image
          → + where each patch lies                       position embeddings
          → layers:  x = x + scale1 * attention(norm(x))
                     x = x + scale2 * mlp(norm(x))

``scale1`` and ``scale2`` are one learned number a channel ("LayerScale", Touvron et al., arXiv:2103.17239): training
begins with layers that do nearly nothing, so that deep networks stay stable.  It learned without labels, by giving two
views of one image the same CLS vector, which makes the cosine between CLS vectors a measure of likeness.

    Dinov2Config           the part of a config.json that shapes the network
    Embeddings             image → tokens
    Layer                  the two lines above
    Dinov2                 all of it: image → normalised tokens

RAD-DINO (Pérez-García et al., "Exploring scalable medical image encoders beyond text supervision", 2025,
arXiv:2401.10815) is this network as ViT-B/14 (12 layers, 768 channels), trained on chest X-rays of 518 x 518 pixels,
which are 37 x 37 patches.  Parameter names and results equal Hugging Face's ``Dinov2Model``, so that its published
weights load (:func:`weights_from_torch`).  For inference: there is no dropout, and no mask token.

References: Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision" (2023), arXiv:2304.07193;
Dosovitskiy et al., "An Image is Worth 16x16 Words" (2020), arXiv:2010.11929.

Shapes in the comments: B images of L = 1 + patches tokens, H heads of width D, C = H D = hidden_size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
import paddle
import pydantic
from paddle import Tensor, nn
from paddle.nn import functional as F

from paddle_cxr.models.torch_layout import linear_transposed

Width = Annotated[int, pydantic.Field(ge=1, le=2**16)]
Pixels = Annotated[int, pydantic.Field(ge=1, le=4096)]


class Dinov2Config(pydantic.BaseModel, frozen=True, extra="ignore"):
    """The keys of a Hugging Face ``config.json`` that shape the network, with the defaults they have there.

    The limits are far above any published model: they keep a damaged or hostile file from asking for endless work.

    Raises:
        pydantic.ValidationError: a value that no network of this kind can be built from.
    """

    hidden_size: Width = 768
    num_hidden_layers: int = pydantic.Field(default=12, ge=1, le=1000)
    num_attention_heads: Width = 12
    mlp_ratio: int = pydantic.Field(default=4, ge=1, le=64)
    hidden_act: Literal["gelu"] = "gelu"
    layer_norm_eps: pydantic.FiniteFloat = pydantic.Field(default=1e-6, gt=0)
    image_size: Pixels = 224  # of the position embeddings; other sizes are interpolated
    patch_size: Pixels = 14
    num_channels: int = pydantic.Field(default=3, ge=1, le=16)
    qkv_bias: bool = True
    use_swiglu_ffn: Literal[False] = False  # only the giant DINOv2 has another kind of MLP

    @pydantic.model_validator(mode="after")
    def _fitting(self) -> Dinov2Config:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("hidden_size must be a multiple of num_attention_heads")
        if self.patch_size > self.image_size:
            raise ValueError("patch_size must not exceed image_size")
        return self

    @property
    def grid(self) -> int:
        """Patches along a side of an image of ``image_size``."""
        return self.image_size // self.patch_size


class PatchEmbeddings(nn.Layer):
    """Each patch's pixels → a vector: a linear layer, written as a convolution that steps from patch to patch."""

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        self.projection = nn.Conv2D(config.num_channels, config.hidden_size, config.patch_size,
                                    stride=config.patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """[B, num_channels, height, width] → [B, C, height // patch, width // patch]."""
        return self.projection(x)


class Embeddings(nn.Layer):
    """Image → tokens that know their place."""

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        self.config = config
        width, zero = config.hidden_size, nn.initializer.Constant(0.0)
        self.cls_token = self.create_parameter([1, 1, width], default_initializer=zero)
        self.position_embeddings = self.create_parameter([1, 1 + config.grid**2, width], default_initializer=zero)
        self.patch_embeddings = PatchEmbeddings(config)

    def forward(self, x: Tensor) -> Tensor:
        """[B, num_channels, height, width] → [B, L, C], the CLS token first, then patches row by row."""
        patches = self.patch_embeddings(x)  # [B, C, rows, columns]
        rows, columns = patches.shape[2:]
        cls = self.cls_token.expand([x.shape[0], 1, self.config.hidden_size])
        tokens = paddle.concat([cls, patches.flatten(2).transpose([0, 2, 1])], axis=1)
        return tokens + self.positions(rows, columns)

    def positions(self, rows: int, columns: int) -> Tensor:
        """The position embeddings for a grid of any size: [1, 1 + rows * columns, C], bicubic as in the original."""
        side = self.config.grid
        if (rows, columns) == (side, side):
            return self.position_embeddings
        cls, patches = self.position_embeddings[:, :1], self.position_embeddings[:, 1:]
        picture = patches.reshape([1, side, side, -1]).transpose([0, 3, 1, 2])
        picture = F.interpolate(picture, [rows, columns], mode="bicubic", align_corners=False)
        return paddle.concat([cls, picture.flatten(2).transpose([0, 2, 1])], axis=1)


class SelfAttention(nn.Layer):
    """Multi-head attention: every token gathers from all tokens what its query finds in their keys."""

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        width, bias = config.hidden_size, None if config.qkv_bias else False
        self.heads = config.num_attention_heads
        self.query = nn.Linear(width, width, bias_attr=bias)
        self.key = nn.Linear(width, width, bias_attr=bias)
        self.value = nn.Linear(width, width, bias_attr=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, C] → [B, L, C]."""
        q, k, v = (layer(x).reshape([*x.shape[:2], self.heads, -1]).transpose([0, 2, 1, 3])
                   for layer in (self.query, self.key, self.value))  # [B, H, L, D]
        # The query is scaled and not the scores: they are L / D times as many numbers.
        scores = paddle.matmul(q / math.sqrt(q.shape[-1]), k, transpose_y=True)  # [B, H, L, L]
        return paddle.matmul(F.softmax(scores, axis=-1), v).transpose([0, 2, 1, 3]).flatten(2)


class AttentionOutput(nn.Layer):
    """Mixes the heads."""

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, C] → [B, L, C]."""
        return self.dense(x)


class Attention(nn.Layer):
    """Attention and what ends it; the names are those of the published weights."""

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.output = AttentionOutput(config)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, C] → [B, L, C]."""
        return self.output(self.attention(x))


class LayerScale(nn.Layer):
    """One learned factor a channel."""

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        self.lambda1 = self.create_parameter([config.hidden_size], default_initializer=nn.initializer.Constant(1.0))

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, C] → [B, L, C]."""
        return x * self.lambda1


class MLP(nn.Layer):
    """Two linear layers, each token by itself."""

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        inner = config.hidden_size * config.mlp_ratio
        self.fc1 = nn.Linear(config.hidden_size, inner)
        self.fc2 = nn.Linear(inner, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, C] → [B, L, C]."""
        return self.fc2(F.gelu(self.fc1(x)))


class Layer(nn.Layer):
    """One layer of the encoder."""

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.attention = Attention(config)
        self.layer_scale1 = LayerScale(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = MLP(config)
        self.layer_scale2 = LayerScale(config)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, C] → [B, L, C]."""
        x = x + self.layer_scale1(self.attention(self.norm1(x)))
        return x + self.layer_scale2(self.mlp(self.norm2(x)))


class Encoder(nn.Layer):
    """The layers, one after another."""

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        self.layer = nn.LayerList([Layer(config) for _ in range(config.num_hidden_layers)])

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, C] → [B, L, C]."""
        for layer in self.layer:
            x = layer(x)
        return x


class Dinov2(nn.Layer):
    """The encoder.

    Args:
        config: the shape of the network.
    """

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Images → tokens.

        Args:
            x: float32 [B, num_channels, height, width], normalised; height and width ≥ patch_size, where pixels beyond
                the last whole patch are not looked at.

        Returns:
            float32 [B, 1 + patches, C]: the CLS token, which is the image's embedding, then the patches row by row.
        """
        return self.layernorm(self.encoder(self.embeddings(x)))


def weights_from_torch(model: nn.Layer, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``state``, as PyTorch saved it, in Paddle's layout: a linear layer's weight is [inputs, outputs] here.

    The mask token, which stands for hidden patches in training, is left out.
    """
    return {name: value for name, value in linear_transposed(model, state).items()
            if name != "embeddings.mask_token"}
