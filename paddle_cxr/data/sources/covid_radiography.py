"""COVID-19 Radiography Database (Chowdhury et al. 2020, Rahman et al. 2021) as downloaded from Kaggle."""

from __future__ import annotations

from pathlib import Path

from paddle_cxr.data.records import ClassInfo, Record, Source
from paddle_cxr.data.sources.image_folder import folder_records
from paddle_cxr.data.sources.layout import class_folders, entries, find_base, open_root, subfolders, why_missing
from paddle_cxr.errors import UserError
from paddle_cxr.registry import register


@register("source")
class CovidRadiography(Source):
    """``COVID-19_Radiography_Dataset/{COVID,Lung_Opacity,Normal,Viral Pneumonia}/{images,masks}/<name>.png``.

    The 2021 release has 3,616 + 6,012 + 10,192 + 1,345 images of 299×299 and lung masks of 256×256 under the same
    file names; the mask's path goes to ``extra["mask"]``.  The 2020 releases have three classes (``COVID-19`` or
    ``COVID``, ``NORMAL``, ``Viral Pneumonia``) with the images directly in the class folder and no masks.  A folder
    that no class in ``Global.classes`` is named after (by name or alias) is left out, which is how one leaves out
    Lung_Opacity.  ``*.metadata.xlsx`` lists file name, format, size and origin, nothing that identifies a patient.

    The database has no patient ids: images of one patient may fall on both sides of a split.

    Args:
        root: folder, or the archive as downloaded (see :class:`ImageFolder`).
        classes: the classes (supplied by the program).

    Raises:
        UserError: root missing, or a class without folder or images.
    """

    def __init__(self, root: str, *, classes: tuple[ClassInfo, ...]) -> None:
        self.notices = ["COVID-19 Radiography Database 没有患者编号（patient_id）：只能按图像划分，"
                        "同一患者的图像可能落在不同子集，结果会偏高"]
        folder = open_root(root, self.notices)
        base = find_base(folder, classes)
        found = class_folders(base, classes)
        left_out = [one.name for one in subfolders(base) if one not in [path for _, path in found]]
        if left_out:
            self.notices.append(f"{base}：略过不在 Global.classes 中的文件夹 {'、'.join(left_out)}")
        records = [record for label, one in found for record in _class_records(folder, label, one, self.notices)]
        super().__init__("COVID-19 Radiography Database", folder, classes, records)
        empty = [name for name, count in self.counts().items() if not count]
        if empty:
            raise UserError(f"{base} 中类别 {'、'.join(empty)} 没有图像：缺少文件夹，或文件夹是空的（未用到的文件夹："
                            f"{'、'.join(left_out) or '无'}；名称不同可写进该类的 aliases）")

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """Absent or empty root."""
        return why_missing(str(arguments.get("root", "")))


def _class_records(root: Path, label: int, folder: Path, notices: list[str]) -> list[Record]:
    images, masks = folder / "images", folder / "masks"
    records = folder_records(root, [(label, images if images.is_dir() else folder)], notices)
    if not masks.is_dir():
        return records
    known = {entry.name for entry in entries(masks)}
    prefix = masks.relative_to(root).as_posix()
    result, without = [], 0
    for record in records:
        name = Path(record.path).name
        without += name not in known
        extra = {"mask": f"{prefix}/{name}"} if name in known else {}
        result.append(Record(record.path, record.label, extra=extra))
    if without:
        notices.append(f"{masks}：{without} 张图像没有同名掩膜（mask）")
    return result
