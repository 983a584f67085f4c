"""Masked binary cross-entropy: every finding is a question of its own, and an unknown answer takes no part."""

from __future__ import annotations

from typing import Literal

import numpy as np
import paddle
import paddle.nn.functional as F

from paddle_cxr.errors import UserError


class MaskedBCE:
    """Mean over known labels of −w_k · y · log p − (1 − y) · log(1 − p), with p = sigmoid(logit).

    The mean divides by the number of images times the known labels *an image of the training set* has on average, not
    by the known labels of the batch, so that the loss of a batch is the exact mean of its micro-batches' losses.

    Args:
        labels: the training labels, float ``[N, K]``: 1, 0 or NaN (unknown).
        positive_weight: w, one number a finding; ``balanced``: absent / present, so that both sides of a finding count
            alike; None: 1.
    """

    def __init__(self, labels: np.ndarray, positive_weight: Literal["balanced"] | list[float] | None = None) -> None:
        known = ~np.isnan(labels)
        self.known_an_image = known.sum() / len(labels)
        if positive_weight == "balanced":
            present, absent = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)
            positive_weight = np.where(present * absent == 0, 1, absent / np.maximum(present, 1)).tolist()
        if positive_weight is not None and len(positive_weight) != labels.shape[1]:
            raise UserError(f"Loss.positive_weight：有 {len(positive_weight)} 个数，征象有 {labels.shape[1]} 种")
        self.weights = np.ones(labels.shape[1]) if positive_weight is None else np.array(positive_weight)
        self._weights = None if positive_weight is None else paddle.to_tensor(positive_weight, "float32")

    def __call__(self, logits: paddle.Tensor, labels: np.ndarray) -> paddle.Tensor:
        """Loss of ``logits`` [n, K] for ``labels`` float [n, K]; a scalar."""
        known = ~np.isnan(labels)
        answers = paddle.to_tensor(np.where(known, labels, 0), "float32")
        loss = F.binary_cross_entropy_with_logits(logits.astype("float32"), answers, reduction="sum",
                                                  weight=paddle.to_tensor(known, "float32"),
                                                  pos_weight=self._weights)
        return loss / (len(labels) * self.known_an_image)

    def of_scores(self, scores: np.ndarray, labels: np.ndarray) -> float:
        """The same of probabilities ``[n, K]``, but over the known labels there are; for validation."""
        known = ~np.isnan(labels)
        likely = np.clip(np.where(labels == 1, scores, 1 - scores), np.finfo(np.float64).eps, 1)
        weights = np.where(labels == 1, self.weights, 1.0)
        return float(-(weights * np.log(likely))[known].sum() / max(known.sum(), 1))
