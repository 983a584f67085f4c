"""Building the recipe's model, with its starting weights."""

from __future__ import annotations

from typing import Any

import paddle

from paddle_cxr.download import resolve_pretrained
from paddle_cxr.errors import UserError
from paddle_cxr.registry import build
from paddle_cxr.schema import Recipe
from paddle_cxr.weights import apply_weights, load_weights

IMAGE_TOWER = "image_encoder."
"""What the names of a pre-trained image tower's tensors start with."""


def build_model(recipe: Recipe, *, load_start: bool = True) -> tuple[paddle.nn.Layer, list[str]]:
    """Build ``Arch`` for the recipe's classes and channels.

    Args:
        recipe: the checked recipe.
        load_start: load ``Arch.pretrained``: true (ImageNet), a checkpoint to fine-tune (a classifier's, or a
            pre-training run's, of which the image tower is taken), or a URL with its checksum.

    Returns:
        The model, and notices for the user (such as: the head was made anew).
    """
    sizes = {"class_num": len(recipe.Global.classes), "in_channels": recipe.Global.image_shape[0]}
    return _build(recipe.Arch | sizes, "Arch", load_start)


def build_backbone(spec: dict[str, Any], channels: int, path: str, *, load_start: bool = True
                   ) -> tuple[paddle.nn.Layer, list[str]]:
    """Build a network without a classification head; arguments and result as of :func:`build_model`.

    Args:
        spec: the component, e.g. ``{name: ResNet50, pretrained: true}``.
        channels: of the images.
        path: YAML path of ``spec``.
    """
    model, notices = _build(spec | {"class_num": 0, "in_channels": channels}, path, load_start)
    if not hasattr(model, "forward_features"):
        raise UserError(f"{path}.name：{spec.get('name')} 不能作图像塔；请用 ResNet18…ResNet152")
    return model, notices


def _build(spec: dict[str, Any], path: str, load_start: bool) -> tuple[paddle.nn.Layer, list[str]]:
    model = build("arch", spec, path)
    start = resolve_pretrained(spec.get("pretrained", False), spec["name"]) if load_start else None
    if start is None:
        return model, []
    state, meta = load_weights(start)
    if any(name.startswith(IMAGE_TOWER) for name in state):
        state = {name.removeprefix(IMAGE_TOWER): value for name, value in state.items()
                 if name.startswith(IMAGE_TOWER)}
        meta = {"architecture": meta.get("image_encoder")}
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
