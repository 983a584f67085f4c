"""How much noise there is at each time step, and the three ways of stepping from noise to an image.

A noise schedule is a list of T numbers, ``alphas_cumprod``: at time step t an image has become
``sqrt(a[t]) * image + sqrt(1 - a[t]) * noise``.  Training picks t at random; drawing walks from the last t to the first
in far fewer steps than T, by one of these:

    ddim          Song et al., "Denoising Diffusion Implicit Models", arXiv:2010.02502
    pndm          Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds", arXiv:2202.09778
    dpmsolver++   Lu et al., "DPM-Solver++", arXiv:2211.01095, second order

None of them adds noise of its own.  The stepping is ppdiffusers'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pydantic

from paddle_cxr.errors import UserError

Scheduler = Literal["ddim", "pndm", "dpmsolver++"]


class NoiseSchedule(pydantic.BaseModel, extra="ignore", frozen=True):
    """The part of a ``scheduler_config.json`` that belongs to the model; defaults are Stable Diffusion's.

    Attributes:
        num_train_timesteps: T.
        beta_start: share of noise that the first step adds; ``beta_end``: the last.
        beta_schedule: how it grows between: ``linear``, ``scaled_linear`` (its square root does), or by a cosine.
        trained_betas: all of them, instead.
        prediction_type: what the U-Net predicts.
        steps_offset: added to the time steps of ``ddim`` and ``pndm``.
        set_alpha_to_one: whether the last step's result has no noise at all, or that of time step 0.
        clip_sample: ``ddim`` cuts its guess of the image to [-1, 1]; off, as latents are not in that range.
        timestep_spacing: see Lin et al., arXiv:2305.08891, table 2; None: each method's usual one.
        skip_prk_steps: ``pndm`` without its Runge-Kutta steps, as in Stable Diffusion.
    """

    num_train_timesteps: int = pydantic.Field(default=1000, ge=2, le=100_000)
    beta_start: float = pydantic.Field(default=0.00085, gt=0, lt=1)
    beta_end: float = pydantic.Field(default=0.012, gt=0, lt=1)
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "scaled_linear"
    trained_betas: tuple[float, ...] | None = None
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    steps_offset: int = pydantic.Field(default=1, ge=0, le=1000)
    set_alpha_to_one: bool = False
    clip_sample: bool = False
    timestep_spacing: Literal["leading", "linspace", "trailing"] | None = None
    skip_prk_steps: bool = True
    rescale_betas_zero_snr: Literal[False] = False

    @pydantic.model_validator(mode="after")
    def _betas_are_shares(self) -> NoiseSchedule:
        betas = self.trained_betas
        if betas is not None and (len(betas) != self.num_train_timesteps or not all(0 < one < 1 for one in betas)):
            raise ValueError("trained_betas: one number between 0 and 1 for each of num_train_timesteps")
        return self

    def betas(self) -> np.ndarray:
        """The share of noise that each step adds, float64 [T] in (0, 1)."""
        count = self.num_train_timesteps
        if self.trained_betas is not None:
            return np.array(self.trained_betas, np.float64)
        if self.beta_schedule == "linear":
            return np.linspace(self.beta_start, self.beta_end, count)
        if self.beta_schedule == "scaled_linear":
            return np.linspace(self.beta_start**0.5, self.beta_end**0.5, count) ** 2
        # Nichol & Dhariwal, arXiv:2102.09672: what is left follows a cosine, and no step takes everything.
        left = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1 - left[1:] / left[:-1], 0.999)

    def alphas_cumprod(self) -> np.ndarray:
        """The share of the image's variance that is left at each time step, float64 [T] in (0, 1), falling."""
        return np.cumprod(1 - self.betas())

    def as_config(self) -> dict[str, Any]:
        """The content of a ``scheduler_config.json``."""
        values = self.model_dump(exclude_none=True, exclude={"rescale_betas_zero_snr"})
        return {"_class_name": "PNDMScheduler", "_diffusers_version": "0.29.0", **values}

    def stepper(self, name: Scheduler, steps: int) -> Any:
        """ppdiffusers' scheduler ``name``, set to so many steps; it is good for one batch.

        Raises:
            UserError: another name, or more steps than T.
        """
        if not 1 <= steps <= self.num_train_timesteps:
            raise UserError(f"steps：应在 1 与 {self.num_train_timesteps}（num_train_timesteps）之间，现在是 {steps}")
        from ppdiffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler

        common = {key: getattr(self, key) for key in ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule",
                                                      "prediction_type")}
        common["trained_betas"] = list(self.trained_betas) if self.trained_betas else None
        old = {"steps_offset": self.steps_offset, "set_alpha_to_one": self.set_alpha_to_one,
               "timestep_spacing": self.timestep_spacing or "leading"}
        if name == "ddim":
            stepper = DDIMScheduler(**common, **old, clip_sample=self.clip_sample)
        elif name == "pndm":
            stepper = PNDMScheduler(**common, **old, skip_prk_steps=self.skip_prk_steps)
        elif name == "dpmsolver++":
            stepper = DPMSolverMultistepScheduler(**common, steps_offset=self.steps_offset,
                                                  timestep_spacing=self.timestep_spacing or "linspace")
        else:
            raise UserError(f"scheduler：应为 ddim、pndm 或 dpmsolver++，现在是 {name!r}")
        stepper.set_timesteps(steps)
        return stepper


def read_noise_schedule(config: Mapping[str, Any], where: str) -> NoiseSchedule:
    """The noise schedule in a ``scheduler_config.json``; keys of no concern are left out.

    Args:
        where: file or YAML path, for messages.

    Raises:
        UserError: a value out of range, or of a kind that is not supported.
    """
    try:
        return NoiseSchedule.model_validate(dict(config))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "trained_betas"
        raise UserError(f"{where}：{key} 的值不受支持（{first['msg']}，现在是 {first['input']!r:.60}）；"
                        "请改正，或换成 Stable Diffusion 的噪声方案（noise schedule）") from None
