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
    return build("optimizer", spec, "Optimizer", model=model), schedule


def check_optimizer(spec: dict[str, Any]) -> None:
    """Check the section's names and arguments without building; raises :class:`UserError`."""
    build("lr", spec.get("lr"), "Optimizer.lr", epochs=1)
    _, arguments = check("optimizer", spec, "Optimizer", {"model": None})
    for name, (low, high) in _RANGES.items():
        value = arguments.get(name)
        if value is not None and not low <= value < high:
            limit = f"[{low}, {high}) 内的数" if high < math.inf else "不小于 0 的有限数"
            raise UserError(f"Optimizer.{name}：应为{limit}，现在是 {value}")


def _common(model: paddle.nn.Layer, clip_norm: float | None) -> dict[str, Any]:
    """All trainable parameters in one group: Paddle clips group by group, and the norm to clip is everybody's."""
    clip = paddle.nn.ClipGradByGlobalNorm(clip_norm) if clip_norm else None
    # The rate given here is replaced before every step by the schedule's.
    return {"learning_rate": 0.0, "parameters": _trainable(model), "grad_clip": clip}


def _trainable(model: paddle.nn.Layer) -> list[paddle.Tensor]:
    return [p for p in model.parameters() if not p.stop_gradient]


def _l2(model: paddle.nn.Layer, weight_decay: float) -> float:
    """Spare vectors (biases, BatchNorm) from an L2 term: a parameter's own regularizer wins over the optimizer's."""
    for parameter in _trainable(model):
        if parameter.ndim <= 1:
            parameter.regularizer = paddle.regularizer.L2Decay(0.0)
    return weight_decay


@register("optimizer")
def Adam(model: paddle.nn.Layer, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8,  # noqa: N802
         weight_decay: float = 0.0, clip_norm: float | None = None) -> paddle.optimizer.Optimizer:
    """Adam (Kingma & Ba 2015); ``weight_decay`` is an L2 term added to the gradient."""
    return paddle.optimizer.Adam(beta1=beta1, beta2=beta2, epsilon=epsilon, weight_decay=_l2(model, weight_decay),
                                 **_common(model, clip_norm))


@register("optimizer")
def AdamW(model: paddle.nn.Layer, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8,  # noqa: N802
          weight_decay: float = 0.01, clip_norm: float | None = None) -> paddle.optimizer.Optimizer:
    """AdamW (Loshchilov & Hutter 2019); weight decay is applied to the weights, not through the gradient."""
    decayed = {p.name for p in _trainable(model) if p.ndim > 1}
    return paddle.optimizer.AdamW(beta1=beta1, beta2=beta2, epsilon=epsilon, weight_decay=weight_decay,
                                  apply_decay_param_fun=decayed.__contains__, **_common(model, clip_norm))


@register("optimizer")
def Momentum(model: paddle.nn.Layer, momentum: float = 0.9, nesterov: bool = False,  # noqa: N802
             weight_decay: float = 0.0, clip_norm: float | None = None) -> paddle.optimizer.Optimizer:
    """SGD with momentum (and Nesterov's variant); ``weight_decay`` is an L2 term added to the gradient."""
    return paddle.optimizer.Momentum(momentum=momentum, use_nesterov=nesterov, weight_decay=_l2(model, weight_decay),
                                     **_common(model, clip_norm))
