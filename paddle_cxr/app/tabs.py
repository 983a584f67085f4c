"""The four tabs' models, opened before the page: what cannot be opened keeps its reason, and the others work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paddle_cxr.app.schema import AppRecipe, ServerSection
from paddle_cxr.app.texts import Refusal, explain, say
from paddle_cxr.app.worker import Worker
from paddle_cxr.errors import UserError

CLASSIFY, FIND, WRITE, DRAW = "Classify", "Find", "Write", "Draw"
NAMES = (CLASSIFY, FIND, WRITE, DRAW)
QUICK = (CLASSIFY,)  # quicker than Gradio's queue, which looks for new work and for results only every 50 ms


@dataclass(frozen=True)
class Tab:
    """One tab.

    Attributes:
        name: its section of the recipe.
        worker: runs its model, in one thread.
        model: what it computes with, or None.
        why: why there is none.
        make: the command that makes one, or empty.
    """

    name: str
    worker: Worker
    model: Any = None
    why: UserError | None = None
    make: str = ""

    @property
    def opened(self) -> bool:
        return self.model is not None

    def __call__(self, *arguments: Any, method: str = "__call__") -> Any:
        """Let the model work in its own thread; raises UserError where there is none, or it refuses.

        A model with ``many`` is asked once for the inputs of all users that wait.
        """
        if not self.opened:
            raise self.why or Refusal("not_in_recipe", section=self.name)
        if method == "__call__" and hasattr(self.model, "many"):
            return self.worker.together(self.model.many, *arguments)
        return self.worker(getattr(self.model, method), *arguments)

    def explanation(self, language: str) -> str:
        """What the tab shows instead of a model; empty where there is one."""
        if self.opened or self.why is None:
            return ""
        lines = [say("no_model", language, reason=explain(self.why, language))]
        if self.make:
            lines.append(say("make", language, command=self.make))
        return "\n\n".join(lines)


def open_tabs(recipe: AppRecipe) -> dict[str, Tab]:
    """Every tab, in order.  Nothing is raised for a model that is missing or broken: the page tells it."""
    return {name: _open(name, getattr(recipe, name), recipe) for name in NAMES}


def worker_for(name: str, server: ServerSection) -> Worker:
    """The thread of a tab's model.  Clicks of a quick tab, which would wait in Gradio's queue, wait here."""
    waiting = server.waiting + (server.queue if name in QUICK else 0)
    return Worker(name.lower(), waiting, server.seconds)


def _open(name: str, section: Any, recipe: AppRecipe) -> Tab:
    worker = worker_for(name, recipe.Server)
    if section is None:
        return Tab(name, worker, why=Refusal("not_in_recipe", section=name))
    make = getattr(section, "make", "")
    try:
        model = _OPENERS[name](section, recipe.Global.device)
    except UserError as error:
        return Tab(name, worker, why=error, make=make)
    return Tab(name, worker, model, make=make)


def _classifier(section: Any, device: str) -> Any:
    from paddle_cxr.app.classify import Classifier

    return Classifier(section.folder, device)


def _finder(section: Any, device: str) -> Any:
    from paddle_cxr.app.find import PhraseFinder

    return PhraseFinder(section, device)


def _reporter(section: Any, device: str) -> Any:
    from paddle_cxr.app.write import Reporter

    return Reporter(section)


def _painter(section: Any, device: str) -> Any:
    from paddle_cxr.app.draw import Painter

    return Painter(section, device)


_OPENERS: dict[str, Callable[[Any, str], Any]] = {CLASSIFY: _classifier, FIND: _finder, WRITE: _reporter,
                                                  DRAW: _painter}
