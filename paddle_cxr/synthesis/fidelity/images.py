"""The sets of images that are compared: folders, lists, the project's pairs, or phantoms drawn when read."""

from __future__ import annotations

import glob
import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from paddle_cxr.data.image import EXTENSIONS
from paddle_cxr.data.lines import json_lines
from paddle_cxr.data.sources.layout import header_of, inside, known_patient, read_table
from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.registry import build
from paddle_cxr.synthesis.fidelity.schema import ImageSetSection
from paddle_cxr.synthesis.generators.reading import read_grey

REAL, SYNTHETIC, PHANTOM = "真实（real）", "合成（synthetic）", "模体（phantom）"


class Image(NamedTuple):
    """One image of a set, before it is read.

    Attributes:
        name: for tables and figures.
        labels: what it shows; empty: nothing is wrong; None: not known.
        side: ``left``, ``right``, ``bilateral`` or None.
        patient: images of one patient are alike, and kept together; None where not known.
        phantom: drawn by the built-in phantoms.
        key: what tells whether the image is still the same.
        read: returns it, uint8 ``[H, W]``; raises UserError.
    """

    name: str
    labels: frozenset[str] | None
    side: str | None
    patient: str | None
    phantom: bool
    key: str
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class ImageSet:
    """Images under one name.

    Attributes:
        name: as in the recipe; mark: whether they are real, synthetic or phantoms.
        images: in a fixed order.
    """

    name: str
    mark: str
    images: tuple[Image, ...]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def phantom(self) -> bool:
        """Whether phantoms are among them."""
        return any(image.phantom for image in self.images)

    @property
    def groups(self) -> list[Hashable]:
        """For each image what it was drawn for, one value a kind; None where that is not known."""
        return [None if image.labels is None else (*sorted(map(str.lower, image.labels)), image.side or "")
                for image in self.images]

    def counts(self) -> dict[str, int]:
        """Images of every kind, for ``metrics.json``."""
        names = ["未知（unknown）" if group is None else "+".join(filter(None, group)) or "（无标签）"
                 for group in self.groups]
        return dict(sorted(Counter(names).items()))

    def fingerprint(self) -> str:
        """First 16 hex digits of a SHA-256 over the keys of the images: names this very set."""
        return hashlib.sha256("\n".join(image.key for image in self.images).encode(errors="replace")).hexdigest()[:16]


def read_set(section: ImageSetSection, path: str, seed: int, expected: str) -> ImageSet:
    """The images that a part of the recipe names.

    Args:
        section: the part; path: its YAML path, for errors.
        seed: of the random choice, where there is a ``limit``.
        expected: ``real`` or ``synthetic``: what such a set is unless the recipe says otherwise.

    Raises:
        UserError: nothing there, a broken list (file and line), no image.
    """
    if (section.path is None) == (section.pairs is None):
        raise UserError(f"{path}：应写 path（文件夹或列表）或 pairs（组件）之一，"
                        f"现在{'两个都没有' if section.path is None else '两个都写了'}")
    images = list(_of_component(section.pairs, path) if section.path is None else _of_path(section.path, path))
    if section.only:
        wanted = {label.lower() for label in section.only}
        labels = sorted({label for image in images for label in image.labels or ()})
        images = [image for image in images if any(label.lower() in wanted for label in image.labels or ())]
        if not images:
            raise UserError(f"{path}.only：没有图像带标签 {'、'.join(section.only)}"
                            f"{did_you_mean(section.only[0], labels)}（有：{'、'.join(labels[:20]) or '没有标签'}）")
    if not images:
        raise UserError(f"{path}.path：{section.path} 里没有图像（支持 {'、'.join(sorted(EXTENSIONS))}）")
    if section.limit is not None and section.limit < len(images):
        chosen = np.random.default_rng(seed).choice(len(images), section.limit, replace=False)
        images = [images[position] for position in np.sort(chosen)]
    mark = REAL if (expected if section.mark == "auto" else section.mark) == "real" else SYNTHETIC
    drawn = sum(image.phantom for image in images)
    if drawn:
        mark = PHANTOM if drawn == len(images) else f"{mark}，部分{PHANTOM}"
    return ImageSet(section.name, mark, tuple(images))


def halves(images: Sequence[Image], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two random halves, as positions in random order; a patient is in one of them only.

    An image of unknown patient counts as a patient of its own.
    """
    patients: dict[Hashable, list[int]] = {}
    for position, image in enumerate(images):
        patients.setdefault(image.patient or (position,), []).append(position)
    order = list(patients)
    rng = np.random.default_rng(seed)
    rng.shuffle(order)  # type: ignore[arg-type]
    parts: tuple[list[int], list[int]] = ([], [])
    for patient in order:
        (parts[0] if len(parts[0]) <= len(parts[1]) else parts[1]).extend(patients[patient])
    return rng.permutation(parts[0]), rng.permutation(parts[1])


# --- where images come from --------------------------------------------------------------------------------------

def _of_path(given: str, path: str) -> Iterator[Image]:
    place = Path(given)
    if place.is_dir():
        return _of_folder(place)
    files = [place] if place.is_file() else [Path(name) for name in sorted(glob.glob(given, recursive=True))]
    if not files:
        nearby = [str(other) for other in sorted(place.parent.glob("*"))] if place.parent.is_dir() else []
        raise UserError(f"{path}.path：找不到 {given}{did_you_mean(given, nearby)}；请检查路径")
    readers = {".jsonl": _of_pairs, ".csv": _of_table}
    for file in files:
        if file.suffix.lower() not in readers:
            raise UserError(f"{path}.path：应为图像文件夹、.jsonl 或 .csv，现在是 {file}")
    return (image for file in files for image in readers[file.suffix.lower()](file))


def _of_folder(folder: Path) -> Iterator[Image]:
    """All images below a folder; that of a sub-folder has its name for a label."""
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        if file.suffix.lower() in EXTENSIONS and file.is_file() and not any(part.startswith(".") for part in parts):
            labels = _labels_of(parts[0]) if len(parts) > 1 else None
            yield _file_image(folder, "/".join(parts), labels, None, None, False)


def _labels_of(text: str) -> frozenset[str]:
    """``Effusion|Mass`` → both; ``normal`` and the like are labels as others are."""
    return frozenset(filter(None, (part.strip() for part in text.split("|"))))


def _of_table(file: Path) -> Iterator[Image]:
    header = header_of(file)
    column = next((name for name in ("file", "image", "path") if name in header), None)
    if column is None:
        raise UserError(f"{file}:1：表头没有 file 列（有：{'、'.join(header) or '空'}）")
    for where, row in read_table(file):
        labels = _labels_of(row["label"]) if row.get("label") else None
        yield _file_image(file.parent, inside(row[column], where), labels, _side(row.get("side"), where),
                          known_patient(row.get("patient_id")), False)


def _of_pairs(file: Path) -> Iterator[Image]:
    """``pairs.jsonl``: of each line the image, what it was drawn for, and by what."""
    for where, _, row in json_lines(file, "对带 image 的图文"):
        yield _pair(file.parent, row, where)


def _pair(root: Path, row: dict[str, Any], where: str) -> Image:
    if not isinstance(row.get("image"), str):
        raise UserError(f"{where}：应是带 image（图像路径）的 JSON 对象")
    patient, generator = row.get("patient_id"), row.get("generator")
    labels = _positive(row.get("labels"), where)
    if labels is None and _names_only_what_is_normal(row.get("entities")):
        labels = frozenset()
    return _file_image(root, inside(row["image"], where), labels,
                       _side(row.get("side"), where), None if patient is None else str(patient),
                       isinstance(generator, str) and "phantom" in generator.lower())


def _positive(labels: Any, where: str) -> frozenset[str] | None:
    """The findings that are 1; None where the pair says nothing of any finding."""
    if labels is not None and not isinstance(labels, dict):
        raise UserError(f"{where}：labels 应为 {{征象: 0、1 或 null}}，现在是 {type(labels).__name__}")
    if not labels or all(value is None for value in labels.values()):
        return None
    return frozenset(name for name, value in labels.items() if value == 1)


def _names_only_what_is_normal(entities: Any) -> bool:
    """Whether a report says that something is normal ("clear lungs", which has no label) and nothing else."""
    types = [one.get("type") for one in entities if isinstance(one, dict)] if isinstance(entities, list) else []
    told = [type_ for type_ in types if type_ != "anatomy"]
    return bool(told) and all(type_ in ("non-abnormality", "non-disease") for type_ in told)


def _side(value: Any, where: str) -> str | None:
    if value in (None, ""):
        return None
    if value not in ("left", "right", "bilateral"):
        raise UserError(f"{where}：side 应为 left、right、bilateral 或空，现在是 {value!r}")
    return value


def _file_image(root: Path, name: str, labels: frozenset[str] | None, side: str | None, patient: str | None,
                phantom: bool) -> Image:
    file = root / name
    try:
        state = file.stat()
        key = f"{name}\t{state.st_size}\t{state.st_mtime_ns}"
    except OSError:
        key = f"{name}\t-1"  # reading it will say what is wrong
    return Image(name, labels, side, patient, phantom, key, lambda: read_grey(file))


def _of_component(component: Any, path: str) -> Iterable[Image]:
    source = build("pairs", component, f"{path}.pairs")
    whole = source.fingerprint()
    for index, record in enumerate(source.records):
        yield Image(record.path, _positive(record.labels, record.path), record.side, record.patient_id, source.demo,
                    f"{whole}\t{index}", lambda index=index: _grey(source.read(index)))


def _grey(pixels: np.ndarray) -> np.ndarray:
    from PIL import Image as Picture

    return pixels if pixels.ndim == 2 else np.array(Picture.fromarray(pixels).convert("L"))
