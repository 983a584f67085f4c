"""Exported models: equal to the trained one, complete or absent, and opened as untrusted input."""

import hashlib
import shutil
import subprocess
import sys

import numpy as np
import paddle
import pytest
import yaml
from paddle.nn import functional as F

from paddle_cxr.errors import UserError
from paddle_cxr.inference import export_model, open_engine
from paddle_cxr.models import Ensemble, ResNet18
from paddle_cxr.tasks.classification import probabilities_of
from paddle_cxr.weights import load_weights

CLASSES = [{"name": "NORMAL", "zh": "正常", "en": "Normal"}, {"name": "COVID", "zh": "新冠肺炎", "en": "COVID-19"},
           {"name": "VIRAL", "zh": "病毒性肺炎", "en": "Viral pneumonia"}]
PREPROCESS = {"resize": "letterbox", "mean": [0.5], "std": [0.25]}
SHAPE = (1, 48, 64)


def images(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, *SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    """A network whose probabilities are far from 0 and 1, so that differences would show."""
    paddle.seed(0)
    network = ResNet18(class_num=3, in_channels=1)
    network.train()
    with paddle.no_grad():
        for step in range(30):  # batch-norm statistics of such images
            network(paddle.to_tensor(images(8, step)))
    network.eval()
    return network


@pytest.fixture(scope="module")
def expected(model):
    def probabilities(batch):
        with paddle.no_grad():
            return F.softmax(model(paddle.to_tensor(batch)), axis=1).numpy()

    assert 0.02 < probabilities(images(9)).min() < probabilities(images(9)).max() < 0.98
    return probabilities


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    pytest.importorskip("paddle2onnx")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("export")
    report = export_model(model, PREPROCESS, CLASSES, SHAPE, folder, sample_inputs=images(4), source="runs/best",
                          demo_data=True)
    return folder, report


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported[0], tmp_path / "copy")


def test_report_and_record(exported):
    folder, report = exported
    recorded = yaml.safe_load((folder / "inference.yaml").read_text(encoding="utf-8"))
    assert recorded == {key: value for key, value in report.items() if key != "folder"}
    assert recorded["classes"] == CLASSES and recorded["preprocess"] == PREPROCESS
    assert recorded["image_shape"] == list(SHAPE) and recorded["architecture"] == "ResNet18"
    assert recorded["source"] == "runs/best" and recorded["demo_data"] is True
    assert recorded["versions"]["paddle"] == paddle.__version__
    assert recorded["checked"]["images"] == 4
    assert set(recorded["checked"]["max_difference"]) == {"inference", "onnx", "pdparams"}
    assert all(value <= 1e-5 for value in recorded["checked"]["max_difference"].values())
    assert {p.name for p in folder.iterdir()} == {*recorded["files"], "inference.yaml"}
    assert "新冠肺炎" in (folder / "inference.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["inference", "onnx"])
def test_engines_equal_the_model_for_any_batch_size(exported, expected, kind):
    engine = open_engine(exported[0], kind)
    for count in (1, 9, 2, 16):
        batch = images(count, seed=count)
        found = engine.predict(batch)
        assert found.dtype == np.float32 and found.shape == (count, 3)
        np.testing.assert_allclose(found, expected(batch), atol=1e-5)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert engine.info["preprocess"] == PREPROCESS and engine.info["classes"] == CLASSES


def test_engines_take_what_numpy_may_hand_over(exported, expected):
    batch = images(3)
    for kind in ("inference", "onnx"):
        engine = open_engine(exported[0], kind)
        np.testing.assert_allclose(engine.predict(batch[::-1].astype(np.float64)), expected(batch[::-1]), atol=1e-5)


def test_exported_pdparams_are_the_weights(exported, model):
    found, _ = load_weights(exported[0] / "model.pdparams")
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(found[name], value.numpy())


def test_onnx_needs_no_paddle(exported):
    program = (f"import sys; sys.modules['paddle'] = None\n"
               f"import numpy as np; from paddle_cxr.inference import open_engine\n"
               f"print(open_engine({str(exported[0])!r}, 'onnx').predict(np.zeros((2, *{SHAPE}), np.float32)).shape)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "(2, 3)", done.stderr


@pytest.mark.parametrize("views", ["flip", "crops"])
def test_views_are_part_of_the_exported_networks(model, tmp_path, views):
    pytest.importorskip("paddle2onnx")
    pytest.importorskip("onnxruntime")
    report = export_model(model, PREPROCESS, CLASSES, SHAPE, tmp_path, ["inference", "onnx"],
                          sample_inputs=images(3), views=views)
    batch = images(2, seed=7)
    averaged, plain = probabilities_of(model, paddle.to_tensor(batch), views), probabilities_of(
        model, paddle.to_tensor(batch))
    assert np.abs(averaged - plain).max() > 1e-3  # or the comparison below would show nothing
    for kind in ("inference", "onnx"):
        np.testing.assert_allclose(open_engine(tmp_path, kind).predict(batch), averaged, atol=1e-5)
    assert report["views"] == views


def test_an_ensemble_of_colour_networks_is_exported(tmp_path):
    pytest.importorskip("paddle2onnx")
    pytest.importorskip("onnxruntime")
    paddle.seed(0)
    ensemble = Ensemble({"name": "ResNet18"}, members=2, class_num=3, in_channels=3)
    batch = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    export_model(ensemble, PREPROCESS, CLASSES, (3, 32, 32), tmp_path, ["inference", "onnx"], sample_inputs=batch,
                 views="flip")
    ensemble.eval()
    wanted = probabilities_of(ensemble, paddle.to_tensor(batch), "flip")
    for kind in ("inference", "onnx"):
        np.testing.assert_allclose(open_engine(tmp_path, kind).predict(batch), wanted, atol=1e-5)


def test_the_model_trains_on_after_an_export(model, tmp_path):
    model.train()
    export_model(model, PREPROCESS, CLASSES, SHAPE, tmp_path, ["pdparams"], sample_inputs=images(1))
    assert model.training
    model.eval()


class Restless(paddle.nn.Layer):
    """Never answers the same twice, so no export can equal it."""

    def __init__(self):
        super().__init__()
        self.layer = paddle.nn.Linear(1, 3)

    def forward(self, x):
        return self.layer(x.mean(axis=[2, 3])) + paddle.rand([1, 3])


def test_an_export_that_differs_is_refused_and_the_old_one_kept(copy):
    before = {p.name: p.read_bytes() for p in copy.iterdir()}
    with pytest.raises(UserError, match="不一致"):
        export_model(Restless(), PREPROCESS, CLASSES, SHAPE, copy, ["inference"], sample_inputs=images(2))
    assert {p.name: p.read_bytes() for p in copy.iterdir()} == before


def test_a_new_export_replaces_every_file_of_the_old(copy, model):
    export_model(model, PREPROCESS, CLASSES, SHAPE, copy, ["pdparams"], sample_inputs=images(1))
    assert sorted(p.name for p in copy.iterdir()) == ["inference.yaml", "model.pdparams"]
    with pytest.raises(UserError, match="model.onnx"):
        open_engine(copy, "onnx")


@pytest.mark.parametrize("package", ["paddle2onnx", "onnxruntime"])
def test_a_missing_converter_names_the_pip_line(monkeypatch, model, tmp_path, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match="pip install paddle2onnx onnxruntime"):
        export_model(model, PREPROCESS, CLASSES, SHAPE, tmp_path / "x", ["onnx"], sample_inputs=images(1))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("formats", [["tensorrt"], []])
def test_unknown_formats(model, tmp_path, formats):
    with pytest.raises(UserError, match="inference、onnx、pdparams"):
        export_model(model, PREPROCESS, CLASSES, SHAPE, tmp_path, formats, sample_inputs=images(1))


def test_no_place_to_write_is_one_line(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="无法写入"):
        export_model(model, PREPROCESS, CLASSES, SHAPE, tmp_path / "file" / "x", ["pdparams"], sample_inputs=images(1))


def test_wrong_input_shape(exported):
    with pytest.raises(UserError, match="image_shape"):
        open_engine(exported[0], "onnx").predict(np.zeros((2, 1, 32, 32), np.float32))


# --- opening what somebody else made --------------------------------------------------------------------------

def test_no_export_at_all(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="不是导出的模型"):
            open_engine(folder, "inference")
    with pytest.raises(UserError, match="tensorrt"):
        open_engine(tmp_path, "tensorrt")


@pytest.mark.parametrize("text", ["", "[1]", "a: [", "\x00", "classes: 3", "!!python/object/apply:os.system ['true']"])
def test_a_broken_record_is_one_line(copy, text):
    (copy / "inference.yaml").write_text(text)
    with pytest.raises(UserError, match="损坏") as caught:
        open_engine(copy, "onnx")
    assert "inference.yaml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("key", "value"), [("image_shape", [1, 48]), ("image_shape", [1, -48, 64]), ("classes", []),
                                            ("classes", [{"name": "x"}]), ("files", None), ("preprocess", "none")])
def test_a_wrong_record_names_the_key(copy, key, value):
    record = yaml.safe_load((copy / "inference.yaml").read_text(encoding="utf-8"))
    record[key] = value
    (copy / "inference.yaml").write_text(yaml.safe_dump(record))
    with pytest.raises(UserError, match=key):
        open_engine(copy, "onnx")


@pytest.mark.parametrize(("kind", "name"), [("inference", "inference.pdiparams"), ("onnx", "model.onnx")])
def test_missing_and_damaged_files_are_named(copy, kind, name):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[:-100])
    with pytest.raises(UserError, match=f"{name}.*损坏"):
        open_engine(copy, kind)
    (copy / name).unlink()
    with pytest.raises(UserError, match=f"没有 {name}"):
        open_engine(copy, kind)


def test_a_file_that_is_no_network_is_one_line(copy):
    """Even with a matching checksum, as somebody who means harm would write it."""
    record = yaml.safe_load((copy / "inference.yaml").read_text(encoding="utf-8"))
    (copy / "model.onnx").write_bytes(b"not a network")
    record["files"]["model.onnx"] = hashlib.sha256(b"not a network").hexdigest()
    (copy / "inference.yaml").write_text(yaml.safe_dump(record))
    with pytest.raises(UserError, match="model.onnx|无法打开") as caught:
        open_engine(copy, "onnx")
    assert "\n" not in str(caught.value)


def test_a_network_for_other_classes_is_refused(copy):
    record = yaml.safe_load((copy / "inference.yaml").read_text(encoding="utf-8"))
    record["classes"] = CLASSES[:2]
    (copy / "inference.yaml").write_text(yaml.safe_dump(record))
    with pytest.raises(UserError, match="2 个类别"):
        open_engine(copy, "onnx").predict(images(1))
