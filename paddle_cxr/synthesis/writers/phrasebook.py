"""The tables of the grammar writer (``grammar.yaml``), compiled for one vocabulary."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import yaml

from paddle_cxr.synthesis.writers.nouns import Noun, noun

if TYPE_CHECKING:
    from paddle_cxr.synthesis.vocabulary import Vocabulary

_SLOT = re.compile(r"\{\w+\}")
_VERB = re.compile(r"\{(be|are|was|first|last)\}")
_GOES_ON = re.compile(r"\b(also|addition\w*|further|as well|extended)\b", re.I)  # never a report's first sentence
_SPACES = re.compile(r"[\s-]+")
_WORD_LISTS = ("findings", "like", "unlike", "regions", "never")


@dataclass(frozen=True)
class Choices:
    """The sentences of one purpose: all, those that can open a report, and those without a verb to agree with."""

    every: tuple[str, ...]
    opening: tuple[str, ...]
    verbless: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Traits:
    """What the tables say about a name.

    Attributes:
        noun: its grammar.
        adjectives: what may be put before it.
        places: the rows of ``places`` that let it be attached to a region; none where it says itself where it is.
        system: its rank in a systematic reading; -1 where it is in no list.
        purpose: the sentences for it where it is present: ``inferred`` for what a reader concludes from what is seen
            (pneumonia), ``device``, or ``present`` for what is simply seen.
        described: whether it begins with an adjective of degree, size or time.
    """

    noun: Noun
    adjectives: tuple[str, ...]
    places: tuple[str, ...]
    system: int
    purpose: str
    described: bool


class Phrasebook:
    """Sentences, adjectives and places.

    Args:
        vocabulary: leaves out every sentence and adjective in which it would find one of its names (a list mined from a
            corpus may well have "view" or "mild edema"); None leaves out nothing.
    """

    def __init__(self, vocabulary: Vocabulary | None = None) -> None:
        self._tables = _read()
        self._vocabulary = vocabulary
        self.sentences = {section: {purpose: self._choices(lines) for purpose, lines in self._tables[section].items()}
                          for section in ("findings", "impression")}
        self._places = {name: {key: frozenset(row.get(key, ())) for key in _WORD_LISTS}
                        for name, row in self._tables["places"].items()}
        self._systems = [frozenset(words) for words in self._tables["systems"].values()]
        self._device = [*self._tables["systems"]].index("device")
        self._inferred = frozenset(self._tables["inferred"])
        self._sited, self._unless = frozenset(self._tables["sited"]), frozenset(self._tables["adjectives"]["unless"])
        self._adjectives: dict[str, list[str]] = defaultdict(list)  # head → what may stand before it
        for name, row in self._tables["adjectives"].items():
            for head in row["of"] if name != "unless" else ():
                self._adjectives[head] += row["words"]
        # A vocabulary has some thousand names, and every one is asked for a thousand times.
        self.traits = functools.lru_cache(maxsize=1 << 16)(self._traits)
        self._phrases = functools.lru_cache(maxsize=1 << 16)(self._all_phrases)

    def _choices(self, lines: list[str]) -> Choices:
        every = tuple(line for line in lines if not any(map(self._is_mention, _SLOT.split(line))))
        if not every and _SLOT.search(lines[0]):  # an opening can be left out, a purpose cannot
            every = tuple(lines)
        opening = tuple(line for line in every if not _GOES_ON.search(line)) or every
        return Choices(every, opening, tuple(line for line in opening if not _VERB.search(line)) or opening)

    def _is_mention(self, words: str) -> bool:
        """Whether the fixed words of a sentence hold a name of the vocabulary."""
        tokens = re.findall(r"[\w-]+", words)
        return any(self._is_name(" ".join(tokens[i:j]))
                   for i in range(len(tokens)) for j in range(i + 1, len(tokens) + 1))

    def _traits(self, name: str) -> Traits:
        known = noun(name)
        words = frozenset(_SPACES.split(name.lower()))
        system = next((i for i, members in enumerate(self._systems) if words & members), -1)
        places = () if words & self._sited else tuple(
            place for place, row in self._places.items()
            if known.head in row["findings"] and not words & row["unlike"] and (words & row["like"] or not row["like"]))
        purpose = "inferred" if known.head in self._inferred else "device" if system == self._device else "present"
        return Traits(known, self._fitting_adjectives(known, words), places, system, purpose,
                      _SPACES.split(name.lower(), 1)[0] in self._unless)

    def _fitting_adjectives(self, known: Noun, words: frozenset[str]) -> tuple[str, ...]:
        if known.shape != "noun" or words & self._unless:
            return ()
        return tuple(word for word in self._adjectives.get(known.head, ())
                     if not self._is_name(word) and not self._is_name(f"{word} {known.text}"))

    def _prepositions(self, place: str, region: str) -> tuple[str, ...]:
        """How a finding of ``place`` is attached to ``region``: "in", "at"; empty where the two do not fit."""
        row, words = self._places[place], frozenset(_SPACES.split(region.lower()))
        if not words & row["regions"] or words & row["never"]:
            return ()
        prepositions = self._tables["places"][place]["prepositions"].items()
        return (tuple(preposition for preposition, of in prepositions if words.intersection(of))
                or tuple(preposition for preposition, of in prepositions if not of))

    def _all_phrases(self, finding: str, region: str) -> tuple[str, ...]:
        """Every way to put ``finding`` there, but those that would make another name of it."""
        where = noun(region).definite()
        phrases = (f"{preposition} {where}" for place in self.traits(finding).places
                   for preposition in self._prepositions(place, region))
        return tuple(phrase for phrase in phrases if not self._is_name(f"{finding} {phrase}"))

    def attach(self, finding: str, region: str, rng: Random) -> str:
        """"in the left lung", or "" where ``finding`` cannot be there."""
        if not self.traits(finding).places:
            return ""
        phrases = self._phrases(finding, region)
        return rng.choice(phrases) if phrases else ""

    def _is_name(self, text: str) -> bool:
        """Whether the vocabulary has this as a name, with or without articles."""
        return self._vocabulary is not None and any(map(self._vocabulary.find_id, (text, text.replace(" the ", " "))))

    def fixed_words(self) -> Iterable[str]:
        """Every sentence without what is filled in, and every adjective: for a check that none is a name."""
        for section in self.sentences.values():
            for choices in section.values():
                yield from (_SLOT.sub(";", line) for line in choices.every)
        yield from (word for words in self._adjectives.values() for word in words)


@functools.cache
def _read() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("grammar.yaml").read_text("utf-8"))
