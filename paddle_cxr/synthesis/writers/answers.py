"""Taking a report's section out of what a language model answered.

Models put the JSON that was asked for into a code fence, greet before it and comment after it, think aloud, repeat the
example, or are cut off at their token limit.  An answer is untrusted: whatever it holds, what comes out is one line of
printable text of a sane length, or an :class:`AnswerError` that says in a few words why not.
"""

from __future__ import annotations

import json
import re
from typing import Any

MAX_ANSWER = 20_000  # characters: far more than two sections of a report
MAX_SECTION = 4_000

# What word processors and models write for plain characters, and the check would not read as such.
_PLAIN = str.maketrans({"‐": "-", "‑": "-", "‒": "-", "–": "-", "—": " - ", "‘": "'", "’": "'", "“": '"', "”": '"'})
_LABEL = re.compile(r"^(?:\*\*|#+\s*)?(?:findings|impression)\s*(?:\*\*)?\s*:\s*(?:\*\*)?\s*", re.IGNORECASE)


class AnswerError(ValueError):
    """Why an answer holds no section, in a few words for the acceptance report."""


def read_answer(answer: Any, section: str, in_json: bool, cut: bool = False) -> str:
    """The text of ``section`` in a model's answer.

    Args:
        answer: what the model wrote; anything but text is refused.
        section: ``findings`` or ``impression``.
        in_json: the prompt asked for ``{section: text}``; otherwise the whole answer is the section.
        cut: the model stopped at its token limit.

    Raises:
        AnswerError: no answer, none in JSON, cut off, empty or too long.
    """
    if not isinstance(answer, str) or not answer.strip():
        raise AnswerError("空回答（empty answer）")
    if len(answer) > MAX_ANSWER:
        raise AnswerError(f"回答过长（{len(answer)} 字符，至多 {MAX_ANSWER}）")
    answer = answer.rpartition("</think>")[2]  # models that reason write their thoughts, drafts included, before this
    text = _from_json(answer, section, cut) if in_json else _from_prose(answer, cut)
    text = one_line(text)
    if not text:
        raise AnswerError(f"{section} 为空（empty）")
    if len(text) > MAX_SECTION:
        raise AnswerError(f"{section} 过长（{len(text)} 字符，至多 {MAX_SECTION}）")
    return text


def one_line(text: str) -> str:
    """Printable characters only, plain quotes and hyphens, single spaces: no line of output can be broken by it."""
    text = text.translate(_PLAIN)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _from_json(answer: str, section: str, cut: bool) -> str:
    """The section of the last JSON object that has one: an example that a model repeats comes before its answer."""
    found = [text for value in _objects(answer) if (text := _section_of(value, section)) is not None]
    if found:
        return found[-1]
    if cut or "{" in answer:
        raise AnswerError("JSON 不完整（truncated or invalid JSON）")
    raise AnswerError("回答中没有 JSON（no JSON）")


def _objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects in a text, outermost ones only."""
    decoder = json.JSONDecoder(strict=False)  # line breaks inside strings: models forget to escape them
    found, start = [], text.find("{")
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
            found.append(value)
        except (ValueError, RecursionError):
            end = start + 1
        start = text.find("{", end)
    return found


def _section_of(value: dict[str, Any], section: str) -> str | None:
    """``value[section]`` as text whatever the key's capitals; a list of sentences is joined."""
    for key, content in value.items():
        if key.strip().lower() == section:
            if isinstance(content, str):
                return content
            if isinstance(content, list) and all(isinstance(one, str) for one in content):
                return " ".join(content)
    return None


def _from_prose(answer: str, cut: bool) -> str:
    """The answer without a code fence around it and without the section's heading."""
    if cut:
        raise AnswerError("回答被截断（truncated）")
    answer = answer.strip()
    if answer.startswith("```"):
        answer = answer.partition("\n")[2].strip().removesuffix("```").strip()
    return _LABEL.sub("", answer)
