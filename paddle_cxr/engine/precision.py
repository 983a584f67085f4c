"""Mixed precision (AMP): where the device has it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import paddle


class Precision:
    """fp32, bf16 or fp16 training behind one interface.

    Args:
        wanted: ``off``, ``auto`` (bf16 where the GPU has it, else fp16), ``bf16`` or ``fp16``.
        say: receives a line when the wish cannot be met.
    """

    def __init__(self, wanted: str, say: Callable[[str], None]) -> None:
        self.dtype = self._possible(wanted, say)
        # fp16's small exponent range needs the loss scaled up; bf16 has fp32's range.
        self.scaler = paddle.amp.GradScaler() if self.dtype == "float16" else None

    @staticmethod
    def _possible(wanted: str, say: Callable[[str], None]) -> str | None:
        if wanted == "off":
            return None
        if paddle.get_device() == "cpu":
            # Paddle has no bf16/fp16 convolution kernel on a CPU: asking for it changes nothing but the messages.
            if wanted != "auto":
                say(f"Global.amp={wanted}：CPU 没有半精度卷积，改用 fp32")
            return None
        bf16 = paddle.amp.is_bfloat16_supported()
        if wanted == "bf16" and not bf16:
            say("Global.amp=bf16：此 GPU 不支持，改用 fp16")
        return "bfloat16" if bf16 and wanted in ("auto", "bf16") else "float16"

    @property
    def skips_infinite(self) -> bool:
        """Whether a step with infinite gradients is skipped by design."""
        return self.scaler is not None

    def context(self) -> contextlib.AbstractContextManager:
        """Around the forward pass."""
        return paddle.amp.auto_cast(dtype=self.dtype, level="O1") if self.dtype else contextlib.nullcontext()

    def scale(self, loss: paddle.Tensor) -> paddle.Tensor:
        """Before ``backward``."""
        return self.scaler.scale(loss) if self.scaler else loss

    def step(self, optimizer: paddle.optimizer.Optimizer) -> None:
        """Optimizer step; with fp16, unscales and skips a step whose gradients overflowed."""
        if self.scaler:
            self.scaler.step(optimizer)
            self.scaler.update()
        else:
            optimizer.step()

    def state(self) -> dict[str, Any] | None:
        """JSON-ready state of the loss scaler."""
        if self.scaler is None:
            return None
        return {k: (v.item() if hasattr(v, "item") else v) for k, v in self.scaler.state_dict().items()}

    def restore(self, state: dict[str, Any] | None) -> None:
        if self.scaler is not None and state:
            self.scaler.load_state_dict({k: np.array([v], np.float32) if k == "scale" else v for k, v in state.items()})
