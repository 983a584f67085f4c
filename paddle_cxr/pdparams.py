"""Paddle's ``.pdparams``: written for Paddle users, and read without trusting it.

A ``.pdparams`` is a pickle, a small program that Python runs while loading: whoever made the file can make it do
anything.  So it is read by an unpickler to which only the few names exist that arrays are spelled with, each of them
standing for a small class or function of this file; every other name is refused before anything is called
(https://docs.python.org/3/library/pickle.html#restricting-globals).
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.files import write_atomic

if TYPE_CHECKING:
    from paddle import Tensor


def save_pdparams(path: str | Path, state: Mapping[str, np.ndarray | Tensor]) -> None:
    """Write a ``.pdparams`` that ``paddle.load`` reads, for Paddle users; atomically."""
    import paddle

    tensors = {name: paddle.to_tensor(to_numpy(value)) for name, value in state.items()}
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
        raise UserError(f"权重文件损坏或不是参数字典（state dict）：{path}（{one_line(error)}）；请重新下载") from None


class _NumberType:
    """Stands for ``numpy.dtype`` in a pickle: one of NumPy's numeric types in either byte order."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        self.dtype = np.dtype(str(code))
        if self.dtype.kind not in "fiub":
            raise pickle.UnpicklingError(f"dtype {code}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])  # (version, byte order, …)


class _Array:
    """Stands for ``numpy.ndarray._reconstruct`` in a pickle: an array made of the bytes that follow."""

    def __init__(self, *ignored: Any) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, number_type, fortran, content = state
        content = content.encode("latin1") if isinstance(content, str) else content  # written by Python 2
        self.array = np.frombuffer(content, number_type.dtype).reshape(shape, order="F" if fortran else "C")


def _array_from_buffer(content: bytes, number_type: _NumberType, shape: tuple[int, ...], order: str) -> _Array:
    """Stands for ``numpy.core.numeric._frombuffer``, as protocol 5 spells an array."""
    result = _Array()
    result.__setstate__((1, shape, number_type, order == "F", content))
    return result


def _latin1(text: str, encoding: str) -> bytes:
    """Stands for ``_codecs.encode``, as protocol 2 spells bytes; no other codec is allowed."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"encoding {encoding}")
    return text.encode("latin1")


# Everything a pickle of arrays may name, under the names NumPy 1 and 2, Python 2 and Paddle gave it. NumPy's own
# functions are not among them: they trust the pickle's word about types and memory.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _NumberType,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _latin1,
    # paddle.save writes a tensor as tuple((name, array)).
    **{(builtins, kind.__name__): kind for builtins in ("builtins", "__builtin__")
       for kind in (tuple, list, dict, set, int, float, bool, str, bytes)},
    **{(core + ".multiarray", "_reconstruct"): _Array for core in ("numpy.core", "numpy._core")},
    **{(core + ".numeric", "_frombuffer"): _array_from_buffer for core in ("numpy.core", "numpy._core")},
}


# The one written in Python: that in C takes as much memory as a damaged file's largest memo number.
class _ArrayUnpickler(pickle._Unpickler):
    """An unpickler for which nothing but ``_ALLOWED`` exists."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise UserError(f"拒绝加载 {self._path}：文件里有可执行代码 {module}.{name}（不安全的 pickle）；"
                            "请改用来源可靠的 .safetensors 或 .pdparams") from None


def _arrays_of(content: Any) -> dict[str, np.ndarray]:
    """The arrays of an unpickled state dict; raises ValueError for anything else."""
    if not isinstance(content, dict):
        raise ValueError(type(content).__name__)
    result = {}
    for name, value in content.items():
        if name == "StructuredToParameterName@@":  # Paddle's table of internal names, of no use here
            continue
        if isinstance(value, tuple) and len(value) == 2:  # (internal name, array)
            value = value[1]
        if not (isinstance(name, str) and isinstance(value, _Array) and value.array is not None):
            raise ValueError(f"{name!r}: {type(value).__name__}")
        array = value.array
        # Paddle stores bfloat16 as its two bytes in a uint16: the upper half of a float32.
        result[name] = (array.astype(np.uint32) << 16).view(np.float32) if array.dtype == np.uint16 else \
            array.astype(array.dtype.newbyteorder("="))
    return result


def to_numpy(tensor: np.ndarray | Tensor) -> np.ndarray:
    """A tensor as an array of the same values."""
    if isinstance(tensor, np.ndarray):
        return tensor
    # NumPy has no bfloat16; float32 holds each of its values exactly.
    return (tensor.astype("float32") if "bfloat16" in str(tensor.dtype) else tensor).numpy()


def one_line(error: BaseException) -> str:
    """An exception's message, cut to what fits in a line."""
    return " ".join((str(error) or type(error).__name__).split())[:200]
