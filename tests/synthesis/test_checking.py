"""Is the check itself any good?  Reports that were accepted are spoilt in four ways, and must be refused."""

import random

import pytest

from paddle_cxr.registry import build
from paddle_cxr.synthesis.checking import difference
from paddle_cxr.synthesis.reports import Maker, Order
from paddle_cxr.synthesis.vocabulary import load_vocabulary

REPORTS = 1000


@pytest.fixture(scope="module")
def accepted():
    """Vocabulary, NER and 1,000 accepted reports: the wanted entities and one of the two sections."""
    vocabulary = load_vocabulary()
    writer = build("writer", {"name": "GrammarWriter"}, "Writer", vocabulary=vocabulary)
    ner = build("ner", {"name": "DictionaryNER"}, "NER", vocabulary=vocabulary)
    sampler = build("sampler", {"name": "BalancedSampler", "cap": "auto", "balance": "type"}, "Sampler")
    orders = [Order(number, tuple(row)) for number, row in enumerate(sampler.plan(vocabulary, REPORTS, 5).tolist())]
    written = Maker(vocabulary, writer, ner, seed=5, attempts=5).make(orders)
    assert sum(report.accepted for report in written) >= 0.99 * REPORTS
    cases = []
    for order, report in zip(orders, written, strict=True):
        if report.accepted:
            entities = [vocabulary.entities[position] for position in order.positions]
            section = ("findings", "impression")[order.number % 2]
            cases.append(({entity.key: entity for entity in entities}, report.record[section]))
    return vocabulary, ner, cases


def drop(text, spans, wanted, vocabulary, rng):
    """Leave out one mention."""
    span = rng.choice(spans)
    return text[:span.start] + text[span.end:]


def add(text, spans, wanted, vocabulary, rng):
    """Add a sentence about something that was not asked for."""
    extra = rng.choice([entity for entity in vocabulary.entities if entity.key not in wanted])
    return f"{text} {'No' if extra.denies else 'There is'} {extra.en}."


def swap(text, spans, wanted, vocabulary, rng):
    """Put another thing of the same kind in the place of one."""
    span = rng.choice(spans)
    other = rng.choice([entity for entity in vocabulary.entities
                        if entity.type == span.type and entity.id not in {one.id for one in spans}])
    return text[:span.start] + other.en + text[span.end:]


def negate(text, spans, wanted, vocabulary, rng):
    """Deny what was there, or say of what was denied that it is there."""
    span = rng.choice([one for one in spans if one.type != "anatomy"])
    entity = wanted[span.key]
    said = f"There is {entity.en}." if entity.denies else f"There is no evidence of {entity.en}."
    return f"{text} {said}"


@pytest.mark.parametrize("spoil", [drop, add, swap, negate])
def test_a_spoilt_report_is_refused(accepted, spoil):
    vocabulary, ner, cases = accepted
    rng = random.Random(spoil.__name__)
    spans = ner.find([text for _, text in cases])
    spoilt = [spoil(text, found, wanted, vocabulary, rng)
              for (wanted, text), found in zip(cases, spans, strict=True)]
    passed = [(text, bad) for (wanted, text), bad, found in zip(cases, spoilt, ner.find(spoilt), strict=True)
              if not difference(wanted, found)]
    assert len(passed) <= 0.01 * len(cases), passed[:3]
