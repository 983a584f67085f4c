"""``tools/analyze.py fidelity``: from a recipe to one table, one figure and a sheet of the closest pairs."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from paddle_cxr.config import explained
from paddle_cxr.engine.continuing import dump, holds_another_task
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.errors import UserError
from paddle_cxr.files import write_text
from paddle_cxr.registry import build, check
from paddle_cxr.synthesis.fidelity.images import ImageSet, read_set
from paddle_cxr.synthesis.fidelity.schema import FidelityRecipe
from paddle_cxr.synthesis.locks import Taken, locked
from paddle_cxr.synthesis.schema import load_recipe


def measure(arguments: argparse.Namespace) -> None:
    """What the tool does.

    Raises:
        UserError: a mistake in the recipe, in a list of images or in a model.
    """
    recipe, origins = load_recipe(arguments.config, arguments.override, FidelityRecipe)
    with explained(origins):
        _check(recipe)
        _check_folder(Path(recipe.Global.output_dir))
        sets = _read_sets(recipe)
        from paddle_cxr.synthesis.fidelity.work import Fidelity  # brings the encoder, and with it Paddle

        encoder = build("encoder", recipe.Encoder, "Encoder")
        with _alone(Path(recipe.Global.output_dir)), contextlib.closing(RunFolder(recipe.Global.output_dir)) as folder:
            write_text(folder.path / "config.yaml", dump(recipe))
            Fidelity(recipe, folder, encoder, *sets).run()


def _check(recipe: FidelityRecipe) -> None:
    """What needs no images is refused before any is read."""
    names: list[str] = []
    for path, section in _sections(recipe):
        if re.search(r"[|\n\r]", section.name):
            raise UserError(f"{path}.name：{section.name!r} 里不能有 | 或换行（表格会被它断开）")
        if section.name in names:
            raise UserError(f"{path}.name：{section.name!r} 用了两次，请给每组图像不同的名字")
        names.append(section.name)
    check("encoder", recipe.Encoder, "Encoder")


def _sections(recipe: FidelityRecipe) -> list[tuple[str, Any]]:
    training = [("Training", recipe.Training)] if recipe.Training else []
    return [("Real", recipe.Real), *((f"Generated.{i}", one) for i, one in enumerate(recipe.Generated)), *training]


def _read_sets(recipe: FidelityRecipe) -> tuple[ImageSet, Sequence[ImageSet], ImageSet | None]:
    found = {path: read_set(section, path, recipe.Global.seed, "synthetic" if path.startswith("Generated") else "real")
             for path, section in _sections(recipe)}
    generated = [one for path, one in found.items() if path.startswith("Generated")]
    return found["Real"], generated, found.get("Training")


def _check_folder(folder: Path) -> None:
    """Figures made again replace the old ones, but never another run's ``config.yaml``: that could not go on."""
    if holds_another_task(folder, "fidelity"):
        raise UserError(f"Global.output_dir：{folder} 是别的运行的输出目录（里面的 config.yaml 不是 fidelity 的），"
                        "请另选一个目录")


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two programs that append to one file of features would mix their rows."""
    try:
        with locked(folder / ".lock"):
            yield
    except Taken:
        raise UserError(f"Global.output_dir：另一个程序正在写 {folder}；请等它结束，或换一个目录") from None
