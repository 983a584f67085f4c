"""Images that a list names and the disk lacks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from paddle_cxr.errors import UserError

OnError = Literal["error", "skip"]
_NAMED = 5


class AbsentImages:
    """Refuses an image that is not there, or leaves it out and names it.

    Args:
        on_error: the recipe's ``DataLoader.on_error``, which says the same of images that cannot be read.
    """

    def __init__(self, on_error: OnError) -> None:
        self._on_error = on_error
        self._absent: list[str] = []

    def has(self, image: Path, where: str) -> bool:
        """Whether an image is there; raises :class:`UserError` naming it and ``where`` it is listed."""
        if os.path.isfile(image):
            return True
        if self._on_error == "error":
            raise UserError(f"{where}：找不到图像 {image}；可能没有下载完整：请补上图像或删去这一行，"
                            "训练时也可设 DataLoader.on_error: skip 略过（会点名）")
        self._absent.append(str(image))
        return False

    def note(self, where: object, notices: list[str]) -> None:
        """Say which were left out, if any."""
        if self._absent:
            more = " …" if len(self._absent) > _NAMED else ""
            named = "、".join(self._absent[:_NAMED])
            notices.append(f"{where}：略过 {len(self._absent)} 张找不到的图像：{named}{more}")
