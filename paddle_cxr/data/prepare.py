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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from paddle_cxr.data.records import Record, Source
from paddle_cxr.data.splits import SUBSETS, patient_overlap
from paddle_cxr.data.verify import NOTES, Duplicate, Inspection, find_duplicates, groups, inspect_all
from paddle_cxr.errors import UserError
from paddle_cxr.files import write_json, write_text

_COLUMNS = ("file", "label", "patient_id", "fold", "split", "width", "height", "sha256", "notes")


@dataclass(frozen=True)
class _Item:
    """A record with what was seen in its file."""

    record: Record
    seen: Inspection
    place: str


def prepare(source: Source, split: Callable[[Sequence[Record]], list[str]], *, output: str | Path,
            on_error: Literal["error", "skip"] = "error", duplicates: Literal["report", "drop", "error"] = "report",
            workers: int | Literal["auto"] = "auto") -> dict[str, Any]:
    """Verify every image of ``source``, split it, and write lists and a report into ``output``.

    Written: ``list.csv`` (readable by ListFile with the source's root), one list a subset, ``duplicates.csv`` where
    there are any, ``skipped.csv`` where images were left out, and ``report.json``, which is also returned.

    Args:
        split: see :mod:`paddle_cxr.data.splits`; applied to what is kept.
        on_error: what to do about unreadable images: ``error`` names them all on stderr and stops; ``skip`` leaves
            them out.
        duplicates: ``report``; ``drop``: keep the first of the copies, or none where their labels differ, since at
            least one is wrong; ``error``: stop where a copy lies in two subsets or has two labels.
        workers: number of processes, or ``auto``.

    Raises:
        UserError: the source is not on disk, unreadable images or duplicates as above, nothing left of the data set or
            of a class, cannot write; a package that an image needs is not installed (never a reason to skip it).
    """
    started = time.monotonic()
    if source.demo:
        raise UserError("内置仿真数据（phantom）是读取时画出来的，没有文件可检查；请把 DataLoader.Source 指向真实数据")
    output = Path(output)
    places = [source.locate(index) for index in range(len(source.records))]
    items = [_Item(*one) for one in zip(source.records, inspect_all(places, workers), places, strict=True)]

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
        kept, dropped = _drop(kept, pairs)
        left_out += dropped
    if not kept:
        raise UserError(f"数据 {source.root} 检查后没有剩下可用的图像")
    _check_classes_left(source, kept)
    subsets = split([item.record for item in kept])
    subset_of = {item.record.path: subset for item, subset in zip(kept, subsets, strict=True)}
    copies = [_describe(source, pair, two, subset_of) for pair, two in found]
    if duplicates == "error":
        _refuse(copies)

    report = _report(source, kept, subsets, left_out, copies)
    report["split"] = type(split).__name__
    report["output"] = str(output)
    report["seconds"] = round(time.monotonic() - started, 1)
    _write(source, output, kept, subsets, left_out, copies, report)
    return report


def _check_classes_left(source: Source, kept: Sequence[_Item]) -> None:
    """A class that lost all its images would silently become one the model never sees."""
    left = {item.record.label for item in kept}
    had = source.counts()
    gone = [f"{info.name}（原有 {had[info.name]} 张）" for label, info in enumerate(source.classes)
            if had[info.name] and label not in left]
    if gone:
        raise UserError(f"数据 {source.root} 检查后，类别 {'、'.join(gone)} 一张可用的图像也没有剩下；请修复这些图像，"
                        "或从 Global.classes 中去掉该类")


def _drop(kept: list[_Item], pairs: Sequence[Duplicate]) -> tuple[list[_Item], list[tuple[_Item, str, str]]]:
    dropped: dict[int, tuple[str, str]] = {}
    for copies in groups(pairs):
        first = kept[copies[0]]
        if len({kept[index].record.label for index in copies}) > 1:
            dropped.update({index: ("duplicate_label", "同一图像有不同的标签") for index in copies})
        else:
            dropped.update({index: ("duplicate", f"与 {first.record.path} 重复") for index in copies[1:]})
    return ([item for index, item in enumerate(kept) if index not in dropped],
            [(kept[index], *dropped[index]) for index in sorted(dropped)])


def _describe(source: Source, pair: Duplicate, two: tuple[_Item, _Item], subset_of: dict[str, str]) -> dict[str, Any]:
    """One pair of copies as a row of ``duplicates.csv``; ``flags`` says why it is worse than untidy."""
    one, other = (item.record for item in two)
    subsets = [subset_of.get(record.path, "") for record in (one, other)]  # "" for an image that was dropped
    flags = []
    if one.label != other.label:
        flags.append("labels")
    if all(subsets) and subsets[0] != subsets[1]:
        flags.append("subsets")
    if one.fold != other.fold:
        flags.append("folds")
    if one.patient_id != other.patient_id:
        flags.append("patients")
    names = [source.classes[record.label].name for record in (one, other)]
    return {"kind": pair.kind, "correlation": round(pair.correlation, 4), "flags": flags, "first": one.path,
            "second": other.path, "labels": names, "subsets": subsets, "patients": [one.patient_id, other.patient_id]}


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


def _report(source: Source, kept: Sequence[_Item], subsets: Sequence[str],
            left_out: Sequence[tuple[_Item, str, str]], copies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    records = [item.record for item in kept]
    counts = Counter(zip(subsets, (record.label for record in records), strict=True))
    names = [name for name in (*SUBSETS, "all") if name in set(subsets)]
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
        "counts": {name: {info.name: counts[name, label] for label, info in enumerate(source.classes)}
                   for name in names},
        "without_patient_id": sum(record.patient_id is None for record in records),
        "patients": {name: len(patients[name]) for name in names},
        "patient_overlap": patient_overlap(records, subsets),
        "left_out": [{"file": item.record.path, "kind": kind, "reason": reason} for item, kind, reason in left_out],
        "notes": dict(sorted(notes.items())),
        "duplicates": list(copies),
        "notices": list(getattr(source, "notices", [])),
    }


def _write(source: Source, output: Path, kept: Sequence[_Item], subsets: Sequence[str],
           left_out: Sequence[tuple[_Item, str, str]], copies: Sequence[dict[str, Any]],
           report: dict[str, Any]) -> None:
    extra = sorted({key for item in kept for key in item.record.extra} - set(_COLUMNS))
    rows: dict[str, list[list[object]]] = {subset: [] for subset in ("list", *SUBSETS)}
    for item, subset in zip(kept, subsets, strict=True):
        row = _row(source, item, subset, extra)
        rows["list"].append(row)
        if subset in rows:
            rows[subset].append(row)
    for name, table in rows.items():
        _write_table(output / f"{name}.csv", [*_COLUMNS, *extra], table)
    _write_table(output / "skipped.csv", ["file", "label", "kind", "reason"],
                 [[item.record.path, source.classes[item.record.label].name, kind, reason]
                  for item, kind, reason in left_out])
    _write_table(output / "duplicates.csv", ["first", "second", "kind", "correlation", "labels", "subsets", "flags"],
                 [[one["first"], one["second"], one["kind"], one["correlation"], *(" ".join(one[key]) for key in
                   ("labels", "subsets", "flags"))] for one in copies])
    write_json(output / "report.json", report)


def _row(source: Source, item: _Item, subset: str, extra: Sequence[str]) -> list[object]:
    record, seen = item.record, item.seen
    return [record.path, source.classes[record.label].name, record.patient_id or "",
            "" if record.fold is None else record.fold, subset, seen.width, seen.height, seen.sha256,
            " ".join(seen.notes), *(record.extra.get(key, "") for key in extra)]


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
    for subset, counts in report["counts"].items():
        number = report["patients"][subset]
        lines.append(f"  {subset:8s}{sum(counts.values()):6d} 张（{'，'.join(f'{k} {v}' for k, v in counts.items())}）"
                     + (f"，{number} 位患者" if number else ""))
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
    # Published reads the split column just written, and needs to be told where to take validation images from when it
    # names none; NoSplit leaves nothing for it to read.
    published = "Published" if "val" in report["counts"] else "Published, val: 0.1"
    rule = "NoSplit" if report["split"] == "NoSplit" else published
    lines += [f"已写入 {report['output']}；训练时可用：", "  DataLoader:",
              f"    Source: {{name: ListFile, root: {report['root']}, file: {report['output']}/list.csv}}",
              f"    Split: {{name: {rule}}}"]
    return "\n".join(lines)


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
