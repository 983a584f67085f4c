"""Which mentions a sentence denies, after NegEx (Chapman et al., J Biomed Inform 2001) and NegBio (Peng et al., 2018).

NegEx looks for cues ("no", "is not seen") and denies what stands within a fixed number of words of one.  Radiologists
write long lists, so here a cue reaches to the end of its clause instead: to a full stop, to a word that turns the
sentence ("but", "due to"), or to a comma or "and" after which something else gets a verb of its own ("no effusion,
and the heart is enlarged").  What is uncertain ("pneumonia cannot be excluded") is not denied.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from enum import IntEnum
from itertools import product

from ahocorasick_rs import AhoCorasick, MatchKind

from paddle_cxr.synthesis.ner.words import Words


class Cue(IntEnum):
    """What a word does; the order is that of processing where two begin at the same word."""

    FRESH = 0  # begins something new after a comma or "and": "no pneumothorax, stable cardiomegaly"
    BEFORE = 1  # denies what follows
    AFTER = 2  # denies what came before
    EITHER = 3  # denies what came before, or where nothing did, what follows: "effusion resolved", "resolved effusion"
    HARMLESS = 4  # looks like a cue and denies nothing: "no change in"
    END = 5  # no cue reaches across
    STOP = 6  # the sentence ends
    LINK = 7  # between the members of a list, or between clauses
    OR = 8  # the same, and never before another thought
    SEEN = 9  # a verb that only says that something is there
    VERB = 10  # any other finite verb
    NOTHING = 11  # holds the words of a cue and does nothing


MENTION = 12  # sorts after the cues


class Denial(IntEnum):
    """How a mention is denied; what is normal in itself ("clear lungs") takes a cue right beside it."""

    NO = 0
    REACHED = 1
    BESIDE = 2


# The tables.  Articles, adverbs of degree and the forms of "be" are folded by :mod:`.words`, so that "are not clearly
# seen" needs no line of its own.  What stands in two tables is what the first says.
_SEEN = ("seen", "identified", "visualized", "visible", "present", "noted", "evident", "demonstrated", "detected",
         "appreciated", "observed", "found", "apparent", "suspected", "suggested", "shown", "recognized", "discerned",
         "depicted", "appreciable", "identifiable", "detectable", "in evidence", "encountered", "documented")
_VERBS = ("show", "demonstrate", "reveal", "represent", "suggest", "persist", "project", "overlie", "extend", "obscure",
          "contain", "measure", "indicate", "lie", "terminate", "reflect", "exhibit", "continue", "exclude")
_CHANGES = ("change", "increase", "decrease", "worsening", "progression", "improvement", "enlargement in size",
            "changed", "increased", "decreased", "worsened", "improved", "progressed")
_SORTS_OF_CHANGE = ("", "interval", "significant", "significant interval", "interval significant", "suspicious",
                    "suspicious interval", "appreciable", "substantial", "definite", "major", "further", "obvious",
                    "evidence of", "evidence of interval", "other", "new", "acute", "radiographic", "much", "gross")
_PARTLY = ("partial", "incomplete", "near complete", "nearly complete", "near", "almost complete")
_NOT_DENYING = (
    "exclude", "excluded", "be excluded", "been excluded", "have excluded", "excludable", "rule out", "ruled out",
    "be ruled out", "been ruled out", "only", "simply", "merely", "necessarily", "certain", "sure", "well",
    "fully", "optimal", "optimally", "adequately", "included", "imaged", "evaluated", "assessed", "limited to",
    "resolved", "cleared", "yet", "uncommon", "unusual", "unexpected", "different", "to mention")
_EARLIER = ("prior", "previous", "comparison")


def _each(*parts: Sequence[str]) -> list[str]:
    """Every combination of one word or none ("") of each part, in order."""
    return [" ".join(filter(None, words)) for words in product(*parts)]


# How "no" is put at length.
NO_EVIDENCE = ("without", *_each(("no", "without"), ("", "convincing", "definite", "radiographic", "clear"),
                                 ("evidence of", "sign of")))

_CUES: dict[Cue, Sequence[str]] = {
    Cue.BEFORE: (
        "no", "not", "without", "never", "neither", "nor", "none of", "no longer", "no evidence that", "denies",
        "negative for", "is negative for", "free of", "free from", "clear of", "absence of", "lack of", "lacks",
        "lacking", "devoid of", "unremarkable for", "instead of", "rather than", "has excluded", "nothing", "doubt",
        "argue against", "argues against", "evidence against",
        "resolution of", "disappearance of", "removal of",
        *_each(("no", "without", "absence of", "lack of"), ("", "convincing", "definite", "radiographic", "clear"),
               ("evidence of", "sign of", "indication of", "suggestion of", "finding of")),
        *_each(("", "is"), ("unlikely to", "not likely to")),
        *_each(("no longer",), _SEEN, ("is",)),
        *_each(("fails to", "failed to"), ("show", "demonstrate", "reveal"))),
    Cue.AFTER: (
        *_each(("", "is", "has been"), ("not", "no longer"), _SEEN),
        *_each(("has not been", "can not be", "could not be", "can no longer be", "could no longer be"), _SEEN),
        *_each(("is", "has been"), ("excluded", "ruled out", "removed", "resected")),
        *_each(("has", "has since"), ("resolved", "cleared", "disappeared")),
        *_each(("is",), ("absent", "resolved", "cleared", "gone", "negative", "unlikely", "highly unlikely",
                         "not likely", "nonexistent", "lacking")),
        "none", "removal", *_each((":",), ("none", "nil", "absent", "negative"))),
    Cue.EITHER: ("absent", "resolved", "unlikely", "ruled out", "removed", "negative", "nil"),
    Cue.HARMLESS: (
        *_each(("no", "not", "without"), _SORTS_OF_CHANGE, _CHANGES),
        *_each(("not",), _NOT_DENYING), "no doubt", "difficult to exclude", "no way to exclude",
        "not possible to exclude", "without excluding",
        *_each(("no", "without"), ("", "available"), _EARLIER),
        *_each(("not", "is not"), _SEEN, ("on",), _EARLIER),
        *_each(("that", "which"), ("is",), _SEEN),
        *_each(_PARTLY, ("resolution of", "resolution", "resolved")),
        *_each(("partially", "incompletely", "nearly", "almost", "partly", "mostly"), ("resolved",)),
        *_each(("document", "ensure", "assure", "confirm", "to", "until", "for"), ("resolution of",))),
    Cue.END: (
        "but", "however", "although", "though", "yet", "nevertheless", "nonetheless", "while", "whereas", "except",
        "except for", "other than", "aside from", "apart from", "beside", "besides", "in addition to", "beyond",
        "despite", "in spite of", "instead", "only", "with", "given", "secondary to", "due to",
        "because", "because of", "following", "after", "since", "status post", "superimposed on", "in setting of",
        "in presence of", "in patient", "in this patient", "which", "that", "if", "when", "where", "unless", "until",
        "as compared", "compared to", "compared with", ")"),
    Cue.STOP: (".", ";", ":"),
    Cue.LINK: (",", "and", "as well as"),
    Cue.OR: ("or", "and or"),
    Cue.FRESH: ("stable", "unchanged", "persistent", "residual", "small", "mild", "moderate", "minimal", "tiny", "old",
                "healed", "prior", "redemonstrated", "redemonstration of", "status post", "findings", "likely", "most",
                "consistent with", "compatible with", "in keeping with", "suggestive of", "concerning for",
                "worrisome for", "suspicious for", "representing", "reflecting"),
    Cue.SEEN: (*_each(("is", "has been", "can be"), _SEEN), "has developed", "exist"),
    Cue.VERB: ("is", "has", "may", "might", "could", "can", "should", "would", "will", "does", *_VERBS),
    Cue.NOTHING: (*_each(("to",), _VERBS), *_each(("that", "which"), ("", "would", "could"), ("suggest",)),
                  "associated with"),
}


@functools.cache
def _automaton() -> tuple[AhoCorasick, list[Cue]]:
    """Searches for all cues at once; the list says what each pattern is."""
    kinds: dict[str, Cue] = {}
    for kind, cues in _CUES.items():
        for cue in cues:
            kinds.setdefault(Words(cue).text, kind)
    return AhoCorasick(list(kinds), matchkind=MatchKind.LeftmostLongest), list(kinds.values())


def denials(words: Words, mentions: Sequence[tuple[int, int]]) -> list[Denial]:
    """How each mention is denied.

    Args:
        words: the folded text.
        mentions: (first word, one past the last) of each, from left to right, without overlap.
    """
    automaton, kinds = _automaton()
    cues = [(words.word_at(start), words.word_before(end), kinds[pattern])
            for pattern, start, end in automaton.find_matches_as_indexes(words.text)]
    result = [Denial.NO] * len(mentions)
    if not any(Cue.BEFORE <= kind <= Cue.HARMLESS for _, _, kind in cues):
        return result
    _walk(_merge(cues, mentions), result)
    return result


_Event = tuple[int, int, int, int]  # first word, Cue or MENTION, one past the last word, number of the mention


def _merge(cues: Sequence[tuple[int, int, Cue]], mentions: Sequence[tuple[int, int]]) -> list[_Event]:
    """Cues and mentions from left to right, without the cues that are part of a mention's name."""
    covering = {word: number for number, (first, end) in enumerate(mentions) for word in range(first, end)}
    events: list[_Event] = [(first, MENTION, end, number) for number, (first, end) in enumerate(mentions)]
    for first, end, kind in cues:
        if Cue.BEFORE <= kind <= Cue.OR:
            if first in covering and covering.get(end - 1) == covering[first]:
                continue
            if kind is Cue.HARMLESS and end - 1 in covering:  # "no [increased markings]" is a plain "no"
                kind, end = Cue.BEFORE, first + 1
        events.append((first, kind, end, -1))
    events.sort()
    return events


def _walk(events: Sequence[_Event], result: list[Denial]) -> None:
    """Mark what the cues of ``events`` deny in ``result``."""
    reaching = False  # a cue before is in force,
    reach_from = -1  # and this is the word after it
    verb = None  # the last kind of verb since that cue, or since the clause began
    or_said = False  # since that cue: a list ends with its "or"
    clause: list[tuple[int, int]] = []  # mentions since then: (number, one past the last word)
    link_end = -1  # one past the last comma or "and"
    for index, (first, kind, end, number) in enumerate(events):
        if kind == MENTION:
            if reaching:
                result[number] = Denial.BESIDE if first == reach_from else max(result[number], Denial.REACHED)
            clause.append((number, end))
            continue
        if kind == Cue.EITHER:
            kind = Cue.AFTER if clause else Cue.BEFORE
        if kind == Cue.BEFORE:
            reaching, reach_from, verb, or_said, clause = True, end, None, False, []
        elif kind == Cue.AFTER:
            for number, mention_end in clause:
                result[number] = Denial.BESIDE if mention_end == first else max(result[number], Denial.REACHED)
            clause.clear()
            verb = kind
        elif kind == Cue.HARMLESS:
            reaching = False  # "no effusion, no change in the opacity"
        elif kind in (Cue.VERB, Cue.SEEN):
            verb = kind
            if not reaching:
                clause.clear()  # they have their verb: "opacity is seen; on the lateral view it is not identified"
        elif kind in (Cue.LINK, Cue.OR):
            whole = or_said or (first == link_end and len(clause) < 2)  # "no effusion or edema and", "no edema, and"
            if _clause_begins(events, index, verb, reaching, whole):
                reaching, verb, clause = False, None, []
            or_said = or_said or kind == Cue.OR
            link_end = end if kind == Cue.LINK else link_end
        elif kind in (Cue.END, Cue.STOP) or (kind == Cue.FRESH and first == link_end):
            reaching, verb, clause = False, None, []


def _clause_begins(events: Sequence[_Event], index: int, verb: int | None, reaching: bool, whole: bool) -> bool:
    """Whether another thought follows the comma, "and" or "or" at ``index``, one that has a verb of its own.

    Args:
        verb: the last kind of verb before.
        reaching: whether a cue reaches to here; if so,
        whole: whether its list may be over.
    """
    _, link, begin, _ = events[index]
    for later in range(index + 1, len(events)):
        first, kind = events[later][:2]
        if kind in (Cue.LINK, Cue.OR) and first == begin:  # of ", and" the "and" decides
            return False
        if reaching and verb == Cue.SEEN and link == Cue.LINK:
            return True  # "no effusion is seen, [stable nodule]"
        if kind in (Cue.BEFORE, Cue.END, Cue.STOP, Cue.LINK, Cue.OR):
            return False
        if kind in (Cue.VERB, Cue.SEEN, Cue.AFTER) and first > begin:
            # "no effusion or [pneumothorax is seen]" belongs together, as does "effusion and [pneumothorax are gone]".
            return verb is not None or (reaching and (kind == Cue.VERB or (whole and link == Cue.LINK)))
    return False
