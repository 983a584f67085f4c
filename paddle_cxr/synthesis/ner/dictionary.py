"""Finding entities by their names: no weights, thousands of texts a second, and exact on what a grammar wrote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ahocorasick_rs import AhoCorasick, MatchKind

from paddle_cxr.registry import register
from paddle_cxr.synthesis.entities import OPPOSITE, TYPES, Key, Span
from paddle_cxr.synthesis.ner.negation import NO_EVIDENCE, Denial, denials
from paddle_cxr.synthesis.ner.words import Words
from paddle_cxr.synthesis.vocabulary import Vocabulary

Mention = tuple[int, int, int]  # first word, one past the last, number of the name

_NO, _IS, _IS_NOT = (Words(words).text for words in ("no", "is", "is not"))
_LINKS = frozenset(Words(word).text for word in ("or", "and", ","))


@register("ner")
class DictionaryNER:
    """Mentions of the vocabulary's names: whole words, the longest name first, whatever case, number and spelling.

    A mention that its sentence denies has the opposite type (:data:`~paddle_cxr.synthesis.entities.OPPOSITE`); anatomy
    cannot be denied.  All names are searched for at once (Aho and Corasick, CACM 1975), so that the time does not
    depend on the size of the vocabulary.

    Args:
        vocabulary: whose names are looked for.
    """

    many_processes = True

    def __init__(self, vocabulary: Vocabulary) -> None:
        names: dict[str, dict[str, Key]] = {}  # pattern → its wordings → what they mean
        # In the order of the types a name means the thing before the thing denied.
        for entity in sorted(vocabulary.entities, key=lambda one: TYPES.index(one.type)):
            meaning = (entity.id, OPPOSITE[entity.type] if entity.denies else entity.type)
            for name in entity.names:
                pattern = Words(name).text
                if pattern:
                    names.setdefault(pattern, {}).setdefault(" ".join(name.lower().split()), meaning)
        for pattern, wordings in list(names.items()):
            for variant, meaning in _variants(pattern, next(iter(wordings.values()))):
                names.setdefault(variant, {"": meaning})
        self._meanings = [next(iter(wordings.values())) for wordings in names.values()]
        # Folding may make one pattern of two things ("markings", "the marking"): there the very words decide.
        self._wordings = {number: wordings for number, wordings in enumerate(names.values())
                          if len(set(wordings.values())) > 1}
        self._numbers = {pattern: number for number, pattern in enumerate(names)}
        self._every_name = _automaton(names)
        patterns = list(names)
        self._hidden_numbers = list(_beginning_inside(patterns, self._meanings))
        self._hidden_names = _automaton(patterns[number] for number in self._hidden_numbers)

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """The mentions of each text, from left to right, without overlap; offsets count characters of the text."""
        return [self._find(text) for text in texts]

    def _find(self, text: str) -> list[Span]:
        words = Words(text)
        mentions = self._mentions(words)
        if not mentions:
            return []
        spans = []
        places = [(first, end) for first, end, _ in mentions]
        for (first, last, name), denial in zip(mentions, denials(words, places), strict=True):
            start, end = words.spans[first][0], words.spans[last - 1][1]
            id_, type_ = self._meanings[name]
            if name in self._wordings:
                id_, type_ = self._wordings[name].get(" ".join(text[start:end].lower().split()), (id_, type_))
            # A list that begins with "no" ends before what is normal in itself: "no effusion, normal heart size".
            if denial > (Denial.REACHED if type_.startswith("non-") else Denial.NO):
                type_ = OPPOSITE.get(type_, type_)
            spans.append(Span(start, end, id_, type_))
        return spans

    def _mentions(self, words: Words) -> list[Mention]:
        """The names in a text, from left to right, without overlap."""
        mentions = [(words.word_at(start), words.word_before(end), number)
                    for number, start, end in self._every_name.find_matches_as_indexes(words.text)]
        if not mentions:
            return []
        covering = {word: place for place, (first, end, _) in enumerate(mentions) for word in range(first, end)}
        mentions += self._elliptic(words, mentions, covering)
        hidden = self._hidden_findings(words, mentions, covering)
        if hidden:
            taken = {word for first, end, _ in hidden for word in range(first, end)}
            mentions = [*hidden, *(one for one in mentions if taken.isdisjoint(range(one[0], one[1])))]
        return sorted(mentions)

    def _hidden_findings(self, words: Words, mentions: list[Mention], covering: dict[int, int]) -> list[Mention]:
        """Findings that begin within a region's name and go on after it: "left [chest tube]", not "[left chest] tube".

        "[Left lung] [opacity]" stays, although "lung opacity" is a name: that loses nothing.
        """
        hidden = []
        for position, start, stop in self._hidden_names.find_matches_as_indexes(words.text):
            first, end = words.word_at(start), words.word_before(stop)
            begun = mentions[covering[first]] if first in covering else (first, end, -1)
            if begun[0] == first or end <= begun[1] or self._meanings[begun[2]][1] != "anatomy":
                continue
            number = self._hidden_numbers[position]
            others = {mentions[covering[word]] for word in range(begun[1], end) if word in covering}
            if all(other[1] <= end and self._meanings[other[2]][0] != self._meanings[number][0] for other in others):
                hidden.append((first, end, number))
        return hidden

    def _elliptic(self, words: Words, mentions: list[Mention], covering: dict[int, int]) -> list[Mention]:
        """What shares its last words with the name after it: in "pleural or pericardial effusion" the pleural one."""
        found = []
        for first, end, _ in mentions:
            shared = words.between(first + 1, end)
            begin = _before_links(words, first)
            while shared and begin and begin - 1 not in covering and begin < first:
                number = self._numbers.get(words.between(begin - 1, begin) + shared)
                if number is None:
                    break
                found.append((begin - 1, begin, number))
                first = begin - 1
                begin = _before_links(words, first)
        return found


def _variants(pattern: str, meaning: Key) -> Iterator[tuple[str, Key]]:
    """Other ways to say a name that holds a "no" or a verb, and what they mean."""
    id_, type_ = meaning
    if pattern.startswith(_NO) and pattern != _NO:  # "no acute disease", "no radiographic evidence of acute disease"
        for begin in NO_EVIDENCE:
            yield Words(begin).text + pattern.removeprefix(_NO), meaning
    if _IS in pattern and type_ in OPPOSITE:  # "the heart is enlarged", "the heart is not enlarged"
        yield pattern.replace(_IS, _IS_NOT, 1), (id_, OPPOSITE[type_])


def _beginning_inside(patterns: Sequence[str], meanings: Sequence[Key]) -> Iterator[int]:
    """The numbers of the findings' names that may begin within a region's name: "chest tube" within "left chest"."""
    inner = {word for pattern, (_, type_) in zip(patterns, meanings, strict=True) if type_ == "anatomy"
             for word in pattern.split()[1:]}
    for number, (pattern, (_, type_)) in enumerate(zip(patterns, meanings, strict=True)):
        first, *others = pattern.split()
        if type_ != "anatomy" and others and first in inner:
            yield number


def _automaton(patterns: Iterable[str]) -> AhoCorasick:
    return AhoCorasick(list(patterns), matchkind=MatchKind.LeftmostLongest, store_patterns=False)


def _before_links(words: Words, place: int) -> int:
    """``place``, or where the commas, "and" and "or" that stand before it begin."""
    while place and words.between(place - 1, place) in _LINKS:
        place -= 1
    return place
