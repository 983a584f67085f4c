"""Reading the page's recipe.  Nothing here loads Paddle or Gradio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paddle_cxr.app.schema import AppRecipe
from paddle_cxr.config import Origins, apply_overrides, explained, read_recipe
from paddle_cxr.errors import UserError
from paddle_cxr.registry import find
from paddle_cxr.schema import checked

TASK = "app"


@dataclass(frozen=True)
class LoadedApp:
    """A page ready to open: the checked sections, and where each value was written."""

    recipe: AppRecipe
    origins: Origins


def load(file: str | Path, overrides: Sequence[str] = ()) -> LoadedApp:
    """Read, override and check the recipe; the models it names need not be there.

    Raises:
        UserError: any mistake, naming file, line and YAML path.
    """
    raw, origins = read_recipe(file)
    apply_overrides(raw, overrides, origins)
    with explained(origins):
        settings = raw.get("Global")
        task = settings.get("task", TASK) if isinstance(settings, dict) else TASK
        if task != TASK:
            raise UserError(f"Global.task：{task} 的配方不是网页的；请用 -c configs/app.yaml，"
                            "在其中的 Classify、Find、Draw 里写模型的文件夹")
        recipe = checked(raw, AppRecipe)
        if recipe.Write:
            find("writer", recipe.Write.Writer.get("name"), "Write.Writer")
            find("ner", recipe.Write.NER.get("name"), "Write.NER")
        if recipe.Draw:
            find("generator", recipe.Draw.Generator.get("name"), "Draw.Generator")
    return LoadedApp(recipe, origins)
