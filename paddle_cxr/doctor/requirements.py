"""What ``setup.py`` asks for, and how much of it is there; ``setup.py`` is read, never run."""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement

SETUP = Path(__file__).resolve().parents[2] / "setup.py"


@dataclass(frozen=True)
class Unmet:
    """A requirement that the environment does not meet; ``installed`` is None where nothing is there."""

    name: str
    wanted: str
    installed: str | None

    def __str__(self) -> str:
        if self.installed is None:
            return f"{self.name}（没有安装）"
        return f"{self.name} {self.installed}（需要 {self.wanted}）"


def declared(setup_file: Path = SETUP) -> dict[str, list[str]]:
    """Requirement lines by extra, those of the package itself under ``""``; empty where nothing can be read."""
    try:
        return _of_setup(ast.parse(setup_file.read_text(encoding="utf-8")))
    except (OSError, SyntaxError, KeyError, StopIteration):  # not a checkout, or written in another way by now
        return _of_installed()


def _of_setup(tree: ast.Module) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List) and isinstance(node.targets[0], ast.Name):
            names[node.targets[0].id] = _strings(node.value, names)
    call = next(node for node in ast.walk(tree)
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setup")
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    lines = {"": _strings(keywords["install_requires"], names)}
    extras = keywords.get("extras_require")
    if isinstance(extras, ast.Dict):
        lines |= {key.value: _strings(value, names) for key, value in zip(extras.keys, extras.values, strict=True)
                  if isinstance(key, ast.Constant)}
    return lines


def _strings(node: ast.expr, names: dict[str, list[str]]) -> list[str]:
    """The strings of ``["a", *other]`` or of a name."""
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.Starred):
        return _strings(node.value, names)
    if isinstance(node, ast.List):
        return [text for one in node.elts for text in _strings(one, names)]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    raise KeyError("not a list of strings")


def _of_installed() -> dict[str, list[str]]:
    """As the installed package's own metadata says it: ``pydicom>=3; extra == "dicom"``."""
    try:
        own = metadata.metadata("paddle_cxr")
    except metadata.PackageNotFoundError:
        return {}
    lines: dict[str, list[str]] = {"": []}
    for text in own.get_all("Requires-Dist") or []:
        line, _, marker = text.partition(";")
        extra = marker.partition("extra ==")[2].strip(" \"')")
        lines.setdefault(extra, []).append(line.strip())
    return lines


def parsed(line: str) -> Requirement:
    """One requirement line; ``packaging`` comes with matplotlib, and pip carries a copy."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        from pip._vendor.packaging.requirements import Requirement
    return Requirement(line)


def same_name(name: str) -> str:
    """The spelling under which names of packages are compared: ``huggingface_hub`` → ``huggingface-hub``."""
    return "-".join(filter(None, name.lower().replace("_", "-").replace(".", "-").split("-")))


def installed_version(name: str) -> str | None:
    """The version that an import would find first, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def is_version(text: str | None) -> bool:
    """Whether pip can read a version; Debian's ``0.23ubuntu1`` is none to it."""
    try:
        from packaging.version import Version
    except ImportError:
        from pip._vendor.packaging.version import Version
    try:
        Version(text or "")
    except ValueError:
        return False
    return True


def problem_with(line: str | Requirement, extra: str = "") -> Unmet | None:
    """Why a requirement is not met, or None: it is, or it is not asked for on this Python and system."""
    requirement = parsed(line) if isinstance(line, str) else line
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
        return None
    version = installed_version(requirement.name)
    if version is not None and requirement.specifier.contains(version, prereleases=True):
        return None
    return Unmet(requirement.name, str(requirement.specifier), version)


def unmet(lines: Iterable[str], deep: bool = False) -> list[Unmet]:
    """What is missing or of another version.

    Args:
        lines: requirement lines.
        deep: also what the packages that are there require in their turn, and so on.
    """
    found: dict[str, Unmet] = {}
    seen: set[tuple[str, str]] = set()
    queue = deque((parsed(line), "") for line in lines)
    while queue:
        requirement, extra = queue.popleft()
        problem = problem_with(requirement, extra)
        if problem is not None:
            found.setdefault(same_name(requirement.name), problem)
        elif deep and _asked_for(requirement, extra):
            queue += [one for wanted in ("", *requirement.extras) for one in _required_by(requirement, wanted, seen)]
    return list(found.values())


def _asked_for(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _required_by(requirement: Requirement, extra: str, seen: set[tuple[str, str]]) -> list[tuple[Requirement, str]]:
    """What an installed package requires with one of its extras; nothing the second time it is asked."""
    key = (same_name(requirement.name), extra)
    if key in seen:
        return []
    seen.add(key)
    return [(parsed(line), extra) for line in metadata.requires(requirement.name) or []]
