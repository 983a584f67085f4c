"""Pictures in and out of the page: uploads, phantoms to click, heat maps as colours."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
from PIL import Image

from paddle_cxr.app.texts import Refusal
from paddle_cxr.data.image import EXTENSIONS, ImageError, read_image
from paddle_cxr.data.phantom import draw_image

PHANTOMS = ("normal", "covid", "viral", "effusion", "pneumothorax", "cardiomegaly")
SHOWN = 448  # pixels: smaller pictures are enlarged, so that a heat map is smooth
_PHANTOM_SIZE = 384
_MB = 1 << 20


def read_upload(path: str | None, max_mb: int) -> np.ndarray:
    """An uploaded file as :func:`~paddle_cxr.data.image.read_image` gives it.

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
    return read_image(file)


def write_phantom(kind: str, seed: int, folder: Path) -> Path:
    """Draw a phantom into ``folder`` and return the file, whose name says what it is."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"phantom_{kind}_{seed}_{uuid.uuid4().hex[:8]}.png"
    Image.fromarray(draw_image(kind, seed=seed, index=0, size=_PHANTOM_SIZE)).save(file)
    return file


def show(image: np.ndarray) -> np.ndarray:
    """uint8 ``[h, w]`` or ``[h, w, 3]`` → uint8 RGB ``[H, W, 3]`` whose shorter side is :data:`SHOWN` or more."""
    picture = Image.fromarray(image).convert("RGB")
    return np.asarray(picture.resize(_shown_size(*picture.size), Image.Resampling.BICUBIC))


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The picture of :func:`show` under colours: warm and opaque where ``heat`` (0 … 1, ``[h, w]``) is large."""
    from matplotlib import colormaps

    below = show(image)
    smooth = Image.fromarray(heat.astype(np.float32)).resize(below.shape[1::-1], Image.Resampling.BILINEAR)
    share = np.clip(np.asarray(smooth), 0, 1)
    colours = colormaps["inferno"](share)[..., :3] * 255
    alpha = 0.65 * share[..., None]
    return np.rint(below * (1 - alpha) + colours * alpha).astype(np.uint8)


def stretched(values: np.ndarray) -> np.ndarray:
    """Values of any range to 0 … 1; a map that is the same everywhere becomes 0."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _shown_size(width: int, height: int) -> tuple[int, int]:
    times = max(1.0, SHOWN / min(width, height))
    return round(width * times), round(height * times)
