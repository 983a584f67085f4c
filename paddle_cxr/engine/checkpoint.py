"""Checkpoints: a folder that is whole or absent, with weights anyone can load and state to resume from.

``checkpoints/latest``  model.safetensors, model.json, state.safetensors, state.json   (resume)
``checkpoints/best``    model.safetensors, model.json                                  (use)

A folder cannot be replaced in one system call, so it is swapped in two: the old one is renamed to ``X.old``, the new
one to ``X``.  Whenever the process dies, ``X`` or ``X.old`` is complete, and :func:`find` knows which.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from paddle_cxr.errors import UserError
from paddle_cxr.files import write_json, writing_to
from paddle_cxr.weights import read_safetensors, write_safetensors

STATE_TENSORS, STATE_JSON = "state.safetensors", "state.json"


def replace_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write a new folder, then swap it in for ``folder``."""
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    with writing_to(folder):
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
    try:
        fill(new)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    with writing_to(folder):
        if folder.exists():  # otherwise an earlier swap stopped half-way and .old is the only whole one: keep it
            shutil.rmtree(old, ignore_errors=True)
            os.replace(folder, old)
        os.replace(new, folder)
        _sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)


def find(folder: Path) -> Path | None:
    """The complete checkpoint named ``folder``, or None."""
    for candidate in (folder, folder.with_name(folder.name + ".old")):
        if os.path.isdir(candidate):
            return candidate
    return None


def _sync(folder: Path) -> None:
    """Make the renames last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_state(folder: Path, tensors: dict[str, np.ndarray], numbers: dict[str, Any]) -> None:
    """Write training state (optimizer moments, raw weights beside EMA …) into ``folder``."""
    write_safetensors(folder / STATE_TENSORS, tensors, {})
    write_json(folder / STATE_JSON, numbers)


def read_state(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what :func:`write_state` wrote; raises :class:`UserError` for a damaged file."""
    path = folder / STATE_JSON
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(numbers, dict):
            raise ValueError(type(numbers).__name__)
    except (OSError, ValueError) as error:
        raise UserError(f"检查点损坏：{path}（{error}）；"
                        "用 -o Global.resume=false 从头训练（旧结果会改名保留）") from None
    tensors, _ = read_safetensors(folder / STATE_TENSORS)
    return tensors, numbers


def optimizer_tensors(optimizer: paddle.optimizer.Optimizer, model: paddle.nn.Layer) -> dict[str, np.ndarray]:
    """The optimizer's accumulators by structured name, e.g. ``layer1.0.conv1.weight|moment1``.

    Paddle names them after a process-wide counter (``conv2d_7.w_0_moment1_0``), which depends on what else was built.
    """
    names = {parameter.name: name for name, parameter in model.named_parameters()}
    result = {}
    for accumulator, by_parameter in optimizer._accumulators.items():
        for parameter_name, tensor in by_parameter.items():
            result[f"{names[parameter_name]}|{accumulator}"] = tensor.numpy()
    return result


def restore_optimizer(optimizer: paddle.optimizer.Optimizer, model: paddle.nn.Layer,
                      tensors: dict[str, np.ndarray]) -> None:
    """Give the optimizer back what :func:`optimizer_tensors` returned (before its first step)."""
    parameters = dict(model.named_parameters())
    holder = {}
    for key, value in tensors.items():
        name, _, accumulator = key.partition("|")
        if name not in parameters:
            raise UserError(f"检查点与模型不符：优化器状态里有 {name}，模型里没有；"
                            "用 -o Global.resume=false 从头训练（旧结果会改名保留）")
        # Paddle looks an accumulator up under this name when it first makes it.
        holder[f"{parameters[name].name}_{accumulator}_0"] = paddle.to_tensor(value)
    optimizer.set_state_dict(holder)
