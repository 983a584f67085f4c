"""Your own images with findings: a list beside them says what each shows, boxes and masks where."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from paddle_cxr.data.findings import FindingBox, FindingsRecord, FindingsSource
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.data.sources.boxes import read_boxes
from paddle_cxr.data.sources.chestxray14 import FINDINGS
from paddle_cxr.data.sources.findings_layout import (
    Absent,
    SharedLabels,
    check_boxes_fit,
    choose_findings,
    files_there,
    usable_records,
)
from paddle_cxr.data.sources.findings_rows import Row, Spelling, json_rows, table_rows
from paddle_cxr.data.sources.layout import inside, known_patient, open_root, why_missing
from paddle_cxr.data.sources.list_file import published_fold, published_split
from paddle_cxr.data.sources.mask_file import read_mask
from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.registry import register

_NAME = "FindingsFile"
_COLUMNS = {"path": "file", "patient_id": "patient_id", "fold": "fold", "split": "split", "view": "view"}


@register("findings")
class FindingsFile(FindingsSource):
    """Images listed in a CSV, TSV or JSON Lines file with what is known of each finding.

    A table says it in one of two ways, or both: ``label_column`` lists the findings that are present,
    ``Effusion|Pneumonia`` (the other findings of that column are then absent, and all of them unknown where the cell is
    empty); ``finding_columns`` hold one finding each, 1, 0, or empty and -1 for unknown.  Where two columns speak of
    one finding, present wins over absent, and absent over unknown.  A JSON line has ``labels`` {finding: 1, 0, null},
    ``boxes`` [{finding, x, y, width, height}] and ``masks`` {finding: path}; so ``pairs.jsonl`` of this toolkit can be
    read (``columns: {path: image}``).

    A box makes a finding that nobody spoke of present.  A mask says where a finding is and nothing about the label:
    what only masks speak of (``lung``) is annotated, but not among ``findings``.

    Args:
        root: the folder paths in the list are relative to, or an archive of it.
        file: the list: a path inside ``root``; one with a folder in it is also looked for from the current folder.
        columns: other names of columns or JSON keys: ``{path: filename, patient_id: subject}``; also fold, split, view.
        label_column: the column, or columns, that list findings.
        separator: between the findings in such a cell.
        finding_columns: the columns that hold one finding each.
        negative: words in ``label_column`` for an image without any of its findings.
        aliases: finding → its other spellings, e.g. ``{Infiltration: [Infiltrate]}``; otherwise case counts.
        unjudged: finding → others that count as unknown, not absent, where it is present: ``{COVID: [Pneumonia]}``
            where the column would name COVID pneumonia COVID alone.
        findings: use these only, in this order; by default all, as they appear.
        names: finding → Chinese name, for figures.
        boxes: a CSV of boxes with the columns file, finding, x, y, width, height (pixels of the images as they are;
            x, y is the top left corner), looked for as ``file`` is.
        mask_column: column → the finding whose mask it names: ``{lung_mask: lung}``.  Masks have their image's size.
        absent: what to do about images that the list names and the disk lacks: ``error`` or ``skip``.

    Raises:
        UserError: naming file and line: a column missing, no such finding, a label or a box that is none, a box of a
            finding that is absent, a path leading out of ``root``, an image listed twice, an absent image; nothing that
            speaks of findings.
    """

    def __init__(self, root: str, file: str = "index.csv", columns: dict[str, str] | None = None,
                 label_column: str | tuple[str, ...] | None = None, separator: str = "|",
                 finding_columns: tuple[str, ...] = (),
                 negative: tuple[str, ...] = ("No Finding", "NORMAL", "Normal", "normal"),
                 aliases: dict[str, list[str]] | None = None, unjudged: dict[str, list[str]] | None = None,
                 findings: tuple[str, ...] | None = None, names: dict[str, str] | None = None,
                 boxes: str | None = None, mask_column: dict[str, str] | None = None, absent: Absent = "error") -> None:
        notices: list[str] = []
        folder = open_root(root, notices, file, "images")
        path, keys, spelling = _list(folder, file, "file"), _keys(columns), Spelling(aliases or {})
        listing = (label_column,) if isinstance(label_column, str) else label_column or ()
        if not separator:
            raise UserError(f"{_NAME}.separator：不能是空的；写征象之间的分隔符，例如 '|'")
        needed = [keys["path"], *(columns or {}).values(), *listing]
        rows = list(_json_rows(path, needed, finding_columns or mask_column, spelling) if _is_json(path) else
                    table_rows(path, needed, finding_columns, mask_column or {}, spelling))
        for column in listing:
            _read_listing(rows, column, separator, {word.strip() for word in negative}, spelling)
        if boxes is not None:
            _add_boxes(rows, _list(folder, boxes, "boxes"), keys["path"], spelling, notices)
        for row in rows:
            _settle(row, unjudged or {})
        chosen = _findings(rows, findings, names or {}, unjudged or {}, path)
        shared, wanted = SharedLabels(chosen), {info.name for info in chosen}
        self._masks: dict[str, dict[str, str]] = {}  # image → finding → mask
        records = []
        for row in rows:
            records.append(_record(row, keys, shared.of([row.labels.get(info.name) for info in chosen]), wanted))
            if row.masks:
                self._masks[records[-1].path] = {name: inside(mask, row.where) for name, mask in row.masks.items()}
        there = files_there(folder, [record.path for record in records], _NAME)
        super().__init__(folder.resolve().name, folder, chosen,
                         usable_records(records, there, absent, folder, _NAME, notices), notices)
        # What masks show that is no finding, to be checked too.
        self.regions = tuple(sorted({name for masks in self._masks.values() for name in masks} - wanted))

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """Absent or empty root."""
        return why_missing(str(arguments.get("root", "")))

    def annotated(self, index: int, finding: str) -> bool:
        """There is a mask or a box of it, or it is absent."""
        return finding in self._masks.get(self.records[index].path, ()) or super().annotated(index, finding)

    def mask(self, index: int, finding: str, shape: tuple[int, int]) -> np.ndarray:
        """The finding's mask where there is one, else the inside of its boxes."""
        mask = self.mask_file(index, finding)
        if mask is not None:
            return read_mask(mask, shape)
        check_boxes_fit(self.records[index].boxes, shape, self.locate(index), f"{_NAME}.boxes 应是现在这张图的像素")
        return super().mask(index, finding, shape)

    def mask_file(self, index: int, finding: str) -> Path | None:
        """The listed mask."""
        mask = self._masks.get(self.records[index].path, {}).get(finding)
        return None if mask is None else self.root / mask

    def fingerprint(self) -> str:
        """As of other sources, over the masks' names too."""
        masks = [self._masks.get(record.path) for record in self.records]
        return hashlib.sha256(f"{super().fingerprint()} {masks}".encode()).hexdigest()[:16]


def _list(folder: Path, file: str, argument: str) -> Path:
    candidates = [folder / file, *([Path(file)] if os.path.dirname(file) else [])]
    for path in candidates:
        if os.path.isfile(path):
            return path
    raise UserError(f"找不到列表文件 {' 或 '.join(map(str, candidates))}；请检查 {_NAME}.{argument}")


def _is_json(path: Path) -> bool:
    return path.suffix.lower() == ".jsonl"


def _json_rows(path: Path, needed: Sequence[str], for_tables: object, spelling: Spelling) -> Iterable[Row]:
    if for_tables:
        raise UserError(f"{_NAME}：finding_columns 和 mask_column 只用于表格；{path} 是 JSON Lines，"
                        "请写进每行的 labels 和 masks")
    return json_rows(path, needed, spelling)


def _keys(columns: Mapping[str, str] | None) -> dict[str, str]:
    for key in columns or {}:
        if key not in _COLUMNS:
            raise UserError(f"{_NAME}.columns：没有 {key!r} 这一项{did_you_mean(key, _COLUMNS)}"
                            f"（可用：{'、'.join(_COLUMNS)}）")
    return {**_COLUMNS, **(columns or {})}


def _read_listing(rows: Sequence[Row], column: str, separator: str, negative: set[str], spelling: Spelling) -> None:
    """Add what a column of listed findings says to the rows' labels."""
    listed = [[spelling.of(part) for part in row.cells.get(column, "").split(separator)
               if part.strip() and part.strip().lower() != "nan"] for row in rows]  # nan: empty, as programs write it
    every = sorted({name for names in listed for name in names} - negative)
    for row, names in zip(rows, listed, strict=True):
        if names:
            row.labels = _joined(row.labels, {name: int(name in names) for name in every})


def _joined(one: Mapping[str, int | None], other: Mapping[str, int | None]) -> dict[str, int | None]:
    """What two columns say together: present before absent before unknown."""
    order = {1: 2, 0: 1, None: 0}
    return {**one, **{name: max(one.get(name), value, key=order.__getitem__) for name, value in other.items()}}


def _add_boxes(rows: Iterable[Row], file: Path, path_key: str, spelling: Spelling, notices: list[str]) -> None:
    """Give the rows their boxes."""
    by_path = {inside(row.cells.get(path_key, ""), row.where): row for row in rows}
    used, others = 0, []
    for where, image, box in read_boxes(file):
        if image in by_path:
            by_path[image].boxes.append(FindingBox(spelling.of(box.finding), box.x, box.y, box.width, box.height))
            used += 1
        else:
            others.append(f"{where} 的 {image}")
    if others and not used:
        raise UserError(f"{file}：没有一个框（box）的图像在列表里（例如 {others[0]}）；file 列应与列表中的路径相同")
    if others:
        notices.append(f"{file}：{len(others)} 个框（box）的图像不在列表里（例如 {others[0]}），没有使用")


def _settle(row: Row, unjudged: Mapping[str, Sequence[str]]) -> None:
    """What follows from the labels and boxes together."""
    for name, others in unjudged.items():
        if row.labels.get(name) == 1:
            row.labels.update({other: None for other in others if row.labels.get(other) == 0})
    for box in row.boxes:
        if row.labels.get(box.finding) == 0:
            raise UserError(f"{row.where}：征象（finding）{box.finding} 的标签是 0（没有），却有它的标注框（box）；"
                            "请改标签，或删去这个框")
        row.labels[box.finding] = 1


def _findings(rows: Sequence[Row], wanted: Sequence[str] | None, names: Mapping[str, str],
              unjudged: Mapping[str, Sequence[str]], path: Path) -> tuple[ClassInfo, ...]:
    """The findings to use, of those that the list speaks of."""
    if not rows:
        raise UserError(f"{path} 里一张图像也没有")
    there = list(dict.fromkeys(name for row in rows for name in row.labels))
    if not there and not any(row.masks for row in rows):
        raise UserError(f"{path}：没有一列说明征象（finding）；请设 {_NAME}.label_column（一列写出有哪些）、"
                        "finding_columns（每个征象一列）或 mask_column（掩膜）")
    for argument, mentioned in (("names", names),
                                ("unjudged", [one for name, others in unjudged.items() for one in (name, *others)])):
        for name in mentioned:
            if name not in there:
                raise UserError(f"{_NAME}.{argument}：没有征象 {name!r}{did_you_mean(name, there)}"
                                f"（有：{'、'.join(there)}）")
    published = {info.name: info for info in FINDINGS}
    known = [ClassInfo(name, names.get(name, published[name].zh if name in published else name),
                       published[name].en if name in published else name.replace("_", " ")) for name in there]
    if wanted is not None:  # PNEUMONIA and Pneumonia may both be there: the one that was written counts
        known.sort(key=lambda info: info.name not in wanted)
    return choose_findings(known, wanted, _NAME)


def _record(row: Row, keys: Mapping[str, str], labels: dict[str, int | None], wanted: set[str]) -> FindingsRecord:
    return FindingsRecord(
        inside(row.cells.get(keys["path"], ""), row.where), 0, known_patient(row.cells.get(keys["patient_id"])),
        published_split(row.cells.get(keys["split"], ""), row.where),
        published_fold(row.cells.get(keys["fold"], ""), row.where),
        {key: text for key, text in row.cells.items() if key not in keys.values() and text},
        labels, tuple(box for box in row.boxes if box.finding in wanted), row.cells.get(keys["view"], ""))
