"""Which of the data sets that the recipes name are on this disk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paddle_cxr.doctor.line import GOOD, NOTE, Line

KINDS = ("source", "findings", "pairs")
_MOST = 4  # names told of a long list


@dataclass
class Place:
    """A ``root`` that recipes name: why it is missing (None where it is there), and which recipes those are."""

    missing: str | None
    recipes: list[str] = field(default_factory=list)


def check(root: Path) -> Iterator[Line]:
    """One line for each data set that is there or half there, one for all that are absent, one for unknown folders."""
    from paddle_cxr.errors import UserError

    try:
        places = named_by_recipes(root / "configs")
    except (ImportError, UserError) as error:
        yield Line("数据集", NOTE, f"没有检查（{error}）", "先装好必需的包，再运行一次")
        return
    there = {name: place for name, place in places.items() if place.missing is None}
    absent = {name: place for name, place in places.items() if place.missing is not None}
    for name, place in there.items():
        yield Line("数据集", GOOD, f"{name}：在，{_few(place.recipes)} 会用它", facts={"root": name, "found": True})
    for name in [name for name in absent if os.path.exists(_resolved(root, name))]:
        yield Line("数据集", NOTE, f"{name}：{absent.pop(name).missing}", "放进数据，或删去空文件夹",
                   {"root": name, "found": False})
    if absent:
        yield Line("数据集", GOOD if there else NOTE, f"不在磁盘上：{'、'.join(absent)}",
                   "可以不管：有 fallback 的配方会改用内置模体（phantom）；真实数据见 docs/data.md",
                   {name: place.recipes for name, place in absent.items()})
    yield from _others(root, places)


def _resolved(root: Path, name: str) -> Path:
    """A recipe's path; it is relative to the folder one works in, which is the project's."""
    return root / name


def named_by_recipes(configs: Path) -> dict[str, Place]:
    """Every ``root`` of a data set in the recipes, asked whether it is there."""
    from paddle_cxr.config import read_recipe
    from paddle_cxr.errors import UserError
    from paddle_cxr.registry import components

    known = {kind: components(kind) for kind in KINDS}
    places: dict[str, Place] = {}
    for file in sorted(configs.rglob("*.yaml")):
        if "_base_" in file.parts:
            continue
        try:
            recipe, _ = read_recipe(file)
        except UserError:  # one that the user is just writing
            continue
        recipe.pop("fallback", None)
        for spec in sources_in(recipe):
            component = next((known[kind][spec["name"]] for kind in KINDS if spec["name"] in known[kind]), None)
            if component is None or not hasattr(component, "missing"):
                continue
            place = places.setdefault(str(spec["root"]), Place(_missing(component, spec, configs.parent)))
            name = file.relative_to(configs).as_posix()
            if name not in place.recipes:
                place.recipes.append(name)
    return dict(sorted(places.items()))


def _missing(component: Any, spec: Mapping[str, Any], root: Path) -> str | None:
    from paddle_cxr.errors import UserError

    arguments = {key: value for key, value in spec.items() if key != "name"} | {"root": str(root / spec["root"])}
    try:
        reason = component.missing(**arguments)
    except UserError as error:  # a folder that may not be read
        reason = str(error)
    return None if reason is None else reason.replace(f"{root}/", "")


def sources_in(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every ``{name: …, root: …}`` anywhere in a recipe."""
    if isinstance(value, Mapping):
        if isinstance(value.get("name"), str) and isinstance(value.get("root"), str):
            yield value
        for one in value.values():
            yield from sources_in(one)
    elif isinstance(value, list):
        for one in value:
            yield from sources_in(one)


def _others(root: Path, places: Mapping[str, Place]) -> Iterator[Line]:
    """What lies under ``data/`` and is in no recipe: most often a data set under another name."""
    folder = root / "data"
    if not folder.is_dir():
        return
    named = {part for name in places if name.startswith("data/") for part in Path(name).parts[1:2]}
    others = sorted(entry.name for entry in folder.iterdir() if entry.name not in named
                    and entry.name not in ("README.md", "prepared") and not entry.name.startswith("."))
    if others:
        yield Line("数据集", GOOD, f"data/ 下还有 {_few(others)}，没有配方用到",
                   f"要用时在命令后加 -o DataLoader.Source.root=data/{others[0]}", {"others": others})


def _few(names: list[str]) -> str:
    return "、".join(names[:_MOST]) + (f" 等 {len(names)} 个" if len(names) > _MOST else "")
