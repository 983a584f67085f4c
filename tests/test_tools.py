"""The tools as a user runs them: the whole road, and one clear line for every mistake."""

import argparse
import csv
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from recipes import ROOT, write_tiny_recipe
from safetensors.numpy import load_file

from paddle_cxr.engine.evaluate import load_trained
from paddle_cxr.engine.jobs import evaluator
from paddle_cxr.errors import UserError
from paddle_cxr.recipe import load


def run(name: str, *arguments: object, cwd: Path, **more) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(ROOT / "tools" / f"{name}.py"), *map(str, arguments)], cwd=cwd,
                          capture_output=True, text=True, timeout=240, **more)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained and exported tiny classifier: the folder that holds tiny.yaml, chest3/ and out/."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = write_tiny_recipe(folder)
    for name in ("train", "export"):
        done = run(name, "-c", recipe, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


# --- the road --------------------------------------------------------------------------------------------------------

def test_eval_reports_a_subset_it_was_not_trained_on(trained):
    done = run("eval", "-c", "tiny.yaml", "-o", "DataLoader.Eval.subset=test", cwd=trained)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((trained / "out/eval_test/metrics.json").read_text())["evaluation"]
    assert metrics["samples"] == 6 and metrics["also_trained_on"] == 0
    assert set(metrics["ci95"]) >= {"accuracy", "balanced_accuracy", "macro_auc"}
    assert (trained / "out/eval_test/worst_mistakes.png").stat().st_size > 0


def test_eval_says_when_it_sees_training_images_again(trained):
    done = run("eval", "-c", "tiny.yaml", "-o", "DataLoader.Eval.subset=all", cwd=trained)
    metrics = json.loads((trained / "out/eval_all/metrics.json").read_text())["evaluation"]
    assert metrics["samples"] == 36 and metrics["also_trained_on"] == 27
    assert "27 张" in done.stdout


def test_eval_that_is_stopped_leaves_nothing_of_the_one_before(trained, monkeypatch):
    """New predictions beside the old metrics.json would pass for one evaluation."""
    monkeypatch.chdir(trained)
    arguments = argparse.Namespace(config="tiny.yaml", override=["DataLoader.Eval.subset=train"])
    evaluator("classification")(arguments)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("paddle_cxr.engine.evaluate.predict_all", interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluator("classification")(arguments)
    assert {file.name for file in (trained / "out/eval_train").iterdir()} == {"config.yaml", "log.txt"}


def test_eval_of_another_folder_of_the_same_layout(trained, tmp_path):
    shutil.copytree(trained / "chest3/COVID", tmp_path / "new/COVID")
    shutil.copytree(trained / "chest3/NORMAL", tmp_path / "new/NORMAL")
    shutil.copytree(trained / "chest3/Viral Pneumonia", tmp_path / "new/Viral Pneumonia")
    done = run("eval", "-c", "tiny.yaml", "-o", f"DataLoader.Source.root={tmp_path}/new", "-o",
               "DataLoader.Eval.subset=all", "-o", f"Global.checkpoint={trained}/out", "-o",
               f"Global.output_dir={tmp_path}/result", cwd=trained)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "result/eval_all/metrics.json").read_text())["evaluation"]["samples"] == 36


def test_eval_takes_the_preprocessing_the_weights_were_trained_with(trained):
    done = run("eval", "-c", "tiny.yaml", "-o", "DataLoader.preprocess.std=[0.1]", "-o", "Global.image_shape=[1,64,64]",
               "-o", "Global.output_dir=other", "-o", "Global.checkpoint=out", cwd=trained)
    assert "按权重旁 model.json 的记录处理" in done.stdout, done.stderr
    first = json.loads((trained / "out/metrics.json").read_text())["evaluation"]
    again = json.loads((trained / "other/eval_val/metrics.json").read_text())["evaluation"]
    assert again["loss"] == pytest.approx(first["loss"], abs=1e-5)


def test_the_shortcut_check_is_a_report_of_its_own(trained):
    done = run("eval", "-c", "tiny.yaml", "-o", "DataLoader.Eval.hide=centre", "-o", "DataLoader.Eval.views=crops",
               cwd=trained)
    assert done.returncode == 0, done.stderr
    assert (trained / "out/eval_val_without_centre/metrics.json").is_file()


@pytest.mark.parametrize("engine", ["paddle", "inference", "onnx"])
def test_predict_a_folder_with_every_engine(trained, tmp_path, engine):
    done = run("predict", "-c", "tiny.yaml", "-i", "chest3/COVID", "--engine", engine, "--output", tmp_path,
               "--figures", 2, cwd=trained)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "predictions.csv", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and rows[0]["file"] == "00.jpg"
    columns = [f"p_{name}" for name in ("NORMAL", "Viral Pneumonia", "COVID")]
    assert sum(float(rows[0][column]) for column in columns) == pytest.approx(1, abs=1e-4)
    assert len(list((tmp_path / "figures").glob("*.png"))) == 2
    saved = json.loads((tmp_path / "predictions.json").read_text())
    assert saved["demo_data"] is False and "不能用于临床诊断" in saved["notice"]


def test_the_three_engines_agree(trained, tmp_path):
    tables = []
    for engine in ("paddle", "inference", "onnx"):
        run("predict", "-c", "tiny.yaml", "-i", "chest3", "--engine", engine, "--output", tmp_path / engine,
            "--figures", 0, cwd=trained)
        rows = json.loads((tmp_path / engine / "predictions.json").read_text())["predictions"]
        tables.append([[*row["probabilities"].values()] for row in rows])
    np.testing.assert_allclose(tables[0], tables[1], atol=1e-4)
    np.testing.assert_allclose(tables[0], tables[2], atol=1e-4)


def test_predict_a_zip_with_a_broken_file_in_it(trained, tmp_path):
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        archive.write(trained / "chest3/COVID/00.jpg", "a/good.jpg")
        archive.writestr("a/broken.jpg", (trained / "chest3/COVID/01.jpg").read_bytes()[:300])
        archive.writestr("a/readme.txt", "not an image")
    done = run("predict", "-c", "tiny.yaml", "-i", tmp_path / "films.zip", "--output", tmp_path / "p", cwd=trained)
    assert done.returncode == 0, done.stderr
    assert "broken.jpg" in done.stdout and "1 张读不了" in done.stdout
    assert len(json.loads((tmp_path / "p/predictions.json").read_text())["predictions"]) == 1


def test_prepare_data_writes_lists_that_train(trained, tmp_path):
    done = run("prepare_data", "-c", "tiny.yaml", "-o", f"Prepare.output={tmp_path}/lists", cwd=trained)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "lists/report.json").is_file()
    source = f"{{name: ListFile, root: {trained}/chest3, file: {tmp_path}/lists/list.csv}}"
    done = run("train", "-c", "tiny.yaml", "-o", f"DataLoader.Source={source}", "-o",
               "DataLoader.Split={name: Published, val: 0.2}", "-o", f"Global.output_dir={tmp_path}/out", "-o",
               "Global.epochs=1", cwd=trained)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_demo_run_is_marked_everywhere(trained, tmp_path):
    done = run("train", "-c", ROOT / "configs/resnet18.yaml", "-o", "fallback.DataLoader.Source.per_class=20", "-o",
               "Global.epochs=1", "-o", "Global.image_shape=[1,32,32]", "-o", "Metric.bootstrap=20", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "phantom" in done.stdout and "不是临床结果" in done.stdout
    folder = next((tmp_path / "output").iterdir())
    assert json.loads((folder / "metrics.json").read_text())["demo_data"] is True
    assert json.loads((folder / "checkpoints/best/model.json").read_text())["demo_data"] is True
    done = run("predict", "-c", folder / "config.yaml", "-i", trained / "chest3/COVID/00.jpg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"权重：{Path('output') / folder.name}" in done.stdout and "对真实胸片的预测没有意义" in done.stdout
    with open(folder / "predict/predictions.csv", encoding="utf-8-sig") as file:
        assert [row["demo_data"] for row in csv.DictReader(file)] == ["1"]


def test_training_from_a_zip(trained, tmp_path):
    shutil.make_archive(str(tmp_path / "chest3"), "zip", trained / "chest3")
    done = run("train", "-c", "tiny.yaml", "-o", f"DataLoader.Source.root={tmp_path}/chest3.zip", "-o",
               f"Global.output_dir={tmp_path}/out", "-o", "Global.epochs=1", cwd=trained)
    assert done.returncode == 0, done.stdout + done.stderr


# --- mistakes --------------------------------------------------------------------------------------------------------

def fails(done: subprocess.CompletedProcess, *said: str, code: int = 2) -> None:
    """One clear line on stderr, no traceback, a non-zero exit."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == code, done.stdout + done.stderr
    assert len(lines) == 1 and lines[0].startswith("错误："), done.stderr
    for text in said:
        assert text in lines[0], lines[0]


def spoiled(trained: Path, tmp_path: Path) -> Path:
    """A copy of the data, to spoil."""
    return Path(shutil.copytree(trained / "chest3", tmp_path / "spoiled"))


def train_on(data: Path, trained: Path, tmp_path: Path, *more: str) -> subprocess.CompletedProcess:
    options = [f"DataLoader.Source.root={data}", f"Global.output_dir={tmp_path}/out", "Global.epochs=1", *more]
    return run("train", "-c", "tiny.yaml", *[p for o in options for p in ("-o", o)], cwd=trained)


def test_missing_data_without_fallback(trained, tmp_path):
    fails(train_on(tmp_path / "nowhere", trained, tmp_path), "nowhere", "DataLoader.Source.root")


def test_empty_class_folder(trained, tmp_path):
    data = spoiled(trained, tmp_path)
    for file in (data / "COVID").iterdir():
        file.unlink()
    fails(train_on(data, trained, tmp_path), "COVID")


def test_one_class_data(trained, tmp_path):
    data = spoiled(trained, tmp_path)
    shutil.rmtree(data / "COVID")
    shutil.rmtree(data / "NORMAL")
    fails(train_on(data, trained, tmp_path), "COVID")


def test_unreadable_image_is_named_and_can_be_skipped(trained, tmp_path):
    data = spoiled(trained, tmp_path)
    (data / "COVID/03.jpg").write_bytes((data / "COVID/03.jpg").read_bytes()[:200])
    fails(train_on(data, trained, tmp_path), "03.jpg")
    done = train_on(data, trained, tmp_path, "DataLoader.on_error=skip")
    assert done.returncode == 0 and "03.jpg" in done.stdout, done.stderr


def test_label_outside_range(trained, tmp_path):
    (tmp_path / "list.csv").write_text("file,label\nCOVID/00.jpg,7\n", encoding="utf-8")
    fails(train_on(trained / "chest3", trained, tmp_path, "DataLoader.Source.name=ListFile",
                   f"DataLoader.Source.file={tmp_path}/list.csv"), "list.csv", "7")


@pytest.mark.parametrize("override, said", [
    ("Arch.class_num=5", "Arch.class_num"),
    ("Global.classes=[{name: NORMAL, zh: 正常, en: N}, {name: COVID, zh: 新冠, en: C}]", "Viral Pneumonia"),
    ("Global.epoch=1", "epochs"),
    ("Global.epochs=many", "Global.epochs"),
    ("Optimizer.lr.rate=1", "learning_rate"),
    ("Optimizer.lr.learning_rate=fast", "Optimizer.lr.learning_rate"),
    ("DataLoader.Train.transform_ops.9.prob=1", "transform_ops"),
    ("Global", "a.b.c=值"),
    ("Global.device=gpu", "GPU"),
    ("Global.device=gpu:3", "GPU"),
    ("Global.freeze=[layer9]", "Global.freeze.0"),
    ("Arch.pretrained=/nowhere/w.pdparams", "/nowhere/w.pdparams"),
    ("Global.resume=true", "Global.resume=true"),
])
def test_a_wrong_value(trained, tmp_path, override, said):
    fails(run("train", "-c", "tiny.yaml", "-o", f"Global.output_dir={tmp_path}/out", "-o", override, cwd=trained), said)


@pytest.mark.parametrize("override, said", [
    ("DataLoader.Train.subset=trian", "trian"), ("Global.freeze=[layer9]", "Global.freeze.0")])
def test_a_wrong_value_is_told_once_by_two_ranks(trained, tmp_path, override, said):
    fails(run("train", "-c", "tiny.yaml", "-o", f"Global.output_dir={tmp_path}/out", "-o", "Global.ranks=2", "-o",
              override, cwd=trained), said)


def test_a_mistake_on_the_command_line(trained):
    fails(run("train", "-c", "tiny.yaml", "-o", "Global.epochs=1", "Global.seed=2", cwd=trained),
          "Global.seed=2", "每一项改写前都要写 -o")


@pytest.mark.parametrize("text, said", [
    ("Global: {epochs: 1\n", "语法"), ("_base_: me.yaml\n", "循环"), ("- 1\n", "最外层")])
def test_a_broken_recipe(trained, tmp_path, text, said):
    (tmp_path / "me.yaml").write_text(text, encoding="utf-8")
    fails(run("train", "-c", tmp_path / "me.yaml", cwd=trained), said, "me.yaml")


@pytest.mark.parametrize("tool_name", ["train", "eval", "predict", "export", "prepare_data"])
def test_a_missing_recipe_in_every_tool(trained, tool_name):
    more = ["-i", "chest3"] if tool_name == "predict" else []
    fails(run(tool_name, "-c", "nowhere.yaml", *more, cwd=trained), "nowhere.yaml")


def test_checkpoint_of_another_architecture(trained, tmp_path):
    fails(run("eval", "-c", "tiny.yaml", "-o", "Arch.name=ResNet34", cwd=trained), "ResNet18", "ResNet34")


def test_truncated_checkpoint(trained, tmp_path):
    folder = Path(shutil.copytree(trained / "out/checkpoints/best", tmp_path / "cut"))
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:len(whole) // 2])
    fails(run("eval", "-c", "tiny.yaml", "-o", f"Global.checkpoint={folder}", cwd=trained), "model.safetensors")


@pytest.mark.parametrize("change", [{"classes": 3}, {"classes": ["a"]}, {"preprocess": [1]},
                                    {"preprocess": {"image_shape": 5}}, {"preprocess": {"mean": "abc"}}])
def test_a_checkpoint_whose_record_is_not_what_it_should_be(trained, tmp_path, change):
    folder = Path(shutil.copytree(trained / "out/checkpoints/best", tmp_path / "odd"))
    meta = json.loads((folder / "model.json").read_text(encoding="utf-8")) | change
    (folder / "model.json").write_text(json.dumps(meta), encoding="utf-8")
    with pytest.raises(UserError, match="model.json 损坏"):
        load_trained(load(trained / "tiny.yaml"), folder)


def test_truncated_state_does_not_resume(trained, tmp_path):
    out = Path(shutil.copytree(trained / "out", tmp_path / "out"))
    (out / "metrics.json").unlink()
    file = out / "checkpoints/latest/state.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    done = run("train", "-c", "tiny.yaml", "-o", f"Global.output_dir={out}", cwd=trained)
    fails(done, "state.safetensors")


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_a_checkpoint_with_executable_pickle_is_refused_and_not_run(trained, tmp_path):
    (tmp_path / "evil.pdparams").write_bytes(pickle.dumps({"fc.weight": Evil(tmp_path / "ran")}, protocol=2))
    fails(run("eval", "-c", "tiny.yaml", "-o", f"Global.checkpoint={tmp_path}/evil.pdparams", cwd=trained),
          "evil.pdparams", "system")
    assert not (tmp_path / "ran").exists()


def test_no_permission_in_the_output_folder(trained, tmp_path):
    (tmp_path / "file").write_text("a file where a folder should be")
    fails(run("train", "-c", "tiny.yaml", "-o", f"Global.output_dir={tmp_path}/file/out", cwd=trained), "无法写入")


def test_no_space_in_the_output_folder(trained, tmp_path):
    """A file-size limit stands for a full disk: the write fails with the same kind of error."""
    code = ("import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
            "resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000)); sys.argv = sys.argv[1:]; "
            "runpy.run_path(sys.argv[0], run_name='__main__')")
    done = subprocess.run([sys.executable, "-c", code, str(ROOT / "tools/train.py"), "-c", "tiny.yaml", "-o",
                           f"Global.output_dir={tmp_path}/out", "-o", "Global.epochs=1"], cwd=trained,
                          capture_output=True, text=True, timeout=240)
    fails(done, "无法写入", "磁盘空间")
    assert not list((tmp_path / "out").rglob("model.safetensors"))


def test_pretrained_weights_fit_a_model_of_other_classes_and_channels(trained, tmp_path):
    done = run("train", "-c", "tiny.yaml", "-o", f"Arch.pretrained={trained}/out/checkpoints/best", "-o",
               f"Global.output_dir={tmp_path}/out", "-o", "Global.epochs=1", "-o", "Optimizer.lr.learning_rate=0.0",
               cwd=trained)
    assert done.returncode == 0 and "起始权重" in done.stdout, done.stderr
    before = load_file(trained / "out/checkpoints/best/model.safetensors")
    after = load_file(tmp_path / "out/checkpoints/latest/model.safetensors")
    assert np.array_equal(before["conv1.weight"], after["conv1.weight"])


def test_help_is_quick_and_needs_no_paddle(tmp_path):
    hide = tmp_path / "paddle"
    hide.mkdir()
    (hide / "__init__.py").write_text("raise ImportError('paddle must not be needed for --help')")
    for name in ("train", "eval", "predict", "export", "prepare_data"):
        done = run(name, "--help", cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)})
        assert done.returncode == 0 and "-o" in done.stdout, done.stderr


@pytest.mark.parametrize("name", sorted(file.stem for file in (ROOT / "tools").glob("*.py")))
def test_redirected_output_holds_chinese_whatever_the_system(name):
    """On an English Windows a file or a pipe has cp1252, in which nothing of this could be printed."""
    done = run(name, "-h", cwd=ROOT, encoding="utf-8", env=os.environ | {"PYTHONIOENCODING": "cp1252"})
    assert done.returncode == 0 and "出错时显示完整的调用栈" in done.stdout, done.stderr


def test_images_of_every_kind_are_predicted(trained, tmp_path):
    grey = np.asarray(Image.open(trained / "chest3/COVID/00.jpg"))
    films = tmp_path / "films"
    films.mkdir()
    Image.fromarray(grey).save(films / "grey.png")
    Image.fromarray(grey.astype(np.uint16) << 6).save(films / "sixteen.png")
    Image.fromarray(grey).convert("RGBA").save(films / "rgba.png")
    Image.fromarray(grey).convert("P").save(films / "palette.png")
    run("predict", "-c", "tiny.yaml", "-i", films, "--output", tmp_path / "p", cwd=trained)
    rows = json.loads((tmp_path / "p/predictions.json").read_text())["predictions"]
    assert {row["file"] for row in rows} == {"grey.png", "sixteen.png", "rgba.png", "palette.png"}
    same = [row["probability"] for row in rows if row["file"] != "sixteen.png"]
    assert max(same) - min(same) < 1e-5
