"""When two spellings are one name: "Pleural effusions" is "pleural effusion", "ground-glass" is "ground glass"."""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
# Latin and Greek plurals that radiologists use, where no rule about the last letters is safe.
_IRREGULAR = {
    "apices": "apex", "atelectases": "atelectasis", "atria": "atrium", "bronchi": "bronchus",
    "bronchiectases": "bronchiectasis", "bullae": "bulla", "calculi": "calculus", "cardia": "cardia",
    "diagnoses": "diagnosis", "diverticula": "diverticulum", "emboli": "embolus", "fibroses": "fibrosis",
    "foci": "focus", "foramina": "foramen", "granulomata": "granuloma", "hemidiaphragmata": "hemidiaphragm",
    "hila": "hilum",
    "hydropneumothoraces": "hydropneumothorax", "metastases": "metastasis", "pleurae": "pleura",
    "pneumothoraces": "pneumothorax", "scapulae": "scapula", "septa": "septum", "stenoses": "stenosis",
    "thrombi": "thrombus", "tracheae": "trachea", "vertebrae": "vertebra",
}
# Words that turn a name into its contrary; both ways.
_CONTRARY = {one: other for pair in (
    ("increased", "decreased"), ("increasing", "decreasing"), ("increase", "decrease"), ("larger", "smaller"),
    ("enlarged", "small"), ("enlarging", "shrinking"), ("high", "low"), ("higher", "lower"), ("elevated", "depressed"),
    ("hyperinflated", "underinflated"), ("hyperinflation", "hypoinflation"), ("widened", "narrowed"),
    ("widening", "narrowing"), ("improved", "worsened"), ("improving", "worsening"), ("improvement", "worsening"),
    ("more", "less")) for one, other in (pair, pair[::-1])}


def contraries(folded: str) -> list[str]:
    """A folded name with one word turned into its contrary: "increased density" → "decreased density"."""
    words = folded.split()
    return [" ".join([*words[:place], _CONTRARY[word], *words[place + 1:]])
            for place, word in enumerate(words) if word in _CONTRARY]


def fold(text: str) -> str:
    """What all spellings of a name share: its words in lower case and singular, one blank between them.

    Case, hyphens, other punctuation, possessive 's and full-width letters make no difference.  The result is for
    comparing, not for reading: a word that merely ends in s loses it too.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(map(_singular, _WORD.findall(text.casefold())))


@functools.lru_cache(maxsize=100_000)
def _singular(word: str) -> str:
    word = re.split("['’]", word)[0] if word.endswith(("'s", "’s")) else word
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"  # opacities, cavities
    return word[:-2] if word.endswith(("sses", "xes", "ches", "shes")) else word[:-1]  # masses; effusions


def identifier(name: str) -> str:
    """An id for a name that was given none; the same for all spellings of the name, different for different names."""
    folded = fold(name)
    plain = re.sub("[^a-z0-9]+", "_", folded).strip("_")
    if folded.isascii():
        return plain
    return f"{plain or 'entity'}_{hashlib.sha256(folded.encode()).hexdigest()[:8]}"
