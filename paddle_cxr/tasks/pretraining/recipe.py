"""Reading a pre-training recipe.  Nothing here loads Paddle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from paddle_cxr.errors import UserError
from paddle_cxr.recipe import Loaded, check_image_rules, check_loop_rules, load_for_task
from paddle_cxr.schema import Section
from paddle_cxr.tasks.pretraining.schema import NEW_TOWER_KEYS, OWN_KEYS, PretrainingRecipe, TextTowerSection

_SUPPLIED = {"on_error": "error"}  # by paddle_cxr.tasks.pairs, so no key of a source


def load(file: str | Path, overrides: Sequence[str] = (), *, for_data: bool = True) -> Loaded:
    """Read, override and check a recipe; falling back where the data set is absent.

    Args:
        for_data: whether the data set will be read; where only the recipe is checked, it may be absent.

    Raises:
        UserError: any mistake, with its place; no data set and no ``fallback``.
    """
    loaded = load_for_task(file, overrides, PretrainingRecipe, "pairs", check_rules, supplied=_SUPPLIED,
                           for_data=for_data)
    loaded.notices += _not_used(loaded.recipe.Arch.text)
    return loaded


def check_rules(recipe: PretrainingRecipe) -> None:
    """Rules between keys; raises :class:`UserError` naming both sides."""
    sampler = recipe.DataLoader.Train.sampler
    if sampler.batch_size < 2:
        raise UserError("DataLoader.Train.sampler.batch_size：对比学习在一批之内互相比较，至少要 2 对，现在是 1")
    check_loop_rules(recipe.Global, sampler.batch_size)
    check_image_rules(recipe.Global.image_shape, recipe.DataLoader.preprocess)
    for method, keys in OWN_KEYS.items():
        foreign = _changed(recipe.Arch, keys)
        if foreign and method != recipe.Arch.name:
            raise UserError(f"Arch.{foreign[0]}：是 {method} 的参数，而 Arch.name 是 {recipe.Arch.name}；请删去")
    if recipe.Arch.text.folder is None:
        _check_new_tower(recipe.Arch.text)
    if sampler.balance:
        raise UserError("DataLoader.Train.sampler.balance：图文对没有类别，不能按类别平衡；请删去"
                        "（几个来源的比例用 MixedPairs 的 weight）")
    for path, name in _transforms(recipe.DataLoader.Train.transform_ops, "DataLoader.Train.transform_ops"):
        if name == "RandomHorizontalFlip":
            raise UserError(f"{path}：左右翻转会让报告里的“左”“右”变错，图文对不能用；请删去")


def _changed(section: Section, keys: Iterable[str]) -> list[str]:
    """Those of ``keys`` that are not at their default: a run's own ``config.yaml`` writes all of them."""
    return [key for key in keys if getattr(section, key) != type(section).model_fields[key].default]


def _check_new_tower(text: TextTowerSection) -> None:
    """What :func:`paddle_cxr.models.text_encoder.build_text_encoder` would find only after the images are read."""
    if text.hidden_size % text.num_attention_heads:
        raise UserError(f"Arch.text.hidden_size：{text.hidden_size} 应是 Arch.text.num_attention_heads"
                        f"（{text.num_attention_heads}）的倍数")
    if text.frozen_layers is not None and text.frozen_layers > text.num_hidden_layers:
        raise UserError(f"Arch.text.frozen_layers：{text.frozen_layers} 大于 Arch.text.num_hidden_layers"
                        f"（{text.num_hidden_layers}）；从头训练的文本塔一般不冻结，请设为 null")


def _not_used(text: TextTowerSection) -> list[str]:
    """A line for the user where keys are written that have no effect."""
    given = _changed(text, NEW_TOWER_KEYS)
    return [f"Arch.text：{'、'.join(given)} 只用于从头训练的文本塔，不起作用；现在的由文件夹 {text.folder} 决定"
            ] if text.folder is not None and given else []


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
