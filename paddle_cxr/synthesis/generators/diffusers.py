"""X-rays drawn by latent diffusion: RoentGen and its kin, or a model trained with this project."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from paddle_cxr.errors import UserError
from paddle_cxr.quiet import import_paddle
from paddle_cxr.registry import register
from paddle_cxr.synthesis.device import enough_memory, use_device
from paddle_cxr.synthesis.generators.base import Drawn, ImageRequest

_OUT_OF_MEMORY = ("Generator.batch_size", "请改小 Generator.batch_size 或 Generator.size；重新运行同一条命令就接着画")


@register("generator")
class DiffusersGenerator:
    """Draws with a text-to-image latent diffusion model from a local folder.

    A folder in the layout of diffusers, of the structure of Stable Diffusion 1 or 2: RoentGen's
    (Chambon et al., arXiv:2211.12737), RoentGen-v2's, or the one that training with this project writes.

    Args:
        folder: with ``model_index.json``, ``unet``, ``vae``, ``text_encoder``, ``tokenizer`` and ``scheduler``; see
            :mod:`paddle_cxr.models.diffusers_folder`.
        steps: from noise to image, 1–1000; 50 in the SynCXR paper.
        guidance: how much the prompt is exaggerated; 4 in the SynCXR paper, 1 is not at all.
        scheduler: ``pndm`` is what RoentGen's published folder draws with when nothing else is asked for, as Stable
            Diffusion does; ``ddim`` is the plain method; ``dpmsolver++`` does well with 20 steps.
        size: side of the square image in pixels; what the model was made for where absent (512 for RoentGen).
        batch_size: images at a time.  Part of what an image depends on, by rounding: draw again with the same.
        device: ``auto``, ``cpu``, ``gpu`` or ``gpu:N``.

    Attributes:
        title: the folder's name (a training's: that of its output folder), and that it saw only phantoms where it did.
        many_processes: one process draws on a device, as the model fills it.

    Raises:
        UserError: ppdiffusers is not installed, an argument is out of range, the folder holds no such model, or there
            is no such device.
    """

    many_processes = False

    def __init__(self, folder: str, steps: int = 50, guidance: float = 4.0,
                 scheduler: Literal["pndm", "ddim", "dpmsolver++"] = "pndm", size: int | None = None,
                 batch_size: int = 8, device: str = "auto") -> None:
        _check_range("steps", steps, 1, 1000)
        _check_range("guidance", guidance, 0, 100)
        _check_range("batch_size", batch_size, 1, 4096)
        import_paddle()
        from paddle_cxr.models.latent_diffusion import load_latent_diffusion

        use_device(device)
        place = Path(folder)
        with enough_memory(*_OUT_OF_MEMORY):
            self._model = load_latent_diffusion(place)
        self._size = self._model.image_size if size is None else size
        _check_range("size", self._size, 8, 4096)
        self._model.latent_shape(self._size, self._size)  # refuses what the autoencoder cannot divide
        self._model.schedule.stepper(scheduler, steps)
        self.title = _name_of(place.resolve()) + ("（phantom）" if _saw_only_phantoms(place) else "")
        self._settings = {"steps": steps, "guidance": guidance, "scheduler": scheduler, "batch_size": batch_size}

    def draw(self, requests: Sequence[ImageRequest]) -> list[Drawn]:
        """One image a request, uint8 ``[size, size]``; see :class:`Generator`.

        Raises:
            UserError: the memory does not suffice.
        """
        from paddle_cxr.models.latent_diffusion import sample

        prompts = [request.prompt for request in requests]
        with enough_memory(*_OUT_OF_MEMORY):
            images = sample(self._model, prompts, [request.seed for request in requests], height=self._size,
                            width=self._size, **self._settings)
        cut = [self._model.tokenizer.encode(prompt)[1] for prompt in prompts]
        return [Drawn(image, "" if image is not None else "模型算出的不是数（NaN）；没有训练好，或权重已损坏", tokens)
                for image, tokens in zip(images, cut, strict=True)]


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UserError(f"Generator.{name}：应在 {low} 与 {high} 之间，现在是 {value}")


def _name_of(folder: Path) -> str:
    """A training writes its model into ``model``: which one it is, the output folder's name says."""
    return folder.parent.name if folder.name == "model" and folder.parent.name else folder.name


def _saw_only_phantoms(folder: Path) -> bool:
    """What a folder written by this project says of itself; a published one has no ``model.json``."""
    try:
        return json.loads((folder / "model.json").read_text("utf-8")).get("demo_data") is True
    except FileNotFoundError:
        return False
    except (OSError, ValueError, AttributeError, RecursionError):
        raise UserError(f"{folder / 'model.json'} 损坏或无法读取：不知道模型是否只见过模体（phantom）；"
                        "请换一个检查点（checkpoint）") from None
