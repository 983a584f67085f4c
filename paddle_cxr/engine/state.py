"""Where a run stands, as plain numbers: everything besides tensors that a resumed run needs.

There is no random state among it: every random draw of a run is a function of (seed, epoch, position) or
(seed, step), so a run resumed at a step draws what the uninterrupted run would have drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np


def seed_paddle(seed: Sequence[int]) -> None:
    """Make Paddle's own draws (dropout) those of this seed."""
    import paddle

    paddle.seed(int(np.random.SeedSequence(tuple(seed)).generate_state(1)[0]))


@dataclass
class RunState:
    """Progress of a run.

    Attributes:
        epoch: epochs finished (equals the number of the epoch in progress, counted from 0).
        step: steps finished within the epoch in progress.
        global_step: optimizer steps finished in all.
        sums: running totals of the epoch in progress (loss, correct, count …).
        history: one row an epoch finished, as written to ``history.csv``.
        best: the best validation metrics so far, with their epoch, or None.
        evaluations_without_gain: for early stopping.
        rate_drops: how often the learning rate was lowered for want of gain.
        seconds: time spent training, interruptions not counted.
        finished: whether training has ended.
    """

    epoch: int = 0
    step: int = 0
    global_step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    evaluations_without_gain: int = 0
    rate_drops: int = 0
    seconds: float = 0.0
    finished: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> RunState:
        """Raises TypeError for keys that a run's state does not have."""
        return cls(**value)
