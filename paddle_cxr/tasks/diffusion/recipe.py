"""Reading a diffusion recipe.  Nothing here loads Paddle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paddle_cxr.config import apply_overrides, explained, read_recipe
from paddle_cxr.errors import UserError
from paddle_cxr.recipe import Loaded, check_loop_rules
from paddle_cxr.registry import check
from paddle_cxr.schema import checked
from paddle_cxr.tasks.diffusion.schema import DiffusionRecipe


def load(file: str | Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read, override and check a recipe; the data set must be there.

    Raises:
        UserError: any mistake, with its place; no data set.
    """
    raw, origins = read_recipe(file)
    apply_overrides(raw, overrides, origins)
    with explained(origins):
        recipe = checked(raw, DiffusionRecipe)
        source, arguments = check("pairs", recipe.DataLoader.Source, "DataLoader.Source")
        check("split", recipe.DataLoader.Split, "DataLoader.Split")
        if absent := source.missing(**arguments):
            raise UserError(f"DataLoader.Source：{absent}；请用 -o DataLoader.Source.…=… 指向数据集")
        check_rules(recipe)
    return Loaded(recipe, origins)


def check_rules(recipe: DiffusionRecipe) -> None:
    """Rules between keys; raises :class:`UserError` naming both sides."""
    check_loop_rules(recipe.Global, recipe.DataLoader.Train.sampler.batch_size)
    if recipe.Global.image_shape[0] != 1:
        raise UserError(f"Global.image_shape：扩散模型只画灰度图，通道数应为 1，现在是 {recipe.Global.image_shape[0]}"
                        "（网络要 3 个通道时会复制）")
    own = [key for key in ("vae", "unet", "text_encoder", "tokenizer", "scheduler") if getattr(recipe.Arch, key)]
    if recipe.Arch.folder and own:
        raise UserError(f"Arch.{own[0]}：写了 Arch.folder 就用文件夹里的网络，请删去 Arch.{'、Arch.'.join(own)}，"
                        "或设 Arch.folder: null 从头训练")
    if not recipe.Arch.folder and not (recipe.Arch.vae and recipe.Arch.unet):
        raise UserError("Arch：从头训练要写 Arch.vae 和 Arch.unet；要接着训练现成的模型，请写 Arch.folder")
