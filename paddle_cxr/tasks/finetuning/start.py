"""Where fine-tuning starts: a trained model of this project, ImageNet weights, or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import paddle

from paddle_cxr.download import resolve_pretrained
from paddle_cxr.errors import UserError
from paddle_cxr.recipe import check_image_rules
from paddle_cxr.registry import build, find
from paddle_cxr.schema import PreprocessSection
from paddle_cxr.tasks.finetuning.schema import FinetuningRecipe
from paddle_cxr.tasks.models import IMAGE_TOWER
from paddle_cxr.tasks.start import recorded_shape, take_preprocess, weights_of
from paddle_cxr.weights import apply_weights, load_weights


def settle(recipe: FinetuningRecipe) -> list[str]:
    """Fill in what the recipe leaves to the starting point: network, image size and pre-processing.

    Called again it changes nothing.

    Returns:
        Notices for the user.

    Raises:
        UserError: no starting point there, or one of another network, or one that does not say what it is.
    """
    path, model, settings, section = recipe.Model.checkpoint, recipe.Model, recipe.Global, recipe.DataLoader
    notices = []
    if isinstance(path, str):
        weights = weights_of(path)
        meta = load_weights(weights)[1]
        recorded = meta.get("image_encoder") or meta.get("architecture")
        if model.arch and recorded and model.arch != recorded:
            raise UserError(f"Model.arch：是 {model.arch}，而 {weights} 是 {recorded} 的权重；"
                            "请删去 Model.arch，或换起点")
        if not (model.arch or recorded):
            raise UserError(f"Model.arch：{weights} 旁没有写明（model.json）；请在配方里写网络，例如 ResNet50")
        model.arch = model.arch or recorded
        if settings.image_shape is None:
            settings.image_shape = recorded_shape(meta, weights)
        probe = recipe.Finetune.mode == "linear_probe"
        notices = take_preprocess(section, meta, weights, "图像塔" if probe else None)
    section.preprocess = section.preprocess or PreprocessSection()
    check_image_rules(settings.image_shape, section.preprocess)
    find("arch", model.arch, "Model.arch")
    return notices


def build_classifier(recipe: FinetuningRecipe, findings: int) -> tuple[paddle.nn.Layer, list[str]]:
    """The network with one logit a finding: its tower from the starting point, its last layer new.

    Args:
        recipe: settled (:func:`settle`).
        findings: K.

    Returns:
        The model, images ``[N, C, H, W]`` → logits ``[N, K]``, and notices for the user.
    """
    spec = {"name": recipe.Model.arch, "class_num": findings, "in_channels": recipe.Global.image_shape[0]}
    model = build("arch", spec, "Model.arch")
    if not hasattr(model, "forward_features"):
        raise UserError(f"Model.arch：{recipe.Model.arch} 不能微调；请用 ResNet18…ResNet152")
    start = recipe.Model.checkpoint
    if not start:
        return model, ["起点：随机初值（Model.checkpoint: null）"]
    weights = weights_of(start) if isinstance(start, str) else resolve_pretrained(True, recipe.Model.arch)
    state, meta = load_weights(weights)
    if any(name.startswith(IMAGE_TOWER) for name in state):
        state = {name.removeprefix(IMAGE_TOWER): value for name, value in state.items()
                 if name.startswith(IMAGE_TOWER)}
        meta = {"architecture": meta.get("image_encoder")}
    # Even one of the right size belongs to other classes or findings.
    state = {name: value for name, value in state.items() if not name.startswith(f"{model.head}.")}
    notices = apply_weights(model, state, meta, path=weights, allow_head_mismatch=True)
    return model, [f"起点：{weights}", *notices]


def digest_of(state: Mapping[str, np.ndarray]) -> str:
    """Names weights, 16 hex digits of a SHA-256."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {state[name].shape} {state[name].dtype}".encode())
        digest.update(np.ascontiguousarray(state[name]).tobytes())
    return digest.hexdigest()[:16]
