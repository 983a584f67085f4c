"""Findings in images from anywhere: what ``tools/predict.py`` needs of a fine-tuned network."""

from __future__ import annotations

import numpy as np
import paddle

from paddle_cxr import cpu
from paddle_cxr.engine.distributed import World, select_device
from paddle_cxr.engine.predict import Predictor
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.gradcam import grad_cam
from paddle_cxr.recipe import Loaded
from paddle_cxr.tasks.finetuning.task import probabilities
from paddle_cxr.tasks.finetuning.trained import open_trained

NO_THRESHOLD = 0.5  # for a finding whose threshold no validation image could tell


def open_predictor(loaded: Loaded, engine: str) -> Predictor:
    """The trained network as :mod:`paddle_cxr.engine.predict` uses one; raises :class:`UserError`."""
    if engine != "paddle":
        raise UserError(f"--engine：微调的模型没有导出的格式，不能用 {engine}；请用 paddle")
    for line in [*select_device(loaded.recipe.Global.device, World())[1], cpu.describe()]:
        print(line)
    trained, notices = open_trained(loaded.recipe)
    for line in notices:
        print(line)
    cuts = np.full(len(trained.findings), np.nan) if trained.thresholds is None else trained.thresholds
    without = [one.zh for one, cut in zip(trained.findings, cuts, strict=True) if np.isnan(cut)]
    if without:
        print(f"没有阈值（threshold）的记录，概率到 {NO_THRESHOLD} 算有：{'、'.join(without)}")

    @paddle.no_grad()
    def probabilities_of(inputs: np.ndarray) -> np.ndarray:
        return probabilities(trained.model(paddle.to_tensor(inputs)).numpy())

    return Predictor(probabilities_of, lambda inputs, targets: grad_cam(trained.model, inputs, targets),
                     trained.preprocess, trained.findings, trained.weights, bool(trained.meta.get("demo_data")),
                     np.where(np.isnan(cuts), NO_THRESHOLD, cuts))
