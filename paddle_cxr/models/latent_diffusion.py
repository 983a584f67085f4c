"""Text-to-image latent diffusion: three networks that together draw an X-ray for a sentence.

    prompt  → text encoder (CLIP)        → context    one vector a token
    image   → autoencoder (VAE), encoder → latents    an image of 1/8 the side, 4 channels: cheap to work on
    latents + noise, time, context → U-Net → noise    what training teaches: tell the noise from the image
    latents → autoencoder, decoder       → image

Drawing begins with latents of pure noise and takes away, step by step, what the U-Net says is noise
(:mod:`paddle_cxr.models.diffusion_sampling`).  RoentGen (Chambon et al., arXiv:2211.12737) is Stable Diffusion, trained
further on chest X-rays and the IMPRESSION of their reports.

    LatentDiffusion          the three networks, tokenizer and noise schedule
    load_latent_diffusion    from a folder in the layout of diffusers
    save_latent_diffusion    into one
    build_latent_diffusion   from small configs, with random weights

References: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (2022), arXiv:2112.10752;
Ho et al., "Denoising Diffusion Probabilistic Models" (2020), arXiv:2006.11239.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

from paddle_cxr import __version__
from paddle_cxr.engine.checkpoint import replace_folder
from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.files import write_json
from paddle_cxr.models import diffusers_folder
from paddle_cxr.models.clip_tokenizer import ClipTokenizer, read_clip_tokenizer, read_json, train_clip_tokenizer
from paddle_cxr.models.diffusion_sampling import sample
from paddle_cxr.models.noise_schedule import NoiseSchedule, read_noise_schedule
from paddle_cxr.models.patch_autoencoder import PatchAutoencoder

if TYPE_CHECKING:
    from paddle import Tensor
    from paddle.nn import Layer

__all__ = ["LatentDiffusion", "build_latent_diffusion", "load_latent_diffusion", "sample", "save_latent_diffusion"]

META = "model.json"
_LUMA = np.float32([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's convert("L")
_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
_OF_TOKENIZER = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")  # in a text encoder's config


class LatentDiffusion:
    """The parts of a text-to-image latent diffusion model.

    Args:
        unet: predicts the noise.
        vae: image ↔ latents.
        text_encoder: tokens → context.
        tokenizer: text → tokens.
        schedule: how much noise each time step has, and what the U-Net predicts.
        where: folder or recipe, for messages.

    Attributes:
        prediction_type: ``epsilon`` (the noise) or ``v_prediction`` (Salimans & Ho, arXiv:2202.00512).
        alphas_cumprod: float64 [T], the share of the image's variance that is left at each time step, falling.
        scaling_factor: latents are multiplied by it, so that their variance is about 1.
        max_tokens: of a prompt, with its start and end token.

    Raises:
        UserError: the parts do not fit together.
    """

    def __init__(self, unet: Layer, vae: Layer, text_encoder: Layer, tokenizer: ClipTokenizer, schedule: NoiseSchedule,
                 where: str = "LatentDiffusion") -> None:
        self.unet, self.vae, self.text_encoder, self.tokenizer = unet, vae, text_encoder, tokenizer
        self.schedule = schedule
        _check_fit(self, where)
        self.prediction_type = schedule.prediction_type
        self.alphas_cumprod = schedule.alphas_cumprod()
        self.scaling_factor = float(vae.config["scaling_factor"])
        self.max_tokens = tokenizer.max_tokens
        self.vae_factor = diffusers_folder.downsampling(vae)

    @property
    def networks(self) -> tuple[Layer, Layer, Layer]:
        """U-Net, autoencoder and text encoder."""
        return self.unet, self.vae, self.text_encoder

    @property
    def image_size(self) -> int:
        """Side in pixels of the images the model was made for."""
        side = self.unet.config["sample_size"]
        return self.vae_factor * (side if isinstance(side, int) else side[0])

    def now_draws(self, side: int) -> None:
        """Record that the model is trained further on images of another side, a multiple of ``vae_factor``."""
        self.unet.register_to_config(sample_size=side // self.vae_factor)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(channels, height, width) of the latents of an image.

        Raises:
            UserError: a side that the autoencoder cannot halve as often as it does.
        """
        if height < 1 or width < 1 or height % self.vae_factor or width % self.vae_factor:
            raise UserError(f"图像大小 {height}×{width} 应为 {self.vae_factor} 的倍数：自编码器（VAE）缩小这么多倍")
        return self.vae.config["latent_channels"], height // self.vae_factor, width // self.vae_factor

    def encode_text(self, prompts: Sequence[str]) -> tuple[Tensor, list[int]]:
        """Prompts → context float32 [N, max_tokens, C], and how many tokens of each prompt were cut."""
        rows, cut = zip(*map(self.tokenizer.encode, prompts), strict=True)
        return self.text_encoder(paddle.to_tensor(rows, dtype="int64"))[0], list(cut)

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Images → mean and standard deviation of their latents, each [N, channels, height, width], scaled.

        Args:
            pixels: float32 [N, C, H, W] in [-1, 1]; one channel serves an autoencoder that wants three.
        """
        wanted = self.vae.config["in_channels"]
        if pixels.shape[1] == 1 != wanted:
            pixels = pixels.expand([-1, wanted, -1, -1])
        distribution = self.vae.encode(pixels).latent_dist
        return distribution.mean * self.scaling_factor, distribution.std * self.scaling_factor

    def encode_images(self, pixels: Tensor, noise: Tensor | int | None = None) -> Tensor:
        """Images → scaled latents.

        Args:
            pixels: see :meth:`posterior`.
            noise: standard normal numbers of the latents' shape, or the seed of such; None for the mean.
        """
        mean, std = self.posterior(pixels)
        if isinstance(noise, int):
            generator = np.random.Generator(np.random.PCG64(noise))
            noise = paddle.to_tensor(generator.standard_normal(mean.shape, dtype=np.float32))
        return mean if noise is None else mean + std * noise

    def decode(self, latents: Tensor) -> np.ndarray:
        """Scaled latents → grey images, uint8 [N, H, W]."""
        levels = self.decode_levels(latents)
        return np.round(255 * np.nan_to_num(levels)).astype(np.uint8)

    @paddle.no_grad()
    def decode_levels(self, latents: Tensor) -> np.ndarray:
        """Scaled latents → grey levels, float32 [N, H, W] in [0, 1], or NaN where the networks produced no number.

        One image at a time: at 512 x 512 pixels the decoder takes more memory than all else.
        """
        images = []
        for one in latents / self.scaling_factor:
            pixels = self.vae.decode(one[None], return_dict=False)[0].numpy()[0]  # [1 or 3, H, W]
            levels = np.clip(pixels / 2 + 0.5, 0, 1)
            images.append(levels[0] if len(levels) == 1 else np.tensordot(_LUMA, levels, 1))
        return np.stack(images)


def _check_fit(model: LatentDiffusion, where: str) -> None:
    unet, vae, text = model.unet.config, model.vae.config, model.text_encoder.config
    for what, found, wanted in (
            ("unet 的 in_channels", unet["in_channels"], vae["latent_channels"]),
            ("unet 的 out_channels", unet["out_channels"], vae["latent_channels"]),
            ("unet 的 cross_attention_dim", unet["cross_attention_dim"], text.hidden_size),
            ("vae 的 out_channels", vae["out_channels"], vae["in_channels"])):
        if found != wanted:
            raise UserError(f"{where}：{what} 是 {found}，应为 {wanted}，与其他部分不符；"
                            "它们不属于同一个模型（或这是修补 inpainting 等的模型），请重新下载整个文件夹")
    factor = vae["scaling_factor"]
    if not isinstance(factor, (int, float)) or not 0 < factor < float("inf"):
        raise UserError(f"{where}：vae 的 scaling_factor 应为正数，现在是 {factor!r}；请重新下载")
    if vae["in_channels"] not in (1, 3):
        raise UserError(f"{where}：vae 的 in_channels 应为 1 或 3，现在是 {vae['in_channels']}")
    if model.tokenizer.size > text.vocab_size:
        raise UserError(f"{where}：分词器（tokenizer）有 {model.tokenizer.size} 个词，多于 text_encoder 的 vocab_size "
                        f"{text.vocab_size}；它们不属于同一个模型，请重新下载整个文件夹")
    sides = unet["sample_size"] if isinstance(unet["sample_size"], (list, tuple)) else [unet["sample_size"]]
    if not sides or not all(type(side) is int and side > 0 for side in sides):
        raise UserError(f"{where}：unet 的 sample_size（潜变量 latents 的边长）应为正整数，"
                        f"现在是 {unet['sample_size']!r}")


def read_schedule(folder: str | Path) -> NoiseSchedule:
    """The noise schedule of a folder in the layout of diffusers; raises :class:`UserError` for another folder."""
    diffusers_folder.check_index(Path(folder))
    return read_noise_schedule(read_json(Path(folder) / diffusers_folder.SCHEDULER), str(Path(folder) / "scheduler"))


def load_latent_diffusion(folder: str | Path) -> LatentDiffusion:
    """Read a folder in the layout of diffusers; see :mod:`paddle_cxr.models.diffusers_folder`.

    Returns:
        the model, in evaluation mode, all weights float32.

    Raises:
        UserError: not such a folder, a file is missing or damaged, or weights that do not fit (which, and how).
    """
    folder = Path(folder)
    schedule = read_schedule(folder)
    diffusers_folder.import_ppdiffusers()
    unet, vae, text_encoder = (diffusers_folder.read_part(folder, part) for part in ("unet", "vae", "text_encoder"))
    tokenizer = read_clip_tokenizer(folder / "tokenizer", text_encoder.config.max_position_embeddings)
    return LatentDiffusion(unet, vae, text_encoder, tokenizer, schedule, str(folder))


def check_config(config: Mapping[str, Any]) -> NoiseSchedule:
    """Refuse names that no part of :func:`build_latent_diffusion` knows, before anything slow; the noise schedule.

    Raises:
        UserError: an unknown key, or a noise schedule that cannot be.
    """
    if unknown := [key for key in config if key not in _PARTS]:
        raise UserError(f"Arch.{unknown[0]}：没有这个键（可用：{'、'.join(_PARTS)}）")
    if filled := [key for key in config.get("text_encoder", {}) if key in _OF_TOKENIZER]:
        raise UserError(f"Arch.text_encoder.{filled[0]}：由分词器决定，程序会填，请删去；"
                        "词表大小写在 Arch.tokenizer.vocab_size")
    for part in ("unet", "vae", "text_encoder"):
        diffusers_folder.check_arguments(part, config.get(part, {}), f"Arch.{part}")
    for part, known in (("tokenizer", ["vocab_size"]), ("scheduler", list(NoiseSchedule.model_fields))):
        for key in config.get(part, {}):
            if key not in known:
                raise UserError(f"Arch.{part}.{key}：没有这个键{did_you_mean(key, known)}（可用：{'、'.join(known)}）")
    return read_noise_schedule(config.get("scheduler", {}), "Arch.scheduler")


def build_latent_diffusion(config: Mapping[str, Any], tokenizer_texts: Sequence[str],
                           images: np.ndarray | None = None, positions: np.ndarray | None = None) -> LatentDiffusion:
    """A model with random weights (Paddle's random numbers: seed them before) and a tokenizer of its own.

    Args:
        config: ``unet``, ``vae``, ``text_encoder``: the constructors' arguments; ``tokenizer``: ``vocab_size``;
            ``scheduler``: see :class:`NoiseSchedule`.  What the parts share need not be repeated: the text encoder's
            vocabulary is the tokenizer's, the U-Net's channels and cross-attention width those of the others.
        tokenizer_texts: reports from which the tokenizer learns its words.
        images: uint8 [N, H, W]; those at ``positions`` are what a ``PatchAutoencoder`` is computed from.

    Raises:
        UserError: an unknown key, or values from which no network can be built.
    """
    schedule = check_config(config)
    text = dict(config.get("text_encoder", {}))
    tokenizer = train_clip_tokenizer(tokenizer_texts, max_tokens=text.get("max_position_embeddings", 77),
                                     **config.get("tokenizer", {}))
    end = tokenizer.vocab["<|endoftext|>"]
    text |= dict(zip(_OF_TOKENIZER, (tokenizer.size, end - 1, end, end), strict=True))
    vae = diffusers_folder.build_part("vae", config.get("vae", {}), "Arch.vae")
    if isinstance(vae, PatchAutoencoder) and images is not None and positions is not None:
        vae.fit(images, positions)
    text_encoder = diffusers_folder.build_part("text_encoder", text, "Arch.text_encoder")
    channels = vae.config["latent_channels"]
    unet = diffusers_folder.build_part("unet", {
        "in_channels": channels, "out_channels": channels, "cross_attention_dim": text_encoder.config.hidden_size,
        **config.get("unet", {})}, "Arch.unet")
    return LatentDiffusion(unet, vae, text_encoder, tokenizer, schedule, "Arch")


def save_latent_diffusion(model: LatentDiffusion, folder: str | Path, *, demo: bool, meta: Mapping[str, Any]) -> None:
    """Write ``model`` as a folder that diffusers, ppdiffusers and :func:`load_latent_diffusion` read; whole or not.

    Args:
        demo: whether it was trained on phantoms: stands in its ``model.json``, and in the title of what it draws.
        meta: more for ``model.json``: ``parent``, the recipe's name …

    Raises:
        UserError: no space, no permission.
    """
    replace_folder(Path(folder), lambda new: _write(model, new, {"demo_data": demo, **meta}))


def _write(model: LatentDiffusion, folder: Path, meta: Mapping[str, Any]) -> None:
    for part in ("unet", "vae", "text_encoder"):
        diffusers_folder.write_part(folder, part, getattr(model, part))
    model.tokenizer.write(folder / "tokenizer")
    write_json(folder / diffusers_folder.SCHEDULER, model.schedule.as_config())
    write_json(folder / META, {"architecture": "LatentDiffusion", "version": __version__, **meta})
    write_json(folder / diffusers_folder.INDEX, {
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.29.0", "requires_safety_checker": False,
        "safety_checker": [None, None], "feature_extractor": [None, None],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": diffusers_folder.class_of_vae(model.vae),
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "PNDMScheduler"]})
