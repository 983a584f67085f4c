"""What pair sources made of other sources have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from paddle_cxr.data.pairs.record import PairRecord, PairSource
from paddle_cxr.data.records import Source
from paddle_cxr.registry import find


class PairsOfOther(PairSource):
    """Pairs whose images are another source's, one a record in the same order.

    Args:
        source: whose images.
        records: the pairs.
    """

    def __init__(self, source: Source, records: list[PairRecord]) -> None:
        super().__init__(source.name, source.root, records)
        self.demo = source.demo
        self.notices: list[str] = list(getattr(source, "notices", ()))
        self._source = source

    def read(self, index: int) -> np.ndarray:
        return self._source.read(index)

    def locate(self, index: int) -> str:
        return self._source.locate(index)

    def origin(self, index: int) -> tuple[str, str]:
        return self._source.origin(index)


def why_missing_inside(kind: str, spec: Any, path: str) -> str | None:
    """What the source that ``spec`` describes says of its data, see :meth:`paddle_cxr.data.records.Source.missing`.

    Raises:
        UserError: no such component, naming ``path``.
    """
    given = spec if isinstance(spec, Mapping) else {}
    component = find(kind, given.get("name"), path)
    return component.missing(**{key: value for key, value in given.items() if key != "name"})
