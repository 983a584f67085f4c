"""Weights as PyTorch lays them out, for the networks that are read from published folders."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from paddle import nn


def linear_transposed(model: nn.Layer, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``state`` as PyTorch saved it → Paddle's layout: a linear layer's weight is [inputs, outputs] here."""
    linear = {f"{name}.weight" for name, layer in model.named_sublayers() if isinstance(layer, nn.Linear)}
    return {name: value.T if name in linear else value for name, value in state.items()}
