"""The two files of a run, ``reports.jsonl`` and ``rejected.jsonl``: appended chunk by chunk, read again to go on."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paddle_cxr.errors import UserError
from paddle_cxr.files import writing_to
from paddle_cxr.synthesis.lines import append_lines, cut_broken_end
from paddle_cxr.synthesis.reports import Written, number_of

ACCEPTED, REJECTED = "reports.jsonl", "rejected.jsonl"


@dataclass
class Tally:
    """What a run has so far, counted from its records.

    Attributes:
        accepted, rejected: numbers of the reports.
        attempts: sections written for a report, both together → reports.
        reasons: kind of failure → reports.
        tokens: ``prompt`` and ``completion`` tokens.
    """

    accepted: set[int] = field(default_factory=set)
    rejected: set[int] = field(default_factory=set)
    attempts: Counter[int] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)

    def add(self, report: Written) -> None:
        """Count one report."""
        (self.accepted if report.accepted else self.rejected).add(report.number)
        self.attempts[int(report.record["attempts"])] += 1
        prompt, completion = map(int, report.record.get("tokens", (0, 0)))
        self.tokens.update(prompt=prompt, completion=completion)
        if not report.accepted:
            self.reasons[_kind(report.record["reason"])] += 1


class Store:
    """Appends finished reports, each once.

    Args:
        folder: the output folder.

    Raises:
        UserError: a line in a file is no report, or one that has been there before; the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tally = Tally()
        self._digests: set[bytes] = set()
        for name, accepted in ((ACCEPTED, True), (REJECTED, False)):
            with writing_to(folder / name):
                cut_broken_end(folder / name)
                self._read(folder / name, accepted)

    def _read(self, file: Path, accepted: bool) -> None:
        if not file.exists():
            return
        with open(file, "rb") as lines:
            for place, line in enumerate(lines, 1):
                try:
                    record: dict[str, Any] = json.loads(line)
                    report = Written(number_of(record["id"]), accepted, record)
                    again = report.number in self.tally.accepted or report.number in self.tally.rejected
                    self.tally.add(report)
                    self._digests.add(report.digest)
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    raise UserError(f"{file}:{place}：不是本程序写的报告；请删去这一行，或换一个 Global.output_dir"
                                    ) from None
                if again:
                    raise UserError(f"{file}:{place}：报告 {record['id']} 已经有了；请删去重复的一行")

    def add(self, reports: Sequence[Written]) -> list[bool]:
        """Append a chunk; returns which reports were accepted.  One whose text exists already becomes a rejected one.

        Raises:
            UserError: the disk is full; no half line stays.
        """
        unique = [self._refuse_copy(report) for report in reports]
        for name, accepted in ((ACCEPTED, True), (REJECTED, False)):
            lines = [report.line + "\n" for report in unique if report.accepted is accepted]
            if lines:
                append_lines(self.folder / name, "".join(lines))
        for report in unique:
            self.tally.add(report)
        return [report.accepted for report in unique]

    def _refuse_copy(self, report: Written) -> Written:
        if report.accepted and report.digest in self._digests:
            return report.rejected("duplicate")
        self._digests.add(report.digest)
        return report

    def done(self) -> set[int]:
        """Numbers of all reports that need no more work."""
        return self.tally.accepted | self.tally.rejected


def _kind(reason: str) -> str:
    """A reason without the entities, which are others in each report: ``findings: missing + extra``."""
    section, _, said = reason.partition(": ")
    sides = [side for side in ("missing", "extra") if re.search(f"(^|; ){side} ", said)]
    return f"{section}: {' + '.join(sides)}" if sides else reason
