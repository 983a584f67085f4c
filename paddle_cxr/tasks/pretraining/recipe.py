"""Reading a pre-training recipe.  Nothing here loads Paddle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paddle_cxr.config import explained, read_recipe
from paddle_cxr.errors import UserError
from paddle_cxr.recipe import Loaded, check_image_rules, check_loop_rules, with_fallback
from paddle_cxr.registry import check
from paddle_cxr.schema import checked
from paddle_cxr.tasks.pretraining.schema import OWN_KEYS, PretrainingRecipe


def load(file: str | Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read, override and check a recipe; falling back where the data set is absent.

    Raises:
        UserError: any mistake, with its place; no data set and no ``fallback``.
    """
    written, origins = read_recipe(file)
    raw, notices = with_fallback(written, overrides, origins, lambda raw: checked(raw, PretrainingRecipe),
                                 _missing_data, key="DataLoader.Source", hint="DataLoader.Source.…")
    with explained(origins):
        recipe = checked(raw, PretrainingRecipe)
        check("pairs", recipe.DataLoader.Source, "DataLoader.Source")
        check("split", recipe.DataLoader.Split, "DataLoader.Split")
        check_rules(recipe)
    return Loaded(recipe, origins, notices)


def _missing_data(raw: dict[str, Any]) -> str | None:
    section = raw.get("DataLoader")
    source = section.get("Source") if isinstance(section, dict) else None
    if not isinstance(source, dict):
        return None  # the schema will say what is wrong
    component, arguments = check("pairs", source, "DataLoader.Source")
    return component.missing(**arguments)


def check_rules(recipe: PretrainingRecipe) -> None:
    """Rules between keys; raises :class:`UserError` naming both sides."""
    check_loop_rules(recipe.Global, recipe.DataLoader.Train.sampler.batch_size)
    check_image_rules(recipe.Global.image_shape, recipe.DataLoader.preprocess)
    for method, keys in OWN_KEYS.items():
        foreign = [key for key in keys if key in recipe.Arch.model_fields_set]
        if foreign and method != recipe.Arch.name:
            raise UserError(f"Arch.{foreign[0]}：是 {method} 的参数，而 Arch.name 是 {recipe.Arch.name}；请删去")
    if recipe.DataLoader.Train.sampler.balance:
        raise UserError("DataLoader.Train.sampler.balance：图文对没有类别，不能按类别平衡；请删去"
                        "（几个来源的比例用 MixedPairs 的 weight）")
    for path, name in _transforms(recipe.DataLoader.Train.transform_ops, "DataLoader.Train.transform_ops"):
        if name == "RandomHorizontalFlip":
            raise UserError(f"{path}：左右翻转会让报告里的“左”“右”变错，图文对不能用；请删去")


def _transforms(specs: Any, path: str) -> list[tuple[str, str]]:
    """Path and name of every transform, those inside others too."""
    found = []
    for number, spec in enumerate(specs if isinstance(specs, list) else []):
        here = f"{path}.{number}"
        if isinstance(spec, list):
            found += _transforms(spec, here)
        elif isinstance(spec, dict):
            found += [(here, str(spec.get("name"))), *_transforms(spec.get("transforms"), f"{here}.transforms")]
    return found
