"""Files that users should not upload, and one day do: empty, cut off, lying about their type, bombs."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

_NAMES = ("../../etc/passwd.png", "<img src=x onerror=alert(1)>.png", "胸片 一.png", "a" * 180 + ".png",
          "[x](http-y).png")


def malformed(number: int = 100) -> list[tuple[str, bytes]]:
    """``number`` of (file name, content), the same every time; none of them is a readable image."""
    kinds = [*_fixed()]
    rng = np.random.default_rng(0)
    while len(kinds) < number:
        kinds.append(_random(len(kinds), rng))
    return kinds[:number]


def _fixed() -> Iterator[tuple[str, bytes]]:
    good = _encoded("PNG")
    yield "empty.png", b""
    yield "text.png", "这不是图像".encode()
    yield "page.html", b"<script>alert(1)</script>"
    yield "vector.svg", b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'
    yield "program.exe", b"MZ" + bytes(500)
    yield "no_extension", good
    yield "weights.pdparams", b"\x80\x04cos\nsystem\n"
    yield "archive.zip", b"PK\x03\x04" + bytes(60)
    yield "film.dcm", b"nothing of DICOM"
    yield "cut.dcm", bytes(128) + b"DICM" + bytes(20)
    yield "bomb.png", _png_of(60_000, 60_000)
    yield "wide.png", _png_of(2**31 - 1, 1)
    yield "nothing.png", _png_of(0, 0)
    yield "frames.tiff", _frames()
    yield "not_numbers.tiff", _not_numbers()
    yield "head_only.png", good[:33]
    yield "no_end.png", good[:-12]
    yield "large.png", bytes(21 << 20)
    for name in _NAMES:
        yield name, b"not an image either"


def _random(place: int, rng: np.random.Generator) -> tuple[str, bytes]:
    """Cut off, overwritten in the middle, or noise behind a true beginning."""
    extension, form = (("png", "PNG"), ("jpg", "JPEG"), ("tif", "TIFF"), ("bmp", "BMP"), ("webp", "WEBP"))[place % 5]
    content = _encoded(form)
    if place % 3 == 0 or form == "BMP":
        content = content[:int(rng.integers(4, len(content) // 2))]
    elif place % 3 == 1:
        content = content[:12] + rng.bytes(len(content) - 12)
    else:
        content = rng.bytes(int(rng.integers(1, 4000)))
    return f"{place}.{extension}", content


def _encoded(form: str) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(file, form)
    return file.getvalue()


def _png_of(width: int, height: int) -> bytes:
    """A PNG that claims to be so large, and holds nothing."""
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))


def _frames() -> bytes:
    file = io.BytesIO()
    frames = [Image.new("L", (16, 16), grey) for grey in (0, 90, 180)]
    frames[0].save(file, "TIFF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def _not_numbers() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((16, 16), np.nan, np.float32)).save(file, "TIFF")
    return file.getvalue()
