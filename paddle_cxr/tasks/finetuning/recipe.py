"""Reading a fine-tuning recipe.  Nothing here loads Paddle, and the starting point need not be there yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paddle_cxr.errors import UserError
from paddle_cxr.recipe import Loaded, check_image_rules, check_loop_rules, load_for_task
from paddle_cxr.registry import find
from paddle_cxr.schema import PreprocessSection
from paddle_cxr.tasks.finetuning.schema import FinetuningRecipe


def load(file: str | Path, overrides: Sequence[str] = (), *, for_data: bool = True) -> Loaded:
    """Read, override and check a recipe; falling back where the data set is absent.

    Args:
        for_data: whether the data set will be read; predicting other images does not need it.

    Raises:
        UserError: any mistake, with its place; no data set and no ``fallback``.
    """
    return load_for_task(file, overrides, FinetuningRecipe, "findings", check_rules, for_data=for_data)


def check_rules(recipe: FinetuningRecipe) -> None:
    """Rules between keys; raises :class:`UserError` naming both sides."""
    settings, train = recipe.Global, recipe.DataLoader.Train
    check_loop_rules(settings, train.sampler.batch_size)
    if settings.image_shape is not None:
        check_image_rules(settings.image_shape, recipe.DataLoader.preprocess or PreprocessSection())
    if train.sampler.balance:
        raise UserError("DataLoader.Train.sampler.balance：一张图可有几种征象，不能按类别平衡；请删去"
                        "（阳性太少时用 Loss.positive_weight: balanced）")
    if not isinstance(recipe.Model.checkpoint, str):
        _check_no_start(recipe)
    if recipe.Finetune.mode == "linear_probe" and settings.freeze:
        raise UserError("Global.freeze：Finetune.mode: linear_probe 已冻结整个图像塔，只训练最后一层；请删去")
    weights = recipe.Loss.positive_weight
    if isinstance(weights, list) and min(weights, default=0) <= 0:
        raise UserError(f"Loss.positive_weight：应是大于 0 的数，每种征象一个，现在是 {weights}")
    if settings.fold is not None and (settings.folds is None or settings.fold >= settings.folds):
        raise UserError(f"Global.fold：{settings.fold} 不在 0–Global.folds-1 之内（Global.folds={settings.folds}）")
    if settings.folds is not None and settings.folds < 3:
        raise UserError(f"Global.folds：一折测试、一折验证、其余训练，至少 3 折，现在是 {settings.folds}")
    for i, spec in enumerate(train.transform_ops):
        find("transform", spec.get("name"), f"DataLoader.Train.transform_ops.{i}")


def _check_no_start(recipe: FinetuningRecipe) -> None:
    """Without a trained model nothing says what the network and its input are."""
    if recipe.Model.arch is None:
        raise UserError("Model.arch：Model.checkpoint 不是训练好的模型时，要写明网络，例如 ResNet50")
    if recipe.Global.image_shape is None:
        raise UserError("Global.image_shape：Model.checkpoint 不是训练好的模型时，要写明输入大小，例如 [1, 224, 224]")
