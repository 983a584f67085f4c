"""Image–text pairs as the diffusion task uses them: decoded images, their prompts, and their latents."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import paddle
from tqdm import tqdm

from paddle_cxr.data.cache import cache_key
from paddle_cxr.data.labelled import LabelledData, divide_and_decode
from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.engine.distributed import World, gather_arrays, wait_for_all
from paddle_cxr.errors import UserError
from paddle_cxr.files import writing_to
from paddle_cxr.recipe import Loaded
from paddle_cxr.registry import build

if TYPE_CHECKING:
    from paddle_cxr.models.latent_diffusion import LatentDiffusion

_ENCODED_AT_ONCE = 8  # images; the autoencoder's first layers work at full size


def load_pairs(loaded: Loaded, say: Callable[[str], None], progress: Callable[[int, int], None] | None = None
               ) -> LabelledData:
    """Open the recipe's pairs, divide them and decode the images; ``data.source.records`` hold the texts.

    Raises:
        UserError: what the source, the split or a broken image has to say.
    """
    section = loaded.recipe.DataLoader
    source = build("pairs", section.Source, "DataLoader.Source")
    preprocess = Preprocess(image_shape=loaded.recipe.Global.image_shape, **section.preprocess.model_dump())
    return divide_and_decode(source, section, preprocess, say=say, progress=progress)


def prompts_of(data: LabelledData, positions: np.ndarray) -> list[str]:
    """The texts that images at ``positions`` are drawn for."""
    return [data.source.records[position].prompt for position in positions]


def to_pixels(images: np.ndarray) -> paddle.Tensor:
    """Grey levels uint8 [N, H, W] → float32 [N, 1, H, W] in [-1, 1], as the autoencoder takes them."""
    return paddle.to_tensor(images[:, None].astype(np.float32) / 127.5 - 1)


class Latents:
    """The latents of a data set's images: mean and standard deviation of what the autoencoder makes of each.

    They are computed once: the autoencoder does not change, and is the larger part of a training step's work.  From
    them a step draws new latents each time, exactly as if it had encoded the image itself.

    Args:
        model: its autoencoder encodes.
        data: the images.
        mode: ``memory``, ``disk`` (a file in ``folder``, shared by the ranks and by later runs) or ``none``.
        folder: of the ``disk`` cache.
        world: the ranks share the work.
        say: receives a line.

    Raises:
        UserError: no space, no permission; values that are no numbers.
    """

    def __init__(self, model: LatentDiffusion, data: LabelledData, mode: str, folder: str, world: World,
                 say: Callable[[str], None]) -> None:
        self._model, self._images = model, data.images
        self._cache: np.ndarray | None = None  # float16 [N, 2, C, h, w]: mean and standard deviation
        if mode == "none":
            return
        shape = (len(data.images), 2, *model.latent_shape(*data.images.shape[1:3]))
        say(f"计算潜变量（latents）：{len(data.images)} 张，每张 {list(shape[2:])}")
        self._cache = (self._in_memory if mode == "memory" else self._on_disk)(shape, data, Path(folder), world)

    def draw(self, positions: np.ndarray, rng: np.random.Generator) -> paddle.Tensor:
        """Latents float32 [n, C, h, w] of the images at ``positions``, drawn from what the autoencoder says of them."""
        if self._cache is None:
            images = np.stack([self._images[position] for position in positions])
            with paddle.no_grad():
                mean, std = (part.numpy() for part in self._model.posterior(to_pixels(images)))
        else:
            both = np.asarray(self._cache[positions], np.float32)
            mean, std = both[:, 0], both[:, 1]
        return paddle.to_tensor(mean + std * rng.standard_normal(mean.shape, np.float32))

    def _encode(self, positions: Sequence[int], out: np.ndarray, rows: Sequence[int], quiet: bool) -> None:
        """Write the latents of images ``positions`` into rows ``rows`` of ``out``."""
        starts = range(0, len(positions), _ENCODED_AT_ONCE)
        for start in tqdm(starts, desc="编码（encode）", leave=False, disable=quiet):
            part = slice(start, start + _ENCODED_AT_ONCE)
            images = np.stack([self._images[position] for position in positions[part]])
            with paddle.no_grad():
                mean, std = self._model.posterior(to_pixels(images))
            both = np.stack([mean.numpy(), std.numpy()], axis=1)
            if not np.isfinite(both).all() or np.abs(both).max() > np.finfo(np.float16).max:
                raise UserError("自编码器（VAE）给出的潜变量含 NaN、无穷大或过大的数；权重可能已损坏，请重新下载")
            out[list(rows[part])] = both

    def _in_memory(self, shape: tuple[int, ...], data: LabelledData, folder: Path, world: World) -> np.ndarray:
        mine = range(world.rank, shape[0], world.size)
        own = np.empty((len(mine), *shape[1:]), np.float16)
        self._encode(mine, own, range(len(mine)), not world.is_main)
        parts = gather_arrays({"rows": np.array(mine, np.int64), "latents": own}, world)
        return parts["latents"][np.argsort(parts["rows"])]

    def _on_disk(self, shape: tuple[int, ...], data: LabelledData, folder: Path, world: World) -> np.ndarray:
        file = folder / f"{data.source.name}-{self._key(data)}.latents.npy"
        if not file.is_file():
            unfinished = file.with_suffix(".tmp")
            with writing_to(file):
                if world.is_main:
                    folder.mkdir(parents=True, exist_ok=True)
                    np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.float16, shape=shape).flush()
                wait_for_all(world)
                out = np.lib.format.open_memmap(unfinished, mode="r+")
                mine = range(world.rank, shape[0], world.size)
                self._encode(mine, out, mine, not world.is_main)
                out.flush()
                del out
                wait_for_all(world)
                if world.is_main:
                    unfinished.rename(file)
        wait_for_all(world)
        return np.load(file, mmap_mode="r")

    def _key(self, data: LabelledData) -> str:
        digest = hashlib.sha256(cache_key(data.source, data.preprocess).encode())
        for name, tensor in sorted(self._model.vae.state_dict().items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        return digest.hexdigest()[:16]
