"""From files and overrides to a recipe that makes sense as a whole: the fallback and the cross-field rules."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paddle_cxr.config import Origins, apply_overrides, explained, merge, read_recipe
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.errors import UserError
from paddle_cxr.registry import check, find
from paddle_cxr.schema import ClassSpec, PreprocessSection, Recipe, Section, TrainGlobal, checked

_SUPPLIED: Mapping[str, Any] = {"classes": ()}  # by the program, so no key of a source of classes
FALLBACK_KEY = "fallback"
CLASSIFICATION = "classification"
# Components a recipe may leave out; being there, their arguments can be overridden by -o all the same.
DEFAULTS = {"Loss": {"name": "CrossEntropy"}, "Metric": {"name": "ClassificationMetrics"}}


@dataclass
class Loaded:
    """A recipe ready to build from.

    Attributes:
        recipe: the checked sections.
        origins: where each value was written, for errors raised while building.
        notices: lines the user must see (such as: phantoms instead of real data).
    """

    recipe: Recipe
    origins: Origins
    notices: list[str] = field(default_factory=list)

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        return tuple(ClassInfo(c.name, c.zh, c.en, tuple(c.aliases)) for c in self.recipe.Global.classes)


def task_of(file: str | Path, overrides: Sequence[str] = (), default: str = CLASSIFICATION) -> str:
    """``Global.task`` of a recipe, which decides how the rest of it is read; nothing else is checked."""
    raw, origins = read_recipe(file)
    apply_overrides(raw, overrides, origins)
    settings = raw.get("Global")
    return str(settings.get("task", default)) if isinstance(settings, dict) else default


def load(file: str | Path, overrides: Sequence[str] = (), *, for_data: bool = True) -> Loaded:
    """Read, override, fall back if the data set is absent, and check a recipe.

    The ``fallback`` section is a partial recipe laid over the rest when the data set is not on disk.  ``-o`` values
    win over it.  A data set root given by ``-o`` never falls back: who names a folder means that folder.

    Args:
        for_data: whether the data set will be read.  Where only a trained model is wanted, a recipe whose output
            folder holds one stands without its data.

    Raises:
        UserError: any mistake in the recipe, naming file, line and YAML path; data missing and no fallback.
    """
    written, origins = read_recipe(file)
    written = merge(DEFAULTS, written)
    raw, notices = with_fallback(written, overrides, origins, checked, lambda raw: (
        _missing_data(raw) if for_data or not _is_trained(raw) else None))
    with explained(origins):
        recipe = checked(raw)
        check("source", recipe.DataLoader.Source, "DataLoader.Source", _SUPPLIED)
        check("split", recipe.DataLoader.Split, "DataLoader.Split")
        check_rules(recipe)
    return Loaded(recipe, origins, notices)


def load_for_task(file: str | Path, overrides: Sequence[str], schema: type[Section], kind: str,
                check_rules: Callable[[Any], None], *, supplied: Mapping[str, Any] | None = None, for_data: bool = True
                ) -> Loaded:
    """Read, override, fall back if the data set is absent, and check the recipe of a task other than classification.

    Args:
        schema: the task's sections.
        kind: of ``DataLoader.Source``: ``pairs`` or ``findings``.
        check_rules: the task's rules between keys.
        supplied: arguments of the source that the program fills, so no key of it.
        for_data: whether the data set will be read.

    Raises:
        UserError: any mistake, with its place; no data set and no ``fallback``.
    """
    context = dict(supplied or {})

    def missing(raw: dict[str, Any]) -> str | None:
        return _missing_data(raw, kind, context) if for_data else None

    written, origins = read_recipe(file)
    raw, notices = with_fallback(written, overrides, origins, lambda raw: checked(raw, schema), missing,
                                 key="DataLoader.Source", hint="DataLoader.Source.…")
    with explained(origins):
        recipe = checked(raw, schema)
        check(kind, recipe.DataLoader.Source, "DataLoader.Source", context)
        check("split", recipe.DataLoader.Split, "DataLoader.Split")
        check_rules(recipe)
    return Loaded(recipe, origins, notices)


def with_fallback(written: dict[str, Any], overrides: Sequence[str], origins: Origins,
                  check_schema: Callable[[dict[str, Any]], object],
                  missing: Callable[[dict[str, Any]], str | None], key: str = "DataLoader.Source.root",
                  hint: str | None = None) -> tuple[dict[str, Any], list[str]]:
    """Apply overrides, and the recipe's ``fallback`` where its data set is absent.

    Args:
        written: the recipe as it stands in the file.
        overrides: of the command line.
        origins: where each value was written; brought up to date.
        check_schema: refuses a recipe with a mistake.
        missing: why a recipe's data set is not there, or None.
        key, hint: what names the data set, and what to override to name another, where that is not the same.

    Returns:
        The recipe to check and build, and notices for the user.

    Raises:
        UserError: a mistake in the recipe; no data and no fallback.
    """
    raw = copy.deepcopy(written)
    apply_overrides(raw, overrides, origins)
    with explained(origins):
        fallback = raw.pop(FALLBACK_KEY, None)
        absent = missing(raw)
        if not absent:
            return raw, []
        if not fallback or any(o.startswith(("DataLoader.Source.", "DataLoader.Source=")) for o in overrides):
            raise UserError(f"{key}：{absent}；请用 -o {hint or key}=… 指向数据集（数据获取方法见 docs/data.md）")
        if not isinstance(fallback, dict):
            raise UserError(f"{FALLBACK_KEY}：应为一份局部配方（键: 值），现在是 {fallback!r}")
        check_schema(raw)  # a mistake in what the fallback is laid over would be hidden by it, or blamed on another key
        base = {key: value for key, value in written.items() if key != FALLBACK_KEY}
        raw = merge(base, fallback)
        origins.update({k.removeprefix(FALLBACK_KEY + "."): v for k, v in origins.items()
                        if k.startswith(FALLBACK_KEY + ".")})
        apply_overrides(raw, [o for o in overrides if not o.startswith(FALLBACK_KEY)], origins)
    return raw, [f"!! {absent}；改用内置模体（phantom）演示，结果不是临床结果。"
                 f"{FALLBACK_KEY} 改写了 {'、'.join(_leaves(fallback))}；"
                 f"要用真实数据，请修改 DataLoader.Source；要在缺数据时报错，请加 -o {FALLBACK_KEY}=null"]


def _leaves(section: dict[str, Any], prefix: str = "") -> list[str]:
    """The keys a partial recipe sets, components as a whole."""
    return [name for key, value in section.items() for name in (
        _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and "name" not in value else [prefix + key])]


def _is_trained(raw: dict[str, Any]) -> bool:
    settings = raw.get("Global")
    if not isinstance(settings, dict):
        return False
    run = Path(str(settings.get("output_dir")))
    return bool(settings.get("checkpoint")) or (run / "checkpoints").is_dir() or (run / "export").is_dir()


def _missing_data(raw: dict[str, Any], kind: str = "source", supplied: Mapping[str, Any] = _SUPPLIED) -> str | None:
    source = (raw.get("DataLoader") or {}).get("Source") if isinstance(raw.get("DataLoader"), dict) else None
    if not isinstance(source, dict):
        return None  # the schema will say what is wrong
    component, arguments = check(kind, source, "DataLoader.Source", supplied)
    return component.missing(**arguments)


def check_rules(recipe: Recipe) -> None:
    """Rules between keys; raises :class:`UserError` naming both sides."""
    classes, shape = recipe.Global.classes, recipe.Global.image_shape
    _check_names(classes)
    _agree(recipe.Arch, "class_num", len(classes), "Arch.class_num", f"Global.classes 有 {len(classes)} 类")
    _agree(recipe.Arch, "in_channels", shape[0], "Arch.in_channels", f"Global.image_shape 有 {shape[0]} 个通道")
    check_image_rules(shape, recipe.DataLoader.preprocess)
    weights = recipe.Loss.get("class_weights")
    if isinstance(weights, list) and len(weights) != len(classes):
        raise UserError(f"Loss.class_weights：有 {len(weights)} 个数，Global.classes 有 {len(classes)} 类")
    _check_training_rules(recipe)


def check_image_rules(shape: tuple[int, int, int], preprocess: PreprocessSection) -> None:
    """Rules between ``Global.image_shape`` and ``DataLoader.preprocess``; raises :class:`UserError`."""
    if shape[0] not in (1, 3):
        raise UserError(f"Global.image_shape：通道数应为 1 或 3，现在是 {shape[0]}")
    if min(shape[1:]) < 32:
        raise UserError(f"Global.image_shape：高和宽应不小于 32（ResNet 缩小 32 倍），现在是 {list(shape[1:])}")
    for key in ("mean", "std"):
        if len(getattr(preprocess, key)) not in (1, shape[0]):
            raise UserError(f"DataLoader.preprocess.{key}：应有 1 个或 {shape[0]} 个数"
                            "（与 Global.image_shape 的通道一致）")
    if min(preprocess.std) <= 0:
        raise UserError("DataLoader.preprocess.std：应为正数")


def _check_names(classes: Sequence[ClassSpec]) -> None:
    """No folder or label may mean two classes."""
    owner: dict[str, str] = {}
    for i, spec in enumerate(classes):
        for text in dict.fromkeys(name.strip().lower() for name in (spec.name, *spec.aliases)):
            if text in owner:
                raise UserError(f"Global.classes.{i}：{text!r} 同时是 {owner[text]} 和 {spec.name} 的类名或别名"
                                "（不分大小写），请去掉一个")
            owner[text] = spec.name


def _check_training_rules(recipe: Recipe) -> None:
    settings, train = recipe.Global, recipe.DataLoader.Train
    check_loop_rules(settings, train.sampler.batch_size)
    if settings.fold is not None and (settings.folds is None or settings.fold >= settings.folds):
        raise UserError(f"Global.fold：{settings.fold} 不在 0–Global.folds-1 之内（Global.folds={settings.folds}）")
    for i, spec in enumerate(train.transform_ops):
        find("transform", spec.get("name"), f"DataLoader.Train.transform_ops.{i}")


def check_loop_rules(settings: TrainGlobal, batch_size: int) -> None:
    """Rules between the keys that the training loop reads; raises :class:`UserError`."""
    if isinstance(settings.ranks, int) and settings.ranks < 1:
        raise UserError("Global.ranks：应不小于 1")
    if isinstance(settings.micro_batches, int):
        if settings.micro_batches < 1:
            raise UserError("Global.micro_batches：应不小于 1")
        if batch_size < 2 * settings.micro_batches:
            raise UserError(f"DataLoader.Train.sampler.batch_size：{batch_size} 切成 Global.micro_batches"
                            f"={settings.micro_batches} 份后每份不足 2 张，BatchNorm 无法训练")
        if isinstance(settings.ranks, int) and settings.micro_batches % settings.ranks:
            raise UserError(f"Global.ranks：{settings.ranks} 个进程不能平分 Global.micro_batches"
                            f"={settings.micro_batches}")
    if settings.keep == "best" and not settings.eval_every:
        raise UserError("Global.keep：best 需要训练中验证，但 Global.eval_every=0；请改为 Global.keep=last")
    if settings.early_stop and not settings.eval_every:
        raise UserError("Global.early_stop：需要训练中验证，但 Global.eval_every=0")


def _agree(spec: dict[str, Any], key: str, value: int, path: str, reason: str) -> None:
    """A component argument that may be left out but must not contradict the rest of the recipe."""
    if spec.get(key, value) != value:
        raise UserError(f"{path}：是 {spec[key]!r}，而 {reason}；请改一处（Arch.{key} 可以不写，由程序填）")
