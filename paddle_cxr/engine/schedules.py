"""Learning-rate schedules as plain functions of the epoch.

``schedule(epoch)`` takes the position in epochs as a float (2.5 = half-way through the third) and returns the
learning rate.  Having no state, a schedule needs nothing saved to resume; how often ``Plateau`` has lowered the rate
is counted in the run's state.  ``step_each: epoch`` holds the rate for
a whole epoch, as PaddleClas's ``by_epoch`` and the blog do; ``batch`` changes it smoothly.
"""

from __future__ import annotations

import math
from typing import Literal

from paddle_cxr.errors import UserError
from paddle_cxr.registry import register

StepEach = Literal["batch", "epoch"]


class Schedule:
    """Shared part: linear warm-up from ``warmup_start`` to the schedule's own rate over ``warmup_epochs``.

    Raises :class:`UserError` for a negative, infinite or NaN value.

    Attributes:
        patience, factor: after every ``patience`` validations in a row without gain the trainer multiplies the rate by
            ``factor``; None for never.
    """

    patience: int | None = None
    factor: float = 1.0

    def __init__(self, learning_rate: float, warmup_epochs: float, warmup_start: float, step_each: StepEach) -> None:
        for name, value in (("learning_rate", learning_rate), ("warmup_epochs", warmup_epochs),
                            ("warmup_start", warmup_start)):
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"Optimizer.lr.{name}：应为不小于 0 的数，现在是 {value}")
        self.learning_rate = learning_rate
        self.warmup_epochs = warmup_epochs
        self.warmup_start = warmup_start
        self.step_each = step_each

    def __call__(self, epoch: float) -> float:
        if epoch < self.warmup_epochs:
            share = epoch / self.warmup_epochs
            return self.warmup_start + share * (self.learning_rate - self.warmup_start)
        position = math.floor(epoch) if self.step_each == "epoch" else epoch
        return self.after_warmup(position)

    def after_warmup(self, epoch: float) -> float:
        """The rate at ``epoch``, counted from the beginning of training."""
        raise NotImplementedError


@register("lr")
class Constant(Schedule):
    """The same rate throughout."""

    def __init__(self, learning_rate: float, warmup_epochs: float = 0.0, warmup_start: float = 0.0) -> None:
        super().__init__(learning_rate, warmup_epochs, warmup_start, "batch")

    def after_warmup(self, epoch: float) -> float:
        return self.learning_rate


@register("lr")
class Plateau(Schedule):
    """The same rate until ``patience`` validations in a row have brought no gain, then ``factor`` times it, and so on.

    As ConVIRT (arXiv:2010.00747, appendix) does: half the rate after 5 validations.
    """

    def __init__(self, learning_rate: float, factor: float = 0.5, patience: int = 5, warmup_epochs: float = 0.0,
                 warmup_start: float = 0.0) -> None:
        super().__init__(learning_rate, warmup_epochs, warmup_start, "batch")
        if not 0 < factor < 1 or patience < 1:
            raise UserError(f"Optimizer.lr：factor（{factor}）应在 0 和 1 之间，patience（{patience}）至少为 1")
        self.factor, self.patience = factor, patience

    def after_warmup(self, epoch: float) -> float:
        return self.learning_rate


@register("lr")
class NaturalExpDecay(Schedule):
    """learning_rate · exp(−gamma · epoch), as ``paddle.optimizer.lr.NaturalExpDecay`` (the blog: 3e-4, 0.6)."""

    def __init__(self, learning_rate: float, gamma: float, warmup_epochs: float = 0.0, warmup_start: float = 0.0,
                 step_each: StepEach = "epoch") -> None:
        super().__init__(learning_rate, warmup_epochs, warmup_start, step_each)
        self.gamma = gamma

    def after_warmup(self, epoch: float) -> float:
        return self.learning_rate * math.exp(-self.gamma * epoch)


@register("lr")
class Cosine(Schedule):
    """Half a cosine from ``learning_rate`` to ``end`` over the epochs after warm-up (Loshchilov & Hutter 2017)."""

    def __init__(self, learning_rate: float, epochs: int, end: float = 0.0, warmup_epochs: float = 0.0,
                 warmup_start: float = 0.0, step_each: StepEach = "batch") -> None:
        super().__init__(learning_rate, warmup_epochs, warmup_start, step_each)
        self.epochs = epochs
        self.end = end

    def after_warmup(self, epoch: float) -> float:
        share = min(1.0, (epoch - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1e-9))
        return self.end + 0.5 * (self.learning_rate - self.end) * (1 + math.cos(math.pi * share))


@register("lr")
class Step(Schedule):
    """learning_rate · gamma^(number of milestones passed); milestones in epochs."""

    def __init__(self, learning_rate: float, milestones: list[float], gamma: float = 0.1, warmup_epochs: float = 0.0,
                 warmup_start: float = 0.0) -> None:
        super().__init__(learning_rate, warmup_epochs, warmup_start, "batch")
        self.milestones = sorted(milestones)
        self.gamma = gamma

    def after_warmup(self, epoch: float) -> float:
        return self.learning_rate * self.gamma ** sum(epoch >= milestone for milestone in self.milestones)
