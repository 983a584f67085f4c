"""Image–text pairs as the diffusion task uses them: decoded images, their prompts, and their latents."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import paddle
from tqdm import tqdm

from paddle_cxr.data.cache import cache_key
from paddle_cxr.data.labelled import LabelledData
from paddle_cxr.engine.distributed import World, gather_arrays, wait_for_all
from paddle_cxr.errors import UserError
from paddle_cxr.synthesis.locks import locked

if TYPE_CHECKING:
    from paddle_cxr.models.latent_diffusion import LatentDiffusion

_ENCODED_AT_ONCE = 8  # images; the autoencoder's first layers work at full size


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
        for start in tqdm(starts, desc="编码（encode）", leave=False, disable=quiet or not sys.stderr.isatty()):
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
        wait_for_all(world)  # the exchange itself waits half a minute only for a slower rank
        parts = gather_arrays({"rows": np.array(mine, np.int64), "latents": own}, world)
        return parts["latents"][np.argsort(parts["rows"])]

    def _on_disk(self, shape: tuple[int, ...], data: LabelledData, folder: Path, world: World) -> np.ndarray:
        file = folder / f"{data.source.name}-{self._key(data)}.latents.npy"
        with _placing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        # Another run may be computing the same latents: this one then waits, and finds them done.
        with locked(file.with_suffix(".lock"), wait=lambda: None) if world.is_main else contextlib.nullcontext():
            wait_for_all(world)
            if not _main_says(_is_whole(file, shape), world):
                self._fill(file, shape, world)
        return np.load(file, mmap_mode="r")

    def _fill(self, file: Path, shape: tuple[int, ...], world: World) -> None:
        """Compute ``file``: every rank writes its rows, and it gets its name when all are there."""
        unfinished = file.with_suffix(".tmp")
        if world.is_main:
            with _placing(file.parent):
                _allocate(unfinished, shape)
        wait_for_all(world)
        out = np.lib.format.open_memmap(unfinished, mode="r+")
        mine = range(world.rank, shape[0], world.size)
        self._encode(mine, out, mine, not world.is_main)
        out.flush()
        del out
        wait_for_all(world)
        if world.is_main:
            with _placing(file.parent):
                unfinished.replace(file)
        wait_for_all(world)

    def _key(self, data: LabelledData) -> str:
        """What the latents depend on, as 16 hex digits."""
        digest = hashlib.sha256(f"{cache_key(data.source, data.preprocess)} {self._model.scaling_factor}".encode())
        for name, tensor in sorted(self._model.vae.state_dict().items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        return digest.hexdigest()[:16]


def _main_says(value: bool, world: World) -> bool:
    """Rank 0's ``value``: what the ranks do together must not hang on how fast each of them sees a new file."""
    return bool(gather_arrays({"value": np.array([value])}, world)["value"][0])


def _is_whole(file: Path, shape: tuple[int, ...]) -> bool:
    try:
        return np.load(file, mmap_mode="r").shape == shape
    except (OSError, ValueError, EOFError):  # absent, cut short, something else
        return False


def _allocate(file: Path, shape: tuple[int, ...]) -> None:
    """Make an array file with all of its space: a memory map of a full disk does not raise, it ends the program."""
    np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape).flush()
    if hasattr(os, "posix_fallocate"):
        with open(file, "r+b") as stream:
            try:
                os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
            except OSError:
                file.unlink()
                raise


@contextlib.contextmanager
def _placing(folder: Path) -> Iterator[None]:
    """Turn "no space" and "no permission" in the folder of the latents into one clear line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"DataLoader.latents.folder：潜变量（latents）无法写入 {folder}（{error.strerror or error}）；"
                        "请腾出空间、检查权限，或用 -o DataLoader.latents.folder=… 换一个目录") from None
