"""Reading a mask somebody drew, as a picture of its image's size or as polygons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from paddle_cxr.data.image import check_size
from paddle_cxr.errors import UserError


def read_mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """A mask file of its image's size, bool ``[H, W]``.

    Raises:
        UserError: as :func:`read_any_mask`, and for a mask of another size than its image.
    """
    mask = read_any_mask(path)
    if mask.shape != tuple(shape):
        raise UserError(f"掩膜 {path}：大小 {_size(mask.shape)} 与图像 {_size(shape)} 不同；"
                        "请换成与图像同样大小的掩膜，不要自行缩放其中之一")
    return mask


def read_any_mask(path: Path) -> np.ndarray:
    """A mask file of any size, bool ``[H, W]``: pixels of 1 where the file holds 0 and 1, else of half white or more.

    A picture with a palette is read by its palette numbers, as drawing programs mean it.

    Raises:
        UserError: no such file, not an image, too large, or grey levels that are neither 0 and 1 nor black and white.
    """
    try:
        with Image.open(path) as image:
            check_size(path, *image.size)
            image.load()
            # The palette numbers, not their colours: 1 may be drawn in a dark red.
            values = np.asarray(image if image.mode in ("L", "P") or image.mode.startswith("I") else image.convert("L"))
    except FileNotFoundError:
        raise UserError(f"找不到掩膜（mask）{path}") from None
    except UserError:
        raise
    except Exception as error:  # broken bytes make Pillow's decoders raise nearly anything
        raise UserError(f"掩膜（mask）{path}：无法读取（{error}），文件可能已损坏，请重新下载") from None
    top = int(values.max())
    if top <= 1:
        return values > 0
    if top < 128:
        raise UserError(f"掩膜（mask）{path}：最大值是 {top}；应只有 0 和 1，或 0 和 255，不能是几类编号")
    return values > (127 if top <= 255 else 32767)


def draw_polygons(polygons: Sequence[Sequence[tuple[float, float]]], shape: tuple[int, int]) -> np.ndarray:
    """The inside and the outline of polygons of (x, y) pixel positions, bool ``[H, W]``."""
    picture = Image.new("1", (shape[1], shape[0]))
    pen = ImageDraw.Draw(picture)
    for points in polygons:
        pen.polygon([(float(x), float(y)) for x, y in points], fill=1, outline=1)
    return np.asarray(picture)


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}×{shape[0]}"
