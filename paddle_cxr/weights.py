"""Saving, loading and applying weights: safetensors with a JSON beside them, and Paddle's ``.pdparams``.

    folder/model.safetensors    tensors by parameter name: numbers only, nothing to execute
    folder/model.json           what they belong to: architecture, classes, preprocess, image_shape, version, parent …
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.files import write_atomic, write_json, writing_to
from paddle_cxr.pdparams import one_line, read_pdparams, to_numpy

if TYPE_CHECKING:
    from paddle import Tensor
    from paddle.nn import Layer

TENSORS, META = "model.safetensors", "model.json"


def save_weights(folder: str | Path, state: Mapping[str, np.ndarray | Tensor], meta: Mapping[str, Any]) -> None:
    """Write ``model.safetensors`` and ``model.json`` into ``folder``.

    Args:
        folder: made if absent.
        state: tensors by parameter name, as ``model.state_dict()`` gives them.
        meta: what :func:`apply_weights` and the tools need to know later; ``architecture`` at least.

    Raises:
        UserError: no space, no permission.
    """
    folder = Path(folder)
    # Stopped between the two files, a save leaves tensors without JSON, which does not load: never a pair that
    # does not belong together.
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / META).unlink(missing_ok=True)
    write_safetensors(folder / TENSORS, state)
    write_json(folder / META, dict(meta))


def load_weights(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read weights from a folder of :func:`save_weights`, a ``.safetensors`` or a ``.pdparams`` file.

    Returns:
        Tensors by parameter name, and their meta data: the JSON beside the file (same name, ``.json``), or an empty
        dict for a lone file.

    Raises:
        UserError: absent, damaged, of an unknown kind, or a pickle that wants to run something.
    """
    path = Path(path)
    file = path / TENSORS if os.path.isdir(path) else path
    if not os.path.isfile(file):
        raise UserError(f"找不到权重文件 {file}；请检查路径（可给文件夹、.safetensors 或 .pdparams）")
    readers = {".safetensors": lambda: read_safetensors(file)[0], ".pdparams": lambda: read_pdparams(file)}
    if file.suffix not in readers:
        raise UserError(f"不认识的权重文件 {file}：应为 .safetensors 或 .pdparams，或装有 {TENSORS} 的文件夹")
    beside = file.with_suffix(".json")
    if os.path.isdir(path) and not os.path.isfile(beside):
        raise UserError(f"权重不完整：{path} 里缺 {META}（保存时中断？）；请换一个检查点（checkpoint）")
    return readers[file.suffix](), _read_meta(beside) if os.path.isfile(beside) else {}


def _read_meta(file: Path) -> dict[str, Any]:
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(meta, dict):
            raise ValueError("应为一个对象（object）")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"权重说明文件损坏：{file}（{one_line(error)}）；请换一个检查点（checkpoint）") from None
    return meta


def write_safetensors(path: str | Path, tensors: Mapping[str, np.ndarray | Tensor],
                      metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors (any shape and numeric type) and a little text to one ``.safetensors`` file, atomically."""
    from safetensors.numpy import save

    # The format stores bytes as they lie in memory, so they must lie in C order.
    arrays = {name: np.asarray(to_numpy(tensor), order="C") for name, tensor in tensors.items()}
    # Not save_file: a full disk would raise its own error and not the OSError that becomes one clear line.
    write_atomic(path, lambda temporary: temporary.write_bytes(save(arrays, dict(metadata) if metadata else None)))


def read_safetensors(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata of a ``.safetensors`` file; raises :class:`UserError` if it is absent or damaged."""
    from safetensors import safe_open

    if not os.path.isfile(path):
        raise UserError(f"找不到权重文件 {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    # safetensors raises its own error, OSError, and TypeError for types NumPy lacks: to the user they are one thing.
    except Exception as error:
        raise UserError(f"权重文件损坏或不完整：{path}（{one_line(error)}）；"
                        "请重新下载或换一个检查点（checkpoint）") from None


def apply_weights(model: Layer, state: Mapping[str, np.ndarray], meta: Mapping[str, Any], *, path: str | Path,
                  allow_head_mismatch: bool = False, prefix: str = "") -> list[str]:
    """Copy ``state`` into ``model`` after checking that it fits; a model is changed wholly or not at all.

    Args:
        model: with ``arch`` (name), ``head`` and ``stem`` (names of the last and the first layer) as
            :class:`paddle_cxr.models.ResNet` has them; a model without them must match to the letter.
        state: tensors by name.
        meta: ``architecture`` is compared with ``model.arch`` where both exist.
        path: where they came from, for messages.
        allow_head_mismatch: for fine-tuning.  A head for another number of classes (or none) is left as initialised,
            and a first convolution for 3 channels is summed over them for a model with 1 channel: on a grey image
            copied to R, G and B it computes just that.
        prefix: load only names that start with it, e.g. ``image_encoder.``, and cut it off.

    Returns:
        What was left out or converted, one Chinese line each.

    Raises:
        UserError: another architecture; names missing, unexpected or of another shape.
    """
    import paddle

    if prefix:
        state = {name[len(prefix):]: value for name, value in state.items() if name.startswith(prefix)}
        if not state:
            raise UserError(f"{path}：没有以 {prefix!r} 开头的参数")
    else:
        _check_architecture(model, meta, path)
    wanted = model.state_dict()
    notices: list[str] = []
    ready = dict(state)
    if allow_head_mismatch:
        notices += _sum_channels(model, ready, wanted)
        notices += _drop_head(model, ready, wanted)
    _check_names_and_shapes(ready, wanted, path)
    for name, value in ready.items():
        wanted[name].set_value(paddle.to_tensor(value, dtype=wanted[name].dtype))
    return notices


def _check_architecture(model: Layer, meta: Mapping[str, Any], path: str | Path) -> None:
    saved, built = meta.get("architecture"), getattr(model, "arch", None)
    if saved and built and saved != built:
        raise UserError(f"网络结构不符（architecture）：{path} 是 {saved} 的权重，配方的 Arch.name 是 {built}；"
                        "请改 Arch.name 或换权重")


def _sum_channels(model: Layer, state: dict[str, np.ndarray], wanted: Mapping[str, Tensor]) -> list[str]:
    """Turn a first convolution ``[out, 3, k, k]`` into the ``[out, 1, k, k]`` that ``model`` wants, in ``state``."""
    name = f"{getattr(model, 'stem', None)}.weight"
    if name not in state or name not in wanted:
        return []
    saved, built = state[name].shape, wanted[name].shape
    if len(saved) != 4 or saved[1] != 3 or built[1] != 1:
        return []
    state[name] = state[name].sum(axis=1, keepdims=True)
    return [f"{name}：3 通道（RGB）的权重按通道求和，用于 1 通道（灰度）输入"]


def _drop_head(model: Layer, state: dict[str, np.ndarray], wanted: dict[str, Tensor]) -> list[str]:
    """Take a last layer that does not fit out of ``state`` and ``wanted``; it stays as initialised."""
    head = f"{getattr(model, 'head', None)}."
    saved = {name: value.shape for name, value in state.items() if name.startswith(head)}
    built = {name: tuple(value.shape) for name, value in wanted.items() if name.startswith(head)}
    if saved == built:
        return []
    for name in saved:
        del state[name]
    for name in built:
        del wanted[name]
    describe = [f"{shapes[head + 'bias'][0]} 类" if head + "bias" in shapes else "无" for shapes in (saved, built)]
    return [f"分类头 head（{head[:-1]}）不加载：权重里 {describe[0]}，模型 {describe[1]}；从随机初值训练"]


def _check_names_and_shapes(state: Mapping[str, np.ndarray], wanted: Mapping[str, Tensor], path: str | Path) -> None:
    problems = []
    for label, names in (("缺少（missing）", [n for n in wanted if n not in state]),
                         ("多出（unexpected）", [n for n in state if n not in wanted])):
        if names:
            problems.append(f"{label}{len(names)} 个：{_first(names)}")
    shapes = [f"{n} {list(state[n].shape)} 应为 {list(wanted[n].shape)}"
              for n in wanted if n in state and list(state[n].shape) != list(wanted[n].shape)]
    if shapes:
        problems.append(f"形状不符（shape mismatch）{len(shapes)} 个：{_first(shapes)}")
    if problems:
        raise UserError(f"权重与模型不符：{path}：{'；'.join(problems)}；请检查 Arch 与权重是否对应")


def _first(items: list[str], count: int = 3) -> str:
    return "、".join(items[:count]) + (" …" if len(items) > count else "")
