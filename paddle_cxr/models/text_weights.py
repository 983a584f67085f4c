"""The weights of a published BERT, ELECTRA or ERNIE: which file, whose names, and what in it is the text tower.

Hugging Face saves a network in PyTorch's layout under names of its own, PaddleNLP in Paddle's; either may come with the
heads it was pre-trained with, and ELECTRA and ERNIE-Health with a second, smaller network, their generator.  Here each
becomes the tensors of :class:`paddle_cxr.models.text_encoder.TextEncoder`, no more and no less.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from paddle import nn

from paddle_cxr.errors import UserError
from paddle_cxr.models.shards import shards_of
from paddle_cxr.models.torch_layout import linear_transposed
from paddle_cxr.pdparams import read_pdparams
from paddle_cxr.torch_bin import read_torch_bin
from paddle_cxr.weights import read_safetensors

TENSORS, INDEX, PADDLE, TORCH = ("model.safetensors", "model.safetensors.index.json", "model_state.pdparams",
                                 "pytorch_model.bin")
_READERS = {".safetensors": lambda file: read_safetensors(file)[0], ".pdparams": read_pdparams, ".bin": read_torch_bin}

_WORDS = "embeddings.word_embeddings.weight"
# Left out: it is for whole-sentence tasks. Constants that old releases saved. (Other heads stand beside the tower.)
_NOT_OURS = ("pooler.", "embeddings.position_ids", "embeddings.token_type_ids")
# Hugging Face's names and PaddleNLP's. The order matters on the way from the left to the right.
_NAMES = (("embeddings.LayerNorm.", "embeddings.layer_norm."), ("encoder.layer.", "encoder.layers."),
          (".attention.self.query.", ".self_attn.q_proj."), (".attention.self.key.", ".self_attn.k_proj."),
          (".attention.self.value.", ".self_attn.v_proj."), (".attention.output.dense.", ".self_attn.out_proj."),
          (".attention.output.LayerNorm.", ".norm1."), (".intermediate.dense.", ".linear1."),
          (".output.dense.", ".linear2."), (".output.LayerNorm.", ".norm2."))


class TowerWeights(NamedTuple):
    """The tensors of a text tower, and where they came from.

    Attributes:
        state: by name as in the file, without what stands before ``embeddings`` and ``encoder``.
        file: the (first) file.
        from_torch: names and layout are Hugging Face's, not Paddle's.
    """

    state: dict[str, np.ndarray]
    file: Path
    from_torch: bool


def read_tower_weights(folder: Path) -> TowerWeights:
    """Read the weights in ``folder``, running nothing.

    Raises:
        UserError: none, a damaged file, one that wants to run something, or not one text tower in it.
    """
    files = weight_files(folder)
    state: dict[str, np.ndarray] = {}
    for file in files:
        state |= _READERS[file.suffix](file)
    tower = _tower(state, files[0])
    return TowerWeights(tower, files[0], any(name.startswith("encoder.layer.") for name in tower))


def weight_files(folder: Path) -> list[Path]:
    """The weights of a model's folder, one file or shards; raises :class:`UserError` where there are none."""
    for name in (TENSORS, INDEX, PADDLE, TORCH):
        if (folder / name).is_file():
            return shards_of(folder / name) if name == INDEX else [folder / name]
    raise UserError(f"模型文件夹不完整：{folder} 里没有权重（{TENSORS}、{PADDLE} 或 {TORCH}）；请重新下载整个文件夹")


def _tower(state: Mapping[str, np.ndarray], file: Path) -> dict[str, np.ndarray]:
    """The tensors of the text tower alone, under names that begin with ``embeddings`` or ``encoder``."""
    prefixes = [name[:-len(_WORDS)] for name in state if name == _WORDS or name.endswith(f".{_WORDS}")]
    # The discriminator is ELECTRA; the generator beside it only made its exercises.
    chosen = [prefix for prefix in prefixes if prefix.startswith("discriminator.")] or prefixes
    if len(chosen) != 1:
        raise UserError(f"{file} 里应有一个文本编码器（{_WORDS}），找到 {len(chosen)} 个；"
                        "请换成 BERT、ELECTRA 或 ERNIE 的权重")
    start = chosen[0]
    own = {name[len(start):]: value for name, value in state.items() if name.startswith(start)}
    return {name: value for name, value in own.items() if not name.startswith(_NOT_OURS)}


def to_paddle(encoder: nn.Layer, weights: TowerWeights) -> dict[str, np.ndarray]:
    """The tensors of a tower under the names, and in the layout and type, of ``encoder``."""
    state = weights.state
    if weights.from_torch:
        state = linear_transposed(encoder, {_replace(_modern(name), _NAMES): value for name, value in state.items()})
    return {name: value.astype(np.float32, copy=False) for name, value in state.items()}


def to_torch(encoder: nn.Layer) -> dict[str, np.ndarray]:
    """The tensors of ``encoder`` under Hugging Face's names, in PyTorch's layout."""
    state = linear_transposed(encoder, {name: value.numpy() for name, value in encoder.state_dict().items()})
    return {_replace(name, [(ours, theirs) for theirs, ours in _NAMES]): value for name, value in state.items()}


def _modern(name: str) -> str:
    """A name as it is written since 2019; bert-base-uncased still has the older one."""
    return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))


def _replace(name: str, pairs: tuple[tuple[str, str], ...] | list[tuple[str, str]]) -> str:
    for old, new in pairs:
        name = name.replace(old, new)
    return name
