"""Building the recipe's model, with its starting weights."""

from __future__ import annotations

import paddle

from paddle_cxr.download import resolve_pretrained
from paddle_cxr.errors import UserError
from paddle_cxr.registry import build
from paddle_cxr.schema import Recipe
from paddle_cxr.weights import apply_weights, load_weights


def build_model(recipe: Recipe, *, load_start: bool = True) -> tuple[paddle.nn.Layer, list[str]]:
    """Build ``Arch`` for the recipe's classes and channels.

    Args:
        recipe: the checked recipe.
        load_start: load ``Arch.pretrained``: true (ImageNet), a checkpoint to fine-tune, or a URL with its checksum.

    Returns:
        The model, and notices for the user (such as: the head was made anew).
    """
    sizes = {"class_num": len(recipe.Global.classes), "in_channels": recipe.Global.image_shape[0]}
    model = build("arch", recipe.Arch | sizes, "Arch")
    if not load_start:
        return model, []
    start = resolve_pretrained(recipe.Arch.get("pretrained", False), recipe.Arch["name"])
    if start is None:
        return model, []
    state, meta = load_weights(start)
    notices = apply_weights(model, state, meta, path=start, allow_head_mismatch=True)
    return model, [f"起始权重：{start}", *notices]


def freeze(model: paddle.nn.Layer, prefixes: list[str]) -> None:
    """Stop training the parameters under ``prefixes``; raises :class:`UserError` for a prefix that matches none."""
    for i, prefix in enumerate(prefixes):
        chosen = [p for name, p in model.named_parameters() if name == prefix or name.startswith(prefix + ".")]
        if not chosen:
            parts = list(dict.fromkeys(name.split(".")[0] for name, _ in model.named_parameters()))
            raise UserError(f"Global.freeze.{i}：模型里没有以 {prefix!r} 开头的参数（有：{'、'.join(parts)}）")
        for parameter in chosen:
            parameter.stop_gradient = True
