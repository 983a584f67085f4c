"""Reading a grounding recipe.  Nothing here loads Paddle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paddle_cxr.data.labelled import ALL
from paddle_cxr.errors import UserError
from paddle_cxr.recipe import Loaded, load_for_task
from paddle_cxr.tasks.grounding.schema import GroundingRecipe
from paddle_cxr.tasks.zero_shot.prompts import check_section


def load(file: str | Path, overrides: Sequence[str] = (), *, for_data: bool = True) -> Loaded:
    """Read, override and check a recipe; falling back where the data set is absent.

    Args:
        for_data: whether the data set will be read; where only the recipe is checked, it may be absent.

    Raises:
        UserError: any mistake, with its place; no data set and no ``fallback``.
    """
    return load_for_task(file, overrides, GroundingRecipe, "findings", _check_rules, for_data=for_data)


def _check_rules(recipe: GroundingRecipe) -> None:
    """Rules between keys; raises :class:`UserError` naming both sides."""
    chosen, tested = recipe.DataLoader.Eval.threshold_subset, recipe.DataLoader.Eval.subset
    check_section(recipe.Prompts)
    if recipe.Grounding.map == "attention" and recipe.Grounding.scale == "none":
        raise UserError("Grounding.scale：none 的阈值是 −1 到 1 的数，而注意力（attention）分给各区域，之和才是 1；"
                        "请用 image 或 auto")
    if chosen is not None and (chosen == tested or ALL in (chosen, tested)):
        raise UserError(f"DataLoader.Eval.threshold_subset：在 {chosen!r} 上定阈值又在 {tested!r} 上评估，"
                        "阈值就取自测试集；"
                        "请用另一个子集，例如 val，或写 null（没有 IoU 和 Dice，只有不需要阈值的指标）")
