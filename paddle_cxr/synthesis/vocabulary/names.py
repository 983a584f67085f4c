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
