"""Where a text says that a finding is: "consolidation in the right upper lobe" → right, upper.

Side, zone and region are those of the phantoms (:mod:`paddle_cxr.data.phantom.findings`).  The words that tell them are
read from the mentions that named-entity recognition finds: a finding's own name and adjectives ("small right effusion",
"bibasilar atelectasis"), and the parts of the lung that its sentence names ("in the lower zones of both lungs").
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

from paddle_cxr.synthesis.entities import Key, Span
from paddle_cxr.synthesis.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Spot:
    """A place as far as it is told: of the patient's lungs, see :class:`paddle_cxr.data.phantom.Finding`."""

    side: str | None = None
    zone: str | None = None
    region: str | None = None


_TELLS: dict[str, Spot] = {}  # word → what it tells
for _spot, _words in {
    Spot(side="left"): "left", Spot(side="right"): "right",
    Spot(side="bilateral"): "both bilateral bilaterally",
    Spot(zone="upper"): "upper apex apices apical suprahilar",
    Spot(zone="middle"): "mid middle midlung",
    Spot(zone="lower"): "lower base bases basal basilar costophrenic infrahilar",
    Spot(side="bilateral", zone="lower"): "bibasilar bibasal",
    Spot(side="left", zone="middle"): "lingula lingular",  # the left lung's counterpart of the middle lobe
    Spot(side="left", zone="lower"): "retrocardiac",
    Spot(region="central"): "central perihilar parahilar",
    Spot(region="peripheral"): "peripheral periphery subpleural",
}.items():
    _TELLS |= dict.fromkeys(_words.split(), _spot)

# Anatomy that is a part of the lungs or of the space round them; not what merely bears the name of one.
_LUNG = frozenset("""lung lungs lobe lingula lingular zone hemithorax chest pleura pleural costophrenic apical basilar
    perihilar suprahilar infrahilar subpleural retrocardiac""".split())
_NOT_LUNG = frozenset("bronchus bronchi vein veins artery wall tissues lymph nodes muscles".split())
_WORD = re.compile(r"[a-z]+", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.;!?](?:\s|$)|\n\s*(?:\n|\d+\.|-)")
_PREPOSITIONS = frozenset("in at on over within along near of".split())
_STOP = (_PREPOSITIONS - {"of"}) | frozenset("and or with without than from to is are".split())
_PAUSE = re.compile(rf"[,:()]|\b(?:{'|'.join(sorted(_STOP))})\b", re.IGNORECASE)


def is_lung_place(name: str) -> bool:
    """Whether a name of anatomy ("left lung base", "right upper lobe bronchus") is a place a finding may lie in."""
    words = set(words_of(name))
    return bool(words & _LUNG) and not words & _NOT_LUNG


def spots_in(words: Iterable[str]) -> list[Spot]:
    """The places that words tell, in order: a word that contradicts the ones before it begins another place.

    A place without a side has that of the one before: "right upper and middle lobes".
    """
    spots: list[Spot] = []
    for told in filter(None, (_TELLS.get(word) for word in words)):
        if spots and agree(spots[-1], told):
            spots[-1] = combine(spots[-1], told)
        else:
            spots.append(told)
    for place in range(1, len(spots)):
        if spots[place].side is None:
            spots[place] = replace(spots[place], side=spots[place - 1].side)
    return spots


def merge(spots: list[Spot], told: Spot) -> None:
    """Add a place to a list, unless it may be one that is there: then that one takes up what the new one tells."""
    for number, spot in enumerate(spots):
        if agree(spot, told):
            spots[number] = combine(spot, told)
            return
    spots.append(told)


def combine(one: Spot, other: Spot) -> Spot:
    """What ``one`` tells, and where it tells nothing, what ``other`` does."""
    return Spot(*(getattr(one, field.name) or getattr(other, field.name) for field in fields(Spot)))


def agree(one: Spot, other: Spot) -> bool:
    """Whether two places may be the same."""
    pairs = ((getattr(one, field.name), getattr(other, field.name)) for field in fields(Spot))
    return all(a is None or b is None or a == b for a, b in pairs)


def places_of_findings(text: str, spans: Sequence[Span], vocabulary: Vocabulary) -> dict[Key, list[Spot]]:
    """Where each finding mentioned in a text is.

    A finding lies where its own words say ("right lower lobe consolidation"), and in the part of the lung named after
    it, before the next finding.  Where neither tells a side, it lies in the part named before it in the sentence, or in
    the next one that the sentence names, for it may be part of a list.

    Args:
        text: a report's section.
        spans: its mentions, from left to right.
        vocabulary: what they are mentions of; a place is read by its main name, whatever the text calls it ("RUL").

    Returns:
        key of the finding → the places of all its mentions, at least one; findings without a place are left out.
    """
    found: dict[Key, list[Spot]] = {}
    for sentence in _sentences(text, spans):
        mentions = [_mention(text, sentence, number, vocabulary) for number in range(len(sentence))]
        for number, span in enumerate(sentence):
            if mentions[number].finding:
                for spot in _spots_of(mentions, number):
                    merge(found.setdefault(span.key, []), spot)
    return found


class _Mention(NamedTuple):
    """What a mention is to the places in its sentence: its words and adjectives; a finding, a place or neither.

    ``forward``: a place that is an adjective of the finding after it, "right upper lobe nodule".
    """

    words: list[str]
    finding: bool
    place: bool
    forward: bool


def _spots_of(mentions: Sequence[_Mention], number: int) -> list[Spot]:
    """The places of the finding ``number`` of a sentence; see :func:`places_of_findings`."""
    def of_group(start: int) -> list[str]:
        """The words of the places from ``start`` up to the next finding."""
        group = itertools.takewhile(lambda one: not one.finding, mentions[start:])
        return [word for one in group if one.place and not one.forward for word in one.words]

    own = mentions[number].words
    if number and mentions[number - 1].forward:
        own = [*mentions[number - 1].words, *own]
    sides = {spot.side for spot in spots_in(own)} - {None}
    said = spots_in([*own, *of_group(number + 1)])
    if sides or any(spot.side for spot in said):
        return [spot for spot in said if spot.side in sides or not sides]
    before = next((one.words for one in reversed(mentions[:number]) if one.place), [])
    later = next(filter(None, map(of_group, range(number + 2, len(mentions)))), [])
    guessed = spots_in(before or later)
    if not said:
        return guessed
    return [combine(one, other) for one in said for other in guessed] or said


def _sentences(text: str, spans: Sequence[Span]) -> list[list[Span]]:
    """The mentions, those of one sentence together."""
    sentences: list[list[Span]] = []
    for span in spans:
        end = sentences[-1][-1].end if sentences else None
        if end is None or _SENTENCE_END.search(text, end, span.start):
            sentences.append([])
        sentences[-1].append(span)
    return sentences


def _mention(text: str, sentence: Sequence[Span], number: int, vocabulary: Vocabulary) -> _Mention:
    span = sentence[number]
    before = _SENTENCE_END.split(text[sentence[number - 1].end if number else max(0, span.start - 60):span.start])[-1]
    finding = span.type != "anatomy"
    name = text[span.start:span.end] if finding else vocabulary[span.key].en
    place = not finding and is_lung_place(name)
    forward = place and number + 1 < len(sentence) and sentence[number + 1].type != "anatomy" \
        and not set(words_of(before)) & _PREPOSITIONS and not _PAUSE.search(text, span.end, sentence[number + 1].start)
    # "middle zone of the right" before "lung", "small left" before "effusion".
    adjectives = itertools.takewhile(lambda word: word not in _STOP, reversed(words_of(before)))
    return _Mention([*list(adjectives)[::-1], *words_of(name)], finding, place, forward)


def words_of(text: str) -> list[str]:
    """The words of a name or text, lower case."""
    return [word.lower() for word in _WORD.findall(text)]
