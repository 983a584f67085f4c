"""The data sets mounted under ``data/``: looked into, not unpacked, and told how a recipe names them."""

from __future__ import annotations

import os
import shlex
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from paddle_cxr.data.archive import is_archive

_MOST_NAMES = 200_000  # of a folder or zip; ChestX-ray14 has 112,120 images
_MOST_OF_TAR = 2_000  # a tar has no list of its contents: its beginning must do
_DEPTH = 4  # folders looked into; archives wrap their contents in one or two
_NOT_OURS = (".rar", ".7z")

COVID, NORMAL, VIRAL = {"covid", "covid-19"}, {"normal"}, {"viral pneumonia", "viral_pneumonia", "viral"}


@dataclass(frozen=True)
class Kind:
    """A layout that a source of this package reads: its name, a recipe made for it or None, and how it is known."""

    source: str
    recipe: str | None
    needs: tuple[frozenset[str], ...]  # one name of each group, in lower case


def _kind(source: str, recipe: str | None, *needs: set[str]) -> Kind:
    return Kind(source, recipe, tuple(map(frozenset, needs)))


# The first that fits: what has more marks stands before what has fewer.
KINDS = (
    _kind("CovidRadiography", "configs/resnet50_covid_radiography.yaml", COVID, NORMAL, VIRAL, {"lung_opacity"}),
    _kind("ImageFolder", "configs/resnet50.yaml", COVID, NORMAL, VIRAL),
    _kind("ImageFolder", None, COVID | {"pneumonia"}, NORMAL),
    _kind("SIIMACRPneumothorax", "configs/segment_siim.yaml", {"train-rle.csv", "stage_2_train.csv"}),
    _kind("RSNAPneumonia", "configs/segment_rsna.yaml", {"stage_2_train_labels.csv"}),
    _kind("ChestXray14", "configs/finetune_chestxray14.yaml", {"data_entry_2017.csv", "data_entry_2017_v2020.csv"}),
    _kind("CheXpert", "configs/finetune_chexpert.yaml", {"train.csv"}, {"valid.csv"}),
    _kind("MimicCxr", None, {"mimic-cxr-2.0.0-metadata.csv.gz", "mimic-cxr-2.0.0-metadata.csv"}),
    _kind("PadChest", None, {f"padchest_chest_x_ray_images_labels_160k_01.02.19.csv{end}" for end in ("", ".gz")}),
    _kind("COVIDxCXR2", None, {"train.txt"}, {"test.txt"}),
    _kind("CovidChestXray", None, {"metadata.csv"}, {"images"}),
    _kind("ListFile", None, {"index.csv", "list.csv"}),
)


@dataclass(frozen=True)
class Mounted:
    """A data set: a folder or an archive; ``kind`` is None for one that is not known, ``note`` says more about it."""

    path: Path
    kind: Kind | None
    note: str = ""


def find(folders: Iterable[Path]) -> Iterator[Mounted]:
    """What is mounted: each archive of ``data/dataNNNNN/``, and the folder itself where images lie in it unpacked."""
    for folder in folders:
        for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
            if entry.name.startswith("."):
                continue
            yield from _in_folder(entry) if entry.is_dir() else _file(entry)


def _in_folder(folder: Path) -> Iterator[Mounted]:
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    archives = [entry for entry in entries if entry.is_file() and _packed(entry)]
    for archive in archives:
        yield from _file(archive)
    unpacked = {name for archive in archives for name in (archive.stem, archive.stem.removesuffix(".tar"))}
    rest = [entry for entry in entries if entry not in archives and entry.name not in unpacked]
    if rest or not archives:
        yield Mounted(folder, known(_names_in(folder)), "" if entries else "空的")


def _packed(file: Path) -> bool:
    return is_archive(file) or file.suffix.lower() in _NOT_OURS


def _file(file: Path) -> Iterator[Mounted]:
    if file.suffix.lower() in _NOT_OURS:
        yield Mounted(file, None, f"{file.suffix} 要先自己解压到 work/ 下")
    elif is_archive(file):
        try:
            yield Mounted(file, known(_names_packed(file)))
        except Exception as error:  # of a damaged one the readers raise nearly anything; the others are still told
            yield Mounted(file, None, f"打不开（{str(error) or type(error).__name__}），上传可能不完整")


def _names_packed(file: Path) -> Iterator[str]:
    if file.suffix.lower() == ".zip":
        with zipfile.ZipFile(file) as archive:
            yield from islice(archive.namelist(), _MOST_NAMES)
    else:
        with tarfile.open(file) as archive:
            for member in islice(archive, _MOST_OF_TAR):
                yield member.name


def _names_in(folder: Path) -> Iterator[str]:
    count = 0
    for place, folders, files in os.walk(folder):
        inside = PurePosixPath(Path(place).relative_to(folder))
        count += len(folders) + len(files)
        yield from (str(inside / name) for name in (*folders, *files))
        if count > _MOST_NAMES:
            return
        if len(inside.parts) >= _DEPTH - 1:
            folders.clear()


def known(names: Iterable[str]) -> Kind | None:
    """The layout whose marks are among the names of files and folders."""
    parts = {part.lower() for name in names for part in PurePosixPath(name).parts[:_DEPTH]}
    return next((kind for kind in KINDS if all(group & parts for group in kind.needs)), None)


def command(found: Mounted, root: Path) -> str:
    """What to type, or to read."""
    path = found.path.resolve()
    name = path.relative_to(root.resolve()).as_posix() if path.is_relative_to(root.resolve()) else str(path)
    setting = shlex.quote(f"DataLoader.Source.root={name}")
    if found.note and found.kind is None:
        return found.note
    if found.kind is None:
        return f"不认识它的布局；每类一个文件夹时：python tools/train.py -c configs/resnet50.yaml -o {setting}"
    if found.kind.recipe is None:
        return f"{found.kind.source}：YAML 的写法见 docs/data.md，其中 root: {name}"
    return f"python tools/train.py -c {found.kind.recipe} -o {setting}"
