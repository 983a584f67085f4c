"""What an exported folder holds, and reading its record as untrusted input."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pydantic
import yaml

from paddle_cxr.errors import UserError
from paddle_cxr.pdparams import one_line

INFO = "inference.yaml"
ONNX, PDPARAMS = "model.onnx", "model.pdparams"
GRAPHS = ("inference.json", "inference.pdmodel")  # Paddle 3 / Paddle 2.6
PARAMS = "inference.pdiparams"


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


class _ClassEntry(pydantic.BaseModel, strict=True):
    name: str
    zh: str
    en: str


class _Info(pydantic.BaseModel, strict=True, extra="allow"):
    """What an engine needs from ``inference.yaml``."""

    image_shape: list[pydantic.PositiveInt] = pydantic.Field(min_length=3, max_length=3)
    classes: list[_ClassEntry] = pydantic.Field(min_length=2)
    preprocess: dict[str, Any]
    files: dict[str, str]
    demo_data: bool


def read_info(folder: Path) -> dict[str, Any]:
    """``inference.yaml``, checked."""
    file = folder / INFO
    if not file.is_file():
        raise UserError(f"{folder} 不是导出的模型（没有 {INFO}）；请先运行 tools/export.py")
    try:
        return _Info.model_validate(yaml.safe_load(file.read_text(encoding="utf-8"))).model_dump()
    except pydantic.ValidationError as error:
        detail = error.errors()[0]
        problem = f"{'.'.join(map(str, detail['loc']))}：{detail['msg']}"
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        problem = one_line(error)
    raise UserError(f"{file} 损坏（{problem}）；请用 tools/export.py 重新导出")
