"""What a report is made of: entities of five types, and where they stand in a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Key = tuple[str, str]  # (id, type): what is sampled, and what a check compares

# The types of RaTE-NER (Zhao et al., "RaTEScore", EMNLP 2024), in the order of all figures and tables.
TYPES = ("abnormality", "non-abnormality", "disease", "non-disease", "anatomy")
# What a mention becomes when the sentence denies it: "no effusion" mentions the non-abnormality "effusion".
OPPOSITE = {"abnormality": "non-abnormality", "non-abnormality": "abnormality",
            "disease": "non-disease", "non-disease": "disease"}


@dataclass(frozen=True, slots=True)
class Entity:
    """One entry of a vocabulary.

    Attributes:
        id: lower-case letters, digits and underscores; one thing has one id, present or denied.
        type: one of :data:`TYPES`.
        en: the English name as it stands in a sentence, lower case unless a proper name.
        zh: the Chinese name.
        also: further English wordings of the same thing (synonyms, abbreviations).
        denies: the entry means that the thing is absent: its names are the thing's, and only a text that denies them
            mentions it ("no pleural effusion").  False for what is normal in itself ("clear lungs").
        contradicts: ids that cannot stand in one report with this one ("hyperinflated lungs", "low lung volumes").
        drawer: the phantom drawer that can paint it, or None.
    """

    id: str
    type: str
    en: str
    zh: str = ""
    also: tuple[str, ...] = ()
    denies: bool = False
    contradicts: tuple[str, ...] = ()
    drawer: str | None = None

    @property
    def key(self) -> Key:
        return self.id, self.type

    @property
    def names(self) -> tuple[str, ...]:
        return self.en, *self.also


@dataclass(frozen=True, slots=True)
class Span:
    """A mention: ``text[start:end]`` is entity ``id`` with ``type`` (already turned where the text denies it)."""

    start: int
    end: int
    id: str
    type: str

    @property
    def key(self) -> Key:
        return self.id, self.type


class NER(Protocol):
    """Named-entity recognition: where the entities of a text are."""

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """The mentions of each text, from left to right, without overlap."""
