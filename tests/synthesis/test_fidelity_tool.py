"""``tools/analyze.py fidelity`` as a user runs it: one table, one figure, a sheet, and one clear line for a mistake."""

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from synthesis.thumbnails import Thumbnails  # known to the recipes below from here on
from tqdm import tqdm

from paddle_cxr.data.phantom import draw_image
from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.errors import UserError
from paddle_cxr.models import ResNet18
from paddle_cxr.plots import fidelity as fidelity_figures
from paddle_cxr.synthesis.fidelity import features, work
from paddle_cxr.synthesis.fidelity.classifier import open_classifier
from paddle_cxr.synthesis.fidelity.images import halves, read_set
from paddle_cxr.synthesis.fidelity.report import Figure, Row
from paddle_cxr.synthesis.fidelity.run import measure
from paddle_cxr.synthesis.fidelity.schema import ImageSetSection
from paddle_cxr.synthesis.locks import locked
from paddle_cxr.weights import save_weights

SHAPE = (1, 32, 32)
CLASSES = [{"name": name, "zh": zh, "en": name} for name, zh in (("normal", "正常"), ("effusion", "积液"))]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """What a training on two kinds of phantoms leaves: of random weights, but for a head that knows one mean."""
    paddle.seed(0)
    model = ResNet18(class_num=2, in_channels=1)
    model.eval()
    preprocess = Preprocess(SHAPE)
    found = []
    for label in ("normal", "effusion"):
        films = np.stack([preprocess.geometry(draw_image(label, seed=9, index=i, size=32)) for i in range(40)])
        with paddle.no_grad():
            found.append(model.forward_features(paddle.to_tensor(preprocess.normalize(films)))["layer4"].mean([2, 3]))
    means = [part.mean(0) for part in found]
    weight = paddle.stack(means, 1)
    model.fc.weight.set_value(1000 * weight)
    model.fc.bias.set_value(-500 * (weight**2).sum(0))
    folder = tmp_path_factory.mktemp("network") / "best"
    save_weights(folder, model.state_dict(), {
        "architecture": "ResNet18", "arguments": {}, "classes": CLASSES, "preprocess": preprocess.to_dict(),
        "image_shape": list(SHAPE), "demo_data": True})
    return folder


def write_films(folder, seed, count, labels=("normal", "effusion"), size=32):
    for label in labels:
        (folder / label).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(draw_image(label, seed=seed, index=index, size=size)).save(folder / label / f"{index}.png")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Folders of images: ``real``, ``train`` and ``noise``."""
    folder = tmp_path_factory.mktemp("films")
    write_films(folder / "real", 1, 50)
    write_films(folder / "train", 3, 50)
    (folder / "noise").mkdir()
    for i in range(50):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32), np.uint8)
        Image.fromarray(pixels).save(folder / "noise" / f"{i}.png")
    return folder


@pytest.fixture
def place(tmp_path, films):
    """A recipe with real films (so declared), a fresh draw, noise, and copies of the training films."""
    shutil.copytree(films, tmp_path, dirs_exist_ok=True)
    (tmp_path / "f.yaml").write_text("""
Global: {output_dir: out, seed: 1}
Encoder: {name: Thumbnails}
Real: {name: 真实胸片, path: real}
Generated:
  - {name: 新画的, pairs: {name: PhantomPairs, count: 60, seed: 2, size: 32, findings: [normal, effusion]}}
  - {name: 噪声, path: noise}
  - {name: 照抄, path: train}
Training: {name: 训练图, path: train}
Measures: {ssim_pairs: 5, ssim_size: 176, sheet: 4, kid_subsets: 10}
""", "utf-8")
    return tmp_path


def run(place, *overrides, monkeypatch, draw=False):
    monkeypatch.chdir(place)
    if not draw:
        for name in ("plot_fidelity", "plot_closest"):
            monkeypatch.setattr(work, name, lambda *_, **__: None)
    measure(argparse.Namespace(config="f.yaml", override=list(overrides), command="fidelity"))
    return json.loads((place / "out/metrics.json").read_text("utf-8"))


def test_one_command_writes_table_figure_and_sheet(place, network, tool):
    done = tool("analyze", "fidelity", "-c", "f.yaml", "-o", f"Agreement={{classifier: {network}}}", "-o",
                f"Encoder={{name: ResNetFeatures, checkpoint: {network}}}", cwd=place)
    assert done.returncode == 0, done.stderr
    out = place / "out"
    found = json.loads((out / "metrics.json").read_text("utf-8"))
    rows = {row["name"]: row for row in found["rows"]}
    floor, fresh, noise, copies = (rows[name]["figures"] for name in ("真实胸片（另一半）", "新画的", "噪声", "照抄"))
    assert {row["compared"] for row in rows.values()} == {50}
    # Images of an untrained model are far away, a fresh draw is not.
    assert noise["frechet"]["value"] > 10 * fresh["frechet"]["value"]
    assert noise["kid"]["value"] > 10 * abs(fresh["kid"]["value"])
    assert noise["precision"]["value"] < 0.2 < 0.5 < fresh["precision"]["value"]
    assert noise["ms_ssim"]["value"] < 0.1 < fresh["ms_ssim"]["value"]
    assert copies["memorised"]["value"] == 1 > 0.1 > fresh["memorised"]["value"]
    assert floor["frechet_all"] == {"missing": "一半对一半没有“全部”可言"}
    assert "没有标签" in noise["agreement"]["missing"] and fresh["agreement"]["value"] > 0.6
    assert np.sum(rows["新画的"]["label_agreement"]["confusion_matrix"]) == 60
    assert found["demo_data"] is True and found["seed"] == 1 and found["encoder"]["dim"] == 512
    assert [one["mark"] for one in found["datasets"]] == [
        "真实（real）", "模体（phantom）", "合成（synthetic）", "合成（synthetic）", "真实（real）"]
    page = (out / "fidelity.md").read_text("utf-8")
    for words in ("模体（phantom）", "合成（synthetic）", "不满秩（rank-deficient）", "模体（phantom）训练的",
                  "not for clinical use", "(fidelity.png)", "(closest.png)"):
        assert words in page
    with open(out / "fidelity.csv", encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["set"] for row in table] == list(rows) and float(table[1]["frechet"]) == pytest.approx(
        fresh["frechet"]["value"], rel=1e-4)
    for name in ("fidelity.png", "closest.png"):
        with Image.open(out / name) as image:
            assert image.format == "PNG" and image.width > 1000
    assert "lyph" not in done.stderr


def test_the_same_recipe_gives_the_same_bytes_and_computes_nothing_twice(place, monkeypatch):
    run(place, monkeypatch=monkeypatch, draw=True)
    names = ["fidelity.md", "fidelity.csv", "metrics.json", "fidelity.png", "closest.png"]
    first = {name: (place / "out" / name).read_bytes() for name in names}
    monkeypatch.setattr(features, "_rows", lambda *_: pytest.fail("computed again"))
    run(place, monkeypatch=monkeypatch, draw=True)
    assert first == {name: (place / "out" / name).read_bytes() for name in names}


def test_changed_images_are_not_taken_for_the_old_ones(place, monkeypatch):
    before = run(place, monkeypatch=monkeypatch)
    for i in range(50):
        shutil.copy(place / f"real/normal/{i}.png", place / f"noise/{i}.png")
    after = run(place, monkeypatch=monkeypatch)
    old, new = (found["rows"][2]["figures"]["frechet"]["value"] for found in (before, after))
    assert new < old / 5


def test_what_cannot_be_had_is_said_and_the_rest_is_made(place, monkeypatch, capsys):
    for file in sorted((place / "noise").iterdir())[20:]:
        file.unlink()
    found = run(place, "Training=null", monkeypatch=monkeypatch)
    noise = found["rows"][2]["figures"]
    assert "只有 20 张，至少要 50 张" in noise["frechet"]["missing"] and "value" in noise["ms_ssim"]
    assert found["rows"][1]["figures"]["frechet"]["value"] > 0 and "memorised" not in noise and "agreement" not in noise
    said = capsys.readouterr().out
    assert "不做记忆检查" in said and "不做标签一致性" in said and not (place / "out/closest.png").exists()
    found = run(place, "Measures.least=100", "Global.output_dir=out2", "Generated.1.limit=1", monkeypatch=monkeypatch)
    found = json.loads((place / "out2/metrics.json").read_text("utf-8"))
    assert all("分成两半后不到 100 张" in row["figures"]["kid"]["missing"] for row in found["rows"])
    assert "没有图对" in found["rows"][2]["figures"]["ms_ssim"]["missing"]


def test_held_out_images_that_say_nothing(place, monkeypatch):
    found = run(place, "Real.path=train", "Measures.closest=0.001", monkeypatch=monkeypatch)
    assert "全都在训练图" in found["rows"][1]["figures"]["memorised"]["missing"]
    found = run(place, "Measures.closest=0.001", monkeypatch=monkeypatch)
    assert "至少 1000 张" in found["rows"][1]["figures"]["memorised"]["missing"]


def test_broken_images_are_named_and_left_out(place, monkeypatch):
    (place / "real/normal/0.png").write_bytes(b"not an image")
    (place / "noise/0.png").write_bytes(b"")
    found = run(place, monkeypatch=monkeypatch)
    assert [row["images"] for row in found["rows"]] == [99, 60, 49, 100]
    assert any("normal/0.png" in line for line in found["notices"])
    for file in (place / "noise").iterdir():
        file.write_bytes(b"x")
    with pytest.raises(UserError, match="噪声：没有一张图能读"):
        run(place, monkeypatch=monkeypatch)


def test_sets_of_different_kinds_are_said_to_be(place, monkeypatch):
    write_films(place / "large", 5, 30, size=96)
    found = run(place, "Generated=[{name: 大图, path: large}, {name: 只有一类, path: real, only: [normal]}, "
                "{name: 模体, pairs: {name: PhantomPairs, count: 60, size: 32}}]", monkeypatch=monkeypatch)
    said = "\n".join(found["notices"])
    assert "大图 的图边长约 96 像素" in said and "只有一类 与 真实胸片 的类别比例不同（相差 50%）" in said
    assert "模体 是模体（phantom）：不是同一种图像" in said


@pytest.mark.parametrize(("change", "words"), [
    ("Encoder={name: ResNetFeatures, checkpoint: nowhere}", ["nowhere"]),
    ("Encoder.name=ResNetFeature", ["Encoder.name", "是不是 ResNetFeatures"]),
    ("Real.path=reel", ["Real.path", "reel", "是不是 real"]),
    ("Real.path=f.yaml", ["Real.path", ".jsonl"]),
    ("Real={name: a}", ["Real", "两个都没有"]),
    ("Generated.0.path=real", ["Generated.0", "两个都写了"]),
    ("Generated.0.pairs.findings=[toe]", ["PhantomPairs.findings", "toe"]),
    ("Generated=[]", ["Generated", "至少 1 项"]),
    ("Generated.1.name=照抄", ["Generated.2.name", "两次"]),
    ("Generated.1.name='a|b'", ["Generated.1.name", "|"]),
    ("Generated.2.only=[efusion]", ["Generated.2.only", "是不是 effusion"]),
    ("Measures.ssim_size=200", ["Measures.ssim_size", "16"]),
    ("Measures.kk=2", ["Measures.kk", "是不是 k"]),
    ("Agreement={classifier: nowhere}", ["Agreement.classifier", "nowhere"]),
    ("Agreement={classifier: noise}", ["noise", "model.safetensors"]),
    ("Real.path=bad.jsonl", ["bad.jsonl:2", "JSON"]),
    ("Real.path=out_of.jsonl", ["out_of.jsonl:1", "之外"]),
    ("Real.path=empty", ["Real.path", "没有图像"]),
])
def test_one_line_for_every_mistake(place, monkeypatch, change, words):
    (place / "bad.jsonl").write_text('{"image": "real/normal/0.png"}\n{"image": \n')
    (place / "out_of.jsonl").write_text('{"image": "../secret.png"}\n')
    (place / "empty").mkdir()
    with pytest.raises(UserError) as told:
        run(place, change, monkeypatch=monkeypatch)
    assert all(word in str(told.value) for word in words), told.value
    assert "\n" not in str(told.value)


def test_aliases_of_no_class(network):
    assert open_classifier(network, {"effusion": ["积液"]}).classes[1].matches("积液")
    with pytest.raises(UserError, match="Agreement.aliases.*covid.*normal、effusion"):
        open_classifier(network, {"covid": ["x"]})


def test_the_folder_of_another_run_is_left_alone(place, monkeypatch):
    (place / "out").mkdir()
    (place / "out/config.yaml").write_text("Global: {task: pairs}\n")
    with pytest.raises(UserError, match="Global.output_dir"):
        run(place, monkeypatch=monkeypatch)
    assert (place / "out/config.yaml").read_text() == "Global: {task: pairs}\n"


# --- the sets ----------------------------------------------------------------------------------------------------

def read(path, **more):
    return read_set(ImageSetSection(name="a", path=str(path), **more), "Real", 0, "real")


def test_pairs_and_tables_say_labels_sides_and_patients(tmp_path):
    write_films(tmp_path / "i", 1, 2, ["normal"])
    lines = [{"image": "i/normal/0.png", "labels": {"effusion": 1, "mass": 0, "nodule": None}, "side": "left",
              "patient_id": 7, "generator": "phantom"},
             {"image": "i/normal/1.png", "labels": {"effusion": 0}}, {"image": "i/normal/1.png", "labels": {}},
             {"image": "i/normal/1.png", "labels": {}, "entities": [  # what is normal in itself has no label
                 {"id": "clear_lungs", "type": "non-abnormality"}, {"id": "left_lung", "type": "anatomy"}]}]
    for name in ("shard0", "shard1"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "\n")
    found = read(tmp_path / "shard0.jsonl")
    assert [image.labels for image in found.images] == [{"effusion"}, frozenset(), None, frozenset()]
    assert found.images[0][2:5] == ("left", "7", True) and found.mark == "真实（real），部分模体（phantom）"
    assert found.images[0].read().shape == (32, 32) and len(read(tmp_path / "shard*.jsonl")) == 8
    (tmp_path / "t.csv").write_text("file,label,patient_id\ni/normal/0.png,Mass|Nodule,p\ni/normal/1.png,,\n")
    table = read(tmp_path / "t.csv")
    assert [(image.labels, image.patient) for image in table.images] == [({"Mass", "Nodule"}, "p"), (None, None)]


@given(st.dictionaries(st.text(max_size=8), st.one_of(st.none(), st.integers(), st.text(max_size=5),
                                                      st.dictionaries(st.text(max_size=3), st.none()))))
def test_any_line_is_a_pair_or_one_clear_error(tmp_path_factory, row):
    file = tmp_path_factory.getbasetemp() / "any.jsonl"
    for line in (row, {"image": "a.png", **row}):
        file.write_text(json.dumps(line) + "\n")
        try:
            assert len(read(file)) == 1
        except UserError as error:
            assert "any.jsonl:1" in str(error)


@given(st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=1, max_size=30), st.integers(0, 5))
def test_halves_never_share_a_patient(patients, seed):
    class One:
        def __init__(self, patient):
            self.patient = patient

    one, other = halves([One(patient) for patient in patients], seed)
    assert sorted([*one, *other]) == [*range(len(patients))]
    assert not {patients[i] for i in one} & {patients[i] for i in other} - {None}
    if set(patients) == {None}:
        assert abs(len(one) - len(other)) <= 1


# --- kept features -----------------------------------------------------------------------------------------------

SLOWLY = """
import time
from pathlib import Path
from tqdm import tqdm
from paddle_cxr.synthesis.fidelity.features import rows_of
from paddle_cxr.synthesis.fidelity.images import read_set
from paddle_cxr.synthesis.fidelity.schema import ImageSetSection
from synthesis.thumbnails import Thumbnails

def encode(images):
    time.sleep(0.3)
    return Thumbnails().encode(images)

rows_of(read_set(ImageSetSection(name="a", path="real"), "Real", 0, "real"), encode, Path("out"), lambda *_: tqdm())
"""


def with_tests():
    """The environment of a child that finds what this test does."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


def test_a_killed_run_goes_on_where_it_was(place, monkeypatch):
    """kill -9 in the middle, half a row at the end of the file: what is there is not computed again."""
    monkeypatch.chdir(place)
    started = subprocess.Popen([sys.executable, "-c", SLOWLY], env=with_tests(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(file.stat().st_size for file in place.glob("out/*.f32")):
        assert time.monotonic() < deadline and started.poll() is None
        time.sleep(0.005)
    started.send_signal(signal.SIGKILL)
    started.wait()
    file = next(place.glob("out/*.f32"))
    assert file.stat().st_size == 64 * 64 * 4  # a block of 64 of the 100 images
    file.write_bytes(file.read_bytes()[:-7])
    images, calls = read("real"), []
    encode = Thumbnails().encode
    rows, broken = features.rows_of(images, lambda x: calls.append(len(x)) or encode(x), place / "out",
                                    lambda *_: tqdm(disable=True))
    assert calls == [2, 37] and not broken  # the test pictures, and what was missing
    np.testing.assert_array_equal(rows, encode([image.read() for image in images.images]))


def test_a_full_disk_is_one_line(place):
    code = """
import argparse, resource, signal
import synthesis.thumbnails
from paddle_cxr.synthesis.fidelity.run import measure
from paddle_cxr import cli
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
cli.run(measure, argparse.Namespace(config="f.yaml", override=[], debug=False))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=place, env=with_tests(), capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and "无法写入" in done.stderr and "features" in done.stderr, done.stderr


def test_two_programs_in_one_folder(place, monkeypatch):
    pytest.importorskip("fcntl")
    with locked(place / "out/.lock"), pytest.raises(UserError, match="Global.output_dir.*另一个程序"):
        run(place, monkeypatch=monkeypatch)
    assert run(place, monkeypatch=monkeypatch)["task"] == "fidelity"


def test_a_broken_model_is_not_taken_for_broken_images(place, monkeypatch):
    monkeypatch.setattr(Thumbnails, "encode", lambda self, images: np.full((len(images), 64), np.nan, np.float32))
    with pytest.raises(UserError, match="NaN.*权重") as told:
        run(place, monkeypatch=monkeypatch)
    assert "normal" not in str(told.value)


def test_a_sheet_of_other_training_images_does_not_stay(place, monkeypatch):
    (place / "out").mkdir()
    (place / "out/closest.png").write_bytes(b"of an older run")
    run(place, "Training=null", monkeypatch=monkeypatch)
    assert not (place / "out/closest.png").exists()


@pytest.mark.parametrize(("marks", "demo", "line"), [
    (["真实（real）", "真实（real）"], False, None), (["真实（real）", "合成（synthetic）"], False, "synthetic"),
    (["真实（real）"], True, "phantom")])
def test_a_figure_says_what_its_images_are(tmp_path, monkeypatch, marks, demo, line):
    """Two sets of real films are not called synthetic."""
    said = []
    original = fidelity_figures.drawing
    monkeypatch.setattr(fidelity_figures, "drawing", lambda *a, **k: said.append(k) or original(*a, **k))
    rows = [Row(f"组{i}", mark, 9, 9, {"frechet": Figure(1.0 + i)}) for i, mark in enumerate(marks)]
    fidelity_figures.plot_fidelity(rows, "编码器", tmp_path / "f.png", demo=demo)
    assert said[0]["demo"] is (line is not None) and (line is None or line in said[0]["line"])


# --- real radiographs --------------------------------------------------------------------------------------------

def test_normal_films_against_normal_films(tmp_path, real_data, network, monkeypatch):
    """Two halves of one class of real films are as near as the floor; phantoms are not."""
    rows = [row for row in csv.DictReader(open(real_data / "cxr/index.csv", encoding="utf-8"))
            if row["label"] == "NORMAL"][:240]
    for name, part in (("one", rows[:120]), ("other", rows[120:])):
        for row in part:
            target = tmp_path / name / "NORMAL" / os.path.basename(row["file"])
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(real_data / "cxr" / row["file"])
    (tmp_path / "f.yaml").write_text(f"""
Global: {{output_dir: out}}
Encoder: {{name: ResNetFeatures, checkpoint: {network}}}
Real: {{name: 正常, path: one}}
Generated:
  - {{name: 另一些正常, path: other, mark: real}}
  - {{name: 模体, pairs: {{name: PhantomPairs, count: 100, size: 128, findings: [normal, viral]}}}}
Measures: {{ssim_pairs: 5}}
""", "utf-8")
    rows = run(tmp_path, monkeypatch=monkeypatch)["rows"]
    floor, same, phantoms = (row["figures"]["kid"]["value"] for row in rows)
    assert max(same, floor) < 0.1 * phantoms  # an unbiased estimate may be negative
