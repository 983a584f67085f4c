"""Is what lies in an output folder the same recipe and data, to be continued, or another, to be kept aside?"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import yaml

from paddle_cxr.files import write_text, writing_to
from paddle_cxr.schema import Section

# Keys of Global that may differ between a run and its continuation: where and how fast, not what comes out.
VOLATILE = {"output_dir", "device", "ranks", "workers", "chunk", "resume", "checkpoint", "log_every",
            "save_every_minutes", "save_every_steps", "fold"}

_DATA = "data.txt"  # in a fold's folder: the stamp of the data it was begun with


def dump(recipe: Section) -> str:
    """The resolved recipe as YAML."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), allow_unicode=True, sort_keys=False)


def holds_another_task(path: Path, task: str) -> bool:
    """Whether an output folder's ``config.yaml`` is of another task than ``task``, or cannot be read."""
    try:
        return yaml.safe_load((path / "config.yaml").read_text("utf-8"))["Global"]["task"] != task
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return True


def rename_aside(path: Path, why: str) -> str:
    """Rename an output folder after the time it was made; returns what to tell the user."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime((path / "config.yaml").stat().st_mtime))
    old = path.resolve().with_name(f"{path.resolve().name}-{stamp}")
    while old.exists():
        old = old.with_name(old.name + "+")
    with writing_to(path):
        path.rename(old)
    return f"{path} 里已有结果（{why}），改名为 {old} 保留"


def claim_for_folds(recipe: Any, say: Callable[[str], None]) -> None:
    """Make ``Global.output_dir`` the folder of this recipe's folds: to continue them, or with the old ones renamed."""
    path = Path(recipe.Global.output_dir)
    if (path / "config.yaml").is_file():
        different = differences(path, recipe)
        if different or recipe.Global.resume is False:
            say(rename_aside(path, f"配方不同：{'、'.join(different[:3])}" if different else "resume=false"))
    if recipe.DataLoader.Split["name"] != "NoSplit":
        say(f"交叉验证：按 Global.folds 分成 {recipe.Global.folds} 折，不用 DataLoader.Split")
    write_text(path / "config.yaml", dump(recipe))


def set_changed_folds_aside(path: Path, stamps: Sequence[str], say: Callable[[str], None]) -> None:
    """Rename the folds within ``path`` that were begun with other data: pooled, they would test some images twice.

    Args:
        stamps: of every fold, :func:`paddle_cxr.data.stamp.fold_stamps` of the present data as that fold divides them.
    """
    for fold, stamp in enumerate(stamps):
        folder = path / f"fold{fold}"
        try:
            begun = (folder / _DATA).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):  # not begun
            continue
        if begun != stamp:
            say(f"第 {fold} 折要重做，数据（图像、标签或患者）与那次不同：{rename_aside(folder, '数据不同')}")


def note_data(fold: Path, stamp: str) -> None:
    """Keep with which data a fold was begun, for :func:`set_changed_folds_aside`."""
    write_text(fold / _DATA, stamp + "\n")


def differences(path: Path, recipe: Section, harmless: Collection[str] = ()) -> list[str]:
    """YAML paths whose values differ from the run in ``path``, those in ``VOLATILE`` and ``harmless`` left out."""
    try:
        old = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return ["config.yaml"]
    left, right = _flat(old), _flat(recipe.model_dump(mode="json"))
    ignored = tuple(f"{key}." for key in (*harmless, *(f"Global.{key}" for key in VOLATILE)))
    return sorted(k for k in left.keys() | right.keys()
                  if not f"{k}.".startswith(ignored) and left.get(k) != right.get(k))


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}.{key}".strip(".")).items()}
    if isinstance(value, list):
        return {k: v for i, item in enumerate(value) for k, v in _flat(item, f"{prefix}.{i}").items()}
    return {prefix: value}
