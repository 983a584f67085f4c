"""A text as the matcher sees it: folded words, each between two blanks, that still know where they stood.

"The lungs are mildly hyperinflated." becomes ``" lung  is  hyperinflated  . "``.  Since every word brings its own
blanks, a search for ``" lung "`` finds whole words only, and two words of a pattern are two neighbouring words of the
text: commas, full stops and blank lines are words of their own and stand between.
"""

from __future__ import annotations

import functools
import re
from bisect import bisect_left, bisect_right
from itertools import accumulate

from paddle_cxr.synthesis.vocabulary.names import fold

# "non-calcified" is one word, or its second half would match alone and mean the contrary; so is a number with decimals.
# An abbreviation keeps its full stop, which ends no sentence; nor does the line break of a hard-wrapped report.
# "Rather" says nothing, "rather than" does.  What was "not seen previously" is there now.
_TOKEN = re.compile(r"""
      (?:e\.g|i\.e|vs|dr|approx)\. | w/o\b | rather\s+than\b
    | not\s+(?:(?:been|clearly|well)\s+)?(?:(?:seen|present|noted|identified|visuali[sz]ed|evident)\s+)?previously\b
    | (?:slight|minimal|mild|moderate)(?:ly)?\s+to\s+(?:mild|moderate|marked|severe)ly\b
    | \d+(?:\.\d+)+
    | non(?:[-‐‑–]\s?|\s)[^\W\d_]+
    | [^\W_]+(?:['’][^\W_]+)?
    | [.,;:!?()\[\]]
    | \n[^\S\n]*\n\s*
    """, re.IGNORECASE | re.VERBOSE)

# Words that change neither what a mention means nor whether it is denied.  They are dropped from text and names alike,
# so that "heart is mildly enlarged" and "the heart is enlarged" are the same words.
_DROPPED = frozenset("""
    a an the again also both all very quite rather somewhat perhaps slightly mildly moderately markedly severely
    grossly significantly substantially considerably relatively definitely clearly obviously overtly convincingly
    probably possibly presumably apparently currently presently previously newly entirely completely otherwise
    essentially generally predominantly diffusely focally bilaterally acutely chronically just now
    heavily densely extensively minimally appearing
    considered felt deemed thought believed
    """.split())
# Verbs that only join a thing to what is said of it.
_IS = frozenset("""
    is are was were appear appears appeared remain remains remained seem seems seemed look looks looked
    """.split())
_WORDS = {"!": ".", "?": ".", "[": "(", "]": ")", "cannot": "can not", "can't": "can not", "had": "has",
          "have": "has", "w/o": "without", "aren't": "is not", "isn't": "is not", "wasn't": "is not",
          "weren't": "is not", "doesn't": "does not", "don't": "does not", "didn't": "does not", "did": "does",
          "do": "does", "hasn't": "has not", "haven't": "has not", "couldn't": "could not"}
# British spelling → American, by the letters that differ.
_SPELLING = (("oedem", "edem"), ("oesoph", "esoph"), ("aem", "em"), ("pnoea", "pnea"), ("tumour", "tumor"),
             ("colour", "color"), ("fibre", "fiber"), ("centre", "center"), ("grey", "gray"), ("isation", "ization"),
             ("plough", "plow"), ("visualis", "visualiz"), ("localis", "localiz"), ("organis", "organiz"),
             ("caecum", "cecum"), ("paed", "ped"))
# Plurals that the names' own folding leaves alone: by their endings, and by name.
_ENDINGS = (("ae", "a"), ("thoraces", "thorax"), ("stases", "stasis"), ("ectases", "ectasis"), ("theses", "thesis"),
            ("noses", "nosis"), ("roses", "rosis"), ("phoses", "phosis"), ("lioses", "liosis"))
_PLURALS = {"alveoli": "alveolus", "bacilli": "bacillus", "cortices": "cortex", "gases": "gas", "hili": "hilum",
            "hilus": "hilum", "humeri": "humerus", "lenses": "len", "lumina": "lumen", "nuclei": "nucleus",
            "ostia": "ostium", "radii": "radius", "rami": "ramus", "series": "series", "sinuses": "sinus",
            "sterna": "sternum", "stigmata": "stigma", "sulci": "sulcus", "these": "these", "those": "those",
            "varices": "varix", "viruses": "virus", "viscera": "viscus"}


@functools.lru_cache(maxsize=1 << 17)
def fold_word(word: str) -> str:
    """One token as it is compared, a blank on each side: lower case, singular, American spelling.

    Empty for a word of no consequence; several words for a contraction.
    """
    word = "." if word.isspace() else " ".join(word.lower().replace("’", "'").split())
    if word in _DROPPED or " to " in word or word.endswith(" previously"):  # "mild to moderately"
        return ""
    if word in _IS:
        return " is "
    return "".join(f" {part} " for part in (_WORDS.get(word) or _singular(word)).split())


def _singular(word: str) -> str:
    if not word[0].isalpha() or word[-1] == ".":  # numbers, punctuation, abbreviations
        return word
    word = re.sub(r"^non[\s‐‑–-]+", "non", word)
    for british, american in _SPELLING:
        word = word.replace(british, american)
    for ending, singular in _ENDINGS:
        if word.endswith(ending):
            return word.removesuffix(ending) + singular
    return _PLURALS.get(word) or fold(word) or word


class Words:
    """A folded text.

    Attributes:
        text: the words, each with a blank on both sides.
        spans: (start, end) of each word in the original, in characters; only words that were not dropped.
    """

    __slots__ = ("_starts", "spans", "text")

    def __init__(self, text: str) -> None:
        folded = []
        self.spans: list[tuple[int, int]] = []
        for match in _TOKEN.finditer(text):
            word = fold_word(match[0])
            if word:
                folded.append(word)
                self.spans.append(match.span())
        self.text = "".join(folded)
        self._starts = [0, *accumulate(map(len, folded))]

    def between(self, first: int, end: int) -> str:
        """The folded words from number ``first`` up to ``end``."""
        return self.text[self._starts[first]:self._starts[end]]

    def word_at(self, start: int) -> int:
        """The number of the word that ``text[start]`` belongs to."""
        return bisect_right(self._starts, start) - 1

    def word_before(self, end: int) -> int:
        """One more than the number of the word that ``text[end - 1]`` belongs to."""
        return bisect_left(self._starts, end)
