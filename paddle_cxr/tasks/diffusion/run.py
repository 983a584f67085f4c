"""Training a diffusion model from a recipe to a finished output folder; see :mod:`paddle_cxr.engine.jobs`.

    model/        the trained model in the layout of diffusers: what a recipe of images names as ``Generator.folder``
    samples.png   what it draws for texts it was not trained on
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import paddle
from tqdm import tqdm

from paddle_cxr import plots
from paddle_cxr.data.labelled import LabelledData
from paddle_cxr.engine.distributed import World, wait_for_all
from paddle_cxr.engine.optimizer import check_optimizer
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.engine.run import circumstances, fit, foretell, open_folder, progress_of
from paddle_cxr.errors import UserError
from paddle_cxr.files import write_json
from paddle_cxr.models.diffusers_folder import import_ppdiffusers
from paddle_cxr.models.latent_diffusion import (
    LatentDiffusion,
    build_latent_diffusion,
    check_config,
    load_latent_diffusion,
    read_schedule,
    sample,
    save_latent_diffusion,
)
from paddle_cxr.recipe import Loaded
from paddle_cxr.synthesis.device import enough_memory
from paddle_cxr.tasks.diffusion.data import Latents, prompts_of
from paddle_cxr.tasks.diffusion.schema import DiffusionRecipe
from paddle_cxr.tasks.diffusion.task import Denoiser, DiffusionTask, sampler_of
from paddle_cxr.tasks.models import freeze
from paddle_cxr.tasks.pairs import load_pairs

MODEL = "model"


def check(recipe: DiffusionRecipe) -> None:
    """Check what can be checked before the slow part, reading the images; raises UserError."""
    import_ppdiffusers()
    check_optimizer(recipe.Optimizer)
    arch = recipe.Arch
    schedule = read_schedule(arch.folder) if arch.folder else check_config(arch.model_dump(exclude={"name", "folder"}))
    if recipe.Sampling.steps > schedule.num_train_timesteps:
        raise UserError(f"Sampling.steps：{recipe.Sampling.steps} 多于加噪的步数（num_train_timesteps）"
                        f"{schedule.num_train_timesteps}")


def run(loaded: Loaded, world: World, say: Callable[[str], None]) -> None:
    """Train, validate, draw and write everything into ``Global.output_dir``."""
    folder = open_folder(loaded, loaded.recipe.Global.output_dir, world)
    try:
        task = _prepare(loaded, world, folder.say, loaded.recipe.DataLoader.latents.mode)
        state, kept = fit(task, loaded.recipe, folder, world)
        if world.is_main:
            plots.plot_training_curves(state.history, folder.path / "curves.png", demo=task.data.source.demo)
            folder.image("curves", folder.path / "curves.png", state.epoch)
            _write(loaded, task, folder, {
                "history": {"epochs": state.epoch, "seconds": round(state.seconds, 1), "best": state.best},
                "weights": str(kept.relative_to(folder.path))})
        wait_for_all(world)
    finally:
        folder.close()


def dry_run(loaded: Loaded, world: World, say: Callable[[str], None]) -> None:
    """Build everything, run two steps and say what a whole run would take.  Nothing is written."""
    task = _prepare(loaded, world, say, "none")
    if loaded.recipe.DataLoader.latents.mode != "none":
        say("试运行不存潜变量（latents）：下面每步的时间里有编码，正式训练时每张图只编码一次")
    foretell(task, loaded, world, say, loaded.recipe.Arch.name, len(task.train))


def _prepare(loaded: Loaded, world: World, say: Callable[[str], None], latents: str) -> DiffusionTask:
    """Data, model and latents (``memory``, ``disk`` or ``none``)."""
    recipe = loaded.recipe
    with tqdm(desc="读图", disable=not (world.is_main and sys.stderr.isatty()), leave=False) as bar:
        data = load_pairs(loaded, say, progress_of(bar))
    wait_for_all(world)
    train = data.positions(recipe.DataLoader.Train.subset)
    say(f"数据：{data.source.name}，{len(data.images)} 对，训练 {len(train)} 对")
    paddle.seed(recipe.Global.seed)  # a fresh model is the same on every rank and in every run with this seed
    diffusion = _build(recipe, data, train, say)
    # These complain of what the recipe says: here, before the images are encoded, and again where they are needed.
    sampler_of(recipe, len(train), world)
    freeze(Denoiser(diffusion), recipe.Global.freeze)
    encoded = Latents(diffusion, data, latents, recipe.DataLoader.latents.folder, world, say)
    task = DiffusionTask(loaded, data, diffusion, encoded, world)
    if task.cut:
        say(f"!! {task.cut} 条文字超过文本编码器的 {diffusion.max_tokens} 个词元（token），多出的部分被截去")
    return task


def _build(recipe: DiffusionRecipe, data: LabelledData, train: np.ndarray, say: Callable[[str], None] = print
           ) -> LatentDiffusion:
    arch, side = recipe.Arch, recipe.Global.image_shape[1]
    if not arch.folder:
        config = arch.model_dump(exclude={"name", "folder"})
        return build_latent_diffusion(config, prompts_of(data, train), images=data.images, positions=train)
    diffusion = load_latent_diffusion(arch.folder)
    diffusion.latent_shape(side, side)  # refuses what the autoencoder cannot divide
    if side != diffusion.image_size:
        say(f"!! {arch.folder} 是 {diffusion.image_size}×{diffusion.image_size} 的模型，"
            f"现在用 {side}×{side} 的图接着训练，"
            f"以后默认画 {side}×{side}")
        diffusion.now_draws(side)
    return diffusion


def _write(loaded: Loaded, task: DiffusionTask, folder: RunFolder, results: dict[str, Any]) -> None:
    """The model, what it draws, and at last ``metrics.json``, which says that the run is complete."""
    recipe, data = loaded.recipe, task.data
    model = folder.path / MODEL
    save_latent_diffusion(task.diffusion, model, demo=data.source.demo,
                          meta={"parent": recipe.Arch.folder, "recipe": recipe.model_dump(mode="json")})
    folder.say(f"模型（diffusers 布局）写在 {model}")
    _draw_samples(recipe, task, folder)
    counts = {"train": len(task.train), "val": 0 if task.validation is None else len(task.validation)}
    write_json(folder.path / "metrics.json", {
        "demo_data": data.source.demo, "synthetic": True, "architecture": recipe.Arch.name,
        "dataset": {"name": data.source.name, "fingerprint": data.source.fingerprint(), **counts},
        "texts_cut": task.cut, **results, **circumstances(recipe.Global.seed)})
    folder.say(f"全部结果写在 {folder.path}。画出的图是合成的（synthetic），不是患者的 X 光片")


def _draw_samples(recipe: DiffusionRecipe, task: DiffusionTask, folder: RunFolder) -> None:
    """Images for texts of the validation subset, each with its text; a figure is not worth a whole run's result."""
    settings = recipe.Sampling
    if not settings.images:
        return
    subset = task.validation if task.validation is not None else task.train
    chosen = subset[np.linspace(0, len(subset) - 1, min(settings.images, len(subset))).astype(int)]
    prompts = prompts_of(task.data, chosen)
    height, width = recipe.Global.image_shape[1:]
    try:
        with enough_memory("Sampling.batch_size", "模型已经写好，只缺样图"):
            images = sample(task.diffusion, prompts, list(range(len(prompts))), steps=settings.steps,
                            guidance=settings.guidance, scheduler=settings.scheduler, height=height, width=width,
                            batch_size=settings.batch_size)
    except UserError as error:
        folder.say(f"!! {error}")
        return
    drawn = [(image, prompt) for image, prompt in zip(images, prompts, strict=True) if image is not None]
    if not drawn:
        folder.say("!! 样图没有画成：模型算出的不是数（NaN）")
        return
    file = folder.path / "samples.png"
    plots.plot_sheet([image for image, _ in drawn], [prompt for _, prompt in drawn], file,
                     title="按文字画出的图（合成，synthetic）", demo=task.data.source.demo)
    folder.image("samples", file, recipe.Global.epochs)
