"""A fine-tuned network from its folder: what evaluation and prediction begin with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.errors import UserError
from paddle_cxr.pdparams import one_line
from paddle_cxr.registry import build
from paddle_cxr.tasks.finetuning.schema import FinetuningRecipe
from paddle_cxr.tasks.finetuning.task import LastLayer
from paddle_cxr.tasks.start import MODEL, recorded_preprocess
from paddle_cxr.weights import TENSORS, apply_weights, load_weights


@dataclass(frozen=True)
class Trained:
    """A network, ready to use.

    Attributes:
        weights: where it came from.
        model: images → logits ``[N, K]``, in evaluation mode.
        findings: K.
        preprocess: what it was trained with.
        thresholds: scores at or above which a finding counts as present, NaN for none, ``[K]``; None where there were
            no validation images.
        meta: ``model.json``.
    """

    weights: Path
    model: paddle.nn.Layer
    findings: tuple[ClassInfo, ...]
    preprocess: Preprocess
    thresholds: np.ndarray | None
    meta: dict[str, Any]


def open_trained(recipe: FinetuningRecipe) -> tuple[Trained, list[str]]:
    """The network of ``Global.checkpoint``, or of the run in ``Global.output_dir``, and notices for the user.

    Image size and pre-processing of the recipe become those of the training: it must see what it learnt from.

    Raises:
        UserError: no fine-tuned network there, a damaged one.
    """
    weights = _weights_of(recipe)
    state, meta = load_weights(weights)
    if meta.get("architecture") == LastLayer.arch:
        raise UserError(f"{weights} 是线性探针（linear probe）训练途中的检查点，只有最后一层；"
                        f"请用训练完写出的 {MODEL} 文件夹")
    if meta.get("task") != "finetuning" or not meta.get("findings"):
        raise UserError(f"{weights} 不是微调（finetuning）的结果；请用 -o Global.checkpoint=… 指定微调的输出目录")
    try:
        findings = tuple(ClassInfo(str(one["name"]), str(one["zh"]), str(one["en"])) for one in meta["findings"])
        preprocess = Preprocess.from_dict(meta["preprocess"])
        cuts = [(meta.get("thresholds") or {}).get(one.name) for one in findings]
        thresholds = np.array([np.nan if cut is None else float(cut) for cut in cuts])
        model = build("arch", {"name": meta["architecture"], "class_num": len(findings),
                               "in_channels": preprocess.image_shape[0]}, "architecture")
    except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{weights} 的 model.json 损坏（{one_line(error)}）；请换一个检查点（checkpoint）") from None
    apply_weights(model, state, meta, path=weights)
    model.eval()
    notices = _adopt(recipe, preprocess, meta, weights)
    return Trained(weights, model, findings, preprocess, None if np.isnan(thresholds).all() else thresholds,
                   meta), notices


def _weights_of(recipe: FinetuningRecipe) -> Path:
    settings = recipe.Global
    run = Path(settings.output_dir)
    if settings.fold is not None:
        run /= f"fold{settings.fold}"
    given = Path(settings.checkpoint or run)
    for one in (given / MODEL, given):
        if os.path.isfile(one / TENSORS):
            return one
    if os.path.isfile(given):
        return given
    if settings.folds and settings.fold is None:
        raise UserError(f"{given} 是交叉验证的结果，每折一个模型；请用 -o Global.fold=0 选一折")
    raise UserError(f"找不到微调好的模型 {given / MODEL}；请先用 tools/train.py 训练完，"
                    "或用 -o Global.checkpoint=… 指定")


def _adopt(recipe: FinetuningRecipe, preprocess: Preprocess, meta: dict[str, Any], weights: Path) -> list[str]:
    section = recorded_preprocess(meta, weights)
    given = (recipe.Global.image_shape, recipe.DataLoader.preprocess)
    differ = [key for key, old, new in zip(("Global.image_shape", "DataLoader.preprocess"), given,
                                           (preprocess.image_shape, section), strict=True) if old not in (None, new)]
    recipe.Global.image_shape, recipe.DataLoader.preprocess = preprocess.image_shape, section
    return [f"!! 配方的 {'、'.join(differ)} 与训练时不同，按权重旁 model.json 的记录处理"] if differ else []
