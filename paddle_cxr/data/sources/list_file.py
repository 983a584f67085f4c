"""A list beside the images: a CSV with a header, or the classic text file of ``path label`` lines."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from paddle_cxr.data.records import ClassInfo, Record, Source, label_of
from paddle_cxr.data.sources.image_folder import folder_records
from paddle_cxr.data.sources.layout import (
    class_folders,
    header_of,
    inside,
    known_patient,
    list_images,
    open_root,
    read_table,
    read_text,
    subfolders,
    why_missing,
    without_repeats,
)
from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.registry import register

# What a record wants to know → the column that says it, unless the recipe names another.
_COLUMNS = {"path": "file", "label": "label", "patient_id": "patient_id", "fold": "fold", "split": "split"}
_REQUIRED = ("path", "label")
_DEFAULT_LIST = "index.csv"
_WHOLE = re.compile(r"-?[0-9]{1,9}(\.0)?")  # a spreadsheet with empty cells writes numbers as 1.0
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "eval": "val",
           "test": "test", "testing": "test", "predict": "predict", "all": None, "": None}


@register("source")
class ListFile(Source):
    """Images listed in a file.

    A CSV needs the columns ``file`` (relative to ``root``) and ``label`` (class name, alias or number);
    ``patient_id``, ``fold`` and ``split`` are used where present, every other column is kept in ``Record.extra``.
    Without a header each line is ``path label``, separated by blanks or a tab.  Where there is no ``index.csv``, and no
    other list was asked for, but the class folders are there (``root/images/<class>`` or ``root/<class>``), those are
    read instead, and a notice says so.

    Args:
        root: the folder paths in the list are relative to, or an archive of it.
        file: the list: a path inside ``root``; one with a folder in it (as ``prepare_data.py`` writes) is also looked
            for from the current folder.
        columns: other column names, e.g. ``{path: filename, label: finding}``.
        classes: the classes (supplied by the program).

    Raises:
        UserError: naming file and line: no such image, a label outside the classes, a path leading out of ``root``, one
            image with two labels, a fold that is no whole number, an unknown split; or no list, or missing columns.
    """

    def __init__(self, root: str, file: str = _DEFAULT_LIST, columns: dict[str, str] | None = None, *,
                 classes: tuple[ClassInfo, ...]) -> None:
        self.notices: list[str] = []
        folder = open_root(root, self.notices, file, "images")
        path = _find_list(folder, file)
        if path is not None:
            records = list(without_repeats(_read_list(folder, path, columns, classes), path, classes, self.notices))
        else:
            records = _class_folders_instead(folder, file, classes, self.notices)
        if not records:
            raise UserError(f"{path or folder} 里一张图像也没有")
        super().__init__(folder.resolve().name, folder, classes, records)

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """Absent or empty root."""
        return why_missing(str(arguments.get("root", "")))


def _find_list(root: Path, file: str) -> Path | None:
    """The list, or None where only the default name was asked for and is absent."""
    candidates = [root / file, *([Path(file)] if os.path.dirname(file) else [])]
    for path in candidates:
        if os.path.isfile(path):
            return path
    if file == _DEFAULT_LIST:
        return None
    there = [entry.name for entry in list_images(root)[1]]
    raise UserError(f"找不到列表文件 {' 或 '.join(map(str, candidates))}{did_you_mean(Path(file).name, there)}"
                    f"（{root} 中有：{'、'.join(sorted(there)[:10]) or '没有列表'}）；请检查 DataLoader.Source.file")


def _class_folders_instead(root: Path, file: str, classes: Sequence[ClassInfo], notices: list[str]) -> list[Record]:
    """Records from class folders; lenient about other folders and missing classes, which the list would have said."""
    for base in (root / "images", root):
        folders = class_folders(base, classes) if os.path.isdir(base) else []
        if folders:
            notices.append(f"!! 没有列表文件 {root / file}：按文件夹 {base}/<类别> 读取，"
                           "没有患者编号（patient_id）和折号（fold）")
            known = [folder for _, folder in folders]
            unknown = [folder.name for folder in subfolders(base) if folder not in known]
            if unknown and base != root:
                notices.append(f"{base}：略过不属于任何类别的文件夹 {'、'.join(unknown)}")
            absent = [info.name for label, info in enumerate(classes) if label not in {one for one, _ in folders}]
            if absent:
                notices.append(f"{base}：没有类别 {'、'.join(absent)} 的文件夹")
            return folder_records(root, folders, notices)
    raise UserError(f"找不到列表文件 {root / file}，{root} 下也没有以类别命名的文件夹；"
                    "请检查 DataLoader.Source 的 root 和 file")


def _read_list(root: Path, path: Path, columns: Mapping[str, str] | None, classes: Sequence[ClassInfo]
               ) -> Iterator[tuple[str, Record]]:
    names = _column_names(columns)
    delimiter = _delimiter(path, names["path"])
    if delimiter is None:
        rows: Iterator[tuple[str, dict[str, str]]] = _plain_rows(path, names)
    else:
        _check_header(path, header_of(path, delimiter), names, columns or {})
        rows = read_table(path, delimiter)
    for where, row in rows:
        yield where, _record(root, where, row, names, classes)


def _column_names(columns: Mapping[str, str] | None) -> dict[str, str]:
    for key in columns or {}:
        if key not in _COLUMNS:
            raise UserError(f"DataLoader.Source.columns：没有 {key!r} 这一项{did_you_mean(key, _COLUMNS)}"
                            f"（可用：{'、'.join(_COLUMNS)}）")
    return {**_COLUMNS, **(columns or {})}


def _delimiter(path: Path, path_column: str) -> str | None:
    """``,`` or tab for a table with a header, None for ``path label`` lines."""
    first = next(iter(read_text(path).splitlines()), "")
    for delimiter in (",", "\t"):
        if path_column in [cell.strip().strip('"') for cell in first.split(delimiter)]:
            return delimiter
    return {".csv": ",", ".tsv": "\t"}.get(path.suffix.lower())


def _check_header(path: Path, header: Sequence[str], names: Mapping[str, str], chosen: Mapping[str, str]) -> None:
    for key, name in names.items():
        if name not in header and (key in _REQUIRED or key in chosen):
            raise UserError(f"{path}:1：表头没有列 {name!r}{did_you_mean(name, header)}（有：{'、'.join(header)}）；"
                            f"可用 columns: {{{key}: 列名}} 指定")


def _plain_rows(path: Path, names: Mapping[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        # The label is the last word; a path may contain blanks.
        cells = line.rsplit("\t", 1) if "\t" in line else line.rsplit(None, 1)
        if len(cells) != 2:
            raise UserError(f"{path}:{number}：应为“路径 标签”，现在是 {line.strip()!r}")
        yield f"{path}:{number}", {names["path"]: cells[0].strip(), names["label"]: cells[1].strip()}


def _record(root: Path, where: str, row: Mapping[str, str], names: Mapping[str, str],
            classes: Sequence[ClassInfo]) -> Record:
    path = inside(row[names["path"]], where)
    if not os.path.isfile(root / path):
        raise UserError(f"{where}：找不到图像 {root / path}")
    return Record(path, _label(row[names["label"]], classes, where), known_patient(row.get(names["patient_id"])),
                  published_split(row.get(names["split"], ""), where),
                  published_fold(row.get(names["fold"], ""), where),
                  {key: text for key, text in row.items() if key not in names.values() and text})


def _label(text: str, classes: Sequence[ClassInfo], where: str) -> int:
    """A class name or alias, else a class number."""
    if _WHOLE.fullmatch(text) and not any(info.matches(text) for info in classes):
        number = int(text.removesuffix(".0"))
        if not 0 <= number < len(classes):
            raise UserError(f"{where}：标签 {text} 超出范围 0–{len(classes) - 1}"
                            f"（Global.classes 有 {len(classes)} 类）")
        return number
    return label_of(text, classes, where)


def published_split(text: str, where: str) -> str | None:
    """The subset a cell names, None where it is empty or says all; raises :class:`UserError` for another word."""
    if text.lower() not in _SPLITS:
        raise UserError(f"{where}：split 为 {text!r}，应为 train、val、test 或 predict")
    return _SPLITS[text.lower()]


def published_fold(text: str, where: str) -> int | None:
    """A fold number, None for an empty cell; raises :class:`UserError` for what is no whole number."""
    if not text:
        return None
    if not _WHOLE.fullmatch(text) or text.startswith("-"):
        raise UserError(f"{where}：fold 为 {text!r}，应为 0、1、2 … 的整数")
    return int(text.removesuffix(".0"))
