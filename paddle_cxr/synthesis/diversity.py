"""How varied texts are: n-gram diversity, similarity to each other, and duplicates.

References: distinct-n, Li et al. 2016 (arXiv 1510.03055); MinHash, Broder 1997; near duplicates in
training texts, Lee et al. 2022 (arXiv 2107.06499).
"""

from __future__ import annotations

import hashlib
import heapq
import re
import zlib
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

SHINGLE = 3  # words; what near duplicates and the similarity are told by
NEAR = 0.8  # Jaccard similarity from which reports are near duplicates, as in Lee et al. 2022
# 256 hash values in 32 bands of 8 bring a pair of similarity 0.8 together with probability 1 − (1 − 0.8⁸)³² = 0.997,
# and one of 0.3, which there are many of, with 0.002.
_PERMUTATIONS, _BANDS = 256, 32
_HANZI = "\u3400-\u9fff"
_WORD = re.compile(f"[{_HANZI}]|[^\\W_{_HANZI}]+")


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; each Chinese character counts as a word."""
    return _WORD.findall(text.lower())


def shingles(report: Sequence[str], n: int = SHINGLE) -> list[tuple[str, ...]]:
    """The n-grams of a report's words, in order; of a report of fewer words, all of it as one."""
    return list(zip(*(report[i:] for i in range(n)), strict=False)) or [tuple(report)]


class Sample:
    """A uniform random sample of a stream of unknown length, in memory for ``size`` reports only.

    Every report draws a random number and those with the smallest stay, so the first of a sample are a smaller sample.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self._random = np.random.default_rng(seed)
        self._heap: list[tuple[float, int, list[str]]] = []  # the largest number on top: negated
        self._seen = 0

    def offer(self, report: list[str]) -> None:
        self._seen += 1
        item = (-self._random.random(), self._seen, report)  # the count breaks ties before lists are compared
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, item)
        else:
            heapq.heappushpop(self._heap, item)

    def reports(self) -> list[list[str]]:
        """The sampled reports, in the order of their random numbers."""
        return [report for _, _, report in sorted(self._heap, key=lambda item: -item[0])]


class Duplicates:
    """Finds, for each report of a stream, an earlier one that says the same.

    ``exact``: the same words in the same order (case, punctuation and blanks make no difference).  ``near``: the sets
    of three-word shingles have a Jaccard similarity of at least ``NEAR``; reports are compared with earlier ones that
    are no duplicates themselves.  Candidates come from MinHash, which overlooks 3 pairs in 1000 at the threshold, and
    are then compared exactly.  About 3 kB a distinct report.

    Attributes:
        near: whether near ones are looked for; not so without rensa, which is an extra as it is not to be had for every
            system.
    """

    def __init__(self) -> None:
        try:
            from rensa import RMinHash, RMinHashLSH
        except ImportError:
            self.near = False
        else:
            self.near = True
            self._sketch = RMinHash
            self._buckets = RMinHashLSH(NEAR, _PERMUTATIONS, _BANDS)
        self._exact: dict[bytes, int] = {}
        self._ids: list[str] = []  # by number in the stream: two reports may have one id
        self._shingles: dict[int, array[int]] = {}  # of the reports that repeat nothing, 4 bytes each

    def find(self, id_: str, report: Sequence[str]) -> tuple[Literal["exact", "near"], str] | None:
        """What ``report`` (at least one word) repeats, as (kind, id of the earlier one); else it is remembered."""
        number = len(self._ids)
        self._ids.append(id_)
        digest = hashlib.blake2b(" ".join(report).encode(), digest_size=16).digest()
        earlier = self._exact.setdefault(digest, number)
        if earlier != number:
            return "exact", self._ids[earlier]
        return self._find_near(number, report) if self.near else None

    def _find_near(self, number: int, report: Sequence[str]) -> tuple[Literal["near"], str] | None:
        grams = [" ".join(gram) for gram in shingles(report)]
        own = {zlib.crc32(gram.encode()) for gram in grams}
        sketch = self._sketch(_PERMUTATIONS, seed=0)
        sketch.update(grams)
        for candidate in sorted(self._buckets.query(sketch)):
            common = len(own.intersection(self._shingles[candidate]))
            if common >= NEAR * (len(own) + len(self._shingles[candidate]) - common):
                return "near", self._ids[candidate]
        self._buckets.insert(number, sketch)
        self._shingles[number] = array("I", own)
        return None


def distinct_n(reports: Sequence[Sequence[str]], n: int) -> float:
    """Distinct n-grams / all n-grams, 0–1; n-grams do not reach across reports.

    It falls as a corpus grows: compare equally many words (:func:`first_words`).
    """
    grams = Counter(gram for report in reports for gram in zip(*(report[i:] for i in range(n)), strict=False))
    return len(grams) / max(sum(grams.values()), 1)


def first_words(reports: Sequence[Sequence[str]], limit: int) -> list[Sequence[str]]:
    """Reports up to ``limit`` words in all; the last may be cut."""
    result: list[Sequence[str]] = []
    for report in reports:
        if limit <= 0:
            break
        result.append(report[:limit])
        limit -= len(result[-1])
    return result


def self_similarity(reports: Sequence[Sequence[str]]) -> float | None:
    """Mean cosine similarity of two different reports' shingle counts, over all pairs: 1 = all the same, 0 = nothing
    in common; None for fewer than two reports.

    A cheap stand-in for Self-BLEU: the sum over all pairs is |Σ x|² − n for unit vectors x, so no pair is ever built.
    """
    if len(reports) < 2:
        return None
    total: Counter[tuple[str, ...]] = Counter()
    for report in reports:
        counts = Counter(shingles(report))
        length = sum(count**2 for count in counts.values()) ** 0.5
        for gram, count in counts.items():
            total[gram] += count / length
    n = len(reports)
    return max(0.0, (sum(value**2 for value in total.values()) - n) / (n * (n - 1)))
