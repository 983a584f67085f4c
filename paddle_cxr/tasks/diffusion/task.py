"""What one training step and one validation of a diffusion model are.

    image → latents (cached)         x
    time step t, noise e             at random
    noisy = √a(t) · x + √(1 - a(t)) · e
    U-Net(noisy, t, text) → e, or v = √a(t) · e - √(1 - a(t)) · x
    loss = mean squared error

References: Ho et al. 2020 (arXiv:2006.11239); v: Salimans & Ho 2022 (arXiv:2202.00512); min-SNR weights: Hang et al.
2023 (arXiv:2303.09556); text left out for classifier-free guidance: Ho & Salimans 2022 (arXiv:2207.12598).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import paddle

from paddle_cxr import __version__
from paddle_cxr.data.labelled import LabelledData
from paddle_cxr.data.sampler import EvalSampler, MicroBatchSampler
from paddle_cxr.engine.distributed import World, gather_arrays
from paddle_cxr.errors import UserError
from paddle_cxr.models.latent_diffusion import LatentDiffusion
from paddle_cxr.recipe import Loaded
from paddle_cxr.tasks.diffusion.data import Latents, prompts_of
from paddle_cxr.tasks.diffusion.schema import DiffusionRecipe
from paddle_cxr.tasks.models import freeze

_EVAL_STREAM = 5  # keeps validation's random numbers apart from training's


class Denoiser(paddle.nn.Layer):
    """What is trained: U-Net and text encoder.

    Args:
        diffusion: the model they belong to.
    """

    arch = "LatentDiffusion"

    def __init__(self, diffusion: LatentDiffusion) -> None:
        super().__init__()
        self.unet, self.text_encoder = diffusion.unet, diffusion.text_encoder

    def forward(self, noisy: paddle.Tensor, time: paddle.Tensor, tokens: paddle.Tensor) -> paddle.Tensor:
        """Noisy latents [N, C, h, w], time steps int64 [N], token numbers [N, L] → prediction [N, C, h, w]."""
        context = self.text_encoder(tokens)[0]
        return self.unet(noisy, time, encoder_hidden_states=context, return_dict=False)[0]


class DiffusionTask:
    """Trains and validates one diffusion model; see :class:`paddle_cxr.engine.trainer.Task`.

    Args:
        loaded: the recipe.
        data: decoded images with their subsets.
        diffusion: the model; its U-Net and text encoder are trained in place.
        latents: of the images of ``data``.
        world: the ranks.

    Attributes:
        cut: how many texts (of training and validation) are longer than the text encoder takes.
    """

    def __init__(self, loaded: Loaded, data: LabelledData, diffusion: LatentDiffusion, latents: Latents,
                 world: World) -> None:
        recipe = loaded.recipe
        self.recipe, self.data, self.diffusion, self.latents, self.world = recipe, data, diffusion, latents, world
        self.train = data.positions(recipe.DataLoader.Train.subset)
        self.validation = data.positions(recipe.DataLoader.Eval.subset) if recipe.Global.eval_every else None
        self.model = Denoiser(diffusion)
        self.model.train()
        freeze(self.model, recipe.Global.freeze)
        everything = np.arange(len(data.images))
        self._tokens, self.cut = _tokens(diffusion, prompts_of(data, everything))
        self._empty = np.asarray(diffusion.tokenizer.encode("")[0], np.int64)
        left = diffusion.alphas_cumprod
        self._signal, self._noise = np.sqrt(left).astype(np.float32), np.sqrt(1 - left).astype(np.float32)
        self._weights = loss_weights(left, diffusion.prediction_type, recipe.Loss.min_snr).astype(np.float32)
        self.sampler = sampler_of(recipe, len(self.train), world)

    def plan(self, epoch: int) -> Sequence[Sequence[np.ndarray]]:
        """See :class:`paddle_cxr.engine.trainer.Task`."""
        return self.sampler.plan(epoch)

    def batches(self, epoch: int, start_step: int) -> Iterator[np.ndarray]:
        """This rank's micro-batches: positions in the data set, int64 [n]."""
        self.sampler.set_epoch(epoch, start_step)
        for keys in self.sampler:
            yield self.train[[key.position for key in keys]]

    def loss(self, batch: np.ndarray, seed: Sequence[int]) -> tuple[paddle.Tensor, dict[str, float]]:
        """Mean weighted squared error over a micro-batch; time steps, noise and left-out texts come from ``seed``."""
        rng = np.random.default_rng(tuple(seed))
        clean = self.latents.draw(batch, rng)
        times = rng.integers(0, len(self._signal), len(batch))
        noise = paddle.to_tensor(rng.standard_normal(clean.shape, np.float32))
        without_text = rng.random(len(batch)) < self.recipe.Loss.text_dropout
        tokens = np.where(without_text[:, None], self._empty, self._tokens[batch])
        errors = self._errors(clean, times, noise, tokens)
        weights = paddle.to_tensor(self._weights[times])
        return (errors * weights).mean(), {"count": float(len(batch))}

    def _errors(self, clean: paddle.Tensor, times: np.ndarray, noise: paddle.Tensor, tokens: np.ndarray
                ) -> paddle.Tensor:
        """Squared error of each image, averaged over its latents, float32 [n]."""
        signal, share = (paddle.to_tensor(one[times]).reshape([-1, 1, 1, 1]) for one in (self._signal, self._noise))
        predicted = self.model(signal * clean + share * noise, paddle.to_tensor(times), paddle.to_tensor(tokens))
        wanted = noise if self.diffusion.prediction_type == "epsilon" else signal * noise - share * clean
        return ((predicted.astype("float32") - wanted) ** 2).mean(axis=[1, 2, 3])

    def validate(self) -> dict[str, Any] | None:
        """Mean squared error on the validation subset, unweighted.

        Every image meets its own time step and noise, the same every time: otherwise two validations would differ by
        chance more than by training.
        """
        if self.validation is None:
            return None
        found: dict[str, list[np.ndarray]] = {"errors": [np.zeros(0, np.float32)]}
        size = self.recipe.DataLoader.Eval.sampler.batch_size
        steps = len(self._signal)
        for keys in EvalSampler(len(self.validation), size, self.world.rank, self.world.size):
            places = np.array([key.position for key in keys])
            positions = self.validation[places]
            rng = np.random.default_rng((_EVAL_STREAM, self.recipe.Global.seed, int(places[0])))
            times = ((places + 0.5) * steps / len(self.validation)).astype(np.int64)  # spread evenly
            with paddle.no_grad():
                clean = self.latents.draw(positions, rng)
                noise = paddle.to_tensor(rng.standard_normal(clean.shape, np.float32))
                found["errors"].append(self._errors(clean, times, noise, self._tokens[positions]).numpy())
        arrays = gather_arrays({name: np.concatenate(parts) for name, parts in found.items()}, self.world)
        loss = float(arrays["errors"].mean(dtype=np.float64))
        if not np.isfinite(loss):
            raise UserError("验证时模型输出 NaN 或 Inf：训练已发散，检查点未被覆盖。"
                            "可减小学习率，或加 Optimizer.clip_norm")
        return {"loss": loss, "images": len(self.validation)}

    def better(self, new: dict[str, Any], old: dict[str, Any]) -> bool:
        """Whether the validation loss fell."""
        return new["loss"] < old["loss"]

    def files(self, positions: np.ndarray) -> list[str]:
        """File names of positions in the training set."""
        return self.data.files(self.train[positions])

    def meta(self) -> dict[str, Any]:
        """What model.json records beside the weights."""
        return {"architecture": Denoiser.arch, "arguments": self.recipe.Arch.model_dump(exclude={"name"}),
                "image_shape": list(self.recipe.Global.image_shape), "version": __version__,
                "parent": self.recipe.Arch.folder, "demo_data": self.data.source.demo}


def sampler_of(recipe: DiffusionRecipe, images: int, world: World) -> MicroBatchSampler:
    """Who trains on which of so many images; raises :class:`UserError` for too few of them, or too many ranks."""
    sampling, parts = recipe.DataLoader.Train.sampler, recipe.Global.micro_batches
    return MicroBatchSampler(
        images, batch_size=sampling.batch_size, micro_batches=world.size if parts == "auto" else parts,
        rank=world.rank, world_size=world.size, shuffle=sampling.shuffle, drop_last=sampling.drop_last,
        seed=recipe.Global.seed, samples_per_epoch=sampling.samples_per_epoch)


def _tokens(diffusion: LatentDiffusion, prompts: Sequence[str]) -> tuple[np.ndarray, int]:
    """Token numbers int64 [N, L], and how many prompts were cut."""
    known = {prompt: diffusion.tokenizer.encode(prompt) for prompt in set(prompts)}
    rows = np.array([known[prompt][0] for prompt in prompts], np.int64)
    return rows, sum(known[prompt][1] > 0 for prompt in prompts)


def loss_weights(alphas_cumprod: np.ndarray, prediction_type: str, min_snr: float | None) -> np.ndarray:
    """Weight of every time step in the loss, float64 [T].

    Min-SNR (Hang et al., arXiv:2303.09556, section 3.4): as if the image itself were predicted with weight
    min(SNR, γ): divided by SNR where the noise is predicted, by SNR + 1 where v is.

    Args:
        alphas_cumprod: [T].
        prediction_type: ``epsilon`` or ``v_prediction``.
        min_snr: γ, or None for equal weights.
    """
    if min_snr is None:
        return np.ones_like(alphas_cumprod)
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return np.minimum(snr, min_snr) / (snr + (prediction_type == "v_prediction"))
