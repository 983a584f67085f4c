"""An image for an impression: a diffusion model, or the phantom generator in its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from paddle_cxr.app.find import checked_text
from paddle_cxr.app.schema import DrawSection
from paddle_cxr.app.texts import Refusal
from paddle_cxr.app.write import checked_seed, label
from paddle_cxr.errors import UserError
from paddle_cxr.registry import build
from paddle_cxr.synthesis.generators.base import ImageRequest
from paddle_cxr.synthesis.ner.dictionary import DictionaryNER
from paddle_cxr.synthesis.vocabulary import load_vocabulary

MOST_SEED = 2**31 - 1
PHANTOM = {"name": "PhantomGenerator", "size": 384}
EXAMPLES = ("Moderate right pleural effusion.", "Severe cardiomegaly.", "Large left pneumothorax.",
            "Moderate consolidation in the right lower lung.")


@dataclass(frozen=True)
class Painted:
    """An image (uint8 ``[H, W]``), who drew it, from which entities (phantoms only), and tokens that were cut off."""

    image: np.ndarray
    title: str
    entities: tuple[str, ...] | None
    tokens_cut: int


class Painter:
    """Draws one impression at a time.

    Args:
        section: which generator.
        device: for a generator whose arguments do not name one.

    Attributes:
        why_stand_in: why the phantom generator stands in, or empty.

    Raises:
        UserError: the generator cannot be opened, and nothing may stand in.
    """

    def __init__(self, section: DrawSection, device: str = "auto") -> None:
        self.why_stand_in = ""
        spec = dict(section.Generator)
        if spec.get("name") == "DiffusersGenerator":
            spec.setdefault("device", device)
        self._vocabulary = load_vocabulary()
        self._ner = DictionaryNER(self._vocabulary)
        try:
            self._generator = self._build(spec)
        except UserError as error:
            if not section.stand_in:
                raise
            self.why_stand_in, spec = str(error), PHANTOM
            self._generator = self._build(spec)
        self._phantom = spec["name"] == "PhantomGenerator"

    def __call__(self, impression: str, seed: int) -> Painted:
        """Draw; raises UserError for a bad text or seed, and where nothing could be drawn."""
        text, number = checked_text(impression), checked_seed(seed, MOST_SEED)
        entities = self._entities(text)
        given = tuple({"id": entity.id, "type": entity.type} for entity in entities)
        drawn = self._generator.draw([ImageRequest("page", text, number, given)])[0]
        if drawn.image is None:
            raise Refusal("not_drawn", reason=drawn.error)
        return Painted(drawn.image, self._generator.title, tuple(map(label, entities)) if self._phantom else None,
                       drawn.tokens_cut)

    def _build(self, spec: dict[str, Any]) -> Any:
        return build("generator", spec, "Draw.Generator", vocabulary=self._vocabulary)

    def _entities(self, text: str) -> list:
        """What the text mentions; the phantom generator draws from it."""
        keys = dict.fromkeys(span.key for span in self._ner.find([text])[0])
        return [self._vocabulary[key] for key in keys if key in self._vocabulary.position]
