"""What the sources of findings have in common: choosing findings, finding the images, and those that are absent."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from tqdm import tqdm

from paddle_cxr.data.findings import FindingBox
from paddle_cxr.data.image import EXTENSIONS
from paddle_cxr.data.records import ClassInfo, Record
from paddle_cxr.data.sources.layout import listing
from paddle_cxr.errors import UserError, did_you_mean

Absent = Literal["error", "skip"]
"""What to do about images that the tables name and the disk lacks: stop, or leave them out and say how many."""

_NAMED = 3  # absent images named in a message

R = TypeVar("R", bound=Record)


class AbsentFromDisk(UserError):
    """Images that the tables name are not on disk; ``paths`` are all of them."""

    def __init__(self, message: str, paths: Sequence[str]) -> None:
        super().__init__(message)
        self.paths = list(paths)


def choose_findings(known: Sequence[ClassInfo], wanted: Sequence[str] | None, component: str) -> tuple[ClassInfo, ...]:
    """The findings of ``known`` that ``wanted`` names (by name, English, Chinese name or alias), in its order.

    Args:
        wanted: None for all.

    Raises:
        UserError: no such finding, one named twice, or none at all.
    """
    if wanted is None:
        return tuple(known)
    chosen = [_named(known, name, component) for name in wanted]
    twice = next((info.name for number, info in enumerate(chosen) if info in chosen[:number]), None)
    if twice is not None or not chosen:
        raise UserError(f"{component}.findings：{f'{twice} 写了两次' if twice else '一个征象也没有'}；"
                        "每个征象（finding）写一次，不写 findings 就用全部")
    return tuple(chosen)


def _named(known: Sequence[ClassInfo], name: str, component: str) -> ClassInfo:
    for info in known:
        if info.matches(name) or name.strip() in (info.zh, info.en):
            return info
    names = [info.name for info in known]
    some = "、".join(names[:30]) + (f" 等 {len(names)} 个" if len(names) > 30 else "")
    raise UserError(f"{component}.findings：没有征象 {name!r}{did_you_mean(name, names)}（有：{some}）")


def spellings(findings: Sequence[ClassInfo]) -> dict[str, str]:
    """Every spelling of the findings in small letters → name, for tables that name them in 100,000 rows."""
    return {text.lower(): info.name for info in findings for text in (*info.aliases, info.name)}


class SharedLabels:
    """One dict for all images with the same labels: 160,000 images of 190 findings would take 800 MB otherwise.

    Args:
        findings: whose labels it makes.
    """

    def __init__(self, findings: Sequence[ClassInfo]) -> None:
        self._names = [info.name for info in findings]
        self._known: dict[tuple[int | None, ...], dict[str, int | None]] = {}

    def of(self, values: Sequence[int | None]) -> dict[str, int | None]:
        """The dict of these labels, one a finding."""
        key = tuple(values)
        if key not in self._known:
            self._known[key] = dict(zip(self._names, key, strict=True))
        return self._known[key]


def images_below(folder: Path, depth: int) -> dict[str, str]:
    """File name → path below ``folder`` (forward slashes) of the images in it and in folders up to ``depth`` below.

    A name that lies in several folders is taken from the first, the upper before the lower, then by name.  Raises
    UserError for a folder that may not be read.
    """
    found: dict[str, str] = {}
    level = [""]
    for _ in range(depth + 1):
        deeper = []
        for prefix in level:
            # scandir knows what is a folder without asking the disk again.
            with listing(folder / prefix), os.scandir(folder / prefix) as entries:
                for entry in entries:
                    if entry.name.lower().endswith(EXTENSIONS):
                        found.setdefault(entry.name, prefix + entry.name)
                    elif not entry.name.startswith(".") and entry.is_dir():
                        deeper.append(f"{prefix}{entry.name}/")
        level = sorted(deeper)
    return found


def files_there(folder: Path, paths: Iterable[str], dataset: str) -> list[bool]:
    """Whether each path below ``folder`` is a file; with a progress bar, since a network disk takes its time."""
    base = f"{folder}/"
    bar = tqdm(list(paths), desc=f"{dataset} 找图像", disable=None, leave=False, mininterval=0.5)
    return [os.path.isfile(base + path) for path in bar]


def usable_records(records: Sequence[R], there: Sequence[bool], absent: Absent, folder: Path, component: str,
                   notices: list[str]) -> list[R]:
    """The records whose image is on disk.

    Args:
        there: whether the image of each record is.
        absent: what to do about the others: ``error``, or ``skip`` them and put a line into ``notices``.
        folder: where the images were looked for.
        component: the source's name in recipes, for messages.

    Raises:
        AbsentFromDisk: an image absent (naming some, with their number).
        UserError: an image listed twice, or nothing left.
    """
    seen: set[str] = set()
    for record in records:
        if record.path in seen:
            raise UserError(f"{folder}：图像 {record.path} 在表中列了两次；请删去一行")
        seen.add(record.path)
    gone = [record.path for record, found in zip(records, there, strict=True) if not found]
    if gone:
        line = (f"{folder}：表中的 {len(records)} 张图有 {len(gone)} 张不在磁盘上"
                f"（例如 {'、'.join(gone[:_NAMED])}）")
        if absent == "error":
            raise AbsentFromDisk(f"{line}；请补齐下载，或设 {component}.absent=skip 略过它们"
                                 "（全部名单用 tools/prepare_data.py 列出）", gone)
        notices.append(f"{line}，略过（全部名单见 tools/prepare_data.py 写的 absent.csv）")
    kept = [record for record, found in zip(records, there, strict=True) if found]
    if not kept:
        raise UserError(f"{folder} 里没有一张可用的图（{'；'.join(notices) or '表是空的'}）；"
                        f"请检查 {component} 的参数，数据下载方法见 docs/data.md")
    return kept


def check_boxes_fit(boxes: Sequence[FindingBox], shape: tuple[int, int], where: str, advice: str) -> None:
    """Refuse an image smaller than the boxes drawn on it: it was resized, and the boxes lie elsewhere now.

    Args:
        shape: (H, W) of the image. where: its path. advice: the way out, for the message.
    """
    right = max((box.x + box.width for box in boxes), default=0.0)
    bottom = max((box.y + box.height for box in boxes), default=0.0)
    if right > shape[1] * 1.01 + 1 or bottom > shape[0] * 1.01 + 1:  # a drawn box may stick out by a line
        raise UserError(f"{where}：图像为 {shape[1]}×{shape[0]}，而标注框（box）到 "
                        f"({right:.0f}, {bottom:.0f})；图像缩小过，框对不上；{advice}")
