"""Reading a segmentation recipe.  Nothing here loads Paddle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paddle_cxr.errors import UserError
from paddle_cxr.recipe import Loaded, check_image_rules, check_loop_rules, load_for_task
from paddle_cxr.schema import PreprocessSection
from paddle_cxr.tasks.segmentation.augment import build_joint
from paddle_cxr.tasks.segmentation.schema import OWN_KEYS, SegmentationRecipe


def load(file: str | Path, overrides: Sequence[str] = (), *, for_data: bool = True) -> Loaded:
    """Read, override and check a recipe; falling back where the data set is absent.

    Args:
        for_data: whether the data set will be read; where only the model is wanted, it may be absent.

    Raises:
        UserError: any mistake, with its place; no data set and no ``fallback``.
    """
    return load_for_task(file, overrides, SegmentationRecipe, "findings", check_rules, for_data=for_data)


def check_rules(recipe: SegmentationRecipe) -> None:
    """Rules between keys; raises :class:`UserError` naming both sides."""
    settings, train = recipe.Global, recipe.DataLoader.Train
    check_loop_rules(settings, train.sampler.batch_size)
    if settings.image_shape is not None:
        check_image_rules(settings.image_shape, recipe.DataLoader.preprocess or PreprocessSection())
    repeated = next((name for name in settings.findings if settings.findings.count(name) > 1), None)
    if repeated is not None:
        raise UserError(f"Global.findings：{repeated} 写了两次，请去掉一个")
    if settings.fold is not None and (settings.folds is None or settings.fold >= settings.folds):
        raise UserError(f"Global.fold：{settings.fold} 不在 0–Global.folds-1 之内（Global.folds={settings.folds}）")
    if settings.folds and settings.keep == "best":
        raise UserError("Global.keep：交叉验证（Global.folds）时应为 last；best 会在留出的那一折上挑权重，结果偏乐观")
    if settings.folds and settings.early_stop is not None:
        raise UserError("Global.early_stop：交叉验证（Global.folds）时应为 null；否则由留出的那一折决定何时停止，"
                        "结果偏乐观")
    if train.sampler.balance:
        raise UserError("DataLoader.Train.sampler.balance：带征象的图没有类别，不能按类别平衡；请删去")
    build_joint(train.transform_ops, "DataLoader.Train.transform_ops")
    _check_arch(recipe)


def _check_arch(recipe: SegmentationRecipe) -> None:
    arch, start = recipe.Arch, recipe.Model.checkpoint
    for kind, keys in OWN_KEYS.items():
        foreign = [key for key in keys if key in arch.model_fields_set]
        if foreign and kind != arch.name:
            raise UserError(f"Arch.{foreign[0]}：是 {kind} 的参数，而 Arch.name 是 {arch.name}；请删去")
    if arch.name == "PaddleSegModel":
        if not arch.model:
            raise UserError("Arch.model：请写 paddleseg.models 里的一个模型，例如 UNet、AttentionUNet")
        if start:
            raise UserError("Model.checkpoint：PaddleSegModel 的编码器不是本项目的，不能用它作起点；请删去，"
                            "PaddleSeg 自己的权重写在 Arch.arguments 的 pretrained 里")
    elif not isinstance(start, str) and arch.encoder is None:
        raise UserError("Arch.encoder：Model.checkpoint 不是训练好的模型时，要写明编码器，例如 ResNet18")
    if not isinstance(start, str) and recipe.Global.image_shape is None:
        raise UserError("Global.image_shape：Model.checkpoint 不是训练好的模型时，要写明输入大小，例如 [1, 224, 224]")
