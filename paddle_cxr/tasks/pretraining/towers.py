"""Building the model of a pre-training recipe, and the folder that holds a trained one.

    model.safetensors, model.json    both towers and heads: names start with image_encoder., text_encoder. …
    text/                            the text tower's configuration and vocabulary
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddle_cxr.errors import UserError
from paddle_cxr.models.convirt import ConVIRT
from paddle_cxr.models.gloria import GLoRIA
from paddle_cxr.models.text_encoder import (
    ReportTokenizer,
    TextEncoder,
    build_text_encoder,
    load_text_encoder,
    save_text_encoder,
)
from paddle_cxr.tasks.models import build_backbone
from paddle_cxr.tasks.pretraining.schema import OWN_KEYS, PretrainingArch, TextTowerSection
from paddle_cxr.weights import apply_weights, load_weights

if TYPE_CHECKING:
    import paddle

METHODS = {"ConVIRT": ConVIRT, "GLoRIA": GLoRIA}
TEXT = "text"


def build_towers(arch: PretrainingArch, channels: int, texts: Sequence[str], load_start: bool = True
                 ) -> tuple[paddle.nn.Layer, ReportTokenizer, list[str]]:
    """The recipe's model with its starting weights.

    Args:
        arch: the recipe's ``Arch``.
        channels: of the images.
        texts: training texts, from which a fresh text tower's vocabulary is made.
        load_start: load the image tower's starting weights.

    Returns:
        The model, its tokenizer, and notices for the user.

    Raises:
        UserError: what a component or a weight file has to say.
    """
    image, notices = build_backbone(arch.image, channels, "Arch.image", load_start=load_start)
    text, tokenizer = _text_tower(arch.text, texts)
    return assemble(arch, image, text), tokenizer, notices


def _text_tower(section: TextTowerSection, texts: Sequence[str]) -> tuple[TextEncoder, ReportTokenizer]:
    if section.folder:
        text, tokenizer = load_text_encoder(section.folder, section.max_tokens)
    else:
        config = section.model_dump(exclude={"folder", "max_tokens", "frozen_layers"})
        text, tokenizer = build_text_encoder(config, texts, section.max_tokens)
    if section.frozen_layers is not None:
        text.freeze_layers(section.frozen_layers)
    return text, tokenizer


def assemble(arch: PretrainingArch, image: paddle.nn.Layer, text: TextEncoder) -> paddle.nn.Layer:
    """Put two towers together as the recipe says."""
    arguments: dict[str, Any] = {key: getattr(arch, key) for key in OWN_KEYS[arch.name]}
    if arch.dim is not None:
        arguments["dim"] = arch.dim
    return METHODS[arch.name](image, text, **arguments)


def vocabulary_of(tokenizer: ReportTokenizer) -> str:
    """Names a vocabulary, to refuse weights that were trained with another: 16 hex digits."""
    return hashlib.sha256("\n".join(tokenizer.tokens).encode()).hexdigest()[:16]


def check_vocabulary(meta: dict[str, Any], tokenizer: ReportTokenizer, path: Path) -> None:
    """Refuse weights whose words had other numbers; raises :class:`UserError`."""
    recorded = meta.get("vocabulary")
    if recorded and recorded != vocabulary_of(tokenizer):
        raise UserError(f"{path}：训练时的词表（vocabulary）与现在的不同，词的编号对不上；"
                        "请用训练时的数据和 Arch.text，或用 -o Global.resume=false 从头训练")


def save_text_tower(folder: Path, model: paddle.nn.Layer, tokenizer: ReportTokenizer) -> None:
    """Write the text tower's configuration and vocabulary beside the weights, which hold both towers."""
    save_text_encoder(folder / TEXT, model.text_encoder, tokenizer, weights=False)


def read_trained(arch: PretrainingArch, channels: int, folder: Path) -> tuple[paddle.nn.Layer, ReportTokenizer]:
    """A trained model, in evaluation mode, and its tokenizer from the folder ``model`` of a run.

    Raises:
        UserError: no such folder, weights of another method or image tower, damaged files.
    """
    if not (folder / TEXT).is_dir():
        raise UserError(f"找不到预训练模型 {folder}（应有 model.safetensors、model.json 和 {TEXT}/）；请先训练，"
                        "或用 -o Global.checkpoint=… 指定一次训练的 model 文件夹")
    state, meta = load_weights(folder)
    text, tokenizer = load_text_encoder(folder / TEXT, arch.text.max_tokens, weights=False)
    check_vocabulary(meta, tokenizer, folder)
    image, _ = build_backbone(arch.image, channels, "Arch.image", load_start=False)
    model = assemble(arch, image, text)
    apply_weights(model, state, meta, path=folder)
    model.eval()
    return model, tokenizer
