"""From log-odds to probabilities that keep the order of what they were made of."""

from __future__ import annotations

import numpy as np


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """``1 / (1 + exp(-x))`` in float64, of finite logits of any shape; it does not overflow.

    Small probabilities stay apart, down to logits of -745: AUC counts equal scores as ties, and ``(1 + tanh(x / 2)) /
    2`` gives 0.0 for all logits below -37.  Those above 37 are 1.0 here as in any formula, for want of floats there.
    """
    logits = np.asarray(logits, np.float64)
    with np.errstate(under="ignore"):  # beyond that, 0 is as near as a float comes
        small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, small) / (1 + small)
