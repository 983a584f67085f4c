"""PyTorch's ``.bin``: weights as they were published before safetensors, read without trusting them.

Since 2020 (PyTorch 1.6) the file is a zip archive: ``data/0``, ``data/1`` … are bare numbers; ``data.pkl`` is a pickle
that says which tensor is made of which of them.  Before (BioClinicalBERT is of 2019) it was several pickles one after
another, of which the fourth says the same, and the numbers behind them.  As a pickle may make Python do anything (see
:mod:`paddle_cxr.pdparams`), it is read by an unpickler to which only the few names exist that tensors are spelled with;
every other name is refused before anything is called.  PyTorch itself is not needed.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.pdparams import one_line

_TYPES = {"DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "<u2",
          "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1",
          "BoolStorage": "?"}
_LONGEST_PICKLE = 64 << 20  # bytes
_OLD_MAGIC, _OLD_VERSION = 0x1950A86A20F9469CFC6C, 1001  # what the first two pickles of an old file are


def read_torch_bin(path: str | Path) -> dict[str, np.ndarray]:
    """Read a state dict that ``torch.save`` wrote; bfloat16 becomes float32, which holds each of its values exactly.

    Raises:
        UserError: absent, damaged, not a dict of tensors, or it names a function outside the allow-list.
    """
    path = Path(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                content = _of_archive(archive, path)
        else:
            with open(path, "rb") as file:
                content = _of_pickles(file, path)
        if not isinstance(content, dict) or not all(
                isinstance(name, str) and isinstance(value, _Tensor) for name, value in content.items()):
            raise ValueError("应是参数名 → 张量的字典")
        return {name: value.made() for name, value in content.items()}
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"找不到权重文件 {path}") from None
    # A damaged pickle may fail with nearly any exception.
    except Exception as error:
        raise UserError(f"权重文件损坏或不是参数字典（state dict）：{path}（{one_line(error)}）；"
                        "请重新下载，或换成 safetensors") from None


class _TypeOfNumbers:
    """Stands for a class such as ``torch.FloatStorage``."""

    def __init__(self, code: str) -> None:
        self.code = np.dtype(code)


class _Numbers:
    """Numbers of one type that tensors are made of; in old files they come last."""

    def __init__(self, kind: _TypeOfNumbers, count: int) -> None:
        self.code, self.count = kind.code, count
        self.values: np.ndarray | None = None

    def fill(self, raw: bytes) -> None:
        """Take the numbers from the file, as many as the pickle says."""
        values = np.frombuffer(raw, self.code)
        if len(values) != self.count:
            raise pickle.UnpicklingError(f"{len(values)} numbers, not {self.count}")
        # The upper half of a float32.
        self.values = (values.astype(np.uint32) << 16).view(np.float32) if self.code == "<u2" else values


class _Tensor:
    """Stands for ``torch._utils._rebuild_tensor_v2``: a part of some numbers, which may be transposed."""

    def __init__(self, numbers: _Numbers, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
                 ) -> None:
        self._numbers, self._offset, self._shape, self._strides = numbers, offset, shape, strides

    def made(self) -> np.ndarray:
        """The array."""
        values, offset, shape, strides = self._numbers.values, self._offset, self._shape, self._strides
        whole = all(type(one) is int and one >= 0 for one in (offset, *shape, *strides)) and len(shape) == len(strides)
        if values is None or not whole or math.prod(shape) > len(values):
            raise pickle.UnpicklingError(f"shape {shape}")
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if math.prod(shape) and last >= len(values):  # beyond it is other memory
            raise pickle.UnpicklingError(f"shape {shape}, strides {strides}: {len(values)} numbers")
        steps = [stride * values.itemsize for stride in strides]
        return np.asarray(np.lib.stride_tricks.as_strided(values[offset:], shape, steps), order="C")


def _parameter(tensor: _Tensor, *_: Any) -> _Tensor:
    """Stands for ``torch._utils._rebuild_parameter``."""
    return tensor


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_tensor"): _Tensor,  # before 2018
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", name): _TypeOfNumbers(code) for name, code in _TYPES.items()},
}


# The one written in Python: that in C takes as much memory as a damaged file's largest memo number, and reads ahead.
class _TensorUnpickler(pickle._Unpickler):
    """An unpickler for which nothing but ``_ALLOWED`` exists.

    Attributes:
        numbers: those that tensors ask for, by name.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__(file)
        self._path = path
        self.numbers: dict[str, _Numbers] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise UserError(f"拒绝加载 {self._path}：文件里有可执行代码 {module}.{name}（不安全的 pickle）；"
                            "请改用来源可靠的 safetensors") from None

    def persistent_load(self, pid: Any) -> _Numbers:
        """The numbers that a tensor is made of: ``("storage", type, name, device, count)``, in old files a view too."""
        _, kind, name, _, count, *view = pid
        if not isinstance(name, str) or not isinstance(kind, _TypeOfNumbers) or any(one is not None for one in view):
            raise pickle.UnpicklingError(f"storage {name}")
        found = self.numbers.setdefault(name, _Numbers(kind, count))
        if (found.code, found.count) != (kind.code, count):
            raise pickle.UnpicklingError(f"storage {name}: {count}")
        return found


# --- since 2020 --------------------------------------------------------------------------------------------------

def _of_archive(archive: zipfile.ZipFile, path: Path) -> Any:
    names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(names) != 1:
        raise ValueError("没有 data.pkl")
    folder = names[0].removesuffix("data.pkl")
    if folder + "byteorder" in archive.namelist() and _entry(archive, folder + "byteorder") != b"little":
        raise ValueError("byteorder")
    if archive.getinfo(names[0]).file_size > _LONGEST_PICKLE:
        raise ValueError("data.pkl 过大")
    unpickler = _TensorUnpickler(io.BytesIO(_entry(archive, names[0])), path)
    content = unpickler.load()
    for name, numbers in unpickler.numbers.items():
        numbers.fill(_entry(archive, f"{folder}data/{name}"))
    return content


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry of the archive; PyTorch does not compress, and what is compressed could unfold to any size."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{entry.filename}: compressed")
    return archive.read(entry)


# --- before 2020 -------------------------------------------------------------------------------------------------

def _of_pickles(file: BinaryIO, path: Path) -> Any:
    magic, version, system = (_TensorUnpickler(file, path).load() for _ in range(3))
    if (magic, version) != (_OLD_MAGIC, _OLD_VERSION) or not isinstance(system, dict):
        raise ValueError("不是 PyTorch 保存的")
    if system.get("little_endian") is not True:
        raise ValueError("byteorder")
    unpickler = _TensorUnpickler(file, path)
    content = unpickler.load()
    for name in _TensorUnpickler(file, path).load():
        numbers, count = unpickler.numbers[name], int.from_bytes(file.read(8), "little")
        size = count * numbers.code.itemsize
        if size > os.fstat(file.fileno()).st_size - file.tell():  # before memory is taken for it
            raise ValueError(f"storage {name}: {count}")
        numbers.fill(file.read(size))
    return content
