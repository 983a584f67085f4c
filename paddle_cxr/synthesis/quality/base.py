"""The six questions of SynCXR (arXiv 2410.13523) about an image, and what answers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

# In the paper's order: is it a chest X-ray; of a human; frontal; of good quality; free of artefacts and
# over-processing; sharp.
Question = Literal["chest_xray", "human", "frontal", "good_quality", "artefact_free", "sharp"]
QUESTIONS: tuple[Question, ...] = ("chest_xray", "human", "frontal", "good_quality", "artefact_free", "sharp")


@dataclass(frozen=True, slots=True)
class Answer:
    """One question about one image.

    Attributes:
        passed: yes, no, or None where the judge cannot tell.
        value: the number behind it, or None where there is none; what it measures is the judge's affair.
        reason: a few words for the list of dropped images: what was measured, and the limit.
    """

    passed: bool | None
    value: float | None = None
    reason: str = ""


Verdict = Mapping[str, Answer]  # question → answer, all six


class Judge(Protocol):
    """Answers the six questions.

    Attributes:
        title: what tables and records name it.
    """

    title: str

    def judge(self, images: Sequence[np.ndarray]) -> list[Verdict]:
        """A verdict for each image: uint8, ``[H, W]`` or ``[H, W, 3]``, any size."""
