"""Images that others drew, as grey pictures."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np

from paddle_cxr.data.image import ImageError, read_image
from paddle_cxr.files import writing_to

_SIGNATURES = {b"\x89PNG\r\n\x1a\n": ".png", b"\xff\xd8\xff": ".jpg"}


class NoImage(ValueError):
    """Why bytes from the network are no usable image, in a few words."""


def read_grey(path: Path) -> np.ndarray:
    """Read an image file as uint8 ``[H, W]``; raises ImageError, see :func:`paddle_cxr.data.image.read_image`.

    Diffusion models draw three channels that differ by a grey level or two: what counts is their luminance.
    """
    from PIL import Image

    pixels = read_image(path)
    return pixels if pixels.ndim == 2 else np.array(Image.fromarray(pixels).convert("L"))


def decode_grey(data: bytes, width: int, height: int) -> np.ndarray:
    """An image that came over the network, as uint8 ``[height, width]``.

    Its size is read before anything is unpacked, so that a small answer cannot become a huge picture.

    Raises:
        NoImage: neither PNG nor JPEG, another size, broken.
        UserError: no place for the temporary file through which it is read.
    """
    from PIL import Image

    suffix = next((suffix for sign, suffix in _SIGNATURES.items() if data.startswith(sign)), None)
    if suffix is None:
        raise NoImage("不是 PNG 或 JPEG 图像")
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            found = image.size
    except Exception as error:  # broken bytes make Pillow raise nearly anything
        raise NoImage(f"图像已损坏（{type(error).__name__}）") from None
    if found == (width, height):
        pixels = _read_through_file(data, suffix)
        found = pixels.shape[1], pixels.shape[0]  # an EXIF orientation may have turned it
    if found != (width, height):
        raise NoImage(f"图像大小是 {found[0]}×{found[1]}，应为 {width}×{height}")
    return pixels


def _read_through_file(data: bytes, suffix: str) -> np.ndarray:
    """All images enter through one reader, which wants a file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"image{suffix}"
        with writing_to(file):
            file.write_bytes(data)
        try:
            return read_grey(file)
        except ImageError as error:
            raise NoImage(error.reason) from None
