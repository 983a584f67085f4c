"""Labelled images for training and evaluation: source → split → cache → batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from paddle_cxr.data.cache import DecodedCache
from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.data.records import ClassInfo, Source
from paddle_cxr.data.splits import fold_notice, fold_of, patient_overlap
from paddle_cxr.errors import UserError
from paddle_cxr.recipe import Loaded
from paddle_cxr.registry import build, find
from paddle_cxr.schema import DataLoaderSection

ALL = "all"


class View(Source):
    """Some of a source's records, in the given order."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        super().__init__(source.name, source.root, source.classes, [source.records[i] for i in indices])
        self.demo = source.demo
        self.shares = getattr(source, "shares", {})  # of the parts of mixed pairs
        self.findings = getattr(source, "findings", ())
        self.regions = getattr(source, "regions", ())
        self._source, self._indices = source, [int(i) for i in indices]

    def read(self, index: int) -> np.ndarray:
        return self._source.read(self._indices[index])

    def locate(self, index: int) -> str:
        return self._source.locate(self._indices[index])

    def origin(self, index: int) -> tuple[str, str]:
        return self._source.origin(self._indices[index])

    def annotated(self, index: int, finding: str) -> bool:
        """See :class:`paddle_cxr.data.findings.FindingsSource`, as the next one."""
        return self._source.annotated(self._indices[index], finding)

    def mask(self, index: int, finding: str, shape: tuple[int, int]) -> np.ndarray:
        return self._source.mask(self._indices[index], finding, shape)

    def mask_file(self, index: int, finding: str) -> Path | None:
        return self._source.mask_file(self._indices[index], finding)

    def fingerprint(self) -> str:
        """As of other sources; over the whole source's, which alone knows what decides made-up pictures."""
        text = f"{self._source.fingerprint()} {self._indices}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class LabelledData:
    """Decoded images of one source and who belongs to which subset.

    Attributes:
        source: the data set without the files that were skipped.
        preprocess: the deterministic part of the input.
        images: uint8 [N, H, W] or [N, H, W, 3], one a record of ``source``.
        labels: int64 [N].
        subsets: the subset's name of every record.
        val_is_test: the division has no ``val`` and gives ``test`` to whoever asks for it.
    """

    source: Source
    preprocess: Preprocess
    images: np.ndarray
    labels: np.ndarray
    subsets: list[str]
    val_is_test: bool = False

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        return self.source.classes

    def positions(self, subset: str) -> np.ndarray:
        """Positions of a subset's records; raises :class:`UserError` when there are none."""
        return _members(self.subsets, subset, self.val_is_test)

    def groups(self, positions: np.ndarray) -> list[str] | None:
        """Patient id of each position, or None where the data set knows no patients."""
        ids = [self.source.records[i].patient_id for i in positions]
        return None if all(patient is None for patient in ids) else [
            patient if patient is not None else f"?{i}" for i, patient in zip(positions, ids, strict=True)]

    def counts(self, positions: np.ndarray) -> dict[str, int]:
        """Images per class name among ``positions``."""
        number = np.bincount(self.labels[positions], minlength=len(self.classes))
        return {info.name: int(n) for info, n in zip(self.classes, number, strict=True)}

    def files(self, positions: np.ndarray) -> list[str]:
        return [self.source.locate(int(i)) for i in positions]


class ChosenImages:
    """Some rows of an image array, without copying it (it may be a memory map larger than memory)."""

    def __init__(self, images: np.ndarray, positions: np.ndarray) -> None:
        self._images, self._positions = images, positions
        self.shape = (len(positions), *images.shape[1:])

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._images[self._positions[index]]


def part_of(data: LabelledData, positions: np.ndarray) -> LabelledData:
    """Some of the images, as if there were no others."""
    return replace(data, source=View(data.source, positions), images=ChosenImages(data.images, positions),
                   labels=data.labels[positions], subsets=[data.subsets[position] for position in positions])


def chosen(data: LabelledData, positions: np.ndarray) -> tuple[ChosenImages, np.ndarray]:
    """Images and labels (int64) of some positions, as :class:`paddle_cxr.data.dataset.LabelledImages` takes them."""
    return ChosenImages(data.images, positions), data.labels[positions]


def open_source(loaded: Loaded) -> Source:
    """Build the recipe's data source."""
    return build("source", loaded.recipe.DataLoader.Source, "DataLoader.Source", classes=loaded.classes)


def split_source(source: Source, section: DataLoaderSection) -> list[str]:
    """The subset's name of every record, by the recipe's ``Split``."""
    return build("split", section.Split, "DataLoader.Split")(source.records)


def fold_subsets(source: Source, folds: int, fold: int, seed: int) -> list[str]:
    """``val`` for the records of one cross-validation fold, ``train`` for the rest."""
    return ["val" if f == fold else "train" for f in fold_of(source.records, folds, seed)]


def load_labelled(loaded: Loaded, subsets: list[str] | None, only: str | None, say: Callable[[str], None],
                  progress: Callable[[int, int], None] | None = None) -> LabelledData:
    """Open the recipe's data set, divide it and decode it.

    Args:
        loaded: the recipe.
        subsets: the division, or None to make it by the recipe's ``Split``.
        only: decode just this subset (None: every record).
        say: receives notices (files skipped, cache fallbacks).
        progress: receives (done, total) while decoding.

    Raises:
        UserError: what the source, the split or a broken image has to say.
    """
    section = loaded.recipe.DataLoader
    source = open_source(loaded)
    preprocess = Preprocess(image_shape=loaded.recipe.Global.image_shape, **section.preprocess.model_dump())
    if subsets is not None and (folds := loaded.recipe.Global.folds) and (notice := fold_notice(source.records, folds)):
        say(notice)
    return divide_and_decode(source, section, preprocess, subsets, only, say, progress)


def divide_and_decode(source: Source, section: DataLoaderSection, preprocess: Preprocess,
                      subsets: list[str] | None = None, only: str | None = None, say: Callable[[str], None] = print,
                      progress: Callable[[int, int], None] | None = None) -> LabelledData:
    """Divide a source's records and decode its images; arguments as of :func:`load_labelled`.

    Args:
        section: its ``Split``, ``Eval.subset``, ``on_error`` and ``cache``.
        preprocess: what the images become.
    """
    for notice in getattr(source, "notices", []):
        say(notice)
    val_is_test = False
    if subsets is None:
        subsets = split_source(source, section)
        declared = getattr(find("split", section.Split["name"], "DataLoader.Split"), "val_is_test", False)
        val_is_test = declared and "val" not in subsets and "test" in subsets
    if val_is_test and (only or section.Eval.subset) == "val":
        say(f"!! {section.Split['name']} 没有验证集（val）：改用测试集（test）验证，在它上面选出的最好一轮偏乐观；"
            "要单独的验证集，请改用 PatientSplit")
    prove_disjoint(source, subsets, say)
    if only is not None:
        members = _members(subsets, only, val_is_test)
        source, subsets = View(source, members), [subsets[i] for i in members]
    cache = DecodedCache(source, preprocess, on_error=section.on_error, mode=section.cache.mode,
                         folder=section.cache.folder, progress=progress)
    for notice in cache.notices:
        say(notice)
    for name in cache.skipped:
        say(f"跳过坏图：{name}")
    if len(cache.kept) < len(source.records):
        source, subsets = View(source, cache.kept), [subsets[i] for i in cache.kept]
    labels = np.array([record.label for record in source.records], dtype=np.int64)
    return LabelledData(source, preprocess, cache.images, labels, subsets, val_is_test)


def _members(subsets: list[str], wanted: str, val_is_test: bool) -> np.ndarray:
    names = set(subsets)
    if wanted == ALL:
        return np.arange(len(subsets))
    if wanted == "val" and val_is_test and "val" not in names:
        wanted = "test"
    if wanted not in names:
        raise UserError(f"子集 {wanted!r} 里没有图像（现有子集：{'、'.join(sorted(names))}）；"
                        "请改 DataLoader.Split 或 DataLoader.Train/Eval.subset")
    return np.array([i for i, name in enumerate(subsets) if name == wanted], dtype=np.int64)


def prove_disjoint(source: Source, subsets: list[str], say: Callable[[str], None]) -> None:
    """Say how many patients lie in more than one subset: it must be none."""
    if len(set(subsets)) < 2 or all(record.patient_id is None for record in source.records):
        return
    overlap = patient_overlap(source.records, subsets)
    shared = {pair: number for pair, number in overlap.items() if number}
    say("患者重叠（patient overlap）：0" if not shared else
        f"!! 同一患者出现在不同子集：{shared}；请改用按患者划分的 DataLoader.Split")
