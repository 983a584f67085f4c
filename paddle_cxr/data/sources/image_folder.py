"""One folder a class: the simplest layout, in a folder or in a zip."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from paddle_cxr.data.records import ClassInfo, Record, Source
from paddle_cxr.data.sources.layout import class_folders, find_base, list_images, open_root, subfolders, why_missing
from paddle_cxr.errors import UserError
from paddle_cxr.registry import register


@register("source")
class ImageFolder(Source):
    """``root/<class>/<image>``, the classes matched by name or alias; ``root`` may also be a zip or tar.

    An archive is unpacked once, beside itself, or under ``./data`` where its folder is read-only.  A single folder
    wrapping the class folders is looked through.

    Args:
        root: folder or archive.
        patient_pattern: regular expression searched in the file name; its first group is the patient id.
        ignore_unknown: leave out folders that are named after no class, instead of refusing them.
        classes: the classes (supplied by the program).

    Raises:
        UserError: root missing, a folder of no class, a class without folder or images, a pattern that does not
            compile, has no group, or does not match a file.
    """

    def __init__(self, root: str, patient_pattern: str | None = None, ignore_unknown: bool = False, *,
                 classes: tuple[ClassInfo, ...]) -> None:
        self.notices: list[str] = []
        folder = open_root(root, self.notices)
        base = find_base(folder, classes)
        folders = class_folders(base, classes)
        _check_folders(base, [path for _, path in folders], classes, ignore_unknown, self.notices)
        records = folder_records(folder, folders, self.notices, _compiled(patient_pattern))
        super().__init__(Path(root).name, folder, classes, records)
        empty = [name for name, count in self.counts().items() if not count]
        if empty:
            raise UserError(f"{base} 中类别 {'、'.join(empty)} 没有图像：缺少文件夹，或文件夹是空的"
                            f"（现有文件夹：{_names(subfolders(base))}；名称不同可写进该类的 aliases）")
        if patient_pattern is None:
            self.notices.append(f"{base}：没有患者编号（patient_id），只能按图像划分，同一患者的图像可能落在不同子集；"
                                "文件名里有编号时，请写 DataLoader.Source.patient_pattern")

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """Absent or empty root."""
        return why_missing(str(arguments.get("root", "")))


def folder_records(root: Path, folders: Sequence[tuple[int, Path]], notices: list[str],
                   patient_pattern: re.Pattern[str] | None = None) -> list[Record]:
    """Records of ``(label, folder)`` pairs, sorted by name in each; what is no image is counted in ``notices``."""
    records = []
    for label, folder in folders:
        images, others = list_images(folder)
        if others:
            notices.append(f"{folder}：略过 {len(others)} 个不是图像的文件（例如 {others[0].name}）")
        deeper = subfolders(folder)
        if deeper:
            notices.append(f"{folder}：略过子文件夹 {_names(deeper)}（只读取类别文件夹中的图像）")
        records += [Record(image.relative_to(root).as_posix(), label, _patient(image, patient_pattern))
                    for image in images]
    return records


def _check_folders(base: Path, known: Sequence[Path], classes: Sequence[ClassInfo], ignore_unknown: bool,
                   notices: list[str]) -> None:
    """Refuse (or note) folders that no class is named after: most often a misspelt class name."""
    unknown = [folder for folder in subfolders(base) if folder not in known]
    if unknown and ignore_unknown:
        notices.append(f"{base}：略过不属于任何类别的文件夹 {_names(unknown)}")
    elif unknown:
        names = "、".join(info.name for info in classes)
        raise UserError(f"{base} 中的文件夹 {_names(unknown)} 不属于任何类别（Global.classes 有 {names}）；"
                        "请把名称写进某一类的 aliases，或设 ignore_unknown: true")


def _names(folders: Sequence[Path]) -> str:
    return "、".join(folder.name for folder in folders) or "无"


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"DataLoader.Source.patient_pattern：{pattern!r} 不是有效的正则表达式（{error}）") from None
    if not compiled.groups:
        raise UserError(f"DataLoader.Source.patient_pattern：{pattern!r} 里没有括号；第一个括号的内容是患者编号")
    return compiled


def _patient(image: Path, pattern: re.Pattern[str] | None) -> str | None:
    if pattern is None:
        return None
    match = pattern.search(image.name)
    if not match or match.group(1) is None:
        raise UserError(f"{image}：文件名不符合 patient_pattern {pattern.pattern!r}，得不到患者编号")
    return match.group(1)
