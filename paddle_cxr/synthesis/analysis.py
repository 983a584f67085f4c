"""How often what is mentioned: the long tail of a report corpus in numbers.

Everything is counted while the reports are read, so a corpus may be larger than memory.  An entity counts once a
report, however often the report repeats it: reports are what a model is trained on, and a synthetic report names each
of its entities in both sections.

References: SynCXR (arXiv 2410.13523) for the long tail of real reports against the balanced synthetic ones; Gini 1912;
Shannon 1948; Pielou 1966 for the normalised entropy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.synthesis.corpora import Report
from paddle_cxr.synthesis.diversity import Duplicates, Sample, distinct_n, first_words, self_similarity, words
from paddle_cxr.synthesis.entities import NER, TYPES, Key, Span
from paddle_cxr.synthesis.vocabulary import Vocabulary

BATCH = 256  # reports that go through the NER together
HEAD, TAIL = 0.1, 0.5  # the most frequent tenth of the entities, and the least frequent half

Counts = Sequence[int] | np.ndarray


@dataclass(frozen=True, slots=True)
class TypeNumbers:
    """The entities of one type in one corpus.

    Attributes:
        type: one of ``TYPES``.
        entities: how many different ones occur.
        mentions: reports that mention one, summed over the entities.
        per_report: mentions a report.
        head_share, tail_share: share of the mentions, 0–1, that goes to the most frequent tenth and to the least
            frequent half; 0.1 and 0.5 when all are equally frequent, None without any (as for Gini).
        gini: 0 (all equally frequent) – 1 (one entity has everything), among the entities that occur.
        entropy: bits; evenness: entropy / log2(entities), 0–1, None for fewer than two entities.
        vocabulary: entries of the type in the vocabulary, or 0.
        coverage: share of them that occurs; None without any.
        gini_vocabulary: Gini over the vocabulary's entries, those that never occur counted as 0; None without any.
    """

    type: str
    entities: int
    mentions: int
    per_report: float
    head_share: float | None
    tail_share: float | None
    gini: float | None
    entropy: float
    evenness: float | None
    vocabulary: int
    coverage: float | None
    gini_vocabulary: float | None


@dataclass(frozen=True, slots=True)
class TextNumbers:
    """The texts of one corpus.

    Attributes:
        reports: with at least one word; empty: without.
        synthetic: how many of ``reports`` a writer is named for.
        words_mean: words a report.
        distinct: distinct-1, -2 and -3 over the first ``compared_words`` words of the sample.
        compared_words: the same number for all corpora that are compared, so that their sizes do not matter.
        self_similarity: see :func:`~paddle_cxr.synthesis.diversity.self_similarity`.
        exact, near: reports that repeat an earlier one; near is None where near ones could not be looked for.
    """

    reports: int
    empty: int
    synthetic: int
    words_mean: float
    distinct: tuple[float, float, float]
    compared_words: int
    self_similarity: float | None
    exact: int
    near: int | None


@dataclass
class CorpusCounts:
    """What is known of a corpus after one reading.

    Attributes:
        name: as in the recipe.
        reports, empty, synthetic, words: see :class:`TextNumbers`; ``words`` is the sum.
        counts: key (id, type) → reports that mention it.
        repeats: (id, ``exact`` or ``near``, id of the earlier report) of every duplicate.
        near: whether near duplicates were looked for.
        sample: words of randomly chosen reports.
    """

    name: str
    reports: int = 0
    empty: int = 0
    synthetic: int = 0
    words: int = 0
    counts: Counter[Key] = field(default_factory=Counter)
    repeats: list[tuple[str, str, str]] = field(default_factory=list)
    near: bool = True
    sample: list[list[str]] = field(default_factory=list)

    def ranked(self, type_: str) -> list[tuple[Key, int]]:
        """Entities of a type and their counts, the most frequent first, equal ones by id."""
        return sorted(((key, count) for key, count in self.counts.items() if key[1] == type_),
                      key=lambda item: (-item[1], item[0]))

    def frequencies(self, type_: str) -> np.ndarray:
        """int64 counts of the type's entities, in descending order."""
        return np.array([count for _, count in self.ranked(type_)], np.int64)


def count_corpus(name: str, reports: Iterable[Report], ner: Callable[[], NER], *, sample: int, seed: int
                 ) -> CorpusCounts:
    """Read a corpus once and count.

    Args:
        reports: of :func:`paddle_cxr.synthesis.corpora.read_corpus`.
        ner: makes the NER; called only when a report does not name its entities.
        sample: size of the random sample of texts; seed: of it.

    Raises:
        UserError: no report with text; what reading raises.
    """
    result, chosen, duplicates = CorpusCounts(name), Sample(sample, seed), Duplicates()
    for report, keys in _with_keys(reports, ner):
        text = [word for section in report.texts for word in words(section)]
        if not text:
            result.empty += 1
            continue
        result.reports += 1
        result.synthetic += bool(report.writer)
        result.words += len(text)
        result.counts.update(keys)
        chosen.offer(text)
        repeat = duplicates.find(report.id, text)
        if repeat:
            result.repeats.append((report.id, *repeat))
    if not result.reports:
        raise UserError(f"语料（corpus）{name} 里没有一份带文字的报告；请检查文件是不是空的，"
                        "正文是不是在 findings、impression 里")
    result.sample, result.near = chosen.reports(), duplicates.near
    return result


def _with_keys(reports: Iterable[Report], ner: Callable[[], NER]) -> Iterator[tuple[Report, frozenset[Key]]]:
    stream = iter(reports)
    while batch := list(islice(stream, BATCH)):
        silent = [report for report in batch if report.entities is None]
        found = iter(find_spans(silent, ner()) if silent else [])
        for report in batch:
            if report.entities is not None:
                yield report, report.entities
            else:
                yield report, frozenset(span.key for _, spans in next(found) for span in spans)


def find_spans(reports: Sequence[Report], ner: NER) -> list[list[tuple[str, list[Span]]]]:
    """For each report its (text, spans) pairs, one a section: a "no" at the end of one must not reach into the next."""
    spans = iter(ner.find([text for report in reports for text in report.texts]))
    return [[(text, next(spans)) for text in report.texts] for report in reports]


def type_numbers(corpus: CorpusCounts, vocabulary: Vocabulary) -> list[TypeNumbers]:
    """The numbers of every type, in the order of ``TYPES``."""
    return [_type_numbers(corpus, type_, vocabulary) for type_ in TYPES]


def _type_numbers(corpus: CorpusCounts, type_: str, vocabulary: Vocabulary) -> TypeNumbers:
    counts = corpus.frequencies(type_)
    mentions, n = int(counts.sum()), len(counts)
    of_vocabulary = np.array([corpus.counts[vocabulary.entities[i].key] for i in vocabulary.of_type(type_)], np.int64)
    size = len(of_vocabulary)
    # Without a mention there is no distribution: nothing is said rather than "perfectly even".
    known = size > 0 and of_vocabulary.any()
    return TypeNumbers(
        type_, n, mentions, mentions / corpus.reports,
        head_share=1 - lorenz_at(counts, 1 - HEAD) if n else None,
        tail_share=lorenz_at(counts, TAIL) if n else None,
        gini=gini(counts) if n else None,
        entropy=entropy(counts), evenness=entropy(counts) / np.log2(n) if n > 1 else None,
        vocabulary=size, coverage=float((of_vocabulary > 0).mean()) if size else None,
        gini_vocabulary=gini(of_vocabulary) if known else None)


def text_numbers(corpora: Sequence[CorpusCounts]) -> list[TextNumbers]:
    """The numbers of every corpus, n-gram diversity over equally many words of each."""
    limit = min(sum(map(len, corpus.sample)) for corpus in corpora)
    result = []
    for corpus in corpora:
        sample = first_words(corpus.sample, limit)
        kinds = Counter(kind for _, kind, _ in corpus.repeats)
        result.append(TextNumbers(
            corpus.reports, corpus.empty, corpus.synthetic, corpus.words / corpus.reports,
            (distinct_n(sample, 1), distinct_n(sample, 2), distinct_n(sample, 3)), limit,
            self_similarity(corpus.sample), kinds["exact"], kinds["near"] if corpus.near else None))
    return result


def lorenz(counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """The Lorenz curve: the least frequent share x of the entities has the share y of the mentions.

    Args:
        counts: [N], not negative, not all zero.

    Returns:
        x, y: float64 [N + 1], from (0, 0) to (1, 1).
    """
    ordered = np.sort(np.asarray(counts, np.float64))
    return np.linspace(0, 1, len(ordered) + 1), np.r_[0, np.cumsum(ordered)] / ordered.sum()


def lorenz_at(counts: Counts, share: float) -> float:
    """Share of the mentions that the least frequent ``share`` of the entities has, both 0–1 (linear between points)."""
    return float(np.interp(share, *lorenz(counts)))


def gini(counts: Counts) -> float:
    """Gini coefficient, 0 (all equal) – 1 − 1/N: twice the area between the Lorenz curve and the diagonal."""
    x, y = lorenz(counts)
    return max(0.0, float(1 - np.sum(np.diff(x) * (y[1:] + y[:-1]))))


def entropy(counts: Counts) -> float:
    """Shannon entropy in bits: 0 for one entity, log2(N) when N entities are equally frequent."""
    present = np.asarray(counts, np.float64)
    present = present[present > 0]
    shares = present / max(present.sum(), 1)
    return max(0.0, float(-np.sum(shares * np.log2(shares))))
