"""A report for chosen entities, and the check that finds them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paddle_cxr.app.schema import WriteSection
from paddle_cxr.app.texts import Refusal
from paddle_cxr.registry import build
from paddle_cxr.synthesis.checking import Difference, difference
from paddle_cxr.synthesis.entities import Entity, Span
from paddle_cxr.synthesis.reports import SECTIONS, Maker, Order
from paddle_cxr.synthesis.vocabulary import Vocabulary, load_vocabulary

MOST_SEED = 9_999_999  # a report's number has seven digits
MOST_CHARACTERS = 4000
# Names that examples are made of; those that a vocabulary lacks are left out.
EXAMPLES = (("pleural effusion", "cardiomegaly", "left lower lobe"),
            ("pneumothorax", "chest tube", "right lung"),
            ("consolidation", "air bronchogram", "right upper lobe"))


@dataclass(frozen=True)
class Checked:
    """What NER says of one text: the mentions in it, and how they differ from what was asked for."""

    text: str
    spans: tuple[Span, ...]
    wrong: Difference


@dataclass(frozen=True)
class Report:
    """A report, or an attempt at one: what was written, whether it passed and why not."""

    sections: dict[str, Checked]
    accepted: bool
    attempts: int
    reason: str


class Reporter:
    """Writes and checks reports.

    Raises:
        UserError: a mistake in the section: vocabulary, writer, NER.
    """

    def __init__(self, section: WriteSection) -> None:
        self.vocabulary: Vocabulary = load_vocabulary(section.vocabulary)
        self._ner = build("ner", section.NER, "Write.NER", vocabulary=self.vocabulary)
        writer = build("writer", section.Writer, "Write.Writer", vocabulary=self.vocabulary)
        self._maker = Maker(self.vocabulary, writer, self._ner, seed=0, attempts=section.attempts)
        self._most = section.most

    @property
    def choices(self) -> list[tuple[str, str]]:
        """(label, value) of every entity."""
        return [(label(entity), value_of(entity)) for entity in self.vocabulary]

    @property
    def examples(self) -> list[list[str]]:
        """Values to click."""
        found = [[value for name in names if (value := self._value(name))] for names in EXAMPLES]
        return [values for values in found if values]

    def write(self, values: Sequence[str] | None, seed: int) -> Report:
        """A report that mentions the entities, checked; another ``seed`` gives another one.

        Raises:
            UserError: none, too many, unknown or contradicting entities; a seed out of range.
        """
        positions = self._positions(values)
        written = self._maker.make([Order(checked_seed(seed, MOST_SEED), tuple(positions))])[0]
        record = written.record
        texts = {section: record.get(section, "") for section in SECTIONS}
        if not written.accepted and record.get("refused"):  # show what was refused, or nothing could be learnt from it
            texts[record["reason"].partition(":")[0]] = record["refused"]
        return Report(self.check(texts, values), written.accepted, record["attempts"], record.get("reason", ""))

    def check(self, texts: dict[str, str], values: Sequence[str] | None) -> dict[str, Checked]:
        """What NER finds in each text, against the entities; errors as of :meth:`write`."""
        for text in texts.values():
            if len(text) > MOST_CHARACTERS:
                raise Refusal("phrase_too_long", length=len(text), most=MOST_CHARACTERS)
        entities = [self.vocabulary.entities[position] for position in self._positions(values)]
        wanted = {entity.key: entity for entity in entities}
        found = self._ner.find(list(texts.values()))
        return {section: Checked(text, tuple(spans), difference(wanted, spans))
                for (section, text), spans in zip(texts.items(), found, strict=True)}

    def _positions(self, values: Sequence[str] | None) -> list[int]:
        positions = [self._position(value) for value in dict.fromkeys(values or ())]
        if not positions:
            raise Refusal("no_entities")
        if len(positions) > self._most:
            raise Refusal("too_many_entities", number=len(positions), most=self._most)
        for one in positions:
            clash = self.vocabulary.contradictions.get(one, frozenset()).intersection(positions)
            if clash:
                raise Refusal("contradiction", one=label(self.vocabulary.entities[one]),
                              other=label(self.vocabulary.entities[min(clash)]))
        return positions

    def _position(self, value: str) -> int:
        identity, _, type_ = str(value).partition("/")
        position = self.vocabulary.position.get((identity, type_))
        if position is None:
            raise Refusal("unknown_entity", name=str(value)[:60])
        return position

    def _value(self, name: str) -> str | None:
        identity = self.vocabulary.find_id(name)
        types = (type_ for type_ in ("disease", "abnormality", "anatomy")
                 if (identity, type_) in self.vocabulary.position)
        type_ = next(types, None)
        return f"{identity}/{type_}" if type_ else None


def value_of(entity: Entity) -> str:
    """What stands for an entity in the page: ``effusion/disease``."""
    return f"{entity.id}/{entity.type}"


def label(entity: Entity) -> str:
    """An entity for people: ``无胸腔积液 · no pleural effusion（non-disease）``."""
    english = f"no {entity.en}" if entity.denies else entity.en
    return f"{entity.zh} · {english}（{entity.type}）" if entity.zh else f"{english}（{entity.type}）"


def segments(checked: Checked, asked_for: str, not_asked_for: str) -> list[tuple[str, str | None]]:
    """A text in pieces, each mention with its label: what the page colours."""
    extra, pieces, end = set(checked.wrong.extra), [], 0
    for span in checked.spans:
        pieces.append((checked.text[end:span.start], None))
        pieces.append((checked.text[span.start:span.end], not_asked_for if span.key in extra else asked_for))
        end = span.end
    pieces.append((checked.text[end:], None))
    return [piece for piece in pieces if piece[0]]


def checked_seed(seed: object, most: int) -> int:
    """A whole number from 0 to ``most``; raises UserError for anything else (the page's field may be empty)."""
    if isinstance(seed, bool) or not isinstance(seed, int | float) or seed != seed or not 0 <= seed <= most \
            or int(seed) != seed:
        raise Refusal("bad_seed", most=most)
    return int(seed)
