"""What every writer is given and gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from paddle_cxr.synthesis.entities import Entity


@dataclass(frozen=True, slots=True)
class Request:
    """One section of one report to write.

    Attributes:
        id: the report's id.
        section: ``findings`` from the entities, or ``impression`` from the entities and the findings.
        entities: what the text has to mention, all of it and nothing else.
        seed: of this attempt; the same request with the same seed gives the same text where the writer can.
        findings: the accepted FINDINGS, for the impression.
        feedback: what was wrong with the last attempt, in English words; empty the first time.
    """

    id: str
    section: Literal["findings", "impression"]
    entities: tuple[Entity, ...]
    seed: int
    findings: str = ""
    feedback: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """A writer's answer: ``text``, or ``error`` saying why there is none; tokens are 0 where the writer has none."""

    text: str = ""
    error: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Writer(Protocol):
    """Writes sections of reports.

    Attributes:
        title: what the output names as ``writer`` (``grammar``, or the model's name).
        prompts_hash: SHA-256 of the prompt files, or None where there are none.
    """

    title: str
    prompts_hash: str | None

    def write(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply a request, in the same order."""
