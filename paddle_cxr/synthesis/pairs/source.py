"""The reports that pairs are made of: read one by one, and only what this shard needs is kept."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from paddle_cxr.errors import UserError
from paddle_cxr.registry import build
from paddle_cxr.schema import Component
from paddle_cxr.synthesis.corpora import Report, read_corpus
from paddle_cxr.synthesis.entities import Key
from paddle_cxr.synthesis.generators.base import ImageRequest
from paddle_cxr.synthesis.vocabulary import Vocabulary, load_vocabulary

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PRESENT = ("abnormality", "disease")


@dataclass(frozen=True, slots=True)
class Order:
    """Pair ``number`` (the place of its report, from 0) has this ``id`` and is made of this report.

    Attributes:
        told: labels and side that a data set of pairs gives, where the reports are one's.
        normal: see :func:`normal_things`.
    """

    number: int
    id: str
    report: Report
    told: tuple[dict[str, int | None], str | None] = ({}, None)
    normal: frozenset[str] = frozenset()

    @property
    def entities(self) -> list[dict[str, str]]:
        """``[{"id": …, "type": …}, …]`` in a fixed order: a corpus gives none."""
        return [{"id": id_, "type": type_} for id_, type_ in sorted(self.report.entities or ())]

    @property
    def labels(self) -> dict[str, int | None]:
        """finding → 1 where the report names it, 0 where it denies it, None where it says both.

        What is normal in itself ("clear lungs") is no finding that could be absent, and has no label.
        """
        found: dict[str, int | None] = dict(self.told[0])
        for id_, type_ in sorted(self.report.entities or ()):
            if type_ != "anatomy" and id_ not in self.normal:
                value = int(type_ in _PRESENT)
                found[id_] = value if found.get(id_, value) == value else None
        return found


def normal_things(vocabulary: Vocabulary) -> frozenset[str]:
    """Ids of what is normal in itself ("clear lungs"), unlike what a report denies ("no effusion")."""
    return frozenset(entity.id for entity in vocabulary if entity.type.startswith("non-") and not entity.denies)


def read_orders(reports: str | Component, normal: frozenset[str] = frozenset()) -> Iterator[Order]:
    """An order for each report of a corpus (:mod:`paddle_cxr.synthesis.corpora`), or of a data set of pairs.

    A report's id becomes the pair's and names its images; one that could not be a file's name is replaced by the
    report's number.

    Raises:
        UserError: an id twice (images would overwrite each other), and what :func:`read_corpus` raises.
    """
    seen: set[str] = set()
    for number, (report, told) in enumerate(_reports(reports)):
        # In lower case: some file systems do not tell "A.png" from "a.png".
        identity = report.id if _SAFE.fullmatch(report.id) else f"p{number:07d}"
        if identity.lower() in seen:
            raise UserError(f"{report.where}：id {identity} 已经用过（不分大小写）；每份报告要有不同的 id")
        seen.add(identity.lower())
        yield Order(number, identity, report, told, normal)


def _reports(reports: str | Component) -> Iterator[tuple[Report, tuple[dict[str, int | None], str | None]]]:
    if isinstance(reports, str):
        yield from ((report, ({}, None)) for report in read_corpus(reports))
        return
    source = build("pairs", reports, "Reports.pairs")
    for record in source.records:
        entities = frozenset((one["id"], one["type"]) for one in record.entities) or None
        writer = record.extra.get("writer", "phantom" if source.demo else "")
        report = Report(record.path, record.id, record.findings, record.impression, entities, writer)
        yield report, (record.labels, record.side)


class Source:
    """The reports of one run.

    Args:
        reports: path of the corpus, or a component of kind ``pairs``.
        limit: only so many of the first reports, or None.
        shard, shards: keep the requests of pairs ``shard``, ``shard + shards`` …
        seed: of the run.
        vocabulary: the file that the reports' entities come from; None is the shipped one.

    Attributes:
        count: pairs over all shards.
        digest: hex; tells these reports, all of them, from others.
        own: numbers of this shard's pairs.

    Raises:
        UserError: no reports, and what :func:`read_orders` raises.
    """

    def __init__(self, reports: str | Component, limit: int | None, shard: int, shards: int, seed: int,
                 vocabulary: str | None = None) -> None:
        self.reports, self.limit, self._seed = reports, limit, seed
        self._normal = normal_things(load_vocabulary(vocabulary))
        self._ids: dict[int, str] = {}
        self._kept: dict[int, tuple[str, tuple[Key, ...]]] = {}
        self.count, self.without_entities = 0, ""
        hasher = hashlib.sha256()
        keys: dict[Key, Key] = {}  # each once: 200,000 reports have millions of mentions
        for order in read_orders(reports):
            line = [order.id, *order.report.texts, order.entities, order.report.writer]
            hasher.update(json.dumps(line).encode())
            if limit is not None and order.number >= limit:
                continue
            self.count += 1
            if order.report.entities is None:
                self.without_entities = self.without_entities or order.report.where
            if order.number % shards == shard:
                self._ids[order.number] = order.id
                own = tuple(keys.setdefault(key, key) for key in sorted(order.report.entities or ()))
                self._kept[order.number] = order.report.impression, own
        self.digest = hasher.hexdigest()
        if not self.count:
            raise UserError(f"Reports：{reports} 里一份报告也没有")

    @property
    def own(self) -> list[int]:
        return list(self._kept)

    def prompt(self, number: int) -> str:
        """The IMPRESSION that pair ``number`` is drawn from; may be empty."""
        return self._kept[number][0]

    def request(self, number: int, attempt: int) -> ImageRequest:
        """What the generator is asked for at attempt ``attempt`` (from 0)."""
        prompt, keys = self._kept[number]
        identity = self._ids[number]
        entities: tuple[dict[str, Any], ...] = tuple({"id": id_, "type": type_} for id_, type_ in keys)
        return ImageRequest(identity, prompt, drawing_seed(self._seed, identity, attempt), entities)

    def orders(self) -> Iterator[Order]:
        """All orders of the run, read again."""
        for order in read_orders(self.reports, self._normal):
            if self.limit is not None and order.number >= self.limit:
                return
            yield order


def drawing_seed(seed: int, identity: str, attempt: int) -> int:
    """0 … 2³¹ - 1, of its own for each drawing, so that any image can be drawn again alone."""
    place = f"{seed} {identity} {attempt}".encode()
    return int.from_bytes(hashlib.blake2b(place, digest_size=4).digest(), "little") >> 1
