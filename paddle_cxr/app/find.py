"""Where in an image a pre-trained model sees a phrase."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paddle_cxr.app.schema import FindSection
from paddle_cxr.app.texts import Refusal

MOST_CHARACTERS = 300
UNK = "[UNK]"  # what a tokenizer makes of a word it does not know


@dataclass(frozen=True)
class Found:
    """A phrase in an image.

    Attributes:
        seen: uint8 ``[H, W]`` or ``[H, W, 3]``, the image as the model sees it.
        map: float32 ``[h, w]``, spread evenly over the image.
    """

    seen: np.ndarray
    map: np.ndarray

    @property
    def hottest(self) -> tuple[str, str]:
        """Side (of the picture, not of the patient) and zone of the largest value, as keys of the texts."""
        row, column = np.unravel_index(self.map.argmax(), self.map.shape)
        height, width = self.map.shape
        zone = ("upper", "middle", "lower")[min(2, int(3 * (row + 0.5) / height))]
        return ("left" if column + 0.5 < width / 2 else "right"), zone


class PhraseFinder:
    """ConVIRT or GLoRIA, asked for one phrase at a time.

    Args:
        section: the run's folder, and which kind of map.
        device: ``auto``, ``cpu``, ``gpu`` or ``gpu:N``.

    Attributes:
        demo: whether it was pre-trained on phantoms.

    Raises:
        UserError: no such model, or one without such maps.
    """

    def __init__(self, section: FindSection, device: str = "auto") -> None:
        from paddle_cxr.engine.distributed import World, select_device
        from paddle_cxr.tasks.grounding.schema import GroundingSection
        from paddle_cxr.tasks.pretrained import open_pretrained, read_settings

        read_settings(Path(section.folder))  # its complaint comes before Paddle is set up
        select_device(device, World())
        self._pretrained = open_pretrained(section.folder)
        self._section = GroundingSection(map=section.map, layer=section.layer)
        self.demo = bool(self._pretrained.meta.get("demo_data"))
        self._maps("chest")  # refuses a kind of map that the model lacks, before anybody asks

    def __call__(self, image: np.ndarray, phrase: str) -> Found:
        """Look for ``phrase``; raises UserError for an empty or too long one."""
        phrase = checked_text(phrase)
        self._refuse_unknown(phrase)
        seen = self._pretrained.preprocess.geometry(image)
        return Found(seen, self._maps(phrase)(seen[None], np.array([0]))[0])

    def _refuse_unknown(self, phrase: str) -> None:
        """Words that the model never saw give a map all the same, and it means nothing."""
        tokenizer = self._pretrained.tokenizer
        tokens = [tokenizer.tokens[number] for number in tokenizer.encode(phrase).ids[1:-1]]
        if all(token == UNK for token in tokens):
            raise Refusal("unknown_words")

    def _maps(self, phrase: str):  # noqa: ANN202 - Maps, whose module loads Paddle
        from paddle_cxr.evaluation.prompts import FindingPrompts
        from paddle_cxr.tasks.grounding.maps import Maps

        return Maps(self._pretrained, [FindingPrompts("phrase", (phrase,), (), phrase, phrase)], self._section)


def checked_text(text: str | None, most: int = MOST_CHARACTERS) -> str:
    """One line of text; raises UserError for none or too much."""
    one_line = " ".join(str(text or "").split())
    if not one_line:
        raise Refusal("no_phrase")
    if len(one_line) > most:
        raise Refusal("phrase_too_long", length=len(one_line), most=most)
    return one_line
