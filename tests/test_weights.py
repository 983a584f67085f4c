"""Weights: saved and loaded exactly, checked before they are applied, and never executed."""

import json
import pickle
from collections import OrderedDict

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from paddle_cxr.errors import UserError
from paddle_cxr.models import ResNet18, ResNet34
from paddle_cxr.pdparams import read_pdparams, save_pdparams
from paddle_cxr.tasks.start import weights_of
from paddle_cxr.weights import (
    apply_weights,
    load_weights,
    read_safetensors,
    save_weights,
    write_safetensors,
)

META = {"architecture": "ResNet18", "classes": [{"name": "COVID", "zh": "新冠肺炎", "en": "COVID-19"}]}


@pytest.fixture(scope="module")
def state():
    paddle.seed(3)
    return {name: value.numpy() for name, value in ResNet18(class_num=3, in_channels=1).state_dict().items()}


def small_state():
    return {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.steps": np.array(7, np.int64)}


def assert_same(found, expected):
    assert list(found) == list(expected) or sorted(found) == sorted(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape, name
        np.testing.assert_array_equal(found[name], value)


# --- safetensors ------------------------------------------------------------------------------------------------

@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(min_size=1).filter(lambda t: t != "__metadata__" and t.isprintable()), nps.arrays(
    st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, np.bool_]),
    nps.array_shapes(min_dims=0, max_dims=3, max_side=4)), max_size=4))
def test_any_tensors_survive(tmp_path_factory, tensors):
    file = tmp_path_factory.mktemp("any") / "x.safetensors"
    write_safetensors(file, tensors, {"note": "中文"})
    found, metadata = read_safetensors(file)
    assert_same(found, tensors)
    assert metadata == {"note": "中文"}


def test_transposed_and_strided_views_are_written_as_they_read(tmp_path):
    base = np.arange(24.0).reshape(4, 6)
    tensors = {"t": base.T, "s": base[::2, ::3], "f": np.asfortranarray(base)}
    write_safetensors(tmp_path / "x.safetensors", tensors)
    assert_same(read_safetensors(tmp_path / "x.safetensors")[0], tensors)


def test_bfloat16_is_kept_exactly_as_float32(tmp_path):
    values = paddle.to_tensor([1.0, -2.5, 3.140625]).astype("bfloat16")
    write_safetensors(tmp_path / "x.safetensors", {"w": values})
    np.testing.assert_array_equal(read_safetensors(tmp_path / "x.safetensors")[0]["w"], [1.0, -2.5, 3.140625])


def test_folder_and_file_load_alike(tmp_path, state):
    save_weights(tmp_path / "best", state, META)
    assert sorted(p.name for p in (tmp_path / "best").iterdir()) == ["model.json", "model.safetensors"]
    for path in (tmp_path / "best", tmp_path / "best" / "model.safetensors", str(tmp_path / "best")):
        found, meta = load_weights(path)
        assert_same(found, state)
        assert meta == META
    assert "新冠肺炎" in (tmp_path / "best" / "model.json").read_text(encoding="utf-8")


def test_a_lone_file_has_no_meta(tmp_path):
    write_safetensors(tmp_path / "w.safetensors", small_state())
    assert load_weights(tmp_path / "w.safetensors")[1] == {}


def test_a_save_stopped_between_its_files_does_not_load(tmp_path):
    save_weights(tmp_path, small_state(), META)
    (tmp_path / "model.json").unlink()
    with pytest.raises(UserError, match="不完整"):
        load_weights(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 30, -1])
def test_truncated_safetensors_is_one_line(tmp_path, keep):
    save_weights(tmp_path, small_state(), META)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match="损坏") as caught:
        load_weights(tmp_path)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00"])
def test_broken_json_is_one_line(tmp_path, text):
    save_weights(tmp_path, small_state(), META)
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(UserError, match="model.json"):
        load_weights(tmp_path)


@pytest.mark.parametrize("name", ["absent", "absent.safetensors", "notes.txt", ""])
def test_what_is_no_weights_is_named(tmp_path, name):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError) as caught:
        load_weights(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_a_name_longer_than_the_system_allows_is_not_there(tmp_path):
    for name, read in (("x" * 300, load_weights), ("x" * 300, read_safetensors), ("x" * 300, weights_of),
                       ("x" * 300 + "/model", weights_of)):
        with pytest.raises(UserError, match="找不到") as error:
            read(tmp_path / name)
        assert "\n" not in str(error.value)


def test_no_permission_or_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="无法写入"):
        save_weights(tmp_path / "file" / "folder", small_state(), META)


@pytest.mark.parametrize("write", [write_safetensors, save_pdparams])
def test_a_full_disk_leaves_the_old_file_whole(tmp_path, write):
    resource = pytest.importorskip("resource")
    file = tmp_path / f"w{'.pdparams' if write is save_pdparams else '.safetensors'}"
    write(file, small_state())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(UserError, match="无法写入"):
            write(file, {"big": np.zeros(100_000, np.float32)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_same(load_weights(file)[0], small_state())
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


# --- pdparams ---------------------------------------------------------------------------------------------------

def test_pdparams_are_exchanged_with_paddle(tmp_path, state):
    save_pdparams(tmp_path / "ours.pdparams", state)
    loaded = paddle.load(str(tmp_path / "ours.pdparams"))
    assert_same({name: value.numpy() for name, value in loaded.items()}, state)
    assert_same(read_pdparams(tmp_path / "ours.pdparams"), state)

    model = ResNet18(class_num=3, in_channels=1)
    paddle.save(model.state_dict(), str(tmp_path / "theirs.pdparams"))
    found, meta = load_weights(tmp_path / "theirs.pdparams")
    assert_same(found, {name: value.numpy() for name, value in model.state_dict().items()})
    assert meta == {}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_every_pickle_protocol_is_read(tmp_path, protocol, kind):
    file = tmp_path / "w.pdparams"
    content = kind(small_state() | {"b": ("linear_0.b_0", np.ones(3)), "StructuredToParameterName@@": {"a": "b"}})
    file.write_bytes(pickle.dumps(content, protocol=protocol))
    assert_same(read_pdparams(file), small_state() | {"b": np.ones(3)})


def test_both_names_of_numpys_modules_are_read(tmp_path):
    # Protocol 2 spells module names out, so one NumPy's file can be turned into the other's.
    content = pickle.dumps(small_state(), protocol=2)
    for old, new in ((b"numpy._core.", b"numpy.core."), (b"numpy.core.", b"numpy._core.")):
        file = tmp_path / "w.pdparams"
        file.write_bytes(content.replace(old, new))
        assert_same(read_pdparams(file), small_state())


def test_bfloat16_pdparams(tmp_path):
    values = paddle.to_tensor([1.0, -2.5, 3.140625]).astype("bfloat16")
    paddle.save({"w": values}, str(tmp_path / "w.pdparams"))
    np.testing.assert_array_equal(read_pdparams(tmp_path / "w.pdparams")["w"], [1.0, -2.5, 3.140625])


class Calls:
    """Pickles to a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def malicious(marker):
    import importlib
    import os
    import subprocess

    write = f"open({str(marker)!r}, 'w').close()"
    yield "posix.system", Calls(os.system, f"touch {marker}")
    yield "builtins.eval", Calls(eval, write)
    yield "builtins.exec", Calls(exec, write)
    yield "io.open", Calls(open, str(marker), "w")
    yield "builtins.getattr", Calls(getattr, "", "join")
    yield "subprocess.Popen", Calls(subprocess.Popen, ["touch", str(marker)])
    yield "importlib.import_module", Calls(importlib.import_module, "this")
    yield "numpy", Calls(np.load, str(marker))


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("inside", [False, True])
def test_executable_pickle_is_refused_not_run(tmp_path, number, inside):
    marker, file = tmp_path / "ran", tmp_path / "evil.pdparams"
    name, attack = list(malicious(marker))[number]
    content = small_state() | {"evil": [attack]} if inside else attack
    file.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="拒绝加载") as caught:
        load_weights(file)
    assert name in str(caught.value) and str(file) in str(caught.value)
    assert not marker.exists()


def test_a_number_in_a_pdparams_takes_no_memory(tmp_path):
    """A memo number of four billion, for which the unpickler written in C makes a table of 64 GB."""
    file = tmp_path / "a.pdparams"
    file.write_bytes(b"\x80\x02}r\xff\xff\xff\xff.")
    assert read_pdparams(file) == {}


def test_object_arrays_are_refused(tmp_path):
    marker, file = tmp_path / "ran", tmp_path / "evil.pdparams"
    for _, attack in malicious(marker):
        file.write_bytes(pickle.dumps({"evil": np.array([attack], dtype=object)}))
        with pytest.raises(UserError, match="dtype O"):
            read_pdparams(file)
        assert not marker.exists()


def test_other_codecs_are_refused(tmp_path):
    """``_codecs.encode`` is how protocol 2 spells bytes; with another codec it would be a way in."""
    file = tmp_path / "w.pdparams"
    for codec in ("utf-8", "rot13", "zlib"):
        file.write_bytes(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX" + len(codec).to_bytes(4, "little")
                         + codec.encode() + b"\x86R.")
        with pytest.raises(UserError, match=codec):
            read_pdparams(file)


@pytest.mark.parametrize("content", [[1, 2], {"a": "text"}, {"a": np.array(["x"])}, {1: np.zeros(1)}, None])
def test_other_objects_are_no_state_dict(tmp_path, content):
    (tmp_path / "w.pdparams").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="state dict"):
        read_pdparams(tmp_path / "w.pdparams")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6),
       st.integers(0, 10_000), st.sampled_from([2, 4]))
def test_a_damaged_pdparams_only_ever_raises_a_user_error(tmp_path_factory, changes, cut, protocol):
    content = bytearray(pickle.dumps(small_state(), protocol=protocol))
    for position, value in changes:
        content[position % len(content)] = value
    file = tmp_path_factory.mktemp("damaged") / "w.pdparams"
    file.write_bytes(content[:cut] if cut % 2 else content)
    try:
        read_pdparams(file)
    except UserError as error:
        assert "\n" not in str(error)


# --- applying ---------------------------------------------------------------------------------------------------

def test_applied_weights_are_the_weights(state):
    model = ResNet18(class_num=3, in_channels=1)
    assert apply_weights(model, state, META, path="w") == []
    assert_same({name: value.numpy() for name, value in model.state_dict().items()}, state)


def test_another_precision_is_converted(state):
    model = ResNet18(class_num=3, in_channels=1)
    apply_weights(model, {name: value.astype(np.float64) for name, value in state.items()}, META, path="w")
    assert_same({name: value.numpy() for name, value in model.state_dict().items()}, state)


def test_another_architecture_names_both(state):
    with pytest.raises(UserError, match="best.*ResNet18.*ResNet34"):
        apply_weights(ResNet34(class_num=3, in_channels=1), state, META, path="best")


def test_misfits_are_counted_and_the_model_is_untouched(state):
    model = ResNet18(class_num=3, in_channels=1)
    before = {name: value.numpy() for name, value in model.state_dict().items()}
    wrong = dict(state)
    for name in [n for n in state if n.startswith("layer4.0.bn")]:
        del wrong[name]
    wrong["extra"] = np.zeros(1, np.float32)
    wrong["conv1.weight"] = np.zeros((64, 3, 7, 7), np.float32)
    with pytest.raises(UserError) as caught:
        apply_weights(model, wrong, META, path="best")
    text = str(caught.value)
    assert "missing）8 个" in text and "unexpected）1 个：extra" in text and "[64, 3, 7, 7] 应为 [64, 1, 7, 7]" in text
    assert len(text) < 500 and "\n" not in text
    assert_same({name: value.numpy() for name, value in model.state_dict().items()}, before)


@pytest.mark.parametrize("class_num", [0, 2, 5])
def test_a_head_of_other_classes_stays_new_only_when_fine_tuning(state, class_num):
    model = ResNet18(class_num=class_num, in_channels=1)
    head = {name: value.numpy() for name, value in model.state_dict().items() if name.startswith("fc.")}
    with pytest.raises(UserError, match="fc.weight"):
        apply_weights(model, state, META, path="w")
    notices = apply_weights(model, state, META, path="w", allow_head_mismatch=True)
    assert len(notices) == 1 and "3 类" in notices[0]
    after = {name: value.numpy() for name, value in model.state_dict().items()}
    assert_same(after, {name: value for name, value in state.items() if not name.startswith("fc.")} | head)


def test_an_encoder_without_head_starts_a_classifier():
    encoder = ResNet18(class_num=0, in_channels=1)
    state = {name: value.numpy() for name, value in encoder.state_dict().items()}
    notices = apply_weights(ResNet18(class_num=3, in_channels=1), state, {}, path="w", allow_head_mismatch=True)
    assert len(notices) == 1 and "无" in notices[0]


def test_rgb_weights_summed_see_grey_as_before():
    rgb, grey = ResNet18(class_num=3, in_channels=3), ResNet18(class_num=3, in_channels=1)
    state = {name: value.numpy() for name, value in rgb.state_dict().items()}
    notices = apply_weights(grey, state, META, path="w", allow_head_mismatch=True)
    assert len(notices) == 1 and "conv1.weight" in notices[0]
    images = paddle.rand([2, 1, 64, 64])
    rgb.train()  # batch statistics keep untrained activations near 1
    grey.train()
    np.testing.assert_allclose(grey(images).numpy(), rgb(images.tile([1, 3, 1, 1])).numpy(), atol=1e-3)


def test_prefix_chooses_one_tower(state):
    towers = {f"image_encoder.{name}": value for name, value in state.items()} | {"text_encoder.w": np.zeros(2)}
    model = ResNet18(class_num=3, in_channels=1)
    apply_weights(model, towers, {"architecture": "ConVIRT"}, path="w", prefix="image_encoder.")
    assert_same({name: value.numpy() for name, value in model.state_dict().items()}, state)
    with pytest.raises(UserError, match="vision"):
        apply_weights(model, towers, {}, path="w", prefix="vision.")


def test_meta_is_plain_json(tmp_path):
    save_weights(tmp_path, small_state(), META)
    assert json.loads((tmp_path / "model.json").read_text(encoding="utf-8")) == META
