"""Building the model of a segmentation recipe with its starting weights, and opening a trained one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.errors import UserError
from paddle_cxr.models.paddleseg_model import PaddleSegModel
from paddle_cxr.models.unet import UNet
from paddle_cxr.pdparams import one_line
from paddle_cxr.recipe import check_image_rules
from paddle_cxr.schema import PreprocessSection, checked
from paddle_cxr.tasks.models import IMAGE_TOWER, build_backbone
from paddle_cxr.tasks.segmentation.schema import SegmentationArch, SegmentationRecipe
from paddle_cxr.tasks.start import recorded_preprocess, recorded_shape, take_preprocess, weights_of
from paddle_cxr.weights import apply_weights, load_weights

TASK = "segmentation"


@dataclass
class Segmenter:
    """A trained model, ready to use.

    Attributes:
        model: in evaluation mode; images ``[N, C, H, W]`` → logits ``[N, K, H, W]``.
        findings: the K keys, in the order of its outputs.
        preprocess: what it was trained with.
        weights: where it came from.
        meta: what is recorded beside the weights.
    """

    model: paddle.nn.Layer
    findings: tuple[str, ...]
    preprocess: Preprocess
    weights: Path
    meta: Mapping[str, Any]


def settle(recipe: SegmentationRecipe) -> list[str]:
    """Fill in what the recipe leaves to the starting point: encoder, image size and pre-processing.

    Called again it changes nothing.

    Returns:
        Notices for the user.

    Raises:
        UserError: no starting point there, or one of another network, or one that does not say what it is.
    """
    settings, arch, section, notices = recipe.Global, recipe.Arch, recipe.DataLoader, []
    if isinstance(recipe.Model.checkpoint, str):
        weights = weights_of(recipe.Model.checkpoint)
        meta = load_weights(weights)[1]
        recorded = meta.get("image_encoder") or meta.get("architecture")
        if arch.encoder and recorded and arch.encoder != recorded:
            raise UserError(f"Arch.encoder：是 {arch.encoder}，而 {weights} 是 {recorded} 的权重；"
                            "请删去 Arch.encoder，或换起点")
        if not (arch.encoder or recorded):
            raise UserError(f"Arch.encoder：{weights} 旁没有写明（model.json）；请在配方里写，例如 ResNet50")
        if settings.image_shape is None:
            settings.image_shape = recorded_shape(meta, weights)
        arch.encoder = arch.encoder or recorded
        notices = take_preprocess(section, meta, weights, "编码器" if arch.freeze_encoder else None)
    section.preprocess = section.preprocess or PreprocessSection()
    check_image_rules(settings.image_shape, section.preprocess)
    return notices


def build_segmenter(recipe: SegmentationRecipe, *, load_start: bool = True) -> tuple[paddle.nn.Layer, list[str]]:
    """The recipe's model with its starting weights.

    Args:
        recipe: settled (:func:`settle`).
        load_start: load what ``Model.checkpoint`` names.

    Returns:
        The model, and notices for the user.

    Raises:
        UserError: what a component or a weight file has to say.
    """
    arch, findings, start = recipe.Arch, recipe.Global.findings, recipe.Model.checkpoint
    channels = recipe.Global.image_shape[0]
    if arch.name == "PaddleSegModel":
        return PaddleSegModel(arch.model, len(findings), channels, arch.arguments), []
    weights = weights_of(start) if isinstance(start, str) and load_start else None
    encoder, notices = build_backbone({"name": arch.encoder, "pretrained": str(weights) if weights else bool(start)},
                                      channels, "Arch.encoder", load_start=load_start)
    model = UNet(encoder, len(findings), arch.widths, arch.freeze_encoder)
    if weights is not None:
        notices += _take_decoder(model, weights, findings)
    elif load_start and arch.freeze_encoder and not start:
        notices.append("!! 编码器是随机初始化的，又被冻结（Arch.freeze_encoder: true）：只适合作对照；"
                       "请写 Model.checkpoint，或设 Arch.freeze_encoder: false")
    return model, notices


def _take_decoder(model: UNet, weights: Path, findings: Sequence[str]) -> list[str]:
    """Decoder and head of a trained U-Net, where that is what the weights are; outputs are matched by finding."""
    state, meta = load_weights(weights)
    if meta.get("architecture") != UNet.arch:
        return []
    trained = list(map(str, meta["findings"])) if isinstance(meta.get("findings"), list) else []
    wanted = model.state_dict()
    # The encoder has been read already (where three channels may have been summed to one): it stays as it is now.
    state = {name: wanted[name].numpy() if name.startswith(IMAGE_TOWER) and name in wanted else value
             for name, value in state.items()}
    for name in ("head.weight", "head.bias"):
        rows = wanted[name].numpy().copy()
        for number, finding in enumerate(findings):
            if finding in trained and trained.index(finding) < len(state.get(name, ())):
                rows[number] = state[name][trained.index(finding)]
        state[name] = rows
    apply_weights(model, state, meta, path=weights)
    fresh = [name for name in findings if name not in trained]
    return [f"解码器也取自 {weights}" + (f"；{'、'.join(fresh)} 那次没有学过（学过 {'、'.join(trained)}），"
                                      "它的输出从随机初值训练" if fresh else "")]


def open_segmenter(recipe: SegmentationRecipe, weights: Path) -> tuple[Segmenter, list[str]]:
    """Build a trained model, and make the recipe read images as it was trained on them.

    ``Global.findings`` may name some of its findings, in any order.

    Args:
        recipe: its ``Global.image_shape`` and ``DataLoader.preprocess`` become the model's.
        weights: folder or file.

    Returns:
        The model, and notices for the user.

    Raises:
        UserError: no such weights, another architecture, a finding that it was not trained for, damaged files.
    """
    state, meta = load_weights(weights)
    if meta.get("task") != TASK:
        raise UserError(f"{weights} 不是分割（Global.task: {TASK}）训练的权重，"
                        f"而是 {meta.get('architecture', '未知结构')}；请给一次分割训练的输出目录")
    missing = [key for key in ("findings", "arguments", "preprocess", "image_shape") if not meta.get(key)]
    if missing:
        raise UserError(f"{weights} 的 model.json 损坏：缺少 {missing[0]}；请换一个检查点（checkpoint）")
    findings, arch = _recorded_network(meta, weights)
    absent = [name for name in recipe.Global.findings if name not in findings]
    if absent:
        raise UserError(f"Global.findings：{weights} 没有学过 {'、'.join(absent)}（学过：{'、'.join(findings)}）")
    notices = _adopt_input(recipe, meta, weights)
    trained = recipe.model_copy(deep=True)
    trained.Global.findings = list(findings)
    trained.Arch = arch
    model, _ = build_segmenter(trained, load_start=False)
    apply_weights(model, state, meta, path=weights)
    model.eval()
    return Segmenter(model, findings, preprocess_of(recipe), weights, meta), notices


def _recorded_network(meta: Mapping[str, Any], weights: Path) -> tuple[tuple[str, ...], SegmentationArch]:
    """What a trained model finds, and how it is built; raises :class:`UserError` where the record is damaged."""
    try:
        if not isinstance(meta["findings"], list):
            raise TypeError("findings 应为列表")
        arch = checked({"name": meta.get("architecture"), **meta["arguments"]}, SegmentationArch)
    except (UserError, TypeError) as error:
        raise UserError(f"{weights} 的 model.json 损坏（{one_line(error)}）；请换一个检查点（checkpoint）") from None
    # The weights replace whatever a part would start with; and what a file names must not be downloaded and read.
    arch.arguments = _without_start(arch.arguments)
    return tuple(map(str, meta["findings"])), arch


def _without_start(value: Any) -> Any:
    """Arguments of PaddleSeg without any ``pretrained``, those of a backbone too."""
    if isinstance(value, Mapping):
        return {key: _without_start(one) for key, one in value.items() if key != "pretrained"}
    return [_without_start(one) for one in value] if isinstance(value, list) else value


def _adopt_input(recipe: SegmentationRecipe, meta: Mapping[str, Any], weights: Path) -> list[str]:
    """A model must see what it was trained on: where the recipe differs, the record wins, loudly."""
    recorded, shape = recorded_preprocess(meta, weights), recorded_shape(meta, weights)
    now = {"image_shape": recipe.Global.image_shape or shape,
           **(recipe.DataLoader.preprocess or recorded).model_dump()}
    then = {"image_shape": shape, **recorded.model_dump()}
    recipe.Global.image_shape, recipe.DataLoader.preprocess = shape, recorded
    different = [key for key in then if now[key] != then[key]]
    if not different:
        return []
    return [f"!! 配方的预处理与训练时不同（{'、'.join(different)}），按权重旁 model.json 的记录处理"]


def preprocess_of(recipe: SegmentationRecipe) -> Preprocess:
    """What a picture becomes before the model sees it; the recipe must be settled."""
    return Preprocess(image_shape=recipe.Global.image_shape, **recipe.DataLoader.preprocess.model_dump())


@paddle.no_grad()
def probabilities_of(model: paddle.nn.Layer, preprocess: Preprocess, images: np.ndarray) -> np.ndarray:
    """float32 ``[N, K, H, W]`` in 0 … 1 of uint8 images ``[N, H, W(, 3)]``.

    Raises:
        UserError: the model gives NaN or infinity.
    """
    return sigmoid_of(model(preprocess.normalize_tensor(paddle.to_tensor(images))))


def sigmoid_of(logits: paddle.Tensor) -> np.ndarray:
    """Probabilities, float32, of logits of any shape; raises :class:`UserError` where they are not finite."""
    found = paddle.nn.functional.sigmoid(logits.astype("float32")).numpy()
    if not np.isfinite(found).all():
        raise UserError("模型输出 NaN 或 Inf：训练已发散，检查点未被覆盖。可减小学习率，或加 Optimizer.clip_norm")
    return found
