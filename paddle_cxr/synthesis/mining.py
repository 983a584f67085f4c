"""A vocabulary mined from reports: what an NER finds in a corpus, as a list that :func:`load_vocabulary` reads."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from paddle_cxr.synthesis.analysis import BATCH, find_spans
from paddle_cxr.synthesis.corpora import Report
from paddle_cxr.synthesis.entities import NER, OPPOSITE, TYPES, Key
from paddle_cxr.synthesis.vocabulary import Vocabulary, fold

# Types that one id may have: a thing and the same thing denied.
_FAMILY = {type_: type_.removeprefix("non-") for type_ in TYPES}


class Mined(NamedTuple):
    """A row of the mined vocabulary: ``count`` reports mention ``name`` as ``type``; id and zh where it was known."""

    name: str
    type: str
    count: int
    id: str
    zh: str
    also: str


@dataclass
class Mine:
    """What was found in a corpus.

    Attributes:
        reports: how many were read.
        counts: key → reports that mention it.
        wordings: key → how often it was written how.
    """

    reports: int
    counts: Counter[Key]
    wordings: dict[Key, Counter[str]]


def mine(reports: Iterable[Report], ner: NER) -> Mine:
    """Run the NER over reports, whatever entities they name themselves; streams, so a corpus may be of any size."""
    result = Mine(0, Counter(), defaultdict(Counter))
    stream = iter(reports)
    while batch := list(islice(stream, BATCH)):
        for sections in find_spans(batch, ner):
            result.reports += 1
            result.counts.update({span.key for _, spans in sections for span in spans})
            for text, spans in sections:
                for span in spans:
                    result.wordings[span.key][" ".join(text[span.start:span.end].lower().split())] += 1
    return result


def to_vocabulary(found: Mine, vocabulary: Vocabulary, min_count: int) -> tuple[list[Mined], list[Key]]:
    """The mined list by type and falling count, and what had to be left out of it.

    A thing that the vocabulary knows keeps its id, names and types (and may newly be denied).  Other names are as the
    reports most often write them; one that the NER put into unrelated types keeps the type with most reports, as a
    vocabulary holds a name only once.  Below ``min_count`` reports an entity is passed over silently.
    """
    frequent = {key: count for key, count in found.counts.items() if count >= min_count}
    known = {key for key in frequent if _known(key, vocabulary)}
    ids = {id_ for id_, _ in vocabulary.position}
    names = {key: found.wordings[key].most_common(1)[0][0] for key in frequent.keys() - known if key[0] not in ids}
    families: dict[str, Counter[str]] = defaultdict(Counter)
    for key, name in names.items():
        families[fold(name)][_FAMILY[key[1]]] += frequent[key]
    new = {key for key, name in names.items()
           if fold(name) and families[fold(name)].most_common(1)[0][0] == _FAMILY[key[1]]}
    rows = [_known_row(key, frequent[key], vocabulary) for key in known]
    rows += _new_rows({key: names[key] for key in new}, frequent)
    rows.sort(key=lambda row: (TYPES.index(row.type), -row.count, row.name))
    return rows, sorted(frequent.keys() - known - new)


def _known(key: Key, vocabulary: Vocabulary) -> bool:
    id_, type_ = key
    return key in vocabulary.position or (type_.startswith("non-") and (id_, OPPOSITE[type_]) in vocabulary.position)


def _known_row(key: Key, count: int, vocabulary: Vocabulary) -> Mined:
    id_, type_ = key
    entity = vocabulary[key] if key in vocabulary.position else vocabulary[id_, OPPOSITE[type_]]
    zh = entity.zh if entity.type == type_ else ""  # the loader makes the Chinese of a denial
    return Mined(entity.en, type_, count, id_, zh, "|".join(entity.also))


def _new_rows(names: dict[Key, str], counts: dict[Key, int]) -> Iterator[Mined]:
    """One row a name and type: an NER's ids may be finer than the names ("nodule", "nodules")."""
    merged: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for (id_, type_), name in names.items():
        merged[fold(name), type_][name] += counts[id_, type_]
    for (_, type_), wordings in merged.items():
        yield Mined(wordings.most_common(1)[0][0], type_, wordings.total(), "", "", "")
