"""The grammar writer: radiology sentences for any set of entities, with no weights.

*What* is said depends on the report alone, so that FINDINGS and IMPRESSION agree: which finding is where, how marked it
is, and which synonym is used beside the main name, for it may say more ("elevated left hemidiaphragm").  *How* it is
said depends on the seed of the attempt: which of the two names, which sentence, which order.  After a failed check
everything is said plainly: the main name, one thing a sentence, no adjective.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from paddle_cxr.registry import register
from paddle_cxr.synthesis.entities import Entity, Key
from paddle_cxr.synthesis.vocabulary import Vocabulary, fold
from paddle_cxr.synthesis.writers.base import Reply, Request
from paddle_cxr.synthesis.writers.nouns import Noun, has_verb, join, noun
from paddle_cxr.synthesis.writers.phrasebook import Phrasebook, Traits

# How many things share a sentence: drawn from these.
_SIZES = {
    "findings": {"present": (1, 1, 1, 2, 2, 3), "inferred": (1, 1, 2), "device": (1, 2, 3),
                 "denied": (1, 2, 2, 3, 3, 4), "state": (1, 1, 2), "clause": (1, 1, 2), "anatomy": (1, 2, 3, 3)},
    "impression": {"present": (1, 2, 2, 3, 3), "inferred": (1, 2), "device": (1, 2, 3),
                   "denied": (2, 3, 4, 5), "state": (1, 2, 3), "clause": (1, 2), "anatomy": (3,)},
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing to say.

    Attributes:
        entity: what.
        noun: its name in this section.
        purpose: the list of sentences it goes into.
        adjective: before the name; empty for none.
        place: after it, "in the left lung"; empty for none.
        system: its rank in a systematic reading of the film; -1 where it is in no list.
        described: whether the name begins with an adjective of degree, size or time ("old fracture").
    """

    entity: Entity
    noun: Noun
    purpose: str
    adjective: str = ""
    place: str = ""
    system: int = 0
    described: bool = False

    @property
    def bare(self) -> str:
        return " ".join(filter(None, (self.adjective, self.noun.text, self.place)))

    @property
    def full(self) -> str:
        """With its article."""
        name = self.noun.indefinite(self.adjective)
        return f"{name} {self.place}" if self.place else name


@dataclass(frozen=True, slots=True)
class Plan:
    """What a report says beyond its entities.

    Attributes:
        adjectives: of findings.
        regions: that findings are attached to.
        synonyms: besides the main names.
    """

    adjectives: dict[Key, str]
    regions: dict[Key, Entity]
    synonyms: dict[Key, str]


@register("writer")
class GrammarWriter:
    """Composes sections from the tables of ``grammar.yaml``; see :class:`~paddle_cxr.synthesis.writers.base.Writer`.

    Args:
        vocabulary: what the reports are checked against; sentences that hold one of its names are not used.
    """

    title = "grammar"
    prompts_hash = None
    many_processes = True

    def __init__(self, vocabulary: Vocabulary | None = None) -> None:
        self._book = Phrasebook(vocabulary)

    def write(self, requests: Sequence[Request]) -> list[Reply]:
        """One section for each request; the same request always gives the same text."""
        return [Reply(self._write(request)) for request in requests]

    def _write(self, request: Request) -> str:
        rng = Random(request.seed)
        plain = bool(request.feedback)
        facts = self._facts(request, rng, plain)
        units = list(_units(facts, request.section, rng, plain))
        _put_in_order(units, request.section, rng)
        sentences = self._sentences(units, request.section, rng)
        if not plain:
            sentences = self._framed(sentences, request.section, rng)
        return _layout(sentences, request.section, rng)

    def _plan(self, request: Request) -> Plan:
        """Drawn from the report's id and entities, not from the attempt's seed: both sections have to agree."""
        rng = Random(f"{request.id} {[entity.key for entity in request.entities]}")
        regions = [entity for entity in request.entities if entity.type == "anatomy"]
        findings = [entity for entity in request.entities if entity.denies or not entity.type.startswith(("non", "an"))]
        rng.shuffle(regions)
        rng.shuffle(findings)
        findings.sort(key=lambda entity: entity.denies)  # what is present is placed before what is not
        clear = _clear_regions(request.entities)
        adjectives, attached = {}, {}
        for finding in findings:
            choices = () if finding.denies else self._book.traits(finding.en).adjectives
            if choices and rng.random() < 0.35:
                adjectives[finding.key] = rng.choice(choices)
            region = next((region for region in regions if self._book.attach(finding.en, region.en, rng)
                           and not any(clear_words <= _words(region.en) for clear_words in clear)), None)
            if region and rng.random() < (0.6 if finding.denies else 0.9):
                attached[finding.key] = region
                regions.remove(region)
        synonyms = {entity.key: self._synonym(entity, adjectives.get(entity.key, ""), rng)
                    for entity in request.entities}
        return Plan(adjectives, attached, synonyms)

    def _synonym(self, entity: Entity, adjective: str, rng: Random) -> str:
        """A name that fits in the same sentences as the main name, and after ``adjective`` where there is one."""
        name = rng.choice(entity.names)
        if noun(name).shape != "noun" and (entity.denies or entity.type == "anatomy"):
            return entity.en
        return entity.en if adjective and adjective not in self._book.traits(name).adjectives else name

    def _facts(self, request: Request, rng: Random, plain: bool) -> list[Fact]:
        plan = Plan({}, {}, {}) if plain else self._plan(request)
        attached = {region.key for region in plan.regions.values()}
        facts = []
        for entity in request.entities:
            if entity.key in attached:
                continue
            region, adjective = plan.regions.get(entity.key), plan.adjectives.get(entity.key, "")
            name, place = _name(entity, plan, rng), ""
            if region:
                place = self._book.attach(name, _name(region, plan, rng), rng)
                if not place:  # this synonym says itself where it is, or the region's has another main word
                    name, place = entity.en, self._book.attach(entity.en, region.en, rng)
            traits = self._book.traits(name)
            adjective = adjective if adjective in traits.adjectives else ""
            facts.append(Fact(entity, traits.noun, _purpose(entity, traits), adjective, place, traits.system,
                              traits.described))
        return facts

    def _sentences(self, units: list[Unit], section: str, rng: Random) -> list[str]:
        sentences: list[str] = []
        used: set[str] = set()
        for purpose, facts in units:
            if purpose == "clause":
                sentences.append(_clauses([fact.noun for fact in facts]))
                continue
            choices = self._book.sentences[section][purpose]
            options = choices.every if sentences else choices.opening
            if any(fact.noun.plural is None for fact in facts):
                options = choices.verbless
            template = rng.choice(options)
            if template in used:  # a reader hears a repeated sentence at once
                template = rng.choice([other for other in options if other not in used] or options)
            used.add(template)
            sentences.append(_capital(template.format_map(_slots(purpose, facts, rng))))
        return sentences

    def _framed(self, sentences: list[str], section: str, rng: Random) -> list[str]:
        opening = self._book.sentences["findings"]["opening"].every if section == "findings" else ()
        closing = self._book.sentences[section]["closing"].every
        if opening and rng.random() < 0.25:
            sentences = [rng.choice(opening), *sentences]
        if closing and rng.random() < 0.12:
            sentences = [*sentences, rng.choice(closing)]
        return sentences


def _clear_regions(entities: Iterable[Entity]) -> list[frozenset[str]]:
    """The words of each region that is said to be clear, where no finding can be: "clear upper lobes"."""
    return [_words(name) - {"clear"} for entity in entities if entity.type == "non-abnormality" and not entity.denies
            for name in entity.names if name.startswith("clear ")]


@functools.lru_cache(maxsize=1 << 16)
def _words(name: str) -> frozenset[str]:
    return frozenset(fold(name).split())


def _name(entity: Entity, plan: Plan, rng: Random) -> str:
    """The main name, or now and then the report's synonym for it."""
    # What is normal reads better as a clause, which is among the synonyms: "the lungs are clear".
    normal = entity.type.startswith("non-") and not entity.denies
    return entity.en if rng.random() < (0.25 if normal else 0.4) else plan.synonyms.get(entity.key, entity.en)


Unit = tuple[str, list[Fact]]  # what one sentence says: the list of sentences it is drawn from, and its facts


def _purpose(entity: Entity, traits: Traits) -> str:
    if entity.type == "anatomy":
        return "anatomy"
    if entity.denies:
        return "denied"
    if traits.noun.shape != "noun":
        return traits.noun.shape
    if entity.type.startswith("non-"):
        return "state"
    return traits.purpose


def _units(facts: Iterable[Fact], section: str, rng: Random, plain: bool) -> Iterable[Unit]:
    """Share the facts out over sentences: neighbours in a systematic reading stand together."""
    by_purpose: dict[str, list[Fact]] = {}
    for fact in facts:
        purpose = fact.purpose
        if purpose == "inferred" and rng.random() < 0.5:
            purpose = "present"  # "there is pneumonia" is as good as "findings suggest pneumonia"
        by_purpose.setdefault(purpose, []).append(fact)
    units: list[Unit] = []
    for purpose, members in by_purpose.items():
        members.sort(key=lambda fact: fact.system + 3 * rng.random())
        while members:
            size = 1 if plain or purpose not in _SIZES[section] else rng.choice(_SIZES[section][purpose])
            together, members = _first(members, size)
            units.append((purpose, together))
    return units if plain or section == "impression" else _merged([_special(unit, rng) for unit in units], rng)


def _special(unit: Unit, rng: Random) -> Unit:
    """Now and then "neither … nor …" for two things denied, and "in the left lung, there is …" for one in its place."""
    purpose, facts = unit
    if purpose == "denied" and len(facts) == 2 and rng.random() < 0.08:
        return "neither", facts
    if purpose == "present" and len(facts) == 1 and facts[0].place and rng.random() < 0.6:
        return "located", facts
    return unit


def _first(members: list[Fact], size: int) -> tuple[list[Fact], list[Fact]]:
    """Split off up to ``size`` facts that one sentence can list without being misread."""
    if members[0].purpose == "clause":
        size = size if all(has_verb(fact.noun.text) for fact in members[:size]) else 1
    if members[0].purpose != "denied":
        together = sorted(members[:size], key=lambda fact: not fact.place)  # "scarring and a mass in the left lung"
        return together, members[size:]
    if members[0].place:  # "no mass in the left lung or effusion"
        return members[:1], members[1:]
    # "No effusion, old fracture or mass" could report an old fracture: a name with an adjective begins its own list.
    end = next((i for i, fact in enumerate(members[:size]) if i and (fact.place or fact.described)), size)
    return members[:end], members[end:]


def _merged(units: list[Unit], rng: Random) -> list[Unit]:
    """Now and then one sentence for what is there and what is not: "clear lungs without pleural effusion"."""
    pairs = {"present": "contrast", "state": "clear"}
    for first in units:
        if first[0] not in pairs or len(first[1]) > 1 or rng.random() > 0.3:
            continue
        for second in units:
            related = 0 <= second[1][0].system == first[1][0].system
            if second[0] == "denied" and len(second[1]) < 3 and related:
                rest = [unit for unit in units if unit is not first and unit is not second]
                return [*rest, (pairs[first[0]], [*first[1], *second[1]])]
    return units


def _put_in_order(units: list[Unit], section: str, rng: Random) -> None:
    """Sort in place: by body system, by what is present first, by what is normal first, or not at all."""
    rng.shuffle(units)
    present = ("present", "located", "inferred", "device", "contrast")
    scheme = rng.random() if section == "findings" else 0.6 + 0.4 * rng.random()
    if scheme < 0.45:
        units.sort(key=lambda unit: -min(fact.system for fact in unit[1]))
    elif scheme < 0.6:
        units.sort(key=lambda unit: unit[0] in present)
    elif scheme < 0.92:
        units.sort(key=lambda unit: unit[0] not in present)
    units.sort(key=lambda unit: unit[0] == "anatomy" and (section == "impression" or rng.random() < 0.85))


def _slots(purpose: str, facts: list[Fact], rng: Random) -> dict[str, str]:
    """The values of a sentence's braces; see the head of ``grammar.yaml``."""
    oxford = rng.random() < 0.6
    denied = [fact for fact in facts if fact.purpose == "denied"]
    present = [fact for fact in facts if fact.purpose != "denied"]
    slots = {}
    if denied:
        names = [fact.bare for fact in denied]
        slots = {"or": join(names, "or", oxford), "and": join(names, "and", oxford), "nor": join(names, "nor"),
                 "no": join([f"no {name}" for name in names], "and", oxford), "be": _be(denied),
                 "first": _be(denied[:1]), "last": _be(denied[-1:])}
    if present and purpose == "anatomy":
        slots |= {"a": join([fact.noun.definite() for fact in present], "and", oxford),
                  "list": join([fact.noun.text for fact in present], "and", oxford), "be": _be(present),
                  "was": "were" if _be(present) == "are" else "was"}
    elif present:
        slots |= {"x": join([fact.full for fact in present], "and", oxford),
                  "bare": join([fact.bare for fact in present], "and", oxford),
                  "be": _be(present), "are": _be(present[:1]),
                  "n": present[0].noun.indefinite(present[0].adjective), "loc": present[0].place}
    return slots


def _be(facts: Sequence[Fact]) -> str:
    return "are" if len(facts) > 1 or facts[0].noun.plural else "is"


def _clauses(names: Sequence[Noun]) -> str:
    """"Heart size normal." stands as it is; clauses get articles: "The lungs are clear and the aorta is normal."."""
    return _capital(join([name.definite() if has_verb(name.text) else name.text for name in names], "and") + ".")


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _layout(sentences: list[str], section: str, rng: Random) -> str:
    """Prose, or a numbered impression."""
    if section == "impression" and len(sentences) > 1 and rng.random() < 0.6:
        separator = "\n" if rng.random() < 0.5 else " "
        return separator.join(f"{number}. {sentence}" for number, sentence in enumerate(sentences, 1))
    return " ".join(sentences)
