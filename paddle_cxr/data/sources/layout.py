"""What the layouts have in common: finding class folders, listing images, reading list files, distrusting paths."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from paddle_cxr.data.archive import archive_stem, is_archive, unpack_once
from paddle_cxr.data.image import EXTENSIONS
from paddle_cxr.data.records import ClassInfo, Record
from paddle_cxr.errors import UserError


def why_missing(root: str | Path) -> str | None:
    """A few words when ``root`` is absent or an empty folder (a mount point with nothing in it), else None.

    Raises UserError for a folder that may not be read: that one is not absent.
    """
    if not os.path.exists(root):
        return f"找不到数据 {root}"
    if os.path.isdir(root) and not entries(root):
        return f"数据文件夹 {root} 是空的"
    return None


@contextmanager
def listing(folder: str | Path) -> Iterator[None]:
    """Turn what the system refuses while ``folder`` is listed (closed, gone meanwhile) into one clear line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"无法读取文件夹 {folder}（{error.strerror or error}）；请检查路径和权限") from None


def entries(folder: str | Path) -> list[Path]:
    """What lies directly inside a folder, in no order; raises UserError for one that may not be read.

    What single entries are is asked of ``os.path``, which says False of a path that the system refuses (in a closed
    folder, or longer than names may be); pathlib's own methods raise there before Python 3.14.
    """
    with listing(folder):
        os.stat(os.path.join(folder, os.curdir))  # one may be allowed to list a folder and not to open what is in it
        return [Path(folder, name) for name in os.listdir(folder)]


def open_root(root: str | Path, notices: list[str], *marks: str) -> Path:
    """The folder a source reads: ``root``, or what it unpacks to where it is a zip or tar (said in ``notices``).

    Args:
        marks: names of which the layout has at least one; in an archive, folders wrapping them are looked through.

    Raises:
        UserError: root missing, empty, neither folder nor archive, or an archive that cannot be unpacked.
    """
    reason = why_missing(root)
    if reason:
        raise UserError(f"{reason}；请检查 DataLoader.Source.root，数据下载方法见 docs/data.md")
    folder = Path(root)
    if os.path.isdir(folder):
        return folder
    if not is_archive(folder):
        raise UserError(f"{folder} 既不是文件夹，也不是压缩包（zip、tar、tar.gz …）")
    folder = unpack_once(folder)
    notices.append(f"使用 {root} 解压后的文件夹 {folder}")
    if folder.name != archive_stem(root):
        notices.append(f"!! 原有的文件夹 {folder.with_name(archive_stem(root))} 不是由现在这个压缩包解开的，没有使用，"
                       "也没有改动")
    return _unwrapped(folder, marks)


def _unwrapped(folder: Path, marks: Sequence[str]) -> Path:
    base = folder
    while not any(os.path.exists(base / mark) for mark in marks):
        inside = subfolders(base)
        if len(inside) != 1:
            return folder
        base = inside[0]
    return base


def subfolders(folder: Path) -> list[Path]:
    """Folders directly inside, sorted by name, hidden and macOS litter left out."""
    return sorted(entry for entry in entries(folder)
                  if os.path.isdir(entry) and not entry.name.startswith((".", "__MACOSX")))


def class_folders(base: Path, classes: Sequence[ClassInfo]) -> list[tuple[int, Path]]:
    """``(label, folder)`` of every folder in ``base`` that is named after a class, in class order then name order."""
    found = [(label, folder) for folder in subfolders(base) for label, info in enumerate(classes)
             if info.matches(folder.name)]
    return sorted(found)


def find_base(root: Path, classes: Sequence[ClassInfo]) -> Path:
    """The folder that holds the class folders: ``root``, or the only folder inside it, and so on.

    Archives usually wrap everything in one folder of the data set's name, which may also be that of a class:
    ``covid/{COVID,NORMAL}``.
    """
    base = root
    while len(inside := subfolders(base)) == 1 and (
            len(class_folders(inside[0], classes)) >= len(class_folders(base, classes))):
        base = inside[0]
    return base if class_folders(base, classes) else root


def list_images(folder: Path) -> tuple[list[Path], list[Path]]:
    """``(images, other files)`` directly inside ``folder``, sorted by name; hidden files are in neither."""
    files = sorted(entry for entry in entries(folder) if os.path.isfile(entry) and not entry.name.startswith("."))
    images = [file for file in files if file.suffix.lower() in EXTENSIONS]
    return images, [file for file in files if file.suffix.lower() not in EXTENSIONS]


def inside(text: str, where: str) -> str:
    """A path from a list, with forward slashes; raises UserError (naming ``where``) if it would leave the root."""
    path = PurePosixPath(text.strip().replace("\\", "/"))
    if not path.parts:
        raise UserError(f"{where}：图像路径为空")
    if path.is_absolute() or ".." in path.parts or path.parts[0].endswith(":"):
        raise UserError(f"{where}：路径 {text!r} 指向数据文件夹之外；请改成相对于 root 的路径")
    return str(path)


def known_patient(text: str | None) -> str | None:
    """A patient id, or None for a cell that is empty or holds a spreadsheet's or program's word for that."""
    return text if text and text.lower() not in ("nan", "na", "none", "null") else None


def without_repeats(found: Iterable[tuple[str, Record]], path: Path, classes: Sequence[ClassInfo],
                    notices: list[str]) -> Iterator[Record]:
    """Records of ``(where, record)`` pairs, an image listed twice only once (counted in ``notices``).

    Raises UserError naming both places where one image has two labels, patients, splits or folds.
    """
    seen: dict[str, tuple[Record, str]] = {}
    repeated = 0
    for where, record in found:
        earlier, first = seen.setdefault(record.path, (record, where))
        if earlier.label != record.label:
            raise UserError(f"{where}：{record.path} 在 {first} 已有另一个标签（{classes[earlier.label].name}）")
        for column in ("patient_id", "split", "fold"):
            one, other = getattr(earlier, column), getattr(record, column)
            if one != other:
                raise UserError(f"{where}：{record.path} 的 {column} 与 {first} 不同"
                                f"（{_shown(other)} 与 {_shown(one)}）；请删去错的一行")
        if first == where:
            yield record
        else:
            repeated += 1
    if repeated:
        notices.append(f"{path}：{repeated} 行重复列出同一图像，只用第一次")


def _shown(cell: object) -> str:
    return "空" if cell is None else str(cell)


def read_text(path: Path) -> str:
    """A text file in UTF-8 (with or without BOM) or GBK, which Excel on Chinese Windows writes."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"找不到列表文件 {path}") from None
    except OSError as error:
        raise UserError(f"无法读取列表文件 {path}：{error.strerror}") from None
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UserError(f"列表文件 {path} 既不是 UTF-8 也不是 GBK 编码，请另存为 UTF-8")


def read_table(path: Path, delimiter: str = ",") -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a CSV with a header, as ``("file:line", {column: text})``; blank lines are left out.

    Raises UserError for a row with more or fewer cells than the header.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter)
    try:
        header = [name.strip() for name in next(reader, [])]
        # Counted before each row is read: a quoted cell may span lines, and people look for the line it starts on.
        line = reader.line_num + 1
        for cells in reader:
            where, line = f"{path}:{line}", reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise UserError(f"{where}：有 {len(cells)} 列，而表头有 {len(header)} 列")
            yield where, {name: cell.strip() for name, cell in zip(header, cells, strict=True) if name}
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}：不是有效的 CSV（{error}）") from None


def header_of(path: Path, delimiter: str = ",") -> list[str]:
    """Column names of a CSV; raises UserError for a first line that is none."""
    lines = read_text(path).splitlines()
    try:
        return [name.strip() for name in next(csv.reader(lines[:1], delimiter=delimiter), [])]
    except csv.Error as error:
        raise UserError(f"{path}:1：不是有效的 CSV（{error}）") from None
