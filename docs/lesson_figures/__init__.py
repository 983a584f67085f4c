"""The figures of the lessons: one function a figure, one module a lesson.

A function marked with :func:`figure` draws ``docs/figures/lessons/<its name>.png``; ``docs/make_lesson_figures.py``
finds it.  Phantoms, drawings and formulae only; every seed fixed.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Draw = Callable[[Path], object]


@dataclass(frozen=True)
class Figure:
    """One figure.

    Args:
        draw: writes the PNG to the path it is given.
        lesson: name of the module it stands in.
        reads: what it is drawn from, relative to the repository's root, where that is the output of a command.
        after: that command.
    """

    draw: Draw
    lesson: str
    reads: tuple[str, ...] = ()
    after: str = ""


FIGURES: dict[str, Figure] = {}


def figure(*, reads: str | tuple[str, ...] = (), after: str = "") -> Callable[[Draw], Draw]:
    """Register a function as the drawer of ``docs/figures/lessons/<name of the function>.png``."""

    def register(draw: Draw) -> Draw:
        name, lesson = draw.__name__, draw.__module__.rpartition(".")[2]
        if name in FIGURES:
            raise ValueError(f"two figures named {name}: in {FIGURES[name].lesson} and {lesson}")
        if bool(reads) != bool(after):
            raise ValueError(f"{name}: reads and after go together: what is read, and the command that writes it")
        FIGURES[name] = Figure(draw, lesson, (reads,) if isinstance(reads, str) else tuple(reads), after)
        return draw

    return register


def load_all() -> dict[str, Figure]:
    """Every figure by its name, in the order of the lessons."""
    for module in sorted(found.name for found in pkgutil.iter_modules(__path__)):
        importlib.import_module(f"{__name__}.{module}")
    return FIGURES
