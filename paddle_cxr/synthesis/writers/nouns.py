"""English noun phrases: number, article and joining, for names that come from any vocabulary.

Rules of thumb instead of a lexicon: a name's head is the word before its first preposition ("blunting *of the
costophrenic angles*" is singular), an ending tells whether the head is plural and whether it can be counted.  They are
right for the wording of chest radiograph reports, and where they cannot know (``plural`` is None) the grammar uses a
sentence without a verb.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

# A name is cut before these to find its head; what follows is a complement.
_COMPLEMENT = frozenset("""of in at with within without over along to from for on by near above below beneath behind
    under across through into between around after following due adjacent secondary consistent projecting overlying
    terminating involving extending containing suggesting suggestive associated superimposed bilaterally""".split())
# A name that ends in one of these, after a noun, is a telegram ("heart size normal"), a sentence of its own.
_PREDICATE = frozenset("""normal clear enlarged unremarkable intact midline stable unchanged elevated blunted tortuous
    sharp patent symmetric symmetrical preserved prominent present absent expanded aerated inflated""".split())
_VERB = re.compile(r"\b(is|are|was|were|has|have|appears?|remains?|shows?|demonstrates?)\b")
_DETERMINER = re.compile(r"(the|a|an|both|all|each|either|some|several|multiple|few|bilateral|status)\b", re.I)
_NEGATIVE = re.compile(r"(no|not|without|nothing|neither)\b", re.I)

_PLURAL = frozenset("""vertebrae hila apices bronchi bullae septa atria viscera foramina pleurae scapulae alveoli humeri
    sulci foci emboli thrombi calculi ossa lamellae cannulae trabeculae media data criteria tissues""".split())
_SINGULAR_S = frozenset("""pancreas ascites diabetes series lens biceps triceps atlas gas status chest caries pus
    pes bias viscus rickets measles""".split())
# Endings of what cannot be counted ("there is pulmonary edema"), and heads with such an ending that can.
_MASS_ENDING = ("ing", "ia", "ema", "itis", "osis", "asis", "esis", "ity", "ment", "ness", "ism", "aly", "ion", "pathy",
                "tomy", "plasty", "penia", "trophy", "plegia", "peritoneum", "mediastinum", "pericardium", "ence",
                "ance", "age")
_MASS = frozenset("""air fluid disease tissue fat gas loss change failure haze debris contrast hardware surgery cancer
    carcinoma lymphoma adenocarcinoma trauma hypertension blood mucus inversus volume barium bone silicosis lysis
    pus cement oedema crepitus foam material vascularity health stasis ectasis collapse overload distress
    arrest shock ascites diabetes syndrome asthma pertussis cough croup fever barotrauma pleurisy sarcoid sarcoma
    mesothelioma myeloma insufficiency pulmonale tamponade tetralogy palsy paralysis tachypnea return excavatum
    carinatum deficiency sequela spread asymmetry plethora vasculature osteolysis shrapnel chest symmetry solitus
    pleura parenchyma interstitium exposure size jewelry opacification shadowing""".split())
_COUNTED = frozenset("""lesion effusion collection projection junction region malformation hernia opacity density cavity
    deformity abnormality metastasis fragment ligament segment implant attachment ring string wing bulla position
    infiltrate granuloma diaphragm appendage obliquity irregularity convexity concavity impression
    extremity prosthesis line image stenosis indentation protrusion variation incision configuration""".split())


@dataclass(frozen=True, slots=True)
class Noun:
    """A name and what grammar needs to know of it.

    Attributes:
        text: the name.
        head: its main word, lower case ("blunting" in "blunting of the costophrenic angle").
        plural: whether its verb is plural; None where the rules cannot know (two heads joined by "and").
        article: "a", "an" or "" (plural, uncountable, or with a determiner of its own).
        shape: ``noun``; ``clause`` (a telegram or a clause, that stands alone); ``negative`` ("no acute disease").
    """

    text: str
    head: str
    plural: bool | None
    article: str
    shape: Literal["noun", "clause", "negative"]

    def indefinite(self, modifier: str = "") -> str:
        """"a patchy opacity", "an irregular mass", "pulmonary edema", with an optional adjective before the name."""
        text = f"{modifier} {self.text}" if modifier else self.text
        return f"{_article(text)} {text}" if self.article else text

    def definite(self) -> str:
        """"the left hilum", but "both lungs" and "T5"."""
        bare = _DETERMINER.match(self.text) or re.fullmatch(r"[A-Z]{1,2}\d\S*", self.text)
        return self.text if bare and not self.text.startswith("bilateral") else f"the {self.text}"


@lru_cache(maxsize=1 << 16)  # a vocabulary has some thousand names, and each is asked for a thousand times
def noun(name: str) -> Noun:
    """What the rules say about ``name`` (a noun phrase without an article)."""
    words = name.lower().split()
    cut = next((i for i, word in enumerate(words) if i and word in _COMPLEMENT), len(words))
    head = words[cut - 1].strip(",()")
    plural = is_plural(head)
    if _NEGATIVE.match(name):
        return Noun(name, head, plural, "", "negative")
    if has_verb(name) or (cut > 1 and {head, words[-1]} & _PREDICATE):
        return Noun(name, head, None, "", "clause")
    if "and" in words[:cut] and not plural:
        return Noun(name, head, None, "", "noun")
    mass = plural or _is_mass(head) or _is_acronym(name.split()[cut - 1]) or _DETERMINER.match(name)
    return Noun(name, head, plural, "" if mass else _article(name), "noun")


def has_verb(name: str) -> bool:
    """Whether a name is a clause: "lungs are clear"."""
    return _VERB.search(name) is not None


def is_plural(word: str) -> bool:
    """Whether a lower-case noun is plural by its form."""
    if word in _PLURAL:
        return True
    if word in _SINGULAR_S or word.endswith(("ss", "us", "is", "'s")):
        return False
    return word.endswith(("s", "ae", "mata"))


def _is_mass(head: str) -> bool:
    if head in _COUNTED:
        return False
    return head in _MASS or head.endswith(_MASS_ENDING)


_COUNTED_ACRONYMS = frozenset("SVC IVC ETT PICC CVC IABP LVAD ICD AICD UAC UVC".split())  # vessels and devices


def _is_acronym(head: str) -> bool:
    """COPD, ARDS: mostly diseases, which are not counted."""
    return head.isupper() and head not in _COUNTED_ACRONYMS


# Abbreviations are read letter by letter (an NG tube, an SVC filter) but for those that make a word.
_VOWEL_LETTER, _AS_A_WORD = "AEFHILMNORSX", ("PICC", "SARS", "NICU", "MERS")
_VOWEL_SOUND = re.compile(r"(?:[aeio]|u(?!ni(?![nm])|su|ter|re)|hour|honest|8|11\b|18\b)", re.I)


def _article(phrase: str) -> str:
    first = phrase.split(" ", 1)[0].split("-", 1)[0]
    if len(first) > 1 and first.isupper() and first.isalpha() and first not in _AS_A_WORD:
        return "an" if first[0] in _VOWEL_LETTER else "a"
    if first.lower() in ("one", "once", "european"):
        return "a"
    return "an" if _VOWEL_SOUND.match(first) else "a"


def join(items: Sequence[str], conjunction: str, oxford: bool = True) -> str:
    """"a", "a or b", "a, b, or c" (``oxford``: with the comma before the conjunction)."""
    if len(items) < 3:
        return f" {conjunction} ".join(items)
    return f"{', '.join(items[:-1])}{',' if oxford else ''} {conjunction} {items[-1]}"
