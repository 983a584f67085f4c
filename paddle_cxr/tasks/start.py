"""Where fine-tuning and segmentation start: the weights that a path means, and what is recorded beside them.

``Model.checkpoint`` names the output folder of a run as the user knows it; what it holds says which network to build
and how images are prepared for it, so a recipe need not repeat that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from paddle_cxr.engine import checkpoint
from paddle_cxr.errors import UserError
from paddle_cxr.schema import PreprocessSection
from paddle_cxr.tasks.findings_schema import FindingsLoaderSection
from paddle_cxr.weights import TENSORS

MODEL = "model"
START = "Model.checkpoint"


def weights_of(path: str | Path, key: str = START) -> Path:
    """The weights that a path means: a run's output folder, a folder with weights, or a file.

    Args:
        key: what names it in the recipe, for the error.

    Raises:
        UserError: there are none; says which command makes them where a recipe of that name is there.
    """
    path = Path(path)
    found = [path / MODEL, checkpoint.find(path / "checkpoints/best"), checkpoint.find(path / "checkpoints/latest"),
             path]
    for one in found:
        if one is not None and os.path.isfile(one / TENSORS):
            return one
    if os.path.isfile(path):
        return path
    made = f"先运行 python tools/train.py -c {recipe_for(path)} 得到它" if recipe_for(path) else "请先训练"
    what = f"{path} 里的权重（它还没有训练完？）" if os.path.exists(path) else path
    other = "（true：ImageNet；null：随机初值）" if key == START else ""
    kind = "起点" if key == START else "权重"
    raise UserError(f"{key}：找不到 {what}；{made}，或用 -o {key}=… 指定别的{kind}{other}")


def recipe_for(path: Path) -> Path | None:
    """The recipe that writes to ``path``: by custom the one of the same name."""
    for part in reversed(path.parts):
        file = Path("configs") / f"{part}.yaml"
        if os.path.isfile(file):
            return file
    return None


def recorded_shape(meta: Mapping[str, Any], weights: Path) -> tuple[int, int, int]:
    """(channels, height, width) that a trained model takes.

    Raises:
        UserError: not recorded, or the record is damaged.
    """
    value = meta.get("image_shape")
    if not value:
        raise UserError(f"Global.image_shape：{weights} 旁没有写明（model.json）；"
                        "请在配方里写输入大小，例如 [1, 224, 224]")
    if not (isinstance(value, list) and len(value) == 3 and all(type(side) is int and side > 0 for side in value)):
        raise UserError(f"{weights} 的 model.json 损坏：image_shape 是 {value!r}；请换一个检查点（checkpoint）")
    return value[0], value[1], value[2]


def recorded_preprocess(meta: Mapping[str, Any], weights: Path) -> PreprocessSection:
    """How images are prepared for a trained model; raises :class:`UserError` where its record is damaged."""
    try:
        return PreprocessSection.model_validate({key: value for key, value in meta["preprocess"].items()
                                                 if key in PreprocessSection.model_fields and value is not None})
    except (KeyError, AttributeError, ValidationError):
        raise UserError(f"{weights} 的 model.json 损坏：preprocess 不可用；请换一个检查点（checkpoint）") from None


def take_preprocess(section: FindingsLoaderSection, meta: Mapping[str, Any], weights: Path, frozen: str | None
                    ) -> list[str]:
    """Prepare images as they were at the training, unless the recipe says otherwise; returns what to tell the user.

    Args:
        section: its ``preprocess`` is filled in where it is empty.
        frozen: what cannot learn to see other images, or None.
    """
    if not meta.get("preprocess"):
        return []
    recorded = recorded_preprocess(meta, weights)
    section.preprocess = section.preprocess or recorded
    own, then = section.preprocess.model_dump(), recorded.model_dump()
    different = "，".join(f"{key} {then[key]} → {own[key]}" for key in own if own[key] != then[key])
    if not different:
        return []
    return [f"!! DataLoader.preprocess 与 {weights} 训练时的不同（{different}）"
            + (f"；冻结的{frozen}会看到没有见过的图" if frozen else "")]
