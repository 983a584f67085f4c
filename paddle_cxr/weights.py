"""Saving and loading weights: safetensors with a JSON beside them, and Paddle's ``.pdparams`` read safely.

    folder/model.safetensors    tensors by parameter name: numbers only, nothing to execute
    folder/model.json           what they belong to: architecture, classes, preprocess, image_shape, version, parent …

A ``.pdparams`` is a pickle, a small program that Python runs while loading: whoever made the file could make it do
anything.  So it is read here by an unpickler that knows the handful of functions NumPy arrays need and refuses every
other one before it is called (https://docs.python.org/3/library/pickle.html#restricting-globals).
"""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.files import write_atomic, write_json

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
    file = path / TENSORS if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"找不到权重文件 {file}；请检查路径（可给文件夹、.safetensors 或 .pdparams）")
    readers = {".safetensors": lambda: read_safetensors(file)[0], ".pdparams": lambda: read_pdparams(file)}
    if file.suffix not in readers:
        raise UserError(f"不认识的权重文件 {file}：应为 .safetensors 或 .pdparams，或装有 {TENSORS} 的文件夹")
    beside = file.with_suffix(".json")
    if path.is_dir() and not beside.is_file():
        raise UserError(f"权重不完整：{path} 里缺 {META}（保存时中断？）；请换一个检查点（checkpoint）")
    return readers[file.suffix](), _read_meta(beside) if beside.is_file() else {}


def _read_meta(file: Path) -> dict[str, Any]:
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(meta, dict):
            raise ValueError("应为一个对象（object）")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"权重说明文件损坏：{file}（{_one_line(error)}）；请换一个检查点（checkpoint）") from None
    return meta


def write_safetensors(path: str | Path, tensors: Mapping[str, np.ndarray | Tensor],
                      metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors (any shape and numeric type) and a little text to one ``.safetensors`` file, atomically."""
    from safetensors.numpy import save_file

    # The format stores bytes as they lie in memory, so they must lie in C order.
    arrays = {name: np.asarray(_to_numpy(tensor), order="C") for name, tensor in tensors.items()}
    write_atomic(path, lambda temporary: save_file(arrays, temporary, dict(metadata or {})))


def read_safetensors(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata of a ``.safetensors`` file; raises :class:`UserError` if it is absent or damaged."""
    from safetensors import safe_open

    if not Path(path).is_file():
        raise UserError(f"找不到权重文件 {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    # safetensors raises its own error, OSError, and TypeError for types NumPy lacks: to the user they are one thing.
    except Exception as error:
        raise UserError(f"权重文件损坏或不完整：{path}（{_one_line(error)}）；"
                        "请重新下载或换一个检查点（checkpoint）") from None


def save_pdparams(path: str | Path, state: Mapping[str, np.ndarray | Tensor]) -> None:
    """Write a ``.pdparams`` that ``paddle.load`` reads, for Paddle users; atomically."""
    import paddle

    tensors = {name: paddle.to_tensor(_to_numpy(value)) for name, value in state.items()}
    write_atomic(path, lambda temporary: paddle.save(tensors, str(temporary)))


def read_pdparams(path: str | Path) -> dict[str, np.ndarray]:
    """Read a ``.pdparams`` state dict without running anything it contains but the making of arrays.

    Raises:
        UserError: absent, damaged, not a dict of arrays, or it names a function outside the allow-list.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            content = _ArrayUnpickler(file, path).load()
        return _arrays_of(content)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"找不到权重文件 {path}") from None
    # A damaged pickle may fail with nearly any exception (EOFError, KeyError, struct.error, MemoryError …).
    except Exception as error:
        raise UserError(f"权重文件损坏或不是参数字典（state dict）：{path}（{_one_line(error)}）；请重新下载") from None


def _latin1(text: str, encoding: str) -> bytes:
    """How pickles of protocol 2 spell bytes: ``_codecs.encode(text, "latin1")``; no other codec is allowed."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"encoding {encoding}")
    return text.encode("latin1")


def _allowed_globals() -> dict[tuple[str, str], Any]:
    """Every function a pickle of arrays may call, under the names NumPy 1 and 2, Python 2 and Paddle gave them."""
    reconstruct, (_, _, _) = np.zeros(0).__reduce__()[0], np.zeros(0).__reduce__()[1]
    scalar = np.float32(0).__reduce__()[0]
    allowed: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("collections", "OrderedDict"): OrderedDict,
        ("_codecs", "encode"): _latin1,
    }
    for core in ("numpy.core", "numpy._core"):
        allowed[core + ".multiarray", "_reconstruct"] = reconstruct
        allowed[core + ".multiarray", "scalar"] = scalar
    for builtins in ("builtins", "__builtin__"):
        # paddle.save writes a tensor as tuple((name, array)).
        allowed |= {(builtins, kind.__name__): kind for kind in (tuple, list, dict, set, frozenset, int, float, bool,
                                                                   str, bytes, complex)}
    return allowed


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler for which only :func:`_allowed_globals` exist."""

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path
        self._allowed = _allowed_globals()

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._allowed[module, name]
        except KeyError:
            raise UserError(f"拒绝加载 {self._path}：文件里有可执行代码 {module}.{name}（不安全的 pickle）；"
                            "请改用来源可靠的 .safetensors 或 .pdparams") from None


def _arrays_of(content: Any) -> dict[str, np.ndarray]:
    """The arrays of an unpickled state dict; raises ValueError for anything else."""
    if not isinstance(content, dict):
        raise ValueError(f"{type(content).__name__}")
    result = {}
    for name, value in content.items():
        if name == "StructuredToParameterName@@":  # Paddle's table of internal names, of no use here
            continue
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
            value = value[1]
        if not (isinstance(name, str) and isinstance(value, np.ndarray) and value.dtype.kind in "fiub"):
            raise ValueError(f"{name!r}: {type(value).__name__}")
        result[name] = value
    return result


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
        wanted[name].set_value(value.astype(wanted[name].numpy().dtype, copy=False))
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
            problems.append(f"{label} {len(names)} 个：{_first(names)}")
    shapes = [f"{n} {list(state[n].shape)} 应为 {list(wanted[n].shape)}"
              for n in wanted if n in state and list(state[n].shape) != list(wanted[n].shape)]
    if shapes:
        problems.append(f"形状不符（shape mismatch）{len(shapes)} 个：{_first(shapes)}")
    if problems:
        raise UserError(f"权重与模型不符：{path}：{'；'.join(problems)}；请检查 Arch 与权重是否对应")


def _first(items: list[str], count: int = 3) -> str:
    return "、".join(items[:count]) + (" …" if len(items) > count else "")


def _to_numpy(tensor: np.ndarray | Tensor) -> np.ndarray:
    if isinstance(tensor, np.ndarray):
        return tensor
    # NumPy has no bfloat16; float32 holds each of its values exactly.
    return (tensor.astype("float32") if "bfloat16" in str(tensor.dtype) else tensor).numpy()


def _one_line(error: BaseException) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]
