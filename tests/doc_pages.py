"""The pages of the documentation and what stands in them, for the tests that read them."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from recipes import ROOT

NOT_OURS = {"output", "data", "cache", "build", "dist", "venv"}
PAGES = sorted(file for file in ROOT.rglob("*.md") if not any(
    part.startswith(".") or part in NOT_OURS for part in file.relative_to(ROOT).parts[:1]))
LESSONS = sorted((ROOT / "docs/lessons").glob("*.md"))
GUIDES = [page for page in PAGES if page.parent in (ROOT, ROOT / "docs", ROOT / "docs/lessons")]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def without_code(page: Path) -> str:
    """The text of a page without its fenced blocks and its code in a line."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(`+)[^\n]*?[^`]\1(?!`)", "``", text)


def ids(value: object) -> str:
    """A page's name as the name of a case."""
    return value.relative_to(ROOT).as_posix() if isinstance(value, Path) else ""


def commands(text: str) -> Iterator[list[str]]:
    """The words of every ``python …`` line, from the script on."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in line.removeprefix("$ ").split("&&"):
            words = shlex.split(part, comments=True)
            scripts = [i for i, word in enumerate(words) if re.fullmatch(r"[\w/]+\.py", word)]
            if words[:1] == ["python"] and scripts:
                yield words[scripts[0]:]


def overrides(words: list[str]) -> list[str]:
    """What a command says behind each ``-o``."""
    return [after for word, after in zip(words, words[1:], strict=False) if word == "-o"]


def config(words: list[str]) -> str:
    """What a command says behind ``-c``."""
    return words[words.index("-c") + 1]


def script(name: str) -> ModuleType:
    """docs/NAME.py as a module."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
