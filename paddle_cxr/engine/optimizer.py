"""Optimizers of a recipe: Paddle's own, with biases and BatchNorm weights spared from weight decay."""

from __future__ import annotations

import math
from typing import Any

import paddle

from paddle_cxr.engine.schedules import Schedule
from paddle_cxr.errors import UserError
from paddle_cxr.registry import build, check, register

_RANGES = {"beta1": (0, 1), "beta2": (0, 1), "momentum": (0, 1), "epsilon": (0, math.inf),
           "weight_decay": (0, math.inf), "clip_norm": (0, math.inf)}


def build_optimizer(spec: dict[str, Any], model: paddle.nn.Layer, epochs: int) -> tuple[paddle.optimizer.Optimizer,
                                                                                        Schedule]:
    """Build the optimizer and the schedule of the recipe's ``Optimizer`` section.

    Returns:
        The optimizer over the model's trainable parameters, and the schedule its rate is set from at each step.
    """
    schedule = build("lr", spec.get("lr"), "Optimizer.lr", epochs=epochs)
    return build("optimizer", _without_lr(spec), "Optimizer", model=model), schedule


def check_optimizer(spec: dict[str, Any]) -> None:
    """Check the section's names and arguments without building; raises :class:`UserError`."""
    build("lr", spec.get("lr"), "Optimizer.lr", epochs=1)
    _, arguments = check("optimizer", _without_lr(spec), "Optimizer", {"model": None})
    for name, (low, high) in _RANGES.items():
        value = arguments.get(name)
        if value is not None and not low <= value < high:
            limit = f"[{low}, {high}) 内的数" if high < math.inf else "不小于 0 的有限数"
            raise UserError(f"Optimizer.{name}：应为{limit}，现在是 {value}")


def _without_lr(spec: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key != "lr"}


def _groups(model: paddle.nn.Layer, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: matrices and kernels are decayed, vectors (biases, BatchNorm) are not."""
    trainable = [p for p in model.parameters() if not p.stop_gradient]
    groups = [{"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
              {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _common(model: paddle.nn.Layer, weight_decay: float, clip_norm: float | None) -> dict[str, Any]:
    clip = paddle.nn.ClipGradByGlobalNorm(clip_norm) if clip_norm else None
    # The rate given here is replaced before every step by the schedule's.
    return {"learning_rate": 0.0, "parameters": _groups(model, weight_decay), "grad_clip": clip}


@register("optimizer")
def Adam(model: paddle.nn.Layer, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8,  # noqa: N802
         weight_decay: float = 0.0, clip_norm: float | None = None) -> paddle.optimizer.Optimizer:
    """Adam (Kingma & Ba 2015); ``weight_decay`` is an L2 term added to the gradient."""
    return paddle.optimizer.Adam(beta1=beta1, beta2=beta2, epsilon=epsilon, **_common(model, weight_decay, clip_norm))


@register("optimizer")
def AdamW(model: paddle.nn.Layer, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8,  # noqa: N802
          weight_decay: float = 0.01, clip_norm: float | None = None) -> paddle.optimizer.Optimizer:
    """AdamW (Loshchilov & Hutter 2019); weight decay is applied to the weights, not through the gradient."""
    return paddle.optimizer.AdamW(beta1=beta1, beta2=beta2, epsilon=epsilon,
                                  **_common(model, weight_decay, clip_norm))


@register("optimizer")
def Momentum(model: paddle.nn.Layer, momentum: float = 0.9, nesterov: bool = False,  # noqa: N802
             weight_decay: float = 0.0, clip_norm: float | None = None) -> paddle.optimizer.Optimizer:
    """SGD with momentum (and Nesterov's variant); ``weight_decay`` is an L2 term added to the gradient."""
    return paddle.optimizer.Momentum(momentum=momentum, use_nesterov=nesterov,
                                     **_common(model, weight_decay, clip_norm))
