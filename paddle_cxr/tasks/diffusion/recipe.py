"""Reading a diffusion recipe.  Nothing here loads Paddle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paddle_cxr.config import apply_overrides, explained, read_recipe
from paddle_cxr.errors import UserError
from paddle_cxr.recipe import Loaded, check_loop_rules
from paddle_cxr.registry import check
from paddle_cxr.schema import checked
from paddle_cxr.tasks.diffusion.schema import DiffusionArch, DiffusionRecipe


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
    height, width = recipe.Global.image_shape[1:]
    if height != width:
        raise UserError(f"Global.image_shape：高和宽应相等（画图时只有一个 size），现在是 {height}×{width}")
    if recipe.DataLoader.Train.sampler.balance:
        raise UserError("DataLoader.Train.sampler.balance：图文对没有类别，不能按类别平衡；请删去")
    _check_networks(recipe.Arch, height)


def _check_networks(arch: DiffusionArch, side: int) -> None:
    """The networks are those of a folder, or small ones made for images of this side."""
    own = [key for key in ("vae", "unet", "text_encoder", "tokenizer", "scheduler") if getattr(arch, key)]
    if arch.folder and own:
        raise UserError(f"Arch.{own[0]}：写了 Arch.folder 就用文件夹里的网络，请删去 Arch.{'、Arch.'.join(own)}，"
                        "或设 Arch.folder: null 从头训练")
    if not arch.folder and not (arch.vae and arch.unet):
        raise UserError("Arch：从头训练要写 Arch.vae 和 Arch.unet；要接着训练现成的模型，请写 Arch.folder")
    if arch.folder:
        return
    if arch.vae.get("name") != "PatchAutoencoder":
        raise UserError("Arch.vae.name：从头训练只能写 PatchAutoencoder，它由训练图像算出；别的自编码器在训练中不变，"
                        f"随机的权重没有用。现在是 {arch.vae.get('name')!r}")
    patch, latent = arch.vae.get("patch"), arch.unet.get("sample_size")
    if type(patch) is not int or patch < 1:
        return  # the autoencoder will say what is wrong
    if side % patch:
        raise UserError(f"Arch.vae.patch：Global.image_shape 的边长 {side} 应是它的倍数，现在是 {patch}")
    if latent != side // patch:
        raise UserError(f"Arch.unet.sample_size：应为 Global.image_shape 的边长除以 Arch.vae.patch，"
                        f"{side} ÷ {patch} = {side // patch}，现在是 {latent!r}")
