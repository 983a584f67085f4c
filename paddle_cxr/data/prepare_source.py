"""Opening a recipe's data set to check it, with a list of what is not on disk."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from paddle_cxr.data.findings import FindingsSource
from paddle_cxr.data.sources.findings_layout import AbsentFromDisk
from paddle_cxr.registry import accepted_arguments, build, find


def open_findings(spec: Mapping[str, Any], path: str) -> tuple[FindingsSource, list[str]]:
    """The source of findings that a recipe names, and every image that its tables name and the disk lacks.

    Args:
        spec: the component. path: its YAML path.

    Raises:
        UserError: what the source has to say; images absent (all named on stderr), unless the recipe skips them.
    """
    absent: list[str] = []
    if spec.get("absent") == "skip" and "absent" in accepted_arguments(find("findings", spec.get("name"), path)):
        try:
            return build("findings", {**spec, "absent": "error"}, path), absent
        except AbsentFromDisk as error:
            absent = error.paths
    try:
        return build("findings", spec, path), absent
    except AbsentFromDisk as error:
        print("\n".join(error.paths), file=sys.stderr)
        raise
