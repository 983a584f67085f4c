"""DeBERTa-v2: a text encoder that reads what a word is and how far away it stands as two separate things.

BERT adds the position of a word to its embedding.  DeBERTa keeps them apart ("disentangled"): words are vectors, and
so are *distances* between words, and the attention of word i to word j is a sum of three products,

    score(i, j) = (  q(word i) · k(word j)              what looks for what
                   + q(word i) · k(distance i - j)      what looks how far          "c2p", content to position
                   + k(word j) · q(distance i - j)      who is found from how far   "p2c", position to content
                  ) / sqrt(3 d)

with d the width of a head; 3 is the number of products and falls with those the configuration leaves out.  "No" three
words before "effusion" so acts alike wherever the two stand, which is what finding negations needs.

    DebertaConfig                   the part of a config.json that shapes the network
    relative_position               distances → rows of the distance table, far ones sharing a row ("buckets")
    DisentangledSelfAttention       the sum above
    DebertaLayer                    attention and a two-layer network, each added to its input and normalised
    DebertaForTokenClassification   embeddings, layers, and one linear layer: a label for every token

Reference: He et al., "DeBERTa: Decoding-enhanced BERT with Disentangled Attention" (2020), arXiv:2006.03654.  Parameter
names and results equal Hugging Face's ``DebertaV2ForTokenClassification``, so that its published weights load
(:func:`weights_from_torch`).  For inference: there is no dropout.

Shapes in the comments: B sequences of L tokens, H heads of width D, C = H D = hidden_size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import paddle
import pydantic
from paddle import Tensor, nn
from paddle.nn import functional as F

from paddle_cxr.models.torch_layout import linear_transposed

Count = Annotated[int, pydantic.Field(ge=1, le=2**24)]
Activation = Literal["gelu", "gelu_new", "relu", "tanh"]

_ACTIVATIONS = {"gelu": F.gelu, "gelu_new": lambda x: F.gelu(x, approximate=True), "relu": F.relu, "tanh": F.tanh}


class DebertaConfig(pydantic.BaseModel, frozen=True, extra="ignore"):
    """The keys of a Hugging Face ``config.json`` that shape the network, with the defaults they have there.

    The limits are far above any published model: they keep a damaged or hostile file from asking for endless work.

    Raises:
        pydantic.ValidationError: a key is missing, or has a value that no network can be built from.
    """

    vocab_size: Count
    hidden_size: Count
    num_hidden_layers: int = pydantic.Field(ge=1, le=1000)
    num_attention_heads: Count
    intermediate_size: Count
    hidden_act: Activation = "gelu"
    layer_norm_eps: float = pydantic.Field(default=1e-7, gt=0)
    max_position_embeddings: int = pydantic.Field(default=512, ge=3, le=32768)
    type_vocab_size: int = pydantic.Field(default=0, ge=0, le=2**24)
    pad_token_id: int | None = pydantic.Field(default=0, ge=0)  # None: 0
    embedding_size: Count | None = None  # None: hidden_size
    position_biased_input: bool = True  # positions are added to the embeddings too, as in BERT
    relative_attention: bool = False
    pos_att_type: tuple[Literal["c2p", "p2c"], ...] = ()
    share_att_key: bool = False  # distances go through the same projections as words
    position_buckets: int = -1  # rows of the distance table for each direction; < 1: one for each distance
    max_relative_positions: int = pydantic.Field(default=-1, le=32768)  # < 1: max_position_embeddings
    norm_rel_ebd: Literal["none", "layer_norm"] = "none"
    conv_kernel_size: int = pydantic.Field(default=0, ge=0, le=99)  # > 0: a convolution beside the first layer
    conv_groups: Count = 1
    conv_act: Activation = "tanh"

    @pydantic.field_validator("pos_att_type", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """``"p2c|c2p"``, as older files write it, and null."""
        parts = [part.strip() for part in value.lower().split("|")] if isinstance(value, str) else value or ()
        return tuple(part for part in parts if part not in ("", "none"))

    @pydantic.model_validator(mode="after")
    def _fitting(self) -> DebertaConfig:
        for key in ("num_attention_heads", "conv_groups"):
            if self.hidden_size % getattr(self, key):
                raise ValueError(f"hidden_size must be a multiple of {key}")
        if self.conv_kernel_size and self.conv_kernel_size % 2 == 0:
            raise ValueError("conv_kernel_size must be odd")  # an even one would change the number of tokens
        if (self.pad_token_id or 0) >= self.vocab_size:
            raise ValueError("pad_token_id must be less than vocab_size")
        if self.position_buckets > 0 and not 1 <= self.position_buckets // 2 <= self.reach - 2:
            raise ValueError("position_buckets must be between 2 and twice the number of positions")
        return self

    @property
    def reach(self) -> int:
        """Distances beyond this many tokens are all alike."""
        return self.max_relative_positions if self.max_relative_positions > 0 else self.max_position_embeddings

    @property
    def span(self) -> int:
        """Rows of the distance table for each direction; distance 0 is row ``span``."""
        return self.position_buckets if self.position_buckets > 0 else self.reach


def relative_position(distance: np.ndarray, config: DebertaConfig) -> np.ndarray:
    """Row of the distance table for each signed distance (query position minus key position).

    With buckets, the nearest ``position_buckets / 2`` distances have a row each and the further ones share rows, the
    more the further they are (logarithmically): whether a word stands 200 or 210 tokens away makes no difference.

    Args:
        distance: integers, any shape.

    Returns:
        int64 of the same shape, 0 … 2 * span - 1.
    """
    position = distance.astype(np.int64)
    middle, reach = config.position_buckets // 2, config.reach
    if config.position_buckets > 0:
        # Single precision and this order of operations, as in the original: a bucket's border must not move.
        size = np.maximum(np.abs(distance), middle).astype(np.float32) / np.float32(middle)
        scale = np.log(np.float32((reach - 1) / middle))
        log = np.ceil(np.log(size) / scale * np.float32(middle - 1)) + middle
        position = np.where(np.abs(distance) <= middle, position, (log * np.sign(distance)).astype(np.int64))
    return np.clip(position + config.span, 0, 2 * config.span - 1)


class DisentangledSelfAttention(nn.Layer):
    """Multi-head attention with relative positions (paper, section 3.1)."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.query_proj = nn.Linear(width, width)
        self.key_proj = nn.Linear(width, width)
        self.value_proj = nn.Linear(width, width)
        self.c2p = config.relative_attention and "c2p" in config.pos_att_type
        self.p2c = config.relative_attention and "p2c" in config.pos_att_type
        if not config.share_att_key:
            if self.c2p:
                self.pos_key_proj = nn.Linear(width, width)
            if self.p2c:
                self.pos_query_proj = nn.Linear(width, width)
        self.scale = 1 / math.sqrt(width // config.num_attention_heads * (1 + len(set(config.pos_att_type))))

    def forward(self, x: Tensor, bias: Tensor, distances: Tensor | None) -> Tensor:
        """``x`` [B, L, C] → [B, L, C]; ``bias`` [B, 1, 1, L] is added to the scores of each key.

        ``distances``: embeddings [2 L, C] of the distances L-1, L-2 … -L, or None without relative attention.
        """
        q, k, v = (self.heads(layer(x)) for layer in (self.query_proj, self.key_proj, self.value_proj))  # [B, H, L, D]
        scores = paddle.matmul(q, k, transpose_y=True)  # [B, H, L, L]
        if self.c2p:
            layer = self.key_proj if self.config.share_att_key else self.pos_key_proj
            scores += by_distance(q, self.heads(layer(distances)))
        if self.p2c:
            layer = self.query_proj if self.config.share_att_key else self.pos_query_proj
            # Seen from the key the distances run the other way: 1-L … L-1, and one more that by_distance drops.
            table = self.heads(layer(distances)).flip(-2).roll(-1, -2)
            scores += by_distance(k, table).transpose([0, 1, 3, 2])
        weights = F.softmax(scores * self.scale + bias, axis=-1)
        return paddle.matmul(weights, v).transpose([0, 2, 1, 3]).flatten(2)

    def heads(self, x: Tensor) -> Tensor:
        """[…, L, C] → […, H, L, D]."""
        x = x.reshape([*x.shape[:-1], self.config.num_attention_heads, -1])
        return x.transpose([0, 2, 1, 3]) if x.ndim == 4 else x.transpose([1, 0, 2])


def by_distance(content: Tensor, table: Tensor) -> Tensor:
    """The products ``content[i] · table[L - 1 + j - i]`` for all i and j: [B, H, L, D], [H, 2 L, D] → [B, H, L, L].

    Row i of ``content @ table`` holds what it needs side by side, one place further left in each row.  Read as rows
    that are one shorter, every row starts one place further on, and what is needed stands below each other.  That moves
    no numbers about; gathering them one by one took five times as long at L = 256, and seventeen times at L = 64.
    """
    batch, heads, length, _ = content.shape
    products = paddle.matmul(content, table, transpose_y=True).flatten(2)  # [B, H, L * 2 L]
    rows = products[:, :, :length * (2 * length - 1)].reshape([batch, heads, length, 2 * length - 1])
    return rows[:, :, :, length - 1:]


class AddAndNorm(nn.Layer):
    """``LayerNorm(dense(x) + residual)``, which ends both halves of a layer."""

    def __init__(self, inputs: int, config: DebertaConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """[B, L, inputs], [B, L, C] → [B, L, C]."""
        return self.LayerNorm(self.dense(x) + residual)


class Attention(nn.Layer):
    """Attention and what ends it; the names are those of the published weights."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        self.self = DisentangledSelfAttention(config)
        self.output = AddAndNorm(config.hidden_size, config)

    def forward(self, x: Tensor, bias: Tensor, distances: Tensor | None) -> Tensor:
        """[B, L, C] → [B, L, C]."""
        return self.output(self.self(x, bias, distances), x)


class Intermediate(nn.Layer):
    """The widening half of the two-layer network."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = _ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, C] → [B, L, intermediate_size]."""
        return self.activation(self.dense(x))


class DebertaLayer(nn.Layer):
    """One layer of the encoder."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = AddAndNorm(config.intermediate_size, config)

    def forward(self, x: Tensor, bias: Tensor, distances: Tensor | None) -> Tensor:
        """[B, L, C] → [B, L, C]."""
        x = self.attention(x, bias, distances)
        return self.output(self.intermediate(x), x)


class Convolution(nn.Layer):
    """A convolution over neighbouring tokens beside the first layer, added to its result (the larger v2 models)."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        size = config.conv_kernel_size
        self.conv = nn.Conv1D(config.hidden_size, config.hidden_size, size, padding=(size - 1) // 2,
                              groups=config.conv_groups)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.activation = _ACTIVATIONS[config.conv_act]

    def forward(self, x: Tensor, layer_output: Tensor) -> Tensor:
        """Embeddings and output of the first layer, [B, L, C] both → [B, L, C]."""
        y = self.conv(x.transpose([0, 2, 1])).transpose([0, 2, 1])
        return self.LayerNorm(layer_output + self.activation(y))


class Embeddings(nn.Layer):
    """Token ids → vectors."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        size = config.embedding_size or config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, size) \
            if config.position_biased_input else None
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, size) if config.type_vocab_size else None
        self.embed_proj = None if size == config.hidden_size else nn.Linear(size, config.hidden_size, bias_attr=False)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """[B, L] int64, [B, L] of 0 and 1 → [B, L, C], zero where the mask is."""
        x = self.word_embeddings(ids)
        if self.position_embeddings is not None:
            x += self.position_embeddings.weight[:ids.shape[1]]
        if self.token_type_embeddings is not None:
            x += self.token_type_embeddings.weight[0]  # one text: all of it is the first segment
        x = x if self.embed_proj is None else self.embed_proj(x)
        return self.LayerNorm(x) * mask.unsqueeze(-1)


class Encoder(nn.Layer):
    """The layers, and the distance table they share."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        self.config = config
        self.layer = nn.LayerList([DebertaLayer(config) for _ in range(config.num_hidden_layers)])
        self.rel_embeddings = nn.Embedding(2 * config.span, config.hidden_size) if config.relative_attention else None
        if config.norm_rel_ebd == "layer_norm":
            self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.conv = Convolution(config) if config.conv_kernel_size else None

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, L, C], [B, L] → [B, L, C]; tokens under a zero of the mask are not attended to."""
        bias = (mask - 1).unsqueeze([1, 2]) * 1e9  # [B, 1, 1, L]: softmax gives exactly 0 to a score so low
        distances = self.distances(x.shape[1])
        embeddings = x
        for number, layer in enumerate(self.layer):
            x = layer(x, bias, distances)
            if number == 0 and self.conv is not None:
                x = self.conv(embeddings, x)
        return x

    def distances(self, length: int) -> Tensor | None:
        """Embeddings of the distances length - 1 … -length: [2 length, C]."""
        if self.rel_embeddings is None:
            return None
        rows = relative_position(np.arange(length - 1, -length - 1, -1), self.config)
        table = self.rel_embeddings(paddle.to_tensor(rows))
        return self.LayerNorm(table) if self.config.norm_rel_ebd == "layer_norm" else table


class Deberta(nn.Layer):
    """Embeddings and encoder."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """[B, L] int64, [B, L] float32 of 0 and 1 → [B, L, C]."""
        return self.encoder(self.embeddings(ids, mask), mask)


class DebertaForTokenClassification(nn.Layer):
    """A label for every token of a text.

    Args:
        config: the shape of the network.
        class_num: number of labels, ≥ 1.
    """

    def __init__(self, config: DebertaConfig, class_num: int) -> None:
        super().__init__()
        self.deberta = Deberta(config)
        self.classifier = nn.Linear(config.hidden_size, class_num)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids → logits.

        Args:
            ids: [B, L] int64, 0 … vocab_size - 1; L ≤ max_position_embeddings.
            mask: [B, L] float32, 1 for tokens and 0 for padding at the end.

        Returns:
            [B, L, class_num] float32, any real numbers; those of padding mean nothing.
        """
        return self.classifier(self.deberta(ids, mask))


def weights_from_torch(model: nn.Layer, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``state``, as PyTorch saved it, in Paddle's layout: a linear layer's weight is [inputs, outputs] here.

    Position numbers, which old versions saved like weights, are left out.
    """
    return {name: value for name, value in linear_transposed(model, state).items()
            if not name.endswith("embeddings.position_ids")}
