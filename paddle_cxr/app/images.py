"""Pictures in and out of the page: uploads, phantoms to click, heat maps as colours, files for the browser."""

from __future__ import annotations

import functools
import threading
import uuid
from pathlib import Path

import numpy as np
from PIL import Image

from paddle_cxr.app.texts import Refusal
from paddle_cxr.data.image import EXTENSIONS, ImageError, MissingReader, read_image
from paddle_cxr.data.phantom import draw_image

PHANTOMS = ("normal", "covid", "viral", "effusion", "pneumothorax", "cardiomegaly")
SHOWN = 448  # pixels: smaller pictures are enlarged, so that a heat map is smooth
_LONGEST = 3072  # pixels of the longer side: of films while they wait, and of a strip of one pixel's height, enlarged
_PHANTOM_SIZE = 384
# A film has at most some 20 million pixels.  A PNG of 200 KB can hold 88 million, which take 2.7 GB to decode: fewer
# are taken, and large ones, up to 1.1 GB each, by two at a time.  With one limit for all, the small ones would wait for
# each other: 13 % of the page's time.
_MOST_PIXELS, _SMALL = 25_000_000, 4_000_000
_LARGE_FILMS, _SMALL_FILMS = threading.BoundedSemaphore(2), threading.BoundedSemaphore(16)
_OPAQUE = 0.65  # of a colour at the warmest place
_QUALITY = 95  # of JPEG
_MB = 1 << 20


def read_upload(path: str | None, max_mb: int) -> np.ndarray:
    """An uploaded file as :func:`~paddle_cxr.data.image.read_image` gives it, a very large one made smaller.

    Raises:
        UserError: no file, too large a one, or one that is no radiograph; see there.
    """
    if not path:
        raise Refusal("no_file")
    file = Path(path)
    try:
        size = file.stat().st_size
    except OSError:
        raise ImageError(file.name, "missing", "文件已经不在，请重新上传") from None
    if size > max_mb * _MB:
        raise Refusal("too_large", size=size / _MB, most=max_mb)
    if file.suffix.lower() not in EXTENSIONS:
        raise ImageError(file.name, "extension", f"不支持这种文件（可用：{'、'.join(EXTENSIONS)}）")
    try:
        return _reduced(_read(file))
    except MissingReader:  # whose words are for whoever runs the page, and name the place of the file
        raise Refusal("no_dicom") from None


def _read(file: Path) -> np.ndarray:
    try:
        with _SMALL_FILMS:
            return read_image(file, _SMALL)
    except ImageError as error:
        if error.kind != "bomb":
            raise
    with _LARGE_FILMS:
        return read_image(file, _MOST_PIXELS)


def _reduced(image: np.ndarray) -> np.ndarray:
    if max(image.shape[:2]) <= _LONGEST:
        return image
    picture = Image.fromarray(image)
    picture.thumbnail((_LONGEST, _LONGEST), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def write_phantom(kind: str, seed: int, folder: Path) -> Path:
    """Draw a phantom into ``folder`` and return the file, whose name says what it is."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"phantom_{kind}_{seed}_{uuid.uuid4().hex[:8]}.png"
    Image.fromarray(draw_image(kind, seed=seed, index=0, size=_PHANTOM_SIZE)).save(file)
    return file


def show(image: np.ndarray) -> Image.Image:
    """uint8 ``[h, w]`` or ``[h, w, 3]`` → the picture, grey or RGB, enlarged to :data:`SHOWN` where it is small."""
    picture = Image.fromarray(image)
    return picture.resize(_shown_size(*picture.size), Image.Resampling.BICUBIC)


def overlay(image: np.ndarray, heat: np.ndarray) -> Image.Image:
    """The picture of :func:`show` under colours: warm and opaque where ``heat`` (0 … 1, ``[h, w]``) is large."""
    below = show(image).convert("RGB")
    levels = Image.fromarray(np.rint(np.clip(heat, 0, 1) * 255).astype(np.uint8))
    levels = levels.resize(below.size, Image.Resampling.BILINEAR)
    # 256 colours from a table: a colour map asked for every pixel costs ten times as much.
    colours = levels.copy()
    colours.putpalette(_inferno())
    opaque = levels.point([round(_OPAQUE * level) for level in range(256)])
    return Image.composite(colours.convert("RGB"), below, opaque)


def save(picture: Image.Image, folder: Path) -> str:
    """Write a picture of the page into ``folder``; the file.

    JPEG, and here rather than by Gradio: it would compress a PNG in the thread that also answers everybody else, and
    two such pictures cost twice as much as the model.  At this quality, with every pixel's own colour, the eye sees
    no difference.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"picture_{uuid.uuid4().hex}.jpg"
    picture.save(file, quality=_QUALITY, subsampling=0)
    return str(file)


def _shown_size(width: int, height: int) -> tuple[int, int]:
    times = min(max(1.0, SHOWN / min(width, height)), _LONGEST / max(width, height))
    return max(1, round(width * times)), max(1, round(height * times))


@functools.cache
def _inferno() -> list[int]:
    """Matplotlib's colours as a palette: red, green and blue of 256 levels."""
    from matplotlib import colormaps

    return colormaps["inferno"](np.arange(256), bytes=True)[:, :3].flatten().tolist()
