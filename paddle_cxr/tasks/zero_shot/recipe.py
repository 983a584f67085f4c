"""Reading a zero-shot recipe.  Nothing here loads Paddle, and the model need not be there yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paddle_cxr.errors import UserError
from paddle_cxr.recipe import Loaded, load_for_task
from paddle_cxr.tasks.zero_shot.prompts import check_section
from paddle_cxr.tasks.zero_shot.schema import ZeroShotRecipe


def load(file: str | Path, overrides: Sequence[str] = (), *, for_data: bool = True) -> Loaded:
    """Read, override and check a recipe; falling back where the data set is absent.

    Args:
        for_data: whether the data set will be read; where only the recipe is checked, it may be absent.

    Raises:
        UserError: any mistake, with its place; no data set and no ``fallback``.
    """
    return load_for_task(file, overrides, ZeroShotRecipe, "findings", check_rules, for_data=for_data)


def check_rules(recipe: ZeroShotRecipe) -> None:
    """Rules between keys; raises :class:`UserError` naming both sides."""
    prompts, section, metric = recipe.Prompts, recipe.DataLoader.Eval, recipe.Metric
    check_section(prompts)
    if prompts.ensemble == "embeddings" and prompts.similarity == "local":
        raise UserError("Prompts.ensemble：embeddings 平均的是整句的向量，不能与 similarity: local 合用；"
                        "请改 ensemble: scores 或 similarity: global")
    if section.threshold_subset is not None and section.threshold_subset in (section.subset, "all"):
        raise UserError(f"DataLoader.Eval.threshold_subset：{section.threshold_subset} 含有要评估的图像"
                        f"（subset: {section.subset}），在它上面选的阈值偏乐观；请用 val，或写 null 不选阈值")
    if section.subset == "all" and section.threshold_subset is not None:
        raise UserError("DataLoader.Eval.subset：all 含有选阈值的子集 threshold_subset；请评估 test，"
                        "或写 threshold_subset: null")
    if metric.unseen is not None and metric.seen is None:
        raise UserError("Metric.unseen：要与 Metric.seen 一起写")
    both = set(metric.unseen or []) & set(metric.seen or []) if isinstance(metric.seen, list) else set()
    if both:
        raise UserError(f"Metric.seen：{min(both)} 同时在 Metric.unseen 里；请去掉一边")
