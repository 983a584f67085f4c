"""Loss functions of a recipe."""

from __future__ import annotations

from typing import Literal

import numpy as np
import paddle
import paddle.nn.functional as F

from paddle_cxr.errors import UserError
from paddle_cxr.registry import register


@register("loss")
class CrossEntropy:
    """Softmax cross entropy on soft targets: mean over samples of −Σ_k w_k · t_k · log p_k.

    The mean divides by the number of samples, not by the sum of their weights, so that the loss of a batch is the
    exact mean of its micro-batches' losses.

    Args:
        label_smoothing: ε in t ← (1 − ε) t + ε / K (Szegedy et al. 2016); 0 ≤ ε < 1.
        class_weights: one weight a class, ``balanced`` (n / (K · n_k), so that every class counts alike) or None.
        class_counts: training images per class; supplied by the program.
    """

    def __init__(self, class_counts: tuple[int, ...], label_smoothing: float = 0.0,
                 class_weights: list[float] | Literal["balanced"] | None = None) -> None:
        if not 0 <= label_smoothing < 1:
            raise UserError(f"Loss.label_smoothing：应在 [0, 1) 内，现在是 {label_smoothing}")
        if isinstance(class_weights, list) and not all(weight >= 0 for weight in class_weights):
            raise UserError(f"Loss.class_weights：权重应不小于 0，现在是 {class_weights}")
        if class_weights == "balanced":
            counts = np.maximum(np.asarray(class_counts, dtype=np.float64), 1)
            class_weights = (counts.sum() / (len(counts) * counts)).tolist()
        self.smoothing = label_smoothing
        self.weights = None if class_weights is None else paddle.to_tensor(class_weights, "float32")

    def __call__(self, logits: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
        """Loss of ``logits`` [N, K] against soft ``targets`` [N, K] (rows sum to 1); a scalar.

        ``logits`` [N, M, K] are an ensemble's: the mean of its members' losses.
        """
        targets = (1 - self.smoothing) * targets + self.smoothing / targets.shape[1]
        if self.weights is not None:
            targets = targets * self.weights
        if logits.ndim == 3:
            targets = targets.unsqueeze(1) / logits.shape[1]
        return -(targets * F.log_softmax(logits.astype("float32"), axis=-1)).sum() / logits.shape[0]
