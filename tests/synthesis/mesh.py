"""Micro-recall of a recogniser on the MeSH tags that people gave to real reports (Open-i chest X-rays)."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import yaml

from paddle_cxr.synthesis.entities import NER, TYPES
from paddle_cxr.synthesis.vocabulary import Vocabulary

NO_FINDING = {"normal", "no indexing", "technical quality of image unsatisfactory"}


class Tags:
    """Which ids each MeSH tag is found by: those of the heading's own name and of the names in ``mesh_tags.yaml``."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        table = Path(__file__).with_name("mesh_tags.yaml")
        self.names: dict[str, list[str]] = yaml.safe_load(table.read_text(encoding="utf-8"))
        self.places = {tag.split("/")[0] for tag in self.names if "/" in tag}

    def ids(self, tag: str) -> frozenset[str]:
        """The ids for a heading, or for ``heading/qualifier`` where the heading is a place."""
        heading = tag.split("/")[0]
        found = {self.vocabulary.find_id(name) for name in [*self.names.get(tag, ()), *([heading] * (tag == heading))]}
        return frozenset(found - {None})

    def of_report(self, mesh: str) -> Iterator[str]:
        """The tags of a report's MeSH column, once each."""
        seen = set()
        for entry in mesh.split(";"):
            heading, *qualifiers = (" ".join(part.lower().split()) for part in entry.split("/"))
            findings = [f"{heading}/{one}" for one in qualifiers if f"{heading}/{one}" in self.names]
            seen.update(findings or [heading])
        return iter(sorted(seen - NO_FINDING - {""}))


def read_reports(folder: Path) -> list[dict[str, str]]:
    with open(folder / "iu_reports.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def recall(vocabulary: Vocabulary, ner: NER, reports: list[dict[str, str]]) -> tuple[Counter[str], Counter[str]]:
    """How often each tag is given, and how often it is found: said in findings or impression, and not denied."""
    tags = Tags(vocabulary)
    plain = {entity.id: entity.type for entity in reversed(vocabulary.entities) if not entity.denies}
    given: Counter[str] = Counter()
    found: Counter[str] = Counter()
    ids = {tag: tags.ids(tag) for report in reports for tag in tags.of_report(report["MeSH"])}
    for report, spans in zip(reports, ner.find([f"{one['findings']}\n\n{one['impression']}" for one in reports]),
                             strict=True):
        said = {span.id for span in spans if span.type == plain.get(span.id, TYPES[0])}
        for tag in tags.of_report(report["MeSH"]):
            given[tag] += 1
            found[tag] += bool(said & ids[tag])
    return given, found


def table(given: Counter[str], found: Counter[str], worst: int = 25) -> str:
    """Micro-recall and the tags that lose most of it."""
    total = sum(given.values())
    lines = [f"micro-recall {sum(found.values()) / total:.3f} of {total} tags"]
    missed = sorted(given, key=lambda tag: found[tag] - given[tag])[:worst]
    return "\n".join([*lines, *(f"  {tag}: {found[tag]}/{given[tag]}" for tag in missed)])
