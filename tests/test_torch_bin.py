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


# Before 2020: several pickles, and the numbers behind them

SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
NUMBERS = (4).to_bytes(8, "little") + np.arange(4, dtype="<f4").tobytes()


def old_file(folder: Path, content: object, names: object = ("0",), numbers: bytes = NUMBERS,
             magic: int = 0x1950A86A20F9469CFC6C, system: object = SYSTEM) -> Path:
    file = folder / "weights.bin"
    file.write_bytes(b"".join(map(pickled, (magic, 1001, system, content, names))) + numbers)
    return file


def old_tensor(view: object = None, **changes: object) -> _Name:
    storage, *rest = tensor(**changes).arguments
    return _Name("torch._utils", "_rebuild_tensor_v2", (*storage, view), *rest)


def test_files_of_before_2020_are_read(tmp_path):
    assert np.array_equal(read_torch_bin(BINS / "old.bin")["x"], np.arange(24, dtype=np.float32).reshape(4, 6))
    shared = {"x": old_tensor(), "y": old_tensor(offset=2, shape=(2,), strides=(1,))}
    found = read_torch_bin(old_file(tmp_path, shared))
    assert np.array_equal(found["x"], [[0, 1], [2, 3]]) and np.array_equal(found["y"], [2, 3])


@pytest.mark.parametrize("changes", [
    {"content": {"x": old_tensor(offset=1)}}, {"content": {"x": old_tensor(count=5)}},
    {"content": {"x": old_tensor(view=("1", 0, 4))}}, {"content": {"x": old_tensor(name="1")}}, {"content": 3},
    {"names": []}, {"names": ["0", "1"]}, {"names": 3}, {"numbers": NUMBERS[:-1]}, {"numbers": b""},
    {"numbers": (2**62).to_bytes(8, "little") + bytes(16)}, {"numbers": (-1).to_bytes(8, "little", signed=True)},
    {"magic": 7}, {"system": {}}, {"system": SYSTEM | {"little_endian": False}}, {"system": "any"}])
def test_damaged_files_of_before_2020(tmp_path, changes):
    with pytest.raises(UserError, match="weights.bin"):
        read_torch_bin(old_file(tmp_path, **{"content": {"x": old_tensor()}} | changes))


def test_a_number_in_a_file_takes_no_memory(tmp_path):
    """A memo number of four billion, for which a list of 64 GB would be made."""
    file = tmp_path / "weights.bin"
    file.write_bytes(b"\x80\x02Nr\xff\xff\xff\xff.")
    with pytest.raises(UserError, match="weights.bin"):
        read_torch_bin(file)


@pytest.mark.parametrize("place", range(5))
def test_no_pickle_of_a_file_of_before_2020_runs_anything(tmp_path, place):
    mark = tmp_path / "ran"
    parts = [pickled(one) for one in (0x1950A86A20F9469CFC6C, 1001, SYSTEM, {"x": old_tensor()}, ["0"])]
    parts[place] = pickled(_Name("os", "system", f"touch {mark}"))
    file = tmp_path / "weights.bin"
    file.write_bytes(b"".join(parts) + NUMBERS)
    with pytest.raises(UserError, match="拒绝加载 .*weights.bin：文件里有可执行代码 os.system"):
        read_torch_bin(file)
    assert not mark.exists()


def pointer(folder: Path) -> Path:
    """What stands in place of a large file that was not downloaded."""
    file = folder / "pointer.bin"
    file.write_text("version https://git-lfs.github.com/spec/v1\nsize 435778770\n")
    return file


def test_other_files(tmp_path):
    good = pickled({"x": tensor()})
    for file, said in ((BINS / "module.bin", "可执行代码 torch.nn"), (pointer(tmp_path), "损坏"),
                       (tmp_path / "none.bin", "找不到权重文件"),
                       (packed(tmp_path, good, kind=zipfile.ZIP_DEFLATED), "compressed")):
        with pytest.raises(UserError, match=said):
            read_torch_bin(file)
    with pytest.raises(UserError, match="byteorder"):
        read_torch_bin(packed(tmp_path, good, byteorder=b"big"))


@pytest.mark.parametrize("name", ["kinds.bin", "old.bin"])
@given(st.data())
def test_a_damaged_file_is_refused_or_read(name, data):
    whole = bytearray((BINS / name).read_bytes())
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
