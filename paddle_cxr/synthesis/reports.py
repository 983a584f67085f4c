"""Entities → FINDINGS → IMPRESSION, each written anew until the check finds exactly its entities.

    plan:     the entities of every report are drawn at once, so that no entity is used more often than its cap
    a chunk:  write FINDINGS → check → write the failed ones again, telling the writer what was wrong → … → IMPRESSION
    rejected: kept apart with the reason; their entities go back to the budget, and a further round draws from it

Every report depends only on the seed and its number, so neither the number of processes nor an interruption changes
what comes out.  Reference: SynCXR (arXiv 2410.13523), section 3.1.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from paddle_cxr.registry import build
from paddle_cxr.synthesis.checking import Difference, difference
from paddle_cxr.synthesis.entities import NER, Entity, Key
from paddle_cxr.synthesis.schema import ReportsRecipe
from paddle_cxr.synthesis.vocabulary import Vocabulary, load_vocabulary
from paddle_cxr.synthesis.writers.base import Reply, Request, Writer

SECTIONS = ("findings", "impression")


@dataclass(frozen=True, slots=True)
class Order:
    """Report ``number`` (its place among all rounds) shall mention the vocabulary entries at ``positions``."""

    number: int
    positions: tuple[int, ...]


@dataclass(slots=True)
class Draft:
    """A report being written."""

    order: Order
    entities: tuple[Entity, ...]
    wanted: dict[Key, Entity]
    texts: dict[str, str] = field(default_factory=dict)
    attempts: int = 0
    seed: int = 0
    feedback: str = ""
    failure: str = ""  # why the last attempt did not pass
    refused: str = ""  # its text
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """One finished report.

    Attributes:
        number: of its order.
        accepted: whether both sections passed.
        record: the JSON line, as a mapping.
    """

    number: int
    accepted: bool
    record: dict[str, Any]

    @property
    def line(self) -> str:
        """The record as one line of JSON, without its end."""
        return json.dumps(self.record, ensure_ascii=False)

    @property
    def digest(self) -> bytes:
        """8 bytes that tell the report's text from others."""
        text = "\n".join(self.record.get(section, "") for section in SECTIONS)
        return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=8).digest()

    def rejected(self, reason: str) -> Written:
        """The same report, not accepted after all."""
        return Written(self.number, False, self.record | {"reason": reason})


class Maker:
    """Writes and checks reports; one is made in every process.

    Args:
        vocabulary: the entities that orders refer to.
        writer, ner: see :mod:`paddle_cxr.synthesis.writers.base` and :mod:`paddle_cxr.synthesis.entities`.
        seed: of the run.
        attempts: how often a section may be written.
    """

    def __init__(self, vocabulary: Vocabulary, writer: Writer, ner: NER, seed: int, attempts: int) -> None:
        self.vocabulary, self.writer, self.ner, self.seed, self.attempts = vocabulary, writer, ner, seed, attempts

    def make(self, orders: Sequence[Order]) -> list[Written]:
        """Write the reports of ``orders``, in the same order."""
        drafts = [self._draft(order) for order in orders]
        going_on = drafts
        for section in SECTIONS:
            going_on = self._write_section(section, going_on)
        passed = {draft.order.number for draft in going_on}
        return [self._finish(draft, draft.order.number in passed) for draft in drafts]

    def _draft(self, order: Order) -> Draft:
        entities = tuple(self.vocabulary.entities[position] for position in order.positions)
        return Draft(order, entities, {entity.key: entity for entity in entities})

    def _write_section(self, section: str, drafts: list[Draft]) -> list[Draft]:
        """Write ``section`` of every draft until it passes; returns those whose section did."""
        for draft in drafts:
            draft.feedback = draft.refused = ""
        pending = drafts
        for attempt in range(self.attempts):
            if not pending:
                break
            requests = [self._request(section, draft, attempt) for draft in pending]
            replies = self.writer.write(requests)
            spans = self.ner.find([reply.text for reply in replies])
            pending = [draft for draft, reply, found in zip(pending, replies, spans, strict=True)
                       if not self._passes(section, draft, reply, difference(draft.wanted, found))]
        return [draft for draft in drafts if section in draft.texts]

    def _request(self, section: str, draft: Draft, attempt: int) -> Request:
        # A number for this attempt alone: a digest is the same on every platform, and quick.
        place = f"{self.seed} {draft.order.number} {section} {attempt}".encode()
        draft.seed = int.from_bytes(hashlib.blake2b(place, digest_size=4).digest(), "little")
        return Request(report_id(draft.order.number), section, draft.entities, draft.seed,
                       draft.texts.get("findings", ""), draft.feedback)

    @staticmethod
    def _passes(section: str, draft: Draft, reply: Reply, wrong: Difference) -> bool:
        draft.attempts += 1
        draft.prompt_tokens += reply.prompt_tokens
        draft.completion_tokens += reply.completion_tokens
        if reply.error or not reply.text.strip():
            draft.failure = f"{section}: {reply.error or 'empty'}"  # what an earlier text lacked is still worth telling
            return False
        if wrong:
            draft.refused = reply.text.strip()
            draft.failure, draft.feedback = f"{section}: {wrong.reason()}", wrong.feedback()
            return False
        draft.texts[section], draft.failure = reply.text.strip(), ""
        return True

    def _finish(self, draft: Draft, accepted: bool) -> Written:
        record: dict[str, Any] = {
            "id": report_id(draft.order.number),
            "entities": [{"id": entity.id, "type": entity.type} for entity in draft.entities],
            **{section: draft.texts[section] for section in SECTIONS if section in draft.texts},
            "writer": self.writer.title, "prompts_hash": self.writer.prompts_hash,
            "attempts": draft.attempts, "seed": draft.seed}
        if draft.prompt_tokens or draft.completion_tokens:
            record["tokens"] = [draft.prompt_tokens, draft.completion_tokens]
        if not accepted:
            record |= {"reason": draft.failure, "refused": draft.refused}
        return Written(draft.order.number, accepted, record)


def report_id(number: int) -> str:
    """``r0000042``: sorts as it was ordered."""
    return f"r{number:07d}"


def number_of(identity: str) -> int:
    """The inverse of :func:`report_id`; raises ValueError for what it never gives."""
    if not re.fullmatch(r"r[0-9]{1,9}", identity):
        raise ValueError(f"{identity!r} is no report's id")
    return int(identity[1:])


def build_maker(recipe: ReportsRecipe, vocabulary: Vocabulary | None = None) -> Maker:
    """Build writer and NER of a recipe, and its vocabulary where it is not at hand.

    Raises:
        UserError: a mistake in any of them.
    """
    vocabulary = vocabulary or load_vocabulary(recipe.Vocabulary.file)
    return Maker(vocabulary, build("writer", recipe.Writer, "Writer", vocabulary=vocabulary),
                 build("ner", recipe.NER, "NER", vocabulary=vocabulary), recipe.Global.seed, recipe.Global.attempts)


def make(maker: Maker, orders: Sequence[Order]) -> list[Written]:
    """:meth:`Maker.make` as a function, for other processes."""
    return maker.make(orders)
