"""Rectangles around findings as tables give them: x, y (top left corner), width, height in pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from paddle_cxr.data.findings import FindingBox
from paddle_cxr.data.sources.layout import inside
from paddle_cxr.data.sources.tables import read_rows
from paddle_cxr.errors import UserError

_COLUMNS = ("file", "finding", "x", "y", "width", "height")


def box_of(finding: str, numbers: Sequence[object], where: str) -> FindingBox:
    """A box of ``numbers`` = x, y, width, height, as text or numbers.

    Raises:
        UserError: naming ``where``: not four finite numbers, or a box without area.
    """
    try:
        x, y, width, height = (float(number) for number in numbers)  # type: ignore[arg-type]  # refused below
    except (TypeError, ValueError, OverflowError):  # the last: an integer of 400 digits
        x = math.nan
    if not math.isfinite(x) or not all(map(math.isfinite, (y, width, height))) or min(width, height) <= 0:
        raise UserError(f"{where}：标注框（box）应是四个数 x、y、width、height，宽和高大于 0，"
                        f"现在是 {'、'.join(str(number)[:20] or '空' for number in numbers)}")
    return FindingBox(finding, x, y, width, height)


def read_boxes(file: Path) -> Iterator[tuple[str, str, FindingBox]]:
    """("file:line", image path, box) of each row of a CSV with the columns file, finding, x, y, width, height.

    Raises:
        UserError: no such file or column, a row that is no box, a path leading out of the data set.
    """
    for where, (image, finding, *numbers) in read_rows(file, _COLUMNS, "FindingsFile 的 boxes"):
        yield where, inside(image, where), box_of(finding, numbers, where)
