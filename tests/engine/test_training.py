"""The training loop: what it computes, what it leaves behind, and that no interruption changes the result."""

import csv
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import ONE_THREAD
from PIL import Image
from recipes import write_tiny_recipe
from safetensors.numpy import load_file
from visualdl import LogReader

ROOT = Path(__file__).resolve().parents[2]


def weights(folder: Path, which: str = "latest") -> dict[str, np.ndarray]:
    return load_file(folder / "checkpoints" / which / "model.safetensors")


def state(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "checkpoints/latest/state.safetensors")


def assert_identical(a: Path, b: Path, tolerance: float = 0.0) -> None:
    """Weights and optimizer bit for bit; the reported sums too, or within ``tolerance``."""
    for read in (weights, state):
        left, right = read(a), read(b)
        assert left.keys() == right.keys()
        for name in left:
            assert np.array_equal(left[name], right[name]), name
    left, right = (json.loads((f / "checkpoints/latest/state.json").read_text()) for f in (a, b))
    for numbers in (left, right):
        numbers.pop("seconds")
        for row in numbers["history"]:
            row.pop("seconds")
    if not tolerance:
        assert left == right
    assert left["best"] == right["best"] and left["global_step"] == right["global_step"]
    for one, other in zip(left["history"], right["history"], strict=True):
        assert one == pytest.approx(other, rel=tolerance)


def train(tool, recipe, cwd, *overrides, code=0, **more):
    options = [part for override in overrides for part in ("-o", override)]
    done = tool("train", "-c", recipe, *options, cwd=cwd, **more)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run on one process and one thread; returns (recipe, output folder)."""
    folder = tmp_path_factory.mktemp("finished")
    recipe = write_tiny_recipe(folder)
    subprocess.run([sys.executable, ROOT / "tools/train.py", "-c", recipe, "-o", "Global.save_every_steps=1"],
                   check=True, cwd=folder, capture_output=True, env=os.environ | ONE_THREAD)
    return recipe, folder / "out"


def visualdl_tags(out: Path) -> dict[str, set[str]]:
    """What VisualDL's own reader finds in a run's log."""
    found = {}
    for file in (out / "visualdl").iterdir():
        for tag, kind in LogReader(file_path=str(file)).tags().items():
            name = tag.removeprefix(f"{file}/").replace("%", "/")  # how VisualDL keeps a slash in a tag
            found.setdefault(kind, set()).add(name)
    return found


def test_a_run_leaves_the_promised_files(finished):
    _, out = finished
    for name in ("config.yaml", "log.txt", "history.csv", "metrics.json", "curves.png", "confusion_matrix.png",
                 "roc.png", "pr.png", "calibration.png", "worst_mistakes.png", "mistakes.csv", "predictions.csv",
                 "checkpoints/latest/model.safetensors", "checkpoints/latest/model.json",
                 "checkpoints/latest/state.safetensors", "checkpoints/best/model.safetensors"):
        assert (out / name).stat().st_size > 0, name
    logged = visualdl_tags(out)
    assert {"step/train_loss", "step/lr", "epoch/train_loss", "epoch/val_accuracy"} <= logged["scalar"]
    assert logged["image"] == {"samples", "curves"}
    assert logged["pr_curve"] == {"pr/NORMAL", "pr/Viral Pneumonia", "pr/COVID"}
    assert not [p for p in out.rglob("*") if p.name.endswith((".tmp", ".new", ".old")) or ".tmp" in p.name]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["demo_data"] is False and metrics["seed"] == 1 and metrics["device"] == "cpu"
    assert len(metrics["dataset"]["fingerprint"]) == 16
    assert metrics["evaluation"]["samples"] == 6
    assert metrics["dataset"]["counts"]["train"] == {"NORMAL": 9, "Viral Pneumonia": 9, "COVID": 9}
    with open(out / "history.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert {"lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy"} <= set(rows[0])


def test_two_ranks_give_what_one_process_gives(finished, tool, tmp_path):
    recipe, one = finished
    train(tool, recipe, tmp_path, f"Global.output_dir={tmp_path}/two", "Global.ranks=2", env=ONE_THREAD)
    assert_identical(one, tmp_path / "two", tolerance=1e-6)
    for key in ("accuracy", "samples", "confusion_matrix"):
        assert (json.loads((one / "metrics.json").read_text())["evaluation"][key]
                == json.loads((tmp_path / "two/metrics.json").read_text())["evaluation"][key])


def test_paddles_own_launcher_gives_the_same(finished, tmp_path):
    recipe, one = finished
    command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--backend", "gloo",
               "--log_dir", tmp_path / "log", ROOT / "tools/train.py", "-c", recipe,
               "-o", f"Global.output_dir={tmp_path}/out"]
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True,
                          env=os.environ | ONE_THREAD, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_identical(one, tmp_path / "out", tolerance=1e-6)


def test_the_same_seed_gives_the_same_bits_whatever_the_workers(finished, tool, tmp_path):
    recipe, one = finished
    train(tool, recipe, tmp_path, f"Global.output_dir={tmp_path}/again", "DataLoader.Train.loader.num_workers=2",
          env=ONE_THREAD)
    assert_identical(one, tmp_path / "again")


def test_augmentation_on_the_device_trains_too(finished, tool, tmp_path):
    recipe, _ = finished
    train(tool, recipe, tmp_path, f"Global.output_dir={tmp_path}/device", "DataLoader.Train.augment_on=device",
          "Global.epochs=1")
    assert weights(tmp_path / "device")


FULL = ("Global.ema=0.9", "Optimizer={name: AdamW, weight_decay: 0.05, clip_norm: 1.0, lr: {name: Cosine, "
        "learning_rate: 1e-3, warmup_epochs: 1}}", "DataLoader.Train.batch_transform_ops=[{name: Mixup, alpha: 0.2}]",
        "Loss={name: CrossEntropy, label_smoothing: 0.1, class_weights: balanced}")


def test_what_a_killed_run_left_half_written_is_removed_and_nothing_else(finished, tool, tmp_path):
    recipe, _ = finished
    out = tmp_path / "out"
    (out / "checkpoints").mkdir(parents=True)
    half, other = out / "checkpoints/.weights.12345.tmp.pdparams", out / ".notes.tmp.txt"
    half.touch()
    other.touch()
    train(tool, recipe, tmp_path, f"Global.output_dir={out}", "Global.epochs=1", env=ONE_THREAD)
    assert not half.exists() and other.exists()


def start(recipe: Path, cwd: Path, *overrides: str) -> subprocess.Popen:
    """Start a run as a terminal would: in a process group of its own."""
    options = [part for override in overrides for part in ("-o", override)]
    return subprocess.Popen([sys.executable, str(ROOT / "tools/train.py"), "-c", str(recipe), *options], cwd=cwd,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
                            env=os.environ | ONE_THREAD)


@pytest.mark.parametrize("more", [(), FULL, ("Global.ranks=2",)], ids=["plain", "ema-mixup-clip", "two-ranks"])
def test_interrupted_by_ctrl_c_and_resumed_it_ends_the_same(finished, tool, tmp_path, more):
    recipe, _ = finished
    overrides = (f"Global.output_dir={tmp_path}/cut", *more, "Global.log_every=1")
    process = start(recipe, tmp_path, *overrides)
    wait_for(tmp_path / "cut/log.txt", "第 2/3 轮 1/3 步", process)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches every process of the group
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 130 and "续训" in complaint and "Traceback" not in complaint
    assert not (tmp_path / "cut/metrics.json").exists()
    done = train(tool, recipe, tmp_path, *overrides, env=ONE_THREAD)
    assert "续训：第 2 轮" in done.stdout
    newest = max((tmp_path / "cut/visualdl").iterdir())  # the one that VisualDL shows
    assert len(LogReader(file_path=str(newest)).get_data("scalar", "epoch/train_loss")) == 3
    train(tool, recipe, tmp_path, f"Global.output_dir={tmp_path}/whole", *more, "Global.log_every=1", env=ONE_THREAD)
    assert_identical(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize(("moment", "ranks"), [("第 2/3 轮 3/3 步", 1), ("第 3/3 轮 3/3 步", 2)])
def test_interrupted_as_an_epoch_ends_nothing_is_lost(finished, tool, tmp_path, moment, ranks):
    """Between the last step and the next the optimizer's state must survive being saved twice."""
    recipe, whole = finished
    overrides = (f"Global.output_dir={tmp_path}/cut", "Global.log_every=1", f"Global.ranks={ranks}")
    for number in range(2):  # the second time, soon after resuming
        process = start(recipe, tmp_path, *overrides)
        wait_for(tmp_path / "cut/log.txt", ("续训：" if number else moment), process)
        os.killpg(process.pid, signal.SIGINT)
        _, complaint = process.communicate(timeout=120)
        assert process.returncode in (0, 130) and "Traceback" not in complaint, complaint
        assert state(tmp_path / "cut")
    train(tool, recipe, tmp_path, *overrides, env=ONE_THREAD)
    assert_identical(whole, tmp_path / "cut", tolerance=1e-6)


def test_ranks_whose_clocks_differ_save_together(finished, tool, tmp_path):
    """Saving by the clock is decided by one for all, or one rank would wait for the others for ever."""
    recipe, whole = finished
    train(tool, recipe, tmp_path, f"Global.output_dir={tmp_path}/clock", "Global.ranks=2",
          "Global.save_every_minutes=0.001", env=ONE_THREAD, timeout=120)
    assert_identical(whole, tmp_path / "clock", tolerance=1e-6)


def test_ctrl_c_during_validation_stops_before_the_next_epoch(finished, tool, tmp_path):
    recipe, whole = finished
    program = tmp_path / "slow.py"  # the tool with a validation that takes a while and says so
    program.write_text(f"""import runpy, sys, time
sys.argv = ["train.py", *sys.argv[1:]]
sys.path.insert(0, {str(ROOT)!r})
import paddle_cxr
from paddle_cxr.tasks.classification import ClassificationTask
validate = ClassificationTask.validate
def slowly(self):
    print("validating", flush=True)
    time.sleep(3)
    return validate(self)
ClassificationTask.validate = slowly
runpy.run_path({str(ROOT / "tools/train.py")!r}, run_name="__main__")
""", encoding="utf-8")
    command = [sys.executable, str(program), "-c", str(recipe), "-o", f"Global.output_dir={tmp_path}/cut"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=os.environ | ONE_THREAD)
    for line in process.stdout:
        if line.strip() == "validating":
            process.send_signal(signal.SIGINT)
            break
    rest, complaint = process.communicate(timeout=120)
    assert process.returncode == 130 and "续训" in complaint and "第 2/3 轮" not in rest, complaint
    train(tool, recipe, tmp_path, f"Global.output_dir={tmp_path}/cut", env=ONE_THREAD)
    assert_identical(whole, tmp_path / "cut")


def test_a_disk_that_fills_up_half_way_loses_nothing(finished, tool, tmp_path):
    recipe, whole = finished
    overrides = (f"Global.output_dir={tmp_path}/full", "Global.log_every=1")
    process = start(recipe, tmp_path, *overrides)
    wait_for(tmp_path / "full/log.txt", "第 2/3 轮 1/3 步", process)
    # A limit on the size of files stands for a full disk: the next checkpoint fails, logs and tables still fit.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 2 and "检查磁盘空间" in complaint and "Traceback" not in complaint
    assert len([line for line in complaint.splitlines() if line.startswith("错误：")]) == 1
    checkpoint = tmp_path / "full/checkpoints"
    assert [p.name for p in checkpoint.iterdir() if p.name.startswith("latest")] == ["latest"]
    assert json.loads((checkpoint / "latest/state.json").read_text())["epoch"] == 1  # the one before, whole
    assert "续训：第 2 轮" in train(tool, recipe, tmp_path, *overrides, env=ONE_THREAD).stdout
    assert_identical(whole, tmp_path / "full")


def wait_for(file: Path, text: str, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if file.is_file() and text in file.read_text(encoding="utf-8"):
            return
        if process.poll() is not None:
            pytest.fail(f"ended before {text!r}: {process.communicate()}")
        time.sleep(0.02)
    pytest.fail(f"{text!r} did not appear in {file}")


def kill_and_resume(recipe: Path, output: Path, cwd: Path, ranks: int, kills: int, seed: int) -> None:
    """Start the run again and again, killing it at random moments, then let it finish."""
    chance = random.Random(seed)
    command = [sys.executable, str(ROOT / "tools/train.py"), "-c", str(recipe), "-o", f"Global.output_dir={output}",
               "-o", f"Global.ranks={ranks}", "-o", "Global.save_every_steps=1"]
    for _ in range(kills):
        process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   env=os.environ | ONE_THREAD)
        log = output / "log.txt"
        begun = log.stat().st_size if log.is_file() else 0
        # Past the slow start, so that the moments fall into steps, checkpoints and evaluations.
        while process.poll() is None and (not log.is_file() or log.stat().st_size == begun):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        for file in output.rglob("checkpoints/*/*.safetensors"):
            if ".new" not in str(file):
                load_file(file)  # never half-written
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, timeout=300, env=os.environ | ONE_THREAD)


def test_killed_and_resumed_it_ends_the_same(finished, tmp_path):
    recipe, one = finished
    kill_and_resume(recipe, tmp_path / "killed", tmp_path, ranks=1, kills=2, seed=3)
    assert_identical(one, tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_ten_times_and_resumed_it_ends_the_same(finished, tool, tmp_path, ranks):
    recipe, _ = finished
    train(tool, recipe, tmp_path, f"Global.output_dir={tmp_path}/whole", f"Global.ranks={ranks}",
          env=ONE_THREAD)
    kill_and_resume(recipe, tmp_path / "killed", tmp_path, ranks=ranks, kills=10, seed=ranks)
    assert_identical(tmp_path / "whole", tmp_path / "killed")


def test_a_finished_or_different_run_is_kept_under_another_name(finished, tool, tmp_path):
    recipe, _ = finished
    train(tool, recipe, tmp_path, f"Global.output_dir={tmp_path}/out", "Global.epochs=1")
    first = weights(tmp_path / "out")
    train(tool, recipe, tmp_path, f"Global.output_dir={tmp_path}/out", "Global.epochs=1", "Global.seed=5")
    kept = [p for p in tmp_path.iterdir() if p.name.startswith("out-")]
    assert len(kept) == 1 and np.array_equal(weights(kept[0])["fc.weight"], first["fc.weight"])


def test_early_stopping_and_frozen_layers(finished, tool, tmp_path):
    recipe, one = finished
    done = train(tool, recipe, tmp_path, f"Global.output_dir={tmp_path}/out", "Global.epochs=8", "Global.early_stop=1",
                 "Optimizer.lr.learning_rate=0.0", "Global.freeze=[conv1, bn1, layer1]",
                 f"Arch.pretrained={one}/checkpoints/best")
    assert "早停" in done.stdout
    trained, before = weights(tmp_path / "out"), weights(one, "best")
    for name in before:
        if name.startswith(("conv1", "bn1", "layer1")):
            assert np.array_equal(trained[name], before[name]), name
    assert not np.array_equal(trained["layer4.0.bn1._mean"], before["layer4.0.bn1._mean"])


def test_a_diverging_loss_stops_with_the_files_of_its_batch(finished, tool, tmp_path):
    recipe, _ = finished
    done = train(tool, recipe, tmp_path, f"Global.output_dir={tmp_path}/out",
                 "Loss.class_weights=[.inf, 1, 1]", code=2)
    assert "损失（loss）是" in done.stderr and ".jpg" in done.stderr and "Traceback" not in done.stderr


def test_cross_validation_runs_every_fold_once_and_sums_up(finished, tool, tmp_path):
    recipe, _ = finished
    options = (f"Global.output_dir={tmp_path}/cv", "Global.folds=3", "Global.epochs=1", "Global.keep=last")
    train(tool, recipe, tmp_path, *options)
    summary = json.loads((tmp_path / "cv/metrics.json").read_text())
    assert summary["summary"]["samples"] == 36 and summary["summary"]["folds"] == 3
    assert len(summary["summary"]["accuracy"]["values"]) == 3
    assert (tmp_path / "cv/folds.png").stat().st_size > 0 and "±" in (tmp_path / "cv/folds.md").read_text()
    fold = json.loads((tmp_path / "cv/fold1/metrics.json").read_text())["evaluation"]
    done = tool("eval", "-c", recipe, *[p for o in (*options, "Global.fold=1") for p in ("-o", o)], cwd=tmp_path,
                env=ONE_THREAD)
    again = json.loads((tmp_path / "cv/fold1/eval_val/metrics.json").read_text())["evaluation"]
    assert again["confusion_matrix"] == fold["confusion_matrix"] and again["also_trained_on"] == 0, done.stderr
    done = tool("eval", "-c", recipe, *[p for o in options for p in ("-o", o)], cwd=tmp_path, env=ONE_THREAD)
    assert done.returncode == 2 and "Global.fold=0" in done.stderr
    before = (tmp_path / "cv/fold0/metrics.json").stat().st_mtime_ns
    assert "第 0 折已完成" in train(tool, recipe, tmp_path, *options).stdout
    assert (tmp_path / "cv/fold0/metrics.json").stat().st_mtime_ns == before


def test_cross_validation_does_the_folds_of_other_data_again(finished, tool, tmp_path):
    """A fold of the old division would hold patients whom another one tests."""
    recipe, _ = finished
    root = make_films(tmp_path / "films")
    options = (f"DataLoader.Source={{name: ListFile, root: {root}}}", f"Global.output_dir={tmp_path}/cv",
               "Global.folds=3", "Global.epochs=1", "Global.keep=last", "DataLoader.Train.sampler.batch_size=4")
    train(tool, recipe, tmp_path, *options, "Global.fold=0")
    index = root / "index.csv"
    index.write_text(index.read_text(encoding="utf-8").replace("p11", "p1"), encoding="utf-8")
    said = train(tool, recipe, tmp_path, *options).stdout
    assert "第 0 折要重做，数据（图像、标签或患者）与那次不同" in said and "已完成，跳过" not in said
    folds = json.loads((tmp_path / "cv/metrics.json").read_text())["folds"]
    assert sum(fold["images"] for fold in folds) == 12
    file = tmp_path / "cv/fold0/metrics.json"
    fewer = json.loads(file.read_text())
    fewer["evaluation"]["images"] -= 1
    file.write_text(json.dumps(fewer))
    done = train(tool, recipe, tmp_path, *options, code=2)
    assert "各折共评估 11 张图，数据里有 12 张，不写汇总" in done.stderr


def make_films(folder: Path) -> Path:
    folder.mkdir()
    rows = ["file,label,patient_id"]
    for i in range(12):
        Image.fromarray(np.full((32, 32), 20 * i, np.uint8)).save(folder / f"{i}.png")
        rows.append(f"{i}.png,{('NORMAL', 'Viral Pneumonia', 'COVID')[i % 3]},p{i}")
    (folder / "index.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def test_dry_run_tells_time_and_memory_and_writes_nothing(finished, tool, tmp_path):
    recipe, _ = finished
    done = tool("train", "-c", recipe, "-o", f"Global.output_dir={tmp_path}/none", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("每步", "每轮", "内存", "MiB"):
        assert word in done.stdout
    assert not (tmp_path / "none").exists()
