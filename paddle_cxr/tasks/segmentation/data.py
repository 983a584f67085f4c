"""Images with their masks, decoded once.

All masks of an image are one small picture: bit k of a pixel says whether finding k is there.  So masks are decoded,
cached on disk and moved by augmentation as pictures are, and 24 of them take no more room than a colour picture.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paddle_cxr.data.cache import DecodedCache, Progress
from paddle_cxr.data.findings import FindingsSource
from paddle_cxr.data.labelled import LabelledData, View, divide_and_decode, fold_subsets, split_source
from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.data.records import Source
from paddle_cxr.data.splits import fold_notice
from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.recipe import Loaded
from paddle_cxr.registry import build

BITS = 8


@dataclass
class SegmentationData:
    """Annotated images of one source, with their masks.

    Attributes:
        images: decoded images, their source (only images on which at least one finding is annotated) and subsets.
        masks: uint8 ``[N, H, W, planes]``: bit k % 8 of plane k // 8 is finding k.
        annotated: bool ``[N, K]``: whether anybody marked finding k on the image (or that it is nowhere).
        findings: the K keys.
    """

    images: LabelledData
    masks: np.ndarray
    annotated: np.ndarray
    findings: tuple[str, ...]

    @property
    def planes(self) -> int:
        return planes_of(self.findings)


def planes_of(findings: Sequence[str]) -> int:
    """How many channels of eight bits the findings take."""
    return -(-len(findings) // BITS)


def load_segmentation(loaded: Loaded, say: Callable[[str], None], progress: Progress | None = None,
                      only: str | None = None, fold: int | None = None, masks: bool = True) -> SegmentationData:
    """Open the recipe's data set, divide it and decode images and masks.

    The whole data set is divided, by patient, and then what has no annotation is left out: so the division is that of
    other tasks with the same ``Split``, and no patient on whom an encoder was trained is tested.

    Args:
        loaded: the recipe.
        say: receives notices.
        progress: receives (done, total) while decoding.
        only: decode just this subset.
        fold: divide into this fold's held-out patients (``val``) and the others (``train``), not by ``Split``.
        masks: decode the masks too; scoring at the published size reads them itself.

    Raises:
        UserError: a finding that the data set has no annotation of, what source, split, image or mask have to say.
    """
    recipe = loaded.recipe
    section, settings = recipe.DataLoader, recipe.Global
    source = build("findings", section.Source, "DataLoader.Source")
    for notice in source.notices:
        say(notice)
    if fold is not None:
        if notice := fold_notice(source.records, settings.folds):
            say(notice)
        subsets = fold_subsets(source, settings.folds, fold, settings.seed)
    else:
        subsets = split_source(source, section)
    annotated = _annotated(source, settings.findings)
    _check(source, settings.findings, annotated)
    kept = np.flatnonzero(annotated.any(axis=1))
    say(f"标注：{len(kept)}/{len(source.records)} 张有标注，" + "，".join(
        f"{name} {number}" for name, number in zip(settings.findings, annotated.sum(axis=0), strict=True)))
    preprocess = Preprocess(image_shape=settings.image_shape, **section.preprocess.model_dump())
    data = divide_and_decode(View(source, kept), section, preprocess, [subsets[i] for i in kept], only, say, progress)
    annotated = _annotated(data.source, settings.findings)
    pictures = _decode_masks(data, section, settings.findings, progress) if masks else np.zeros((0,), np.uint8)
    return SegmentationData(data, pictures, annotated, tuple(settings.findings))


def _annotated(source: FindingsSource, findings: Sequence[str]) -> np.ndarray:
    """bool ``[N, K]``."""
    return np.array([[source.annotated(index, name) for name in findings] for index in range(len(source.records))],
                    bool).reshape(len(source.records), len(findings))


def _check(source: FindingsSource, findings: Sequence[str], annotated: np.ndarray) -> None:
    """Raise :class:`UserError` for a finding of which there is no annotation at all."""
    for number, name in enumerate(findings):
        if not annotated[:, number].any():
            known = [*(info.name for info in source.findings), *source.regions]
            raise UserError(f"Global.findings：数据 {source.name} 里没有 {name} 的掩膜（mask）或框"
                            f"{did_you_mean(name, known)}（数据里有：{'、'.join(known) or '无'}）")


def _decode_masks(data: LabelledData, section: Any, findings: Sequence[str], progress: Progress | None) -> np.ndarray:
    # A broken mask is always an error: its image is in the data already, and an empty mask would be a wrong one.
    return DecodedCache(MaskPictures(data.source, findings), MaskGeometry(data.preprocess, planes_of(findings)),
                        mode=section.cache.mode, folder=section.cache.folder, progress=progress).images


class MaskPictures(Source):
    """The masks of a source as pictures of bits.

    Args:
        source: of images with findings.
        findings: which, in the order of the bits.
    """

    def __init__(self, source: FindingsSource, findings: Sequence[str]) -> None:
        super().__init__(f"{source.name}-masks", source.root, (), source.records)
        self._source, self._findings = source, tuple(findings)

    def read(self, index: int) -> np.ndarray:
        """uint8 ``[h, w, planes]`` of the image's published size; a finding nobody marked there has no bits set."""
        shape = self._source.read(index).shape[:2]
        bits = np.zeros((*shape, planes_of(self._findings)), np.uint8)
        for number, finding in enumerate(self._findings):
            if self._source.annotated(index, finding):
                mask = self._source.mask(index, finding, shape)
                bits[..., number // BITS] |= mask.astype(np.uint8) << np.uint8(number % BITS)
        return bits

    def locate(self, index: int) -> str:
        return self._source.locate(index)

    def fingerprint(self) -> str:
        """As of the source, over the findings and the state of the files that hold their masks."""
        digest = hashlib.sha256(f"{self._source.fingerprint()} {' '.join(self._findings)}".encode())
        for index in range(len(self.records)):
            for finding in self._findings:
                file = self._source.mask_file(index, finding) if self._source.annotated(index, finding) else None
                if file is not None and os.path.isfile(file):
                    state = file.stat()
                    digest.update(f"{file.name} {state.st_size} {state.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:16]


class MaskGeometry:
    """What :class:`~paddle_cxr.data.preprocess.Preprocess` does to an image's geometry, for pictures of bits.

    Args:
        preprocess: the images'.
        planes: channels of a picture of bits.
    """

    def __init__(self, preprocess: Preprocess, planes: int) -> None:
        self._preprocess, self._planes = preprocess, planes
        self.image_shape = preprocess.image_shape

    @property
    def cached_shape(self) -> tuple[int, ...]:
        """(H, W, planes)."""
        return (*self.image_shape[1:], self._planes)

    def geometry(self, bits: np.ndarray) -> np.ndarray:
        """uint8 ``[h, w, planes]`` → uint8 ``[H, W, planes]``: every bit resized as a mask of its own."""
        small = np.zeros(self.cached_shape, np.uint8)
        for plane in range(self._planes):
            present = int(np.bitwise_or.reduce(bits[..., plane], axis=None))
            for bit in [bit for bit in range(BITS) if present >> bit & 1]:
                mask = self._preprocess.mask_geometry((bits[..., plane] >> np.uint8(bit)) & 1 > 0)
                small[..., plane] |= mask.astype(np.uint8) << np.uint8(bit)
        return small

    def geometry_dict(self) -> dict[str, Any]:
        """Part of the cache's key."""
        return self._preprocess.geometry_dict() | {"masks": self._planes}


class ImagesWithMasks:
    """Indexed like an array: uint8 ``[H, W, C + planes]``, an image and its masks; see :class:`JointTransform`."""

    def __init__(self, data: SegmentationData, positions: np.ndarray) -> None:
        self._images, self._masks, self._positions = data.images.images, data.masks, positions
        colours = self._images.shape[3] if len(self._images.shape) == 4 else 1
        self.shape = (len(positions), *self._images.shape[1:3], colours + data.planes)

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> np.ndarray:
        position = int(self._positions[index])
        image = np.asarray(self._images[position])
        return np.concatenate([image.reshape(*image.shape[:2], -1), np.asarray(self._masks[position])], axis=2)
