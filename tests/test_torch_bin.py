"""PyTorch's ``.bin``: read to the bit without PyTorch, and nothing in it is run."""

import io
import os
import pickle
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_cxr.errors import UserError
from paddle_cxr.torch_bin import read_torch_bin
from paddle_cxr.weights import read_safetensors

BINS = Path(__file__).parent / "fixtures" / "torch_bin"  # written by PyTorch, see models/make_diffusers_fixtures.py
PARTS = [("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model")]


@pytest.mark.parametrize(("part", "name"), PARTS)
def test_the_same_numbers_as_in_safetensors(part, name):
    found = read_torch_bin(BINS / f"{part}.bin")
    wanted = read_safetensors(BINS.parent / "diffusers" / "like_sd1" / part / f"{name}.safetensors")[0]
    assert found.keys() == wanted.keys()
    assert all(found[key].dtype == wanted[key].dtype and np.array_equal(found[key], wanted[key]) for key in wanted)


def test_every_kind_of_tensor():
    found = read_torch_bin(BINS / "kinds.bin")
    numbers = np.arange(24, dtype=np.float32).reshape(4, 6)
    wanted = {"plain": numbers, "transposed": numbers.T, "part": numbers[1:3, ::2], "half": numbers.astype(np.float16),
              "brain": numbers, "whole": numbers.astype(np.int64), "one": np.float32(7), "yes": numbers > 3,
              "none": np.zeros((0, 3), np.float32), "parameter": numbers}
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert found[key].dtype == value.dtype and np.array_equal(found[key], value), key


def packed(folder: Path, content: bytes, numbers: bytes = bytes(16), kind: int = zipfile.ZIP_STORED, **more: bytes
           ) -> Path:
    """An archive as PyTorch writes it, around any pickle."""
    file = folder / "weights.bin"
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, value in {"data.pkl": content, "data/0": numbers, **more}.items():
            archive.writestr(f"archive/{name}", value)
    return file


class _Name:
    """Pickled as the global ``module.name``, called with ``arguments``."""

    def __init__(self, module: str, name: str, *arguments: object) -> None:
        self.module, self.name, self.arguments = module, name, arguments


def pickled(value: object) -> bytes:
    """A pickle in which every :class:`_Name` stands for what it names."""
    stream = io.BytesIO()

    class Writer(pickle._Pickler):
        def save(self, thing: object, *rest: object) -> None:
            if isinstance(thing, _Name):
                self.write(b"c" + f"{thing.module}\n{thing.name}\n".encode())
                if thing.arguments:
                    self.save(thing.arguments)
                    self.write(pickle.REDUCE)
            elif isinstance(thing, tuple) and thing[:1] == ("storage",):
                super().save(thing, *rest)
                self.write(pickle.BINPERSID)
            else:
                super().save(thing, *rest)

    Writer(stream, 2).dump(value)
    return stream.getvalue()


def tensor(offset: object = 0, shape: object = (2, 2), strides: object = (2, 1), count: int = 4, name: str = "0"):
    storage = ("storage", _Name("torch", "FloatStorage"), name, "cpu", count)
    return _Name("torch._utils", "_rebuild_tensor_v2", storage, offset, shape, strides, False, {})


def test_archives_made_here_are_read(tmp_path):
    found = read_torch_bin(packed(tmp_path, pickled({"x": tensor()}), np.arange(4, dtype="<f4").tobytes()))
    assert np.array_equal(found["x"], [[0, 1], [2, 3]])


@pytest.mark.parametrize(("module", "name"), [
    ("os", "system"), ("builtins", "eval"), ("builtins", "getattr"), ("torch", "load"), ("torch.hub", "load"),
    ("numpy", "load"), ("collections", "OrderedDict.__init__"), ("torch._utils", "_rebuild_tensor_v2.__globals__")])
def test_nothing_but_tensors_is_named(tmp_path, module, name):
    mark = tmp_path / "ran"
    with pytest.raises(UserError, match=f"拒绝加载 .*weights.bin：文件里有可执行代码 {module}.{name}"):
        read_torch_bin(packed(tmp_path, pickled({"x": _Name(module, name, f"touch {mark}")})))
    assert not mark.exists()


@pytest.mark.parametrize("value", [
    tensor(offset=1), tensor(offset=-1), tensor(shape=(2, 3)), tensor(strides=(3, 1)), tensor(shape=(-2, -2)),
    tensor(shape=(10**9, 10**9), strides=(0, 0)), tensor(shape=(2,)), tensor(shape=(2.0, 2.0)), tensor(count=5),
    tensor(name="1"), tensor(name="../data.pkl"), 3, "text", None, [tensor()]])
def test_tensors_never_reach_beyond_their_numbers(tmp_path, value):
    with pytest.raises(UserError, match="weights.bin"):
        read_torch_bin(packed(tmp_path, pickled({"x": value})))


@pytest.mark.parametrize("content", [pickled([tensor()]), pickled(5), pickled({1: tensor()}), b"", b"\x80\x02N."])
def test_what_is_no_dict_of_tensors(tmp_path, content):
    with pytest.raises(UserError, match="weights.bin"):
        read_torch_bin(packed(tmp_path, content))


def test_other_files(tmp_path):
    good = pickled({"x": tensor()})
    for file, said in ((BINS / "module.bin", "可执行代码 torch.nn"), (BINS / "old.bin", "PyTorch 1.6 以后"),
                       (tmp_path / "none.bin", "找不到权重文件"),
                       (packed(tmp_path, good, kind=zipfile.ZIP_DEFLATED), "compressed")):
        with pytest.raises(UserError, match=said):
            read_torch_bin(file)
    with pytest.raises(UserError, match="byteorder"):
        read_torch_bin(packed(tmp_path, good, byteorder=b"big"))


@given(st.data())
def test_a_damaged_file_is_refused_or_read(data):
    whole = bytearray((BINS / "kinds.bin").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    whole = whole[:data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole
    file = Path(tempfile.gettempdir()) / f"damaged-{os.getpid()}.bin"
    file.write_bytes(whole)
    try:
        read_torch_bin(file)
    except UserError as error:
        assert "\n" not in str(error)
    finally:
        file.unlink()
