"""Reading one chest radiograph, whatever its file looks like, as the 8-bit picture a radiologist would see.

Every image enters the toolkit through :func:`read_image`, so training, evaluation and prediction can never differ in
how they treat a palette, an alpha channel or a 16-bit film.  DICOM is read in :mod:`paddle_cxr.data.dicom`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from paddle_cxr.errors import UserError

DICOM_EXTENSIONS = (".dcm", ".dicom")
EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", *DICOM_EXTENSIONS)

# Only decoders for the extensions above: what a file is, its content says, and Pillow would hand an EPS named .png to
# Ghostscript.
_PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP")
# Where a 16-bit or float image says nothing about its window, this part of the grey levels at either end is allowed to
# clip: enough to ignore a burnt-in letter or a dead pixel, too little to touch anatomy.
_CLIPPED_PERCENT = 0.1
_EXIF_ORIENTATION = 0x0112
_TIFF_BITS_PER_SAMPLE, _TIFF_PHOTOMETRIC = 258, 262


class ImageError(UserError):
    """An image that cannot be used; ``kind`` is one of ``missing``, ``extension``, ``empty``, ``not_image``,
    ``truncated``, ``bomb``, ``frames``, ``depth``, ``dicom``."""

    def __init__(self, path: str | Path, kind: str, reason: str) -> None:
        super().__init__(f"图像 {path}：{reason}")
        self.path = str(path)
        self.kind = kind
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str, str]]:
        """Exceptions pickle by ``args``, which is the message alone here; readers run in worker processes."""
        return type(self), (self.path, self.kind, self.reason)


class MissingReader(UserError):
    """A package is not installed: never a reason to leave images out as broken."""


@dataclass(frozen=True)
class ImageFacts:
    """How an image was stored, before it became 8 bits.

    Attributes:
        format: ``PNG``, ``JPEG``, ``TIFF``, ``DICOM`` …
        mode: Pillow's mode (``L``, ``RGB``, ``RGBA``, ``P``, ``I;16``, ``F`` …), or DICOM's photometric interpretation.
        bits: bits per sample: 1, 8, 16 or 32 (in DICOM those stored).
        rotated: an EXIF orientation other than upright was applied.
    """

    format: str
    mode: str
    bits: int
    rotated: bool = False


def read_image(path: str | Path, most_pixels: int | None = None) -> np.ndarray:
    """Read an image as uint8, ``[H, W]`` (grey) or ``[H, W, 3]`` (RGB), values 0 … 255, air dark.

    - RGB whose three channels are equal comes back as grey; palette and CMYK become RGB first, 1 bit becomes 0/255;
    - transparency (RGBA, LA, palette) is composited on black, the background of a radiograph;
    - 16-bit, 32-bit and float grey are stretched linearly so that the 0.1 and 99.9 percentiles become 0 and 255
      (such files carry no window), except where integers already fit 8 bits: those are kept;
    - TIFF whose photometric interpretation is WhiteIsZero is inverted;
    - the EXIF orientation is applied;
    - DICOM: modality and VOI transforms applied, MONOCHROME1 inverted (:mod:`paddle_cxr.data.dicom`).

    Args:
        path: the file.
        most_pixels: refuse more than this before anything is decoded; by default Pillow's decompression-bomb limit.

    Raises:
        ImageError: (a UserError naming the file) missing, extension not in :data:`EXTENSIONS`, empty, not an image,
            truncated, too many pixels, several frames, 16-bit colour, unusable DICOM.
        MissingReader: DICOM, and pydicom is not installed.
    """
    return read_with_facts(path, most_pixels)[0]


def read_with_facts(path: str | Path, most_pixels: int | None = None) -> tuple[np.ndarray, ImageFacts]:
    """:func:`read_image` together with how the file was stored."""
    path = Path(path)
    if path.suffix.lower() not in EXTENSIONS:
        raise ImageError(path, "extension", f"扩展名 {path.suffix or '（无）'} 不在支持的格式中"
                                            f"（{'、'.join(EXTENSIONS)}）")
    try:
        with open(path, "rb") as file:
            head = file.read(132)
    except FileNotFoundError:
        raise ImageError(path, "missing", "文件不存在") from None
    except OSError as error:
        raise ImageError(path, "missing", f"无法打开（{error.strerror}）") from None
    if not head:
        raise ImageError(path, "empty", "文件是空的（0 字节），请重新下载")
    if head[128:132] == b"DICM" or path.suffix.lower() in DICOM_EXTENSIONS:
        from paddle_cxr.data.dicom import read_dicom

        return read_dicom(path, most_pixels)
    return _read_with_pillow(path, head, most_pixels)


def _read_with_pillow(path: Path, head: bytes, most_pixels: int | None) -> tuple[np.ndarray, ImageFacts]:
    try:
        # Through a file object: given a path, Pillow maps an uncompressed TIFF into memory after it has swapped width
        # and height for an EXIF orientation of 5 … 8, and the rows come out sheared.
        with open(path, "rb") as file, Image.open(file, formats=_PILLOW_FORMATS) as image:
            check_size(path, *image.size, most_pixels)
            # MPO is what phones and cameras write as .jpg: a photograph plus a preview, of which the first counts.
            if image.format != "MPO" and _has_second_frame(image):
                raise ImageError(path, "frames", "含不止一帧，需要单帧图像；请先导出其中一帧")
            facts = ImageFacts(image.format or "?", image.mode, _bits(image),
                               image.getexif().get(_EXIF_ORIENTATION, 1) not in (0, 1))
            _check_depth(path, image, head)
            # Pillow inverts 8-bit WhiteIsZero itself, but not what it opens in the modes I and F.
            tags = image.tag_v2 if image.format == "TIFF" else {}
            inverted = tags.get(_TIFF_PHOTOMETRIC) == 0 and image.mode.startswith(("I", "F"))
            image.load()
            if image.format == "PNG":
                _check_png_end(path, file)
            pixels = _to_uint8(ImageOps.exif_transpose(image), path)
            return (255 - pixels if inverted else pixels), facts
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(path, "bomb", f"像素数超过 {Image.MAX_IMAGE_PIXELS}，可能是解压炸弹"
                                       "（decompression bomb）；请先缩小图像") from None
    except UnidentifiedImageError:
        raise ImageError(path, "not_image", "不是能识别的图像文件（内容与扩展名不符，或文件头已损坏）") from None
    except Exception as error:  # broken bytes make Pillow's decoders raise nearly anything
        truncated = "truncated" in str(error) or isinstance(error, EOFError)
        reason = "文件不完整（truncated），请重新下载" if truncated else f"无法解码（{error}），文件可能已损坏"
        raise ImageError(path, "truncated" if truncated else "not_image", reason) from None


def _has_second_frame(image: Image.Image) -> bool:
    """Asked without counting: a TIFF of 6 MB can chain 60,000 frames, which take half a minute to count."""
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def check_size(path: Path, width: int, height: int, most_pixels: int | None = None) -> None:
    """Refuse what would decode to more pixels than the limit (Pillow itself only warns up to twice its own)."""
    limit = Image.MAX_IMAGE_PIXELS if most_pixels is None else most_pixels
    if limit is not None and width * height > limit:
        raise ImageError(path, "bomb", f"图像有 {width}×{height} 像素，超过上限 {limit}，可能是解压炸弹"
                                       "（decompression bomb）；请先缩小图像")


def _check_png_end(path: Path, file: BinaryIO) -> None:
    """Refuse a PNG cut off before its end mark, which Pillow accepts when the cut comes after the last pixel."""
    file.seek(8)  # the signature
    while len(head := file.read(8)) == 8:  # length and name of a chunk; a checksum follows its content
        if head[4:] == b"IEND":
            return
        file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    raise ImageError(path, "truncated", "文件不完整（truncated，没有结束标记 IEND），请重新下载")


def _check_depth(path: Path, image: Image.Image, head: bytes) -> None:
    """Refuse colour of more than 8 bits a channel: Pillow drops the low byte, which of a 12-bit film leaves nothing."""
    bits = 8
    if image.format == "PNG":
        bits = head[24]  # IHDR
    elif image.format == "TIFF":
        bits = max(image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, (1,)))
    if bits > 8 and len(image.getbands()) > 1:
        raise ImageError(path, "depth", f"是每通道 {bits} 位的 {image.mode} 图像，读取时会丢失低位；"
                                        "请另存为 16 位灰度（grayscale）或 8 位图像")


def _bits(image: Image.Image) -> int:
    if image.mode == "I" and image.format == "PNG":  # how Pillow before 11 opens 16-bit PNG
        return 16
    return {"1": 1, "I": 32, "F": 32}.get(image.mode, 16 if image.mode.startswith("I;16") else 8)


def _to_uint8(image: Image.Image, path: Path) -> np.ndarray:
    """Pillow image of any mode → uint8 ``[H, W]`` or ``[H, W, 3]``."""
    transparent = image.info.get("transparency")
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        if isinstance(transparent, int):
            hidden = values == transparent
            if not hidden.all():  # black, but no part of the window
                values = np.where(hidden, values[~hidden].min(), values)
        return stretch(values, path)
    if image.mode in ("1", "L") and transparent is None:
        return np.array(image.convert("L"))
    if "A" in image.getbands() or "a" in image.getbands() or transparent is not None:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(background, image)
    return _grey_if_equal(np.array(image.convert("RGB")))


def _grey_if_equal(pixels: np.ndarray) -> np.ndarray:
    """``[H, W, 3]`` → ``[H, W]`` where the three channels are the same."""
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    if np.array_equal(red, green) and np.array_equal(green, blue):
        return np.ascontiguousarray(red)
    return pixels


def stretch(values: np.ndarray, path: str | Path) -> np.ndarray:
    """Grey levels of any range → uint8, linear between the 0.1 and the 99.9 percentile (see :func:`read_image`)."""
    if values.dtype.kind in "iu" and values.min() >= 0 and values.max() <= 255:
        return values.astype(np.uint8)
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ImageError(path, "not_image", "含 NaN 或无穷大的像素")
    low, high = np.percentile(values, (_CLIPPED_PERCENT, 100 - _CLIPPED_PERCENT))
    if high <= low:  # nearly all pixels equal, for example a small marker on black
        low, high = values.min(), values.max()
    return scale_to_uint8(values, low, high)


def scale_to_uint8(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Linear map of ``[low, high]`` onto 0 … 255, clipped and rounded; a constant image becomes 0."""
    scale = 255.0 / (high - low) if high > low else 0.0
    return np.clip(np.rint((values - low) * scale), 0, 255).astype(np.uint8)
