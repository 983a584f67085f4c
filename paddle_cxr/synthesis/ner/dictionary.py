"""Finding entities by their names: no weights, thousands of texts a second, and exact on what a grammar wrote."""

from __future__ import annotations

from collections.abc import Sequence

from ahocorasick_rs import AhoCorasick, MatchKind

from paddle_cxr.registry import register
from paddle_cxr.synthesis.entities import OPPOSITE, TYPES, Key, Span
from paddle_cxr.synthesis.ner.negation import Denial, denials
from paddle_cxr.synthesis.ner.words import Words
from paddle_cxr.synthesis.vocabulary import Vocabulary


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
        self._meanings = [next(iter(wordings.values())) for wordings in names.values()]
        # Folding may make one pattern of two things ("markings", "the marking"): there the very words decide.
        self._wordings = {number: wordings for number, wordings in enumerate(names.values())
                          if len(set(wordings.values())) > 1}
        self._automaton = AhoCorasick(list(names), matchkind=MatchKind.LeftmostLongest, store_patterns=False)

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """The mentions of each text, from left to right, without overlap; offsets count characters of the text."""
        return [self._find(text) for text in texts]

    def _find(self, text: str) -> list[Span]:
        words = Words(text)
        found = self._automaton.find_matches_as_indexes(words.text)
        if not found:
            return []
        mentions = [(words.word_at(start), words.word_before(end)) for _, start, end in found]
        spans = []
        for (pattern, _, _), (first, last), denial in zip(found, mentions, denials(words, mentions), strict=True):
            start, end = words.spans[first][0], words.spans[last - 1][1]
            id_, type_ = self._meanings[pattern]
            if pattern in self._wordings:
                id_, type_ = self._wordings[pattern].get(" ".join(text[start:end].lower().split()), (id_, type_))
            # A list that begins with "no" ends before what is normal in itself: "no effusion, normal heart size".
            if denial > (Denial.REACHED if type_.startswith("non-") else Denial.NO):
                type_ = OPPOSITE.get(type_, type_)
            spans.append(Span(start, end, id_, type_))
        return spans
