"""Which films are frontal."""

from __future__ import annotations

import re
from collections.abc import Iterable

from paddle_cxr.data.pairs.record import PairRecord

# Not \b: PadChest and BIMCV write AP_horizontal.
_FRONTAL = re.compile(r"(pa|ap|frontal|postero-?anterior|antero-?posterior)(?![a-z])", re.IGNORECASE)
_ZH_FRONTAL = re.compile("正位|后前位|前后位")
_ZH_OTHER = re.compile("[侧斜]")  # 正位+侧位: one of the two, and the view does not say which


def is_frontal(view: str) -> bool:
    """Whether a view is a frontal one: PA, AP (``AP Supine`` too), Frontal, or 正位, 后前位 and 前后位."""
    view = view.strip()
    return _FRONTAL.match(view) is not None or (
        _ZH_FRONTAL.search(view) is not None and _ZH_OTHER.search(view) is None)


class FrontalViews:
    """Keeps frontal views, and counts the others and those that are not known to be.

    Args:
        only: False keeps everything.
    """

    def __init__(self, only: bool) -> None:
        self._only, self._other, self._unknown = only, 0, 0

    def keeps(self, view: str) -> bool:
        """Whether a film of this view is used."""
        if not self._only or is_frontal(view):
            return True
        if view.strip():
            self._other += 1
        else:
            self._unknown += 1
        return False

    def of(self, records: Iterable[PairRecord]) -> list[PairRecord]:
        """The records that are used."""
        return [record for record in records if self.keeps(record.view)]

    def note(self, where: object, notices: list[str]) -> None:
        """Say what was left out, if anything."""
        if self._other or self._unknown:
            notices.append(f"{where}：只用正位（frontal），略过其他体位 {self._other} 张、体位不明 {self._unknown} 张")
