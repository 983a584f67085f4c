"""Which data the runs are made of at present, so that figures of other data are not taken for theirs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from paddle_cxr.compare.plan import Run
from paddle_cxr.data.stamp import data_stamp
from paddle_cxr.errors import UserError
from paddle_cxr.registry import build


def with_data(runs: Sequence[Run]) -> list[Run]:
    """The runs with ``data`` filled in.  Every data set is listed once, and no image is opened."""
    known: dict[str, str | None] = {}
    of: dict[str, str | None] = {}
    for run in runs:
        told = _told(run)
        asked = json.dumps(told, sort_keys=True, default=str)
        if asked not in known:
            known[asked] = _stamp(*told)
        of[run.id] = known[asked]
    return [replace(run, data={id_: stamp for id_ in (run.id, *run.after) if (stamp := of[id_])}) for run in runs]


def _told(run: Run) -> tuple[str, Any, str]:
    """What a run's recipe says of its data: the kind of source, the source, what to do about images that are absent."""
    section = run.recipe().get("DataLoader")
    section = section if isinstance(section, dict) else {}
    return "pairs" if run.task is None else "findings", section.get("Source"), section.get("on_error", "error")


def _stamp(kind: str, source: Any, on_error: str) -> str | None:
    """None for data that are not there or cannot be listed: the run itself will say why."""
    try:
        return data_stamp(build(kind, source, "DataLoader.Source", on_error=on_error))
    except UserError:
        return None
