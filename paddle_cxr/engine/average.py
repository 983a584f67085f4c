"""Averages kept during training: of BatchNorm statistics over micro-batches, and of weights over steps (EMA)."""

from __future__ import annotations

import paddle


class BatchStatistics:
    """Keeps BatchNorm's running statistics independent of how micro-batches are shared among ranks.

    Every micro-batch of a step starts from the same running statistics, and the step ends with the mean of what the
    micro-batches made of them.  One process working through all micro-batches and several ranks sharing them then
    end with the same numbers.
    """

    def __init__(self, model: paddle.nn.Layer) -> None:
        self._layers = [layer for layer in model.sublayers() if hasattr(layer, "_mean")]
        self.tensors: list[paddle.Tensor] = []
        self._before: list[paddle.Tensor] = []
        self._sums: list[paddle.Tensor] = []

    def begin_step(self) -> None:
        # Paddle keeps these two as parameters that are not trained, not as buffers. Frozen layers keep theirs.
        self.tensors = [tensor for layer in self._layers if layer.training
                        for tensor in (layer._mean, layer._variance)]
        self._before = [tensor.clone() for tensor in self.tensors]
        self._sums = [paddle.zeros_like(tensor) for tensor in self.tensors]

    def end_micro_batch(self, share: float) -> None:
        """Add this micro-batch's statistics, weighted by its share of the global batch, and go back to the start."""
        for tensor, before, total in zip(self.tensors, self._before, self._sums, strict=True):
            total.add_(tensor * share)
            tensor.set_value(before)

    def weighted(self) -> list[paddle.Tensor]:
        """This rank's part of the mean."""
        return self._sums

    def end_step(self, means: list[paddle.Tensor]) -> None:
        for tensor, mean in zip(self.tensors, means, strict=True):
            tensor.set_value(mean)


class WeightAverage:
    """Exponential moving average (EMA) of the weights (Polyak & Juditsky 1992); used for evaluation and saving.

    The decay ramps up as (1 + t) / (10 + t) until it reaches ``decay``, so that early averages forget the start.
    BatchNorm statistics are averaged with the weights they belong to.
    """

    def __init__(self, model: paddle.nn.Layer, decay: float) -> None:
        self.model = model
        self.decay = decay
        self.shadow = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self._raw: dict[str, paddle.Tensor] | None = None

    @paddle.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimizer step ``step`` (counted from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, tensor in self.model.state_dict().items():
            # As a step towards the weights, so that one that never changes (frozen) keeps its very bits.
            self.shadow[name].add_((tensor - self.shadow[name]) * (1 - decay))

    def __enter__(self) -> None:
        """Swap the averaged weights in."""
        self._raw = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.model.set_state_dict(self.shadow)

    def __exit__(self, *_: object) -> None:
        self.model.set_state_dict(self._raw)
        self._raw = None
