"""Rows of a user's list of images with findings: what a table's cells and JSON's values say of labels and boxes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paddle_cxr.data.findings import FindingBox
from paddle_cxr.data.lines import json_lines
from paddle_cxr.data.sources.boxes import box_of
from paddle_cxr.data.sources.layout import header_of, read_table
from paddle_cxr.errors import UserError, did_you_mean

_VALUES: dict[str, int | None] = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": None, "-1.0": None, "": None, "nan": None}
_BOX = ("x", "y", "width", "height")


@dataclass
class Row:
    """One line of a list.

    Attributes:
        where: file and line.
        cells: what stands in it as text, by column.
        labels: finding → 1, 0 or None, of what says so one by one.
        boxes: those in the line itself.
        masks: finding → path of its mask.
    """

    where: str
    cells: dict[str, str]
    labels: dict[str, int | None] = field(default_factory=dict)
    boxes: list[FindingBox] = field(default_factory=list)
    masks: dict[str, str] = field(default_factory=dict)


class Spelling:
    """One name for each finding, however the files spell it.

    Args:
        aliases: finding → its other spellings.
    """

    def __init__(self, aliases: Mapping[str, Sequence[str]]) -> None:
        self._name = {spelling: name for name, others in aliases.items() for spelling in others}

    def of(self, text: str) -> str:
        """The finding's name; a spelling that nobody mentioned is a name."""
        return self._name.get(text.strip(), text.strip())


def label_value(value: object, finding: str, where: str) -> int | None:
    """1 (present), 0 (absent) or None (unknown or uncertain) of a cell or JSON value: 1, 0, -1, empty, null.

    Raises:
        UserError: another value.
    """
    text = "" if value is None else str(value).strip().lower()
    if text not in _VALUES or isinstance(value, bool):
        raise UserError(f"{where}：征象（finding）{finding} 的标签是 {value!r}；"
                        "应为 1（有）、0（没有）、空（不知道）或 -1（不确定，当作不知道）")
    return _VALUES[text]


def table_rows(path: Path, needed: Iterable[str], finding_columns: Sequence[str], mask_columns: Mapping[str, str],
               spelling: Spelling) -> Iterator[Row]:
    """Rows of a CSV or TSV with a header.

    Args:
        needed: columns that must be there.
        finding_columns: columns that hold one finding each.
        mask_columns: column → finding whose mask it names.

    Raises:
        UserError: a column missing, a cell that is no label.
    """
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    header = header_of(path, delimiter)
    for name in (*needed, *finding_columns, *mask_columns):
        if name not in header:
            raise UserError(f"{path}:1：表头没有列 {name!r}{did_you_mean(name, header)}（有：{'、'.join(header)}）")
    used = [*finding_columns, *mask_columns]
    if twice := next((name for place, name in enumerate(used) if name in used[:place]), None):
        raise UserError(f"FindingsFile：列 {twice} 在 finding_columns 和 mask_column 里一共写了两次；每一列只写一次")
    for where, cells in read_table(path, delimiter):
        labels = {spelling.of(name): label_value(cells.pop(name), name, where) for name in finding_columns}
        masks = {finding: text for name, finding in mask_columns.items() if (text := cells.pop(name))}
        yield Row(where, cells, labels, masks=masks)


def json_rows(path: Path, needed: Iterable[str], spelling: Spelling) -> Iterator[Row]:
    """Rows of a ``.jsonl``: an object a line, with ``labels`` {finding: 1, 0, null}, ``boxes`` [{finding, x, y, width,
    height}] and ``masks`` {finding: path} where there are any; other texts and numbers are cells.

    Raises:
        UserError: a key missing, or a value of another kind.
    """
    for where, _, value in json_lines(path, "张图像"):
        for name in needed:
            if name not in value:
                raise UserError(f"{where}：没有 {name!r}{did_you_mean(name, value)}（有：{'、'.join(value)}）")
        labels, boxes, masks = (_taken(value, *one, where) for one in (("labels", {}), ("boxes", []), ("masks", {})))
        yield Row(where, {key: str(one) for key, one in value.items()
                          if isinstance(one, (str, int, float)) and not isinstance(one, bool)},
                  {spelling.of(name): label_value(one, name, where) for name, one in labels.items()},
                  [_json_box(box, where, spelling) for box in boxes],
                  {spelling.of(name): str(one) for name, one in masks.items() if one})


def _taken(value: Mapping[str, Any], key: str, without: Any, where: str) -> Any:
    """What stands under ``key``, of the same kind as ``without``, which stands for its absence."""
    found = value.get(key)
    if found is not None and not isinstance(found, type(without)):
        kind = "{征象: 值} 的对象" if isinstance(without, dict) else "列表"
        raise UserError(f"{where}：{key} 应是{kind}，现在是 {found!r}")
    return without if found is None else found


def _json_box(box: Any, where: str, spelling: Spelling) -> FindingBox:
    if not isinstance(box, dict) or not isinstance(box.get("finding"), str):
        raise UserError(f"{where}：boxes 里的每一项应是 {{finding, x, y, width, height}}，现在是 {box!r}")
    return box_of(spelling.of(box["finding"]), [box.get(key) for key in _BOX], where)
