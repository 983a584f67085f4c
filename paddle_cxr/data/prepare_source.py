"""Opening a recipe's data set to check it, with a list of what is not on disk."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from paddle_cxr.data.records import Source
from paddle_cxr.data.sources.findings_layout import AbsentFromDisk
from paddle_cxr.registry import build


def open_to_check(kind: str, spec: Mapping[str, Any], path: str, **context: Any) -> tuple[Source, list[str]]:
    """The data set that a recipe names, and every image that its tables name and the disk lacks.

    Args:
        kind: ``source`` or ``findings``.
        spec: the component. path: its YAML path.
        context: what the program supplies, as to :func:`paddle_cxr.registry.build`.

    Raises:
        UserError: what the source has to say; images absent (all named on stderr), unless the recipe skips them.
    """
    absent: list[str] = []
    strict = _strict(spec)
    if strict != spec:
        try:
            return build(kind, strict, path, **context), absent
        except AbsentFromDisk as error:
            absent = error.paths
    try:
        return build(kind, spec, path, **context), absent
    except AbsentFromDisk as error:
        print("\n".join(error.paths), file=sys.stderr)
        raise


def _strict(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The same component, and the one within it, with nothing skipped: so that what is absent is told."""
    return {key: "error" if (key, value) == ("absent", "skip") else
            _strict(value) if key == "source" and isinstance(value, Mapping) else value for key, value in spec.items()}
