"""Weights that are published in several files."""

from __future__ import annotations

from pathlib import Path

from paddle_cxr.errors import UserError
from paddle_cxr.models.clip_tokenizer import read_json


def shards_of(index: Path) -> list[Path]:
    """The files that a ``model.safetensors.index.json`` names.

    Raises:
        UserError: it is damaged, names none, or names files elsewhere or of another kind (they may be pickles).
    """
    mapping = read_json(index).get("weight_map")
    names = sorted(set(map(str, mapping.values()))) if isinstance(mapping, dict) else []
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors") or not (index.parent / name).is_file():
            raise UserError(f"{index} 列出的 {name!r} 不是这个文件夹里的 safetensors；请重新下载")
    if not names:
        raise UserError(f"{index} 没有列出任何分片（weight_map）；请重新下载")
    return [index.parent / name for name in names]
