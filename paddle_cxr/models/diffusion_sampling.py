"""Drawing: from noise to an image, step by step, under the guidance of a text.

In each step the U-Net is asked twice, with the prompt and with an empty one, and the difference is exaggerated:
``empty + guidance * (prompt - empty)`` (classifier-free guidance, Ho & Salimans, arXiv:2207.12598).

An image depends on its prompt, its seed and the settings only.  Its noise comes from its own seed; its prompt is
encoded alone; and batches are filled up to ``batch_size``, because products of matrices of another shape may be summed
in another order: so it is the same, bit for bit, alone and in any company.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import paddle

from paddle_cxr.errors import UserError
from paddle_cxr.models.noise_schedule import Scheduler
from paddle_cxr.models.unet_for_drawing import prepared_for_drawing

if TYPE_CHECKING:
    from paddle import Tensor
    from paddle.nn import Layer

    from paddle_cxr.models.latent_diffusion import LatentDiffusion


def sample(model: LatentDiffusion, prompts: Sequence[str], seeds: Sequence[int], *, steps: int = 50,
           guidance: float = 4.0, scheduler: Scheduler = "pndm", height: int, width: int, batch_size: int = 8
           ) -> list[np.ndarray | None]:
    """Draw an image for each prompt.

    Args:
        model: its weights are used as they are; it is in evaluation mode within.
        prompts: what to draw; tokens beyond the text encoder's limit are cut (see ``model.encode_text``).
        seeds: integers ≥ 0, one a prompt.
        steps: of the scheduler; 50 and guidance 4 are the SynCXR paper's (arXiv:2410.13523).
        guidance: 1 or less asks the U-Net only once a step, without guidance.
        scheduler: ``pndm`` is Stable Diffusion's own, and so what the published RoentGen draws with.
        height: of the images in pixels, a multiple of what the autoencoder divides by; ``width`` likewise.
        batch_size: images at a time; part of the settings, as rounding may depend on it.

    Returns:
        grey images, uint8 [height, width]; None where the networks produced values that are no numbers.

    Raises:
        UserError: a size or a number of steps that cannot be.
    """
    if len(prompts) != len(seeds):
        raise UserError(f"提示词 {len(prompts)} 个，随机种子 {len(seeds)} 个：应一一对应")
    shape = model.latent_shape(height, width)
    images: list[np.ndarray | None] = []
    with paddle.no_grad(), _in_evaluation_mode(model.networks):
        empty = _contexts(model, [""]) if guidance > 1 else None
        for start in range(0, len(prompts), batch_size):
            places = [min(place, len(prompts) - 1) for place in range(start, start + batch_size)]
            context = _contexts(model, [prompts[place] for place in places])
            noise = paddle.to_tensor(np.stack([noise_of(seeds[place], shape) for place in places]))
            latents = denoise(model, noise, context, empty, model.schedule.stepper(scheduler, steps), guidance)
            images += _pictures(model, latents[:len(prompts) - start])
    return images


def noise_of(seed: int, shape: Sequence[int]) -> np.ndarray:
    """Standard normal numbers, float32, the same on every machine."""
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, dtype=np.float32)


def denoise(model: LatentDiffusion, latents: Tensor, context: Tensor, empty: Tensor | None, stepper: object,
            guidance: float) -> Tensor:
    """Latents of pure noise [N, C, h, w] → latents of images, of the same shape.

    Args:
        context: of the prompts [N, L, D].
        empty: of the empty prompt [1, L, D]; None for no guidance.
        stepper: a scheduler of ppdiffusers, set to its number of steps.
    """
    if empty is not None:  # both questions in one batch: [2 N, L, D]
        context = paddle.concat([empty.expand(context.shape), context])
    with prepared_for_drawing(model.unet):
        for time in stepper.timesteps.tolist():
            question = latents if empty is None else paddle.concat([latents, latents])
            answer = model.unet(question, time, encoder_hidden_states=context, return_dict=False)[0]
            if empty is not None:
                without, with_prompt = answer.chunk(2)
                answer = without + guidance * (with_prompt - without)
            latents = stepper.step(answer, time, latents, return_dict=False)[0]
    return latents


def _contexts(model: LatentDiffusion, prompts: Sequence[str]) -> Tensor:
    """Each prompt's context [N, L, D], encoded alone; one that is there twice, once."""
    encoded = {prompt: model.encode_text([prompt])[0] for prompt in dict.fromkeys(prompts)}
    return paddle.concat([encoded[prompt] for prompt in prompts])


def _pictures(model: LatentDiffusion, latents: Tensor) -> list[np.ndarray | None]:
    levels = model.decode_levels(latents)
    return [np.round(255 * one).astype(np.uint8) if np.isfinite(one).all() else None for one in levels]


@contextlib.contextmanager
def _in_evaluation_mode(networks: Sequence[Layer]) -> Iterator[None]:
    """Dropout off within; afterwards each network is as it was, as training draws its examples in between."""
    training = [network.training for network in networks]
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for network, was in zip(networks, training, strict=True):
            network.train() if was else network.eval()
