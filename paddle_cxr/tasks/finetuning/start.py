"""Where fine-tuning starts: a trained model of this project, ImageNet weights, or nothing.

``Model.checkpoint`` names the output folder of a run as the user knows it; what it holds says which network to build
and how images are prepared for it, so a recipe need not repeat that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from pydantic import ValidationError

from paddle_cxr.download import resolve_pretrained
from paddle_cxr.engine import checkpoint
from paddle_cxr.errors import UserError
from paddle_cxr.recipe import check_image_rules
from paddle_cxr.registry import build, find
from paddle_cxr.schema import PreprocessSection
from paddle_cxr.tasks.finetuning.schema import FinetuningRecipe
from paddle_cxr.tasks.models import IMAGE_TOWER
from paddle_cxr.weights import TENSORS, apply_weights, load_weights

MODEL = "model"


def settle(recipe: FinetuningRecipe) -> None:
    """Fill in what the recipe leaves to the starting point: network, image size and pre-processing.

    Called again it changes nothing.

    Raises:
        UserError: no starting point there, or one of another network, or one that does not say what it is.
    """
    path, model, settings = recipe.Model.checkpoint, recipe.Model, recipe.Global
    if isinstance(path, str):
        weights = weights_of(path)
        meta = load_weights(weights)[1]
        recorded = meta.get("image_encoder") or meta.get("architecture")
        if model.arch and recorded and model.arch != recorded:
            raise UserError(f"Model.arch：是 {model.arch}，而 {weights} 是 {recorded} 的权重；"
                            "请删去 Model.arch，或换起点")
        model.arch = model.arch or _known(recorded, "Model.arch", "网络，例如 ResNet50", weights)
        if settings.image_shape is None:
            settings.image_shape = _shape(_known(meta.get("image_shape"), "Global.image_shape",
                                                 "输入大小，例如 [1, 224, 224]", weights), weights)
        if recipe.DataLoader.preprocess is None and meta.get("preprocess"):
            recipe.DataLoader.preprocess = recorded_preprocess(meta, weights)
    recipe.DataLoader.preprocess = recipe.DataLoader.preprocess or PreprocessSection()
    check_image_rules(settings.image_shape, recipe.DataLoader.preprocess)
    find("arch", model.arch, "Model.arch")


def _known(value: Any, key: str, what: str, weights: Path) -> Any:
    if not value:
        raise UserError(f"{key}：{weights} 旁没有写明（model.json）；请在配方里写{what}")
    return value


def _shape(value: Any, weights: Path) -> tuple[int, int, int]:
    if not (isinstance(value, list) and len(value) == 3 and all(type(side) is int for side in value)):
        raise UserError(f"{weights} 的 model.json 损坏：image_shape 是 {value!r}；请换一个检查点（checkpoint）")
    return value[0], value[1], value[2]


def recorded_preprocess(meta: Mapping[str, Any], weights: Path) -> PreprocessSection:
    """How images are prepared for a trained model; raises :class:`UserError` where its record is damaged."""
    try:
        return PreprocessSection.model_validate({key: value for key, value in meta["preprocess"].items()
                                                 if key in PreprocessSection.model_fields and value is not None})
    except (AttributeError, ValidationError):
        raise UserError(f"{weights} 的 model.json 损坏：preprocess 不可用；请换一个检查点（checkpoint）") from None


def weights_of(path: str | Path) -> Path:
    """The weights that a path means: a run's output folder, a folder with weights, or a file.

    Raises:
        UserError: there are none; says which command makes them where a recipe of that name is there.
    """
    path = Path(path)
    found = [path / MODEL, checkpoint.find(path / "checkpoints/best"), checkpoint.find(path / "checkpoints/latest"),
             path]
    for one in found:
        if one is not None and (one / TENSORS).is_file():
            return one
    if path.is_file():
        return path
    made = f"先运行 python tools/train.py -c {recipe_for(path)} 得到它" if recipe_for(path) else "请先训练"
    what = f"{path} 里的权重（它还没有训练完？）" if path.exists() else path
    raise UserError(f"Model.checkpoint：找不到 {what}；{made}，"
                    "或用 -o Model.checkpoint=… 指定别的起点（true：ImageNet；null：随机初值）")


def recipe_for(path: Path) -> Path | None:
    """The recipe that writes to ``path``: by custom the one of the same name."""
    for part in reversed(path.parts):
        file = Path("configs") / f"{part}.yaml"
        if file.is_file():
            return file
    return None


def build_classifier(recipe: FinetuningRecipe, findings: int, load_start: bool = True
                     ) -> tuple[paddle.nn.Layer, list[str]]:
    """The network with one logit a finding: its tower from the starting point, its last layer new.

    Args:
        recipe: settled (:func:`settle`).
        findings: K.
        load_start: load the starting weights.

    Returns:
        The model, images ``[N, C, H, W]`` → logits ``[N, K]``, and notices for the user.
    """
    spec = {"name": recipe.Model.arch, "class_num": findings, "in_channels": recipe.Global.image_shape[0]}
    model = build("arch", spec, "Model.arch")
    if not hasattr(model, "forward_features"):
        raise UserError(f"Model.arch：{recipe.Model.arch} 不能微调；请用 ResNet18…ResNet152")
    start = recipe.Model.checkpoint
    if not load_start:
        return model, []
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
