"""The images of a data set as quality control sees them: an ordered list of files, read one by one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paddle_cxr.data.image import EXTENSIONS, ImageError, read_image
from paddle_cxr.data.lines import json_lines
from paddle_cxr.data.sources.layout import header_of, inside, read_table
from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.files import write_atomic
from paddle_cxr.synthesis.quality.curate_schema import ImagesSection

COLUMNS = ("image", "file", "path", "filename")  # looked for in this order, in lower case
RECORD = "张图的记录"  # what a line of a list is, for messages
_PHANTOMS, _SPOILED_EACH = 96, 3  # of the fallback: films, and spoiled copies of each kind


@dataclass(frozen=True)
class ImageSet:
    """The images of a data set, each once.

    Attributes:
        name: for tables.
        root: folder that ``files`` are relative to.
        files: N paths with forward slashes, in the order of the list, or by name.
        synthetic, demo: images of a generator, or phantoms, are among them.
        pairs: the list, where it is one of image–report pairs (``.jsonl``); column: its key of the image.
    """

    name: str
    root: Path
    files: list[str]
    synthetic: bool = False
    demo: bool = False
    pairs: Path | None = None
    column: str = ""

    def __len__(self) -> int:
        return len(self.files)

    def fingerprint(self) -> str:
        """SHA-256 of all names and sizes: tells whether verdicts are about these images, without reading them."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file}\0{_size(self.root / file)}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def list_images(section: ImagesSection, output: Path) -> ImageSet:
    """The images that a recipe names.

    Args:
        section: of the recipe.
        output: folder of the run: nothing below it is taken for an image of the data set, but the phantoms of the
            fallback are drawn there.

    Raises:
        UserError: no such folder or file, a list without an image column, a broken line, a path leading out of the
            root, no images at all.
    """
    path = Path(section.path)
    demo = section.kind == "phantom"
    if not path.exists() and section.fallback == "phantom":
        path, demo = _draw_phantoms(output / "phantoms"), True
        return ImageSet("phantom", path, _in_folder(path, None), True, True)
    if path.is_dir():
        found = ImageSet(path.resolve().name, path, _in_folder(path, output), section.kind != "real", demo)
    elif path.is_file():
        found = _in_list(path, section, demo)
    else:
        nearby = [str(other) for other in path.parent.glob("*")] if path.parent.is_dir() else []
        raise UserError(f"Images.path：找不到 {path}{did_you_mean(str(path), nearby)}；"
                        "应是图像文件夹，或有图像列的 .csv、.tsv、.jsonl")
    if not found.files:
        raise UserError(f"Images.path：{path} 里一张图像也没有（支持 {'、'.join(EXTENSIONS)}）")
    return found


def read(file: Path) -> np.ndarray | str:
    """The image as :func:`~paddle_cxr.data.image.read_image` gives it, or why it cannot be used."""
    try:
        return read_image(file)
    except ImageError as error:
        return error.reason


def _in_folder(folder: Path, output: Path | None) -> list[str]:
    own = output.resolve() if output is not None else None
    files = []
    for file in folder.rglob("*"):
        # Hidden files are what other systems leave behind (._film.png), and nothing that a person put there.
        if file.suffix.lower() not in EXTENSIONS or file.name.startswith(".") or not file.is_file():
            continue
        if own is None or own not in file.resolve().parents:
            files.append(file.relative_to(folder).as_posix())
    return sorted(files)


def _in_list(file: Path, section: ImagesSection, demo: bool) -> ImageSet:
    kind = file.suffix.lower()
    if kind not in (".csv", ".tsv", ".jsonl"):
        raise UserError(f"Images.path：应是图像文件夹，或 .csv、.tsv、.jsonl 的列表，现在是 {file}")
    synthetic, files, column = section.kind != "real", {}, section.column or ""
    if kind == ".jsonl":
        rows = ((where, record) for where, _, record in json_lines(file, RECORD))
    else:
        delimiter = "\t" if kind == ".tsv" else ","
        column = _column(section.column, header_of(file, delimiter), f"{file}:1")
        rows = read_table(file, delimiter)
    for where, row in rows:
        column = column or _column(None, list(row), where)
        name = row.get(column)
        if not isinstance(name, str):
            raise UserError(f"{where}：没有图像（{column}）这一项，或它不是文字；图像列的名字可用 Images.column 写明")
        files.setdefault(inside(name, where))  # a dict: an image of several pairs comes once, the order stays
        synthetic = synthetic or bool(row.get("generator"))
        demo = demo or "phantom" in str(row.get("generator") or "")
    root = Path(section.root) if section.root else file.parent
    return ImageSet(file.stem, root, list(files), synthetic or demo, demo, file if kind == ".jsonl" else None, column)


def _column(wanted: str | None, header: list[str], where: str) -> str:
    """The column of the images among those there are."""
    by_lower = {name.lower(): name for name in reversed(header)}
    found = wanted if wanted in header else None if wanted else next(
        (by_lower[name] for name in COLUMNS if name in by_lower), None)
    if found is None:
        raise UserError(f"{where}：没有图像列 {wanted or '、'.join(COLUMNS)}（有：{'、'.join(header) or '空'}）；"
                        "请用 Images.column 写明")
    return found


def _size(file: Path) -> int:
    """Bytes, or -1 for a file that is not there."""
    try:
        return file.stat().st_size
    except OSError:
        return -1


def _draw_phantoms(folder: Path) -> Path:
    """Phantoms and spoiled copies of some, drawn once: something to be rejected on a machine without data."""
    from PIL import Image

    from paddle_cxr.data.phantom import CLASSES, draw_image
    from paddle_cxr.data.spoil import SPOILINGS

    films = [draw_image(CLASSES[i % len(CLASSES)], seed=0, index=i) for i in range(_PHANTOMS)]
    pictures = {f"film/{i:03d}.png": film for i, film in enumerate(films)}
    rng = np.random.default_rng(0)
    for number, (kind, spoil) in enumerate(SPOILINGS.items()):
        for i in range(number * _SPOILED_EACH, (number + 1) * _SPOILED_EACH):
            pictures[f"{kind}/{i:03d}.png"] = spoil(films[i], films[i - 1], rng)
    for name, picture in pictures.items():
        if not (folder / name).exists():
            write_atomic(folder / name, Image.fromarray(picture).save)
    return folder
