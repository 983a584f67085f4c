"""Looking at every image of a data set once: what is broken, what is odd, what is there twice.

Duplicates matter more than they seem: a film that is in the training and in the test images is recognised, not
diagnosed.  Copies are found by SHA-256 of the file; re-encoded, resized or brightened copies by a perceptual hash.

The hash is dHash (Krawetz 2013), 16 × 16 bits: is each pixel of a 17 × 16 thumbnail brighter than its left neighbour?
It is fifteen lines here rather than the package ``imagehash``, which would bring scipy and PyWavelets (100 MB) for it,
and its 64-bit default cannot tell frontal chest films apart: they all have the same shape.  For the same reason a near
pair must also agree in a 32 × 32 thumbnail.  On 880 real films (386,760 pairs) two different ones (one patient on two
days) came to a correlation of 0.972 at most, while re-encoded, resized, noisy and brighter copies stayed above 0.988.
Copies cropped by 2 % or histogram-equalised are not found.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from paddle_cxr.cpu import available_cores
from paddle_cxr.data.image import ImageError, ImageFacts, read_with_facts
from paddle_cxr.errors import UserError

TINY = 64  # pixels: below this the shorter side shows no lung texture
HASH_SIDE = 16
THUMBNAIL_SIDE = 32
MAX_HAMMING = 32  # of 256 bits
MIN_CORRELATION = 0.98

_SUFFIXES = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg"), "MPO": (".jpg", ".jpeg"), "BMP": (".bmp",),
             "TIFF": (".tif", ".tiff"), "WEBP": (".webp",), "DICOM": (".dcm", ".dicom")}

# Oddities by kind: the file is usable, and this is how it was made so.
NOTES = {"16bit": "16 位灰度，已按灰度窗转为 8 位", "float": "浮点或 32 位灰度，已转为 8 位", "1bit": "1 位黑白",
         "alpha": "带透明通道（RGBA/LA），已合成到黑底", "palette": "调色板（palette）图像，已还原",
         "cmyk": "CMYK 印刷色，已转为 RGB", "monochrome1": "DICOM MONOCHROME1，已反相",
         "exif_rotated": "EXIF 方向不正，已转正", "colour": "彩色图像（三通道不相等）",
         "tiny": f"短边不足 {TINY} 像素", "blank": "全图一个灰度", "extension": "扩展名与内容不符"}


@dataclass(frozen=True)
class Inspection:
    """One image file, looked at.

    Attributes:
        error: why it cannot be used, empty when it can; error_kind: ``ImageError.kind``.
        width, height: in pixels, after rotation; 0 when unreadable.
        notes: keys of :data:`NOTES`.
        sha256: of the file's bytes.
        dhash: 32 bytes, 256 bits.
        thumbnail: 1,024 bytes, 32 × 32 grey.
    """

    error: str = ""
    error_kind: str = ""
    width: int = 0
    height: int = 0
    notes: tuple[str, ...] = ()
    sha256: str = ""
    dhash: bytes = b""
    thumbnail: bytes = b""


@dataclass(frozen=True)
class Duplicate:
    """Two images that are the same film: ``exact`` (same bytes) or ``near``; ``first`` < ``second`` number them."""

    first: int
    second: int
    kind: Literal["exact", "near"]
    correlation: float = 1.0


def inspect_image(path: str | Path) -> Inspection:
    """Read one image fully and describe it; an unreadable one is described, not raised.

    Raises:
        MissingReader: a package is not installed, which says nothing against the image.
    """
    try:
        pixels, facts = read_with_facts(path)
    except ImageError as error:
        return Inspection(error.reason, error.kind)
    height, width = pixels.shape[:2]
    grey = Image.fromarray(pixels).convert("L")
    return Inspection("", "", width, height, tuple(_notes(Path(path), pixels, facts)),
                      hashlib.sha256(Path(path).read_bytes()).hexdigest(), difference_hash(grey),
                      _thumbnail(grey, THUMBNAIL_SIDE, THUMBNAIL_SIDE).tobytes())


def _notes(path: Path, pixels: np.ndarray, facts: ImageFacts) -> Iterator[str]:
    by_mode = {"RGBA": "alpha", "LA": "alpha", "PA": "alpha", "P": "palette", "CMYK": "cmyk",
               "MONOCHROME1": "monochrome1"}
    by_bits = {1: "1bit", 16: "16bit", 32: "float"}
    if facts.mode in by_mode:
        yield by_mode[facts.mode]
    if facts.bits in by_bits and facts.format != "DICOM":  # in DICOM more than 8 bits are the rule
        yield by_bits[facts.bits]
    if facts.rotated:
        yield "exif_rotated"
    if pixels.ndim == 3:
        yield "colour"
    if min(pixels.shape[:2]) < TINY:
        yield "tiny"
    if pixels.min() == pixels.max():
        yield "blank"
    if path.suffix.lower() not in _SUFFIXES.get(facts.format, (path.suffix.lower(),)):
        yield "extension"


def _thumbnail(grey: Image.Image, width: int, height: int) -> np.ndarray:
    return np.asarray(grey.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0))


def difference_hash(grey: Image.Image) -> bytes:
    """dHash of a Pillow ``L`` image: 256 bits as 32 bytes."""
    small = _thumbnail(grey, HASH_SIDE + 1, HASH_SIDE)
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes()


def inspect_all(paths: Sequence[str], workers: int | Literal["auto"] = "auto") -> list[Inspection]:
    """:func:`inspect_image` for every path, in order, in ``workers`` processes, with a progress bar on a terminal."""
    from tqdm import tqdm

    progress = partial(tqdm, total=len(paths), desc="检查图像", unit="张", disable=None)
    count = min(available_cores() if workers == "auto" else workers, len(paths) // 32)
    if count <= 1:  # starting a process takes longer than reading a few dozen images
        return list(progress(map(inspect_image, paths)))
    # spawn: a forked copy of a process in which Paddle or BLAS has started threads may hang
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        try:
            return list(progress(pool.map(inspect_image, paths, chunksize=8)))
        except BrokenProcessPool:
            raise UserError("检查图像的子进程被系统结束，多半是内存不足；请设 Prepare.workers=1 再试") from None


def find_duplicates(inspections: Sequence[Inspection]) -> list[Duplicate]:
    """All pairs of readable images that are the same film, ordered by their numbers.

    Time grows with the square of the number of images (a blocked matrix product: about 10 s for 30,000); memory is
    2 KB an image plus one block of distances (64 MB).
    """
    by_content: dict[str, list[int]] = defaultdict(list)
    for index, one in enumerate(inspections):
        if not one.error:
            by_content[one.sha256].append(index)
    exact = [Duplicate(copies[0], copy, "exact") for copies in by_content.values() for copy in copies[1:]]
    different = [copies[0] for copies in by_content.values()]
    near = _near([inspections[index] for index in different])
    pairs = exact + [Duplicate(different[i], different[j], "near", correlation) for i, j, correlation in near]
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def _near(inspections: Sequence[Inspection]) -> Iterator[tuple[int, int, float]]:
    if not inspections:
        return
    bits = np.unpackbits(np.frombuffer(b"".join(one.dhash for one in inspections), np.uint8)).reshape(
        len(inspections), -1)
    # As ±1 vectors a scalar product counts agreements minus disagreements, so BLAS does the search.
    signs = bits.astype(np.float32) * 2 - 1
    least_agreement = signs.shape[1] - 2 * MAX_HAMMING
    block = max(1, (1 << 24) // len(inspections))
    for start in range(0, len(inspections), block):
        agreement = signs[start:start + block] @ signs[start:].T
        for row, column in np.argwhere(np.triu(agreement, 1) >= least_agreement):
            first, second = start + int(row), start + int(column)
            correlation = _correlation(inspections[first].thumbnail, inspections[second].thumbnail)
            if correlation >= MIN_CORRELATION:
                yield first, second, correlation


def _correlation(one: bytes, other: bytes) -> float:
    """Pearson correlation of two thumbnails; 0 where one is constant."""
    a, b = (np.frombuffer(values, np.uint8).astype(np.float64) for values in (one, other))
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else 0.0


def groups(pairs: Iterable[Duplicate]) -> list[list[int]]:
    """Connected sets of duplicates, each sorted, ordered by their first member."""
    root: dict[int, int] = {}

    def find(index: int) -> int:
        while root.setdefault(index, index) != index:
            index = root[index]
        return index

    for pair in pairs:
        one, other = find(pair.first), find(pair.second)
        root[max(one, other)] = min(one, other)
    members: dict[int, list[int]] = defaultdict(list)
    for index in sorted(root):
        members[find(index)].append(index)
    return list(members.values())
