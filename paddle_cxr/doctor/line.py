"""What a check says: one line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

GOOD, NOTE, BAD = "好", "注意", "坏"


@dataclass(frozen=True)
class Line:
    """One finding.

    Attributes:
        check: what was looked at, in a word.
        state: GOOD, NOTE (works, but slower or less) or BAD (will not work).
        text: what was found.
        advice: what to do; empty where nothing is to be done.
        facts: the numbers behind it, for ``--json``.
    """

    check: str
    state: str
    text: str
    advice: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        first = f"[{self.state}]{'  ' * (2 - len(self.state))} {self.check}：{self.text}"
        return f"{first}\n       → {self.advice}" if self.advice else first
