"""What draws an image for a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One image to draw.

    Attributes:
        id: the pair's id.
        prompt: the IMPRESSION.
        seed: of this drawing; the same request with the same seed gives the same image, alone or in any batch.
        entities: the report's entities, ``({"id": …, "type": …}, …)``; phantoms are drawn from them.
    """

    id: str
    prompt: str
    seed: int
    entities: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Drawn:
    """An image (uint8 ``[H, W]``), or ``error`` saying why there is none.

    Attributes:
        tokens_cut: how many tokens of the prompt the text encoder could not take; 0 where nothing was cut.
    """

    image: np.ndarray | None = None
    error: str = ""
    tokens_cut: int = 0


class Generator(Protocol):
    """Draws images.

    Attributes:
        title: what the output names as ``generator``.
    """

    title: str

    def draw(self, requests: Sequence[ImageRequest]) -> list[Drawn]:
        """One image a request, in the same order."""
