"""From a data set as downloaded to lists one can trust: every image opened, copies found, subsets assigned.

The source files are never touched: what is written are lists and a report.
"""

from __future__ import annotations

import csv
import io
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from paddle_cxr.data.annotations import Annotations, inspect_annotations
from paddle_cxr.data.findings import FindingsRecord, FindingsSource
from paddle_cxr.data.prepare_labels import Labels, counts_text, labels_of
from paddle_cxr.data.records import Record, Source
from paddle_cxr.data.splits import SUBSETS, patient_overlap
from paddle_cxr.data.verify import NOTES, Duplicate, Inspection, find_duplicates, groups, inspect_all
from paddle_cxr.errors import UserError
from paddle_cxr.files import write_json, write_text

_COLUMNS = ("patient_id", "fold", "split", "width", "height", "sha256", "notes")
_BOX = ("file", "finding", "x", "y", "width", "height")


@dataclass(frozen=True)
class _Item:
    """A record with what was seen in its file."""

    record: Record
    seen: Inspection
    place: str


def prepare(source: Source, split: Callable[[Sequence[Record]], list[str]], *, output: str | Path,
            on_error: Literal["error", "skip"] = "error", duplicates: Literal["report", "drop", "error"] = "report",
            workers: int | Literal["auto"] = "auto", absent: Sequence[str] = ()) -> dict[str, Any]:
    """Verify every image of ``source``, split it, and write lists and a report into ``output``.

    Of a source of findings the boxes and masks are verified too; a mask that cannot be used counts as a broken image.

    Written: ``list.csv`` (readable by ListFile, or by FindingsFile with ``boxes.csv``, with the source's root), one
    list a subset, ``duplicates.csv`` where there are any, ``skipped.csv`` where images were left out, ``absent.csv``
    where images are not on disk, and ``report.json``, which is also returned.

    Args:
        split: see :mod:`paddle_cxr.data.splits`; applied to what is kept.
        on_error: what to do about unreadable images: ``error`` names them all on stderr and stops; ``skip`` leaves
            them out.
        duplicates: ``report``; ``drop``: keep the first of the copies, or none where their labels differ, since at
            least one is wrong; ``error``: stop where a copy lies in two subsets or has two labels.
        workers: number of processes, or ``auto``.
        absent: images that the data set names and the disk lacks, which the source left out.

    Raises:
        UserError: the source is not on disk, unreadable images or duplicates as above, nothing left of the data set or
            of a class, cannot write; a package that an image needs is not installed (never a reason to skip it).
    """
    started = time.monotonic()
    if source.demo:
        raise UserError("内置模体（phantom）是读取时画出来的，没有文件可检查；请把 DataLoader.Source 指向真实数据")
    output, labels = Path(output), labels_of(source)
    places = [source.locate(index) for index in range(len(source.records))]
    items = [_Item(*one) for one in zip(source.records, inspect_all(places, workers), places, strict=True)]
    annotations = None
    if isinstance(source, FindingsSource):
        items, annotations = _with_annotations(source, items)

    broken = [item for item in items if item.seen.error]
    if broken and on_error == "error":
        for item in broken:
            print(f"{item.place}：{item.seen.error}", file=sys.stderr)
        raise UserError(f"{len(broken)} 张图像无法使用（名单见上）；请修复，或设 Prepare.on_error=skip 略过它们")
    left_out = [(item, item.seen.error_kind, item.seen.error) for item in broken]
    kept = [item for item in items if not item.seen.error]

    pairs = find_duplicates([item.seen for item in kept])
    found = list(zip(pairs, [(kept[pair.first], kept[pair.second]) for pair in pairs], strict=True))
    if duplicates == "drop":
        kept, dropped = _drop(kept, pairs, labels)
        left_out += dropped
    if not kept:
        raise UserError(f"数据 {source.root} 检查后没有剩下可用的图像")
    labels.check_left([item.record for item in kept])
    subsets = split([item.record for item in kept])
    subset_of = {item.record.path: subset for item, subset in zip(kept, subsets, strict=True)}
    copies = [_describe(labels, pair, two, subset_of) for pair, two in found]
    if duplicates == "error":
        _refuse(copies)

    report = _report(source, labels, kept, subsets, left_out, copies)
    report["absent"] = list(absent)
    if annotations is not None:
        report["annotations"] = {"boxes": dict(annotations.boxes), "masks": dict(annotations.masks),
                                 "outside": annotations.outside, "empty": annotations.empty}
    report["split"] = type(split).__name__
    report["output"] = str(output)
    report["seconds"] = round(time.monotonic() - started, 1)
    _write(labels, output, kept, subsets, left_out, copies, report)
    return report


def _with_annotations(source: FindingsSource, items: Sequence[_Item]) -> tuple[list[_Item], Annotations]:
    """The items, those broken whose boxes or masks are."""
    found = inspect_annotations(source, [None if item.seen.error else (item.seen.height, item.seen.width)
                                         for item in items])
    return [replace(item, seen=replace(item.seen, error=found.errors[index], error_kind="annotation"))
            if index in found.errors else item for index, item in enumerate(items)], found


def _drop(kept: list[_Item], pairs: Sequence[Duplicate], labels: Labels
          ) -> tuple[list[_Item], list[tuple[_Item, str, str]]]:
    dropped: dict[int, tuple[str, str]] = {}
    for copies in groups(pairs):
        first = kept[copies[0]]
        if not all(labels.agree(kept[index].record, first.record) for index in copies):
            dropped.update({index: ("duplicate_label", "同一图像有不同的标签") for index in copies})
        else:
            dropped.update({index: ("duplicate", f"与 {first.record.path} 重复") for index in copies[1:]})
    return ([item for index, item in enumerate(kept) if index not in dropped],
            [(kept[index], *dropped[index]) for index in sorted(dropped)])


def _describe(labels: Labels, pair: Duplicate, two: tuple[_Item, _Item], subset_of: dict[str, str]) -> dict[str, Any]:
    """One pair of copies as a row of ``duplicates.csv``; ``flags`` says why it is worse than untidy."""
    one, other = (item.record for item in two)
    subsets = [subset_of.get(record.path, "") for record in (one, other)]  # "" for an image that was dropped
    flags = []
    if not labels.agree(one, other):
        flags.append("labels")
    if all(subsets) and subsets[0] != subsets[1]:
        flags.append("subsets")
    if one.fold != other.fold:
        flags.append("folds")
    if one.patient_id != other.patient_id:
        flags.append("patients")
    return {"kind": pair.kind, "correlation": round(pair.correlation, 4), "flags": flags, "first": one.path,
            "second": other.path, "labels": [labels.name(one), labels.name(other)], "subsets": subsets,
            "patients": [one.patient_id, other.patient_id]}


def _refuse(copies: Sequence[dict[str, Any]]) -> None:
    bad = [one for one in copies if {"labels", "subsets"} & set(one["flags"])]
    if bad:
        for one in bad:
            print(_line(one), file=sys.stderr)
        raise UserError(f"{len(bad)} 对重复图像跨子集或标签不同（名单见上）；请修正数据，"
                        "或设 Prepare.duplicates=drop 去掉、report 只报告")


def _line(copy: dict[str, Any]) -> str:
    """A pair of copies for people."""
    kind = "完全相同" if copy["kind"] == "exact" else f"近似（相关系数 {copy['correlation']:.3f}）"
    words = {"labels": f"标签不同（{'、'.join(copy['labels'])}）", "subsets": f"跨子集（{'、'.join(copy['subsets'])}）",
             "folds": "跨折", "patients": "患者编号不同"}
    return f"{copy['first']} = {copy['second']}：{'，'.join([kind, *(words[flag] for flag in copy['flags'])])}"


def _report(source: Source, labels: Labels, kept: Sequence[_Item], subsets: Sequence[str],
            left_out: Sequence[tuple[_Item, str, str]], copies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    records = [item.record for item in kept]
    members: dict[str, list[Record]] = defaultdict(list)
    for record, subset in zip(records, subsets, strict=True):
        members[subset].append(record)
    names = [name for name in (*SUBSETS, "all") if name in members]
    patients = defaultdict(set)
    notes: dict[str, list[str]] = defaultdict(list)
    for item, subset in zip(kept, subsets, strict=True):
        if item.record.patient_id is not None:
            patients[subset].add(item.record.patient_id)
        for note in item.seen.notes:
            notes[note].append(item.record.path)
    return {
        "source": source.name, "root": str(source.root), "fingerprint": source.fingerprint(),
        "images": len(source.records), "kept": len(kept),
        "sizes": {name: len(members[name]) for name in names},
        "counts": {name: labels.counts(members[name]) for name in names},
        "without_patient_id": sum(record.patient_id is None for record in records),
        "patients": {name: len(patients[name]) for name in names},
        "patient_overlap": patient_overlap(records, subsets),
        "left_out": [{"file": item.record.path, "kind": kind, "reason": reason} for item, kind, reason in left_out],
        "notes": dict(sorted(notes.items())),
        "duplicates": list(copies),
        "notices": list(getattr(source, "notices", [])),
    }


def _write(labels: Labels, output: Path, kept: Sequence[_Item], subsets: Sequence[str],
           left_out: Sequence[tuple[_Item, str, str]], copies: Sequence[dict[str, Any]],
           report: dict[str, Any]) -> None:
    header = ["file", *labels.columns, *_COLUMNS]
    extra = sorted({key for item in kept for key in _extra(item.record)} - set(header))
    rows: dict[str, list[list[object]]] = {subset: [] for subset in ("list", *SUBSETS)}
    for item, subset in zip(kept, subsets, strict=True):
        row = _row(labels, item, subset, extra)
        rows["list"].append(row)
        if subset in rows:
            rows[subset].append(row)
    for name, table in rows.items():
        _write_table(output / f"{name}.csv", [*header, *extra], table)
    _write_table(output / "skipped.csv", ["file", "label", "kind", "reason"],
                 [[item.record.path, labels.name(item.record), kind, reason] for item, kind, reason in left_out])
    _write_table(output / "duplicates.csv", ["first", "second", "kind", "correlation", "labels", "subsets", "flags"],
                 [[one["first"], one["second"], one["kind"], one["correlation"], *(" ".join(one[key]) for key in
                   ("labels", "subsets", "flags"))] for one in copies])
    _write_table(output / "boxes.csv", _BOX, [
        [item.record.path, box.finding, box.x, box.y, box.width, box.height] for item in kept
        if isinstance(item.record, FindingsRecord) for box in item.record.boxes])
    _write_table(output / "absent.csv", ["file"], [[name] for name in report["absent"]])
    write_json(output / "report.json", report)


def _extra(record: Record) -> dict[str, str]:
    """What else is known of a record, as text by column."""
    view = record.view if isinstance(record, FindingsRecord) else ""
    return {**({"view": view} if view else {}), **record.extra}


def _row(labels: Labels, item: _Item, subset: str, extra: Sequence[str]) -> list[object]:
    record, seen, others = item.record, item.seen, _extra(item.record)
    return [record.path, *labels.cells(record), record.patient_id or "",
            "" if record.fold is None else record.fold, subset, seen.width, seen.height, seen.sha256,
            " ".join(seen.notes), *(others.get(key, "") for key in extra)]


def _write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV; with no rows make sure that none is left from an earlier run."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_text(path, text.getvalue())


def summary(report: dict[str, Any]) -> str:
    """A report for people, in Chinese."""
    lines = [f"数据 {report['source']}（{report['root']}）：{report['images']} 张，可用 {report['kept']} 张，"
             f"用时 {report['seconds']} 秒"]
    lines += [f"提示：{notice}" for notice in report["notices"]]
    if report["absent"]:
        lines.append(f"不在磁盘上：{len(report['absent'])} 张，名单见 absent.csv")
    if "annotations" in report:
        lines.append("各征象（finding）：有/没有/未知")
    for subset, counts in report["counts"].items():
        number = report["patients"][subset]
        lines.append(f"  {subset:8s}{report['sizes'][subset]:6d} 张" + (f"（{counts_text(counts)}）" if counts else "")
                     + (f"，{number} 位患者" if number else ""))
    lines += _annotation_lines(report.get("annotations"))
    lines.append(_overlap_line(report))
    kinds = Counter(one["kind"] for one in report["left_out"])
    if kinds:
        lines.append(f"略过 {sum(kinds.values())} 张（{_counted(kinds)}），名单见 skipped.csv")
    lines += [f"{NOTES[kind]}：{len(files)} 张，例如 {files[0]}" for kind, files in report["notes"].items()]
    copies = report["duplicates"]
    if copies:
        exact = sum(one["kind"] == "exact" for one in copies)
        lines.append(f"重复图像 {len(copies)} 对（完全相同 {exact}，近似 {len(copies) - exact}），"
                     "名单见 duplicates.csv")
        worst = sorted(copies, key=lambda one: -len({"labels", "subsets", "folds"} & set(one["flags"])))
        lines += [f"  {_line(one)}" for one in worst[:10]]
    return "\n".join([*lines, *_advice(report)])


def _annotation_lines(seen: dict[str, Any] | None) -> list[str]:
    if seen is None:
        return []
    lines = [f"标注框（box）：{_counted(seen['boxes']) or '没有'}；"
             f"可用的掩膜（mask，框也算）：{_counted(seen['masks']) or '没有'}"]
    words = {"outside": "标注框伸出图像", "empty": "有征象而掩膜是空的"}
    return lines + [f"!! {words[key]}：{len(seen[key])} 张，例如 {seen[key][0]}" for key in words if seen[key]]


def _advice(report: dict[str, Any]) -> list[str]:
    """How to use what was written."""
    if "annotations" in report:
        return [f"已写入 {report['output']}；训练仍用原来的 DataLoader.Source，坏图可设 DataLoader.on_error=skip 略过"]
    # Published reads the split column just written, and needs to be told where to take validation images from when it
    # names none; NoSplit leaves nothing for it to read.
    published = "Published" if "val" in report["counts"] else "Published, val: 0.1"
    rule = "NoSplit" if report["split"] == "NoSplit" else published
    return [f"已写入 {report['output']}；训练时可用：", "  DataLoader:",
            f"    Source: {{name: ListFile, root: {report['root']}, file: {report['output']}/list.csv}}",
            f"    Split: {{name: {rule}}}"]


def _overlap_line(report: dict[str, Any]) -> str:
    if report["without_patient_id"] == report["kept"]:
        return "没有患者编号（patient_id），无法核对患者是否跨子集"
    overlap = report["patient_overlap"]
    shared = {pair: number for pair, number in overlap.items() if number}
    text = f"跨子集的患者：{sum(overlap.values())}" if not shared else (
        f"警告：有患者跨子集（{_counted(shared)}），结果会偏高；请改用 PatientSplit")
    missing = report["without_patient_id"]
    return text + (f"（另有 {missing} 张没有患者编号，无法核对）" if missing else "")


def _counted(numbers: dict[str, int]) -> str:
    return "，".join(f"{name} {number}" for name, number in numbers.items())
