"""A published model's folder in the Hugging Face layout: is it whole, before anything in it is read?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paddle_cxr.errors import UserError

WEIGHTS = "model.safetensors"


def require_files(folder: Path, names: Sequence[str], model: str, source: str = "") -> None:
    """Refuse a folder that lacks one of the files ``names``.

    Args:
        model: what messages call it.
        source: where to get it, in full-width brackets, or nothing.

    Raises:
        UserError: no such folder; its weights are a pickle only; a file is missing.
    """
    if not folder.is_dir():
        raise UserError(f"找不到 {model} 模型文件夹 {folder}；请先下载权重{source}，再把 folder 改为它的路径")
    missing = [name for name in names if not (folder / name).is_file()]
    if WEIGHTS in missing and (folder / "pytorch_model.bin").is_file():
        raise UserError(f"{folder} 里只有 pytorch_model.bin：它是可执行的 pickle，不安全，不读取；"
                        f"请换成 {WEIGHTS}（发布页上有，或用 safetensors 转换）")
    if missing:
        raise UserError(f"{model} 模型文件夹不完整：{folder} 里缺 {'、'.join(missing)}；请重新下载")
