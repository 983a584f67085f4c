"""Sentences filled from the columns of a table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from paddle_cxr.errors import UserError, did_you_mean

_PART = re.compile(r"\[([^\[\]]*)\]|([^\[\]]+)|([\[\]])")
_FIELD = re.compile(r"\{([^{}]*)\}")


class Template:
    """A text with columns in braces and, in square brackets, parts that are left out where a column of theirs is empty.

    ``{text}[ {view} view.][ {age}-year-old {sex} patient.]`` gives "Pneumonia. AP view. 59-year-old female patient."
    or, with no age, "Pneumonia. AP view."

    Args:
        text: the template.
        path: its YAML path, for errors.
        values: column → cell → what to write for it, e.g. ``{sex: {F: female, M: male}}``.

    Raises:
        UserError: brackets or braces that do not close.
    """

    def __init__(self, text: str, path: str, values: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self._path, self._values = path, values or {}
        self._parts: list[tuple[str, bool]] = []
        for optional, plain, stray in _PART.findall(text):
            if stray or "{" in _FIELD.sub("", optional + plain) or "}" in _FIELD.sub("", optional + plain):
                raise UserError(f"{path}：括号没有配对：{text!r}；列名写在 {{}} 里，可以省略的部分写在 [] 里，不能嵌套")
            self._parts.append((optional or plain, not plain))
        self.fields = list(dict.fromkeys(name for part, _ in self._parts for name in _FIELD.findall(part)))

    def check(self, rows: Sequence[Mapping[str, str]]) -> None:
        """Refuse columns that no row has, and empty cells outside the brackets."""
        columns = {name for row in rows for name, cell in row.items() if cell}
        for name in (*self.fields, *self._values):
            if name not in columns:
                raise UserError(f"{self._path}：没有列 {name!r}{did_you_mean(name, columns)}"
                                f"（有：{'、'.join(sorted(columns))}）")
        needed = [name for part, optional in self._parts if not optional for name in _FIELD.findall(part)]
        for name in needed:
            empty = sum(not row.get(name) for row in rows)
            if empty:
                raise UserError(f"{self._path}：{empty} 行没有 {name}；请把用到 {{{name}}} 的部分写进方括号 […]，"
                                "没有值时就省去")

    def fill(self, row: Mapping[str, str]) -> str:
        """The text for one row, blanks normalised."""
        filled = "".join(_FIELD.sub(lambda field: self._cell(field.group(1), row), part)
                         for part, optional in self._parts
                         if not optional or all(row.get(name) for name in _FIELD.findall(part)))
        return " ".join(filled.split())

    def _cell(self, name: str, row: Mapping[str, str]) -> str:
        cell = row.get(name, "")
        return self._values.get(name, {}).get(cell, cell)
