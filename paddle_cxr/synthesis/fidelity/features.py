"""What a model says of each image of a set, computed once and kept in the output folder.

A file holds the rows one after another (float32, no header) and grows while they are computed: a run that was stopped
goes on where the file ends.  Its name says of which images and by which model, so nothing stale is ever read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from paddle_cxr.data.image import MissingReader
from paddle_cxr.errors import UserError
from paddle_cxr.files import writing_to
from paddle_cxr.synthesis.fidelity.images import Image, ImageSet

_BLOCK = 64  # images read, computed and kept at a time

Model = Callable[[Sequence[np.ndarray]], np.ndarray]


def rows_of(images: ImageSet, model: Model, folder: Path, progress: Callable[[int, int, str], tqdm]
            ) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """What ``model`` says of every image, computed where it is not known from a run before.

    Args:
        images: the set.
        model: N images, uint8 ``[H, W]`` of any size → float32 ``[N, D]``.
        folder: where the rows are kept.
        progress: (total, done, text) → a progress bar.

    Returns:
        Memory-mapped float32 ``[N, D]``, NaN where an image cannot be read, and (name, reason) of these.

    Raises:
        UserError: no image can be read, disk full, a reader is not installed, the model is broken.
    """
    probe = _probe(model)
    dim = probe.shape[1]
    # Its answers to the test pictures name a model, whatever it was made from; rounded, as machines differ a little.
    model_key = hashlib.sha256(probe.astype(np.float16).tobytes()).hexdigest()[:12]
    file = folder / f"{images.fingerprint()}-{model_key}.f32"
    with writing_to(file):
        folder.mkdir(parents=True, exist_ok=True)
        with open(file, "ab") as stream:
            done = min(stream.tell() // (4 * dim), len(images))
            stream.truncate(done * 4 * dim)  # a killed run may have left part of a row
            with progress(len(images), done, images.name) as bar:
                for start in range(done, len(images), _BLOCK):
                    block = _rows(images.images[start:start + _BLOCK], model, dim)
                    stream.write(block.tobytes())
                    stream.flush()
                    bar.update(len(block))
    rows = np.memmap(file, np.float32, "r", shape=(len(images), dim))
    broken = [(images.images[position].name, _why(images.images[position]))
              for position in np.flatnonzero(np.isnan(rows[:, 0]))]
    if len(broken) == len(images):
        raise UserError(f"{images.name}：没有一张图能读（{broken[0][0]}：{broken[0][1]}）")
    return rows, broken


def _rows(images: Sequence[Image], model: Model, dim: int) -> np.ndarray:
    rows = np.full((len(images), dim), np.nan, np.float32)
    readable, pixels = [], []
    for number, image in enumerate(images):
        try:
            pixels.append(image.read())
            readable.append(number)
        except MissingReader:  # every film of this kind would be "broken"
            raise
        except UserError:
            pass
    if readable:
        rows[readable] = model(pixels)
        if not np.isfinite(rows[readable]).all():  # taken for images that cannot be read, they would be named as broken
            raise UserError("模型对能读的图算出了 NaN 或无穷大，权重可能已损坏；请换一个检查点，或重新下载")
    return rows


def _why(image: Image) -> str:
    try:
        image.read()
    except UserError as error:
        return getattr(error, "reason", str(error))
    return "上次运行时读不了；删去输出目录里的 features 再试"


def _probe(model: Model) -> np.ndarray:
    slope = np.linspace(0, 255, 96).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (96, 96), np.uint8)
    return np.asarray(model([np.tile(slope, (96, 1)), noise]), np.float32)
