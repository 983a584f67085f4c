"""PyTorch's ``.bin``: weights as they were published before safetensors, read without trusting them.

The file is a zip archive: ``data/0``, ``data/1`` … are bare numbers; ``data.pkl`` is a pickle that says which tensor
is made of which of them.  As a pickle may make Python do anything (see :mod:`paddle_cxr.pdparams`), it is read by an
unpickler to which only the few names exist that tensors are spelled with; every other name is refused before anything
is called.  PyTorch itself is not needed, and the format of before 2020 (PyTorch 1.5) is not read.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.pdparams import one_line

_TYPES = {"DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "<u2",
          "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1",
          "BoolStorage": "?"}
_LONGEST_PICKLE = 64 << 20  # bytes


def read_torch_bin(path: str | Path) -> dict[str, np.ndarray]:
    """Read a state dict that ``torch.save`` wrote; bfloat16 becomes float32, which holds each of its values exactly.

    Raises:
        UserError: absent, damaged, not a dict of tensors, of an old format, or it names a function outside the
            allow-list.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            content = _TensorUnpickler(archive, path).load()
        if not isinstance(content, dict) or not all(
                isinstance(name, str) and isinstance(value, np.ndarray) for name, value in content.items()):
            raise ValueError(f"应是参数字典（state dict），却是 {type(content).__name__}")
        return dict(content)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"找不到权重文件 {path}") from None
    except zipfile.BadZipFile:
        raise UserError(f"权重文件损坏，或不是 PyTorch 1.6 以后的格式：{path}；"
                        "请重新下载，或换成 safetensors") from None
    # A damaged pickle may fail with nearly any exception.
    except Exception as error:
        raise UserError(f"权重文件损坏或不是参数字典（state dict）：{path}（{one_line(error)}）；"
                        "请重新下载，或换成 safetensors") from None


class _TypeOfNumbers:
    """Stands for a class such as ``torch.FloatStorage``."""

    def __init__(self, code: str) -> None:
        self.code = code


def _tensor(numbers: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> np.ndarray:
    """Stands for ``torch._utils._rebuild_tensor_v2``: a part of ``numbers``, which may be transposed."""
    whole = all(type(one) is int and one >= 0 for one in (offset, *shape, *strides)) and len(shape) == len(strides)
    if not whole or math.prod(shape) > len(numbers):
        raise pickle.UnpicklingError(f"shape {shape}")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if math.prod(shape) and last >= len(numbers):  # beyond it is other memory
        raise pickle.UnpicklingError(f"shape {shape}, strides {strides}: {len(numbers)} numbers")
    steps = [stride * numbers.itemsize for stride in strides]
    return np.asarray(np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps), order="C")


def _parameter(tensor: np.ndarray, *_: Any) -> np.ndarray:
    """Stands for ``torch._utils._rebuild_parameter``."""
    return tensor


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", name): _TypeOfNumbers(code) for name, code in _TYPES.items()},
}


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler for which nothing but ``_ALLOWED`` exists, and the archive's numbers."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive, self._path = archive, path
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("没有 data.pkl")
        self._folder = names[0].removesuffix("data.pkl")
        if self._folder + "byteorder" in archive.namelist() and self._bytes("byteorder") != b"little":
            raise ValueError("byteorder")
        if archive.getinfo(names[0]).file_size > _LONGEST_PICKLE:
            raise ValueError("data.pkl 过大")
        self._read: dict[str, np.ndarray] = {}
        super().__init__(io.BytesIO(self._bytes("data.pkl")))

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise UserError(f"拒绝加载 {self._path}：文件里有可执行代码 {module}.{name}（不安全的 pickle）；"
                            "请改用来源可靠的 safetensors") from None

    def persistent_load(self, pid: Any) -> np.ndarray:
        """The numbers that a tensor is made of: ``("storage", type, name, device, count)``."""
        _, kind, name, _, count = pid
        if name not in self._read:
            numbers = np.frombuffer(self._bytes(f"data/{name}"), kind.code)
            # The upper half of a float32.
            self._read[name] = (numbers.astype(np.uint32) << 16).view(np.float32) if kind.code == "<u2" else numbers
        if len(self._read[name]) != count:
            raise pickle.UnpicklingError(f"data/{name}: {count}")
        return self._read[name]

    def _bytes(self, name: str) -> bytes:
        """An entry of the archive; PyTorch does not compress, and what is compressed could unfold to any size."""
        entry = self._archive.getinfo(self._folder + name)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{entry.filename}: compressed")
        return self._archive.read(entry)
