"""Fine-tuning as a user runs it, from every kind of starting point."""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

from paddle_cxr.data.findings import label_matrix
from paddle_cxr.engine.distributed import World
from paddle_cxr.engine.jobs import evaluator
from paddle_cxr.engine.predict import predict
from paddle_cxr.errors import UserError
from paddle_cxr.models.resnet import ResNet18
from paddle_cxr.tasks.finetuning.features import TowerFeatures
from paddle_cxr.tasks.finetuning.loss import MaskedBCE
from paddle_cxr.tasks.finetuning.predict import open_predictor
from paddle_cxr.tasks.finetuning.recipe import load
from paddle_cxr.tasks.finetuning.run import check, prepare, read_data, run, settle
from paddle_cxr.tasks.finetuning.task import LinearProbeTask
from paddle_cxr.weights import load_weights, save_weights

linear_model = pytest.importorskip("sklearn.linear_model")
sklearn_metrics = pytest.importorskip("sklearn.metrics")

RECIPE = """
Global: {{task: finetuning, output_dir: {folder}/out, device: cpu, seed: 3, epochs: 2, image_shape: [1, 32, 32],
         micro_batches: 2, ranks: 1}}
Model: {{checkpoint: null, arch: ResNet18}}
Optimizer: {{name: AdamW, lr: {{name: Constant, learning_rate: 1.0e-3}}}}
DataLoader:
  Source: {{name: PhantomFindings, count: 60, seed: 5, size: 32, findings: [normal, effusion, cardiomegaly]}}
  Split: {{name: PatientSplit, val: 0.3, test: 0.3}}
  cache: {{mode: disk, folder: {cache}}}
  Train: {{sampler: {{batch_size: 12}}}}
  Eval: {{sampler: {{batch_size: 16}}}}
  Test: {{subset: test}}
Metric: {{bootstrap: 20}}
"""
SHARED: list[Path] = []  # the folder of decoded images, which drawing phantoms anew for every test would take long for
PROBE = ["Finetune.mode=linear_probe", "Optimizer.lr.learning_rate=1e-2", "Global.epochs=3"]


@pytest.fixture(scope="module", autouse=True)
def shared_cache(tmp_path_factory):
    SHARED[:] = [tmp_path_factory.mktemp("cache")]


def write_recipe(folder: Path) -> Path:
    file = folder / "tiny.yaml"
    file.write_text(RECIPE.format(folder=folder, cache=SHARED[0]), encoding="utf-8")
    return file


def train(folder: Path, *overrides: str) -> Path:
    run(load(write_recipe(folder), overrides), World(), lambda _: None)
    return folder / "out"


def make_task(folder: Path, *overrides: str, say=lambda _: None):
    loaded = load(write_recipe(folder), overrides)
    settle(loaded.recipe)
    return prepare(loaded, read_data(loaded, say, World()), World(), say)


def evaluate(folder: Path, *overrides: str) -> None:
    evaluator("finetuning")(argparse.Namespace(config=str(folder / "tiny.yaml"), override=list(overrides)))


def evaluation(out: Path) -> dict:
    return json.loads((out / "metrics.json").read_text(encoding="utf-8"))["evaluation"]


def table(out: Path) -> list[dict[str, str]]:
    with open(out / "per_image.csv", encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


# --- a whole run ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("mode", [[], PROBE], ids=["all", "linear_probe"])
def test_a_run_leaves_model_figures_and_scores(tmp_path, mode):
    out = train(tmp_path, *mode)
    assert {file.name for file in out.iterdir()} >= {
        "config.yaml", "log.txt", "history.csv", "metrics.json", "checkpoints", "curves.png", "roc.png",
        "per_image.csv", "train_files.csv", "chosen_files.csv", "model"}
    found, rows = evaluation(out), table(out)
    assert found["subset"] == "test" and len(rows) == found["images"] and found["also_trained_on"] == 0
    aucs = [sklearn_metrics.roc_auc_score([int(row[f"label:{name}"]) for row in rows],
                                          [float(row[f"score:{name}"]) for row in rows])
            for name in ("effusion", "cardiomegaly")]
    assert found["macro_auc"] == pytest.approx(np.mean(aucs), abs=1e-9)
    assert found["macro_auc_ci95"][0] <= found["macro_auc"] <= found["macro_auc_ci95"][1]
    assert found["thresholds_from"] == "val" and found["also_chosen_on"] == 0
    assert " 宏平均 AUC 0." in (out / "log.txt").read_text(encoding="utf-8")
    with open(out / "train_files.csv", encoding="utf-8", newline="") as lines:
        trained = {row["patient_id"] for row in csv.DictReader(lines)}
    assert not trained & {row["patient_id"] for row in rows}

    evaluate(tmp_path, *mode, "DataLoader.Eval.subset=test")
    again = evaluation(out / "eval_test")
    assert again["also_trained_on"] == again["also_chosen_on"] == 0
    assert again["macro_auc"] == pytest.approx(found["macro_auc"], abs=1e-6)
    assert again["per_finding"]["effusion"]["f1"] == found["per_finding"]["effusion"]["f1"]


def test_very_unlikely_findings_are_ranked_like_any_others(tmp_path):
    """Their probabilities were all 0.0 below a logit of -37: ties, and an AUC of 0.5."""
    out = train(tmp_path, *PROBE)
    state, meta = load_weights(out / "model")
    save_weights(out / "model", state | {"fc.bias": state["fc.bias"] - 60}, meta)
    evaluate(tmp_path, *PROBE, "DataLoader.Eval.subset=test")
    assert all(0 < float(row["score:effusion"]) < 1e-20 for row in table(out / "eval_test"))
    for name, one in evaluation(out / "eval_test")["per_finding"].items():
        # Logits of -60 are floats wide enough apart for all but the closest images.
        assert one["auc"] == pytest.approx(evaluation(out)["per_finding"][name]["auc"], abs=0.01)


@pytest.mark.parametrize(("overrides", "what"), [
    ([], "最好的一轮和阈值"), (["Global.eval_every=0", "Global.keep=last"], "阈值")])
def test_what_is_judged_on_the_images_it_was_chosen_on_says_so(tmp_path, overrides, what):
    """By the training and by a later evaluation, which finds the record beside the weights."""
    out = train(tmp_path, *PROBE, "DataLoader.Test=null", *overrides)
    found = evaluation(out)
    assert found["subset"] == "val" and found["also_chosen_on"] == found["images"] > 0
    log = (out / "log.txt").read_text(encoding="utf-8")
    assert f"!! 评估的 {found['images']} 张里有 {found['images']} 张也用来选{what}，这个结果偏乐观" in log
    for subset, number in (("val", found["images"]), ("all", found["images"]), ("test", 0)):
        evaluate(tmp_path, *PROBE, f"DataLoader.Eval.subset={subset}")
        assert evaluation(out / f"eval_{subset}")["also_chosen_on"] == number
        log = (out / f"eval_{subset}/log.txt").read_text(encoding="utf-8")
        assert ("用来选过这份权重的阈值" in log) == bool(number)
    (out / "chosen_files.csv").unlink()  # as left by earlier versions
    evaluate(tmp_path, *PROBE)
    assert evaluation(out / "eval_val")["also_chosen_on"] is None
    assert "没有记录阈值和最好的一轮是在哪些图上选的" in (out / "eval_val/log.txt").read_text(encoding="utf-8")


def test_a_run_that_chooses_nothing_says_that_it_chose_on_nothing(tmp_path):
    cells = "f'{i % 2 if i < 24 or i >= 32 else 1},{i % 3 % 2 if i < 24 or i >= 32 else 0}'"  # one kind in val
    out = train(tmp_path, *PROBE, "Global.keep=last", *unknown_labels(tmp_path, cells), "DataLoader.Test=null")
    assert evaluation(out)["also_chosen_on"] == 0 and "偏乐观" not in (out / "log.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(("chosen", "tested"), [("all", "test"), ("test", "test"), ("val", "all")])
def test_nothing_is_chosen_on_test_images(tmp_path, chosen, tested):
    both = [f"DataLoader.Eval.subset={chosen}", f"DataLoader.Test.subset={tested}"]
    with pytest.raises(UserError, match=f"^DataLoader.Eval.subset：{chosen} 含有.*{tested}.*DataLoader.Test: null"):
        check(load(write_recipe(tmp_path), both).recipe)
    check(load(write_recipe(tmp_path), [*both, "DataLoader.Test=null"]).recipe)
    check(load(write_recipe(tmp_path), [*both, "Global.folds=3"]).recipe)


def test_an_evaluation_that_is_stopped_leaves_nothing_of_the_one_before(tmp_path):
    out = train(tmp_path, *PROBE)
    evaluate(tmp_path, *PROBE)
    (out / "eval_val/mine.png").write_bytes(b"mine")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("paddle_cxr.tasks.finetuning.evaluate.scores_of", interrupt)
        evaluate(tmp_path, *PROBE)
    assert {file.name for file in (out / "eval_val").iterdir()} == {"config.yaml", "log.txt", "mine.png"}


def options(overrides: list[str]) -> list[str]:
    return [part for one in overrides for part in ("-o", one)]


def test_predicting_a_folder_names_every_finding_that_reaches_its_threshold(tmp_path):
    from PIL import Image

    out = train(tmp_path, *PROBE)
    meta = json.loads((out / "model/model.json").read_text(encoding="utf-8"))
    assert set(meta["thresholds"]) == {"effusion", "cardiomegaly"} and meta["demo_data"]
    meta["thresholds"] = {"effusion": 0.0, "cardiomegaly": 2.0}
    (out / "model/model.json").write_text(json.dumps(meta), encoding="utf-8")
    films = tmp_path / "films"
    films.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50), np.uint8)).save(films / "a.png")
    assert predict(argparse.Namespace(config=str(tmp_path / "tiny.yaml"), override=[], input=str(films), output=None,
                                      engine="paddle", figures=1)) == 0
    row = json.loads((out / "predict/predictions.json").read_text(encoding="utf-8"))["predictions"][0]
    assert row["label"] == "effusion" and set(row["probabilities"]) == {"effusion", "cardiomegaly"}
    assert all(0 < value < 1 for value in row["probabilities"].values())
    assert (out / "predict/figures/a.png.png").is_file()
    with pytest.raises(UserError, match="没有导出的格式"):
        open_predictor(load(tmp_path / "tiny.yaml"), "onnx")


@pytest.mark.parametrize("mode", [pytest.param([], marks=pytest.mark.slow), PROBE], ids=["all", "linear_probe"])
def test_a_run_that_stopped_goes_on_as_if_it_had_not(tmp_path, mode):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    expected = load_file(train(whole, *mode) / "model/model.safetensors")
    stop_after_first_epoch(parts, mode)
    out = train(parts, *mode)
    assert "续训" in (out / "log.txt").read_text(encoding="utf-8")
    for name, value in load_file(out / "model/model.safetensors").items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def stop_after_first_epoch(folder: Path, mode: list[str]) -> None:
    from paddle_cxr.engine.trainer import Trainer

    class Stop(Exception):
        pass

    save = Trainer._save

    def stop(self: Trainer) -> None:
        save(self)
        raise Stop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Trainer, "_save", stop)
        train(folder, *mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [[], PROBE], ids=["all", "linear_probe"])
def test_two_processes_give_what_one_gives(tmp_path, tool, mode):
    one, two = tmp_path / "one", tmp_path / "two"
    for ranks, folder in ((1, one), (2, two)):
        folder.mkdir()
        done = tool("train", "-c", write_recipe(folder), *options(mode), "-o", f"Global.ranks={ranks}", cwd=folder,
                    env={"OMP_NUM_THREADS": "1", "PADDLE_CXR_ENV": ""})
        assert done.returncode == 0, done.stderr
    first, second = (load_file(folder / "out/model/model.safetensors") for folder in (one, two))
    for name, value in first.items():
        np.testing.assert_allclose(second[name], value, atol=2e-5, err_msg=name)
    assert evaluation(one / "out")["macro_auc"] == pytest.approx(evaluation(two / "out")["macro_auc"], abs=0.02)


# --- fractions and folds --------------------------------------------------------------------------------------------

def test_a_fraction_trains_on_fewer_patients_and_another_seed_on_the_same_ones(tmp_path):
    lines: list[str] = []
    tenth = make_task(tmp_path, "Finetune.fraction=0.4", say=lines.append)
    other = make_task(tmp_path, "Finetune.fraction=0.4", "Global.seed=9")
    whole = make_task(tmp_path)
    assert set(tenth.train) < set(whole.train) and set(other.train) == set(tenth.train)
    assert any(line.startswith(f"训练 {len(tenth.train)} 张") and "阳性" in line for line in lines)
    moved = make_task(tmp_path, "Finetune.fraction=0.4", "Finetune.subset_seed=1")
    assert set(moved.train) != set(tenth.train)


def test_every_fold_is_tested_by_a_network_that_has_not_seen_it(tmp_path):
    folds = ["Global.folds=3", "DataLoader.Split={name: NoSplit}", *PROBE]
    out = train(tmp_path, *folds)
    found = evaluation(out)
    assert found["images"] == 60 and len(found["macro_auc_of_folds"]) == 3
    tested: list[str] = []
    for fold in range(3):
        rows = table(out / f"fold{fold}")
        with open(out / f"fold{fold}/train_files.csv", encoding="utf-8", newline="") as lines:
            assert not {row["file"] for row in csv.DictReader(lines)} & {row["file"] for row in rows}
        tested += [row["file"] for row in rows]
    assert sorted(tested) == sorted(row["file"] for row in table(out))
    evaluate(tmp_path, *folds, "Global.fold=1", "DataLoader.Eval.subset=test")
    assert evaluation(out / "fold1/eval_test")["macro_auc"] == pytest.approx(found["macro_auc_of_folds"][1], abs=1e-6)


@pytest.mark.parametrize("changed", ["{i},{1 - i % 2}", "{i // 2},{i % 2}"], ids=["labels", "patients"])
def test_folds_of_other_data_are_done_again_and_never_pooled(tmp_path, changed):
    """Images of the old division would be tested twice, and others never, by networks taught other labels."""
    probe = [*PROBE, "Global.epochs=1", "Global.folds=3", *films_of_patients(tmp_path, "{i},{i % 2}")]
    out = train(tmp_path, *probe, "Global.fold=0")
    films_of_patients(tmp_path, changed)
    said: list[str] = []
    run(load(write_recipe(tmp_path), probe), World(), said.append)
    assert any("第 0 折要重做，数据（图像、标签或患者）与那次不同" in line and "改名为" in line for line in said)
    assert not any("已完成，跳过" in line for line in said) and evaluation(out)["images"] == 24
    said.clear()
    run(load(write_recipe(tmp_path), probe), World(), said.append)
    assert sum("已完成，跳过" in line for line in said) == 3


def test_a_summary_needs_every_image_once(tmp_path):
    probe = [*PROBE, "Global.epochs=1", "Global.folds=3", *films_of_patients(tmp_path, "{i},{i % 2}")]
    out = train(tmp_path, *probe)
    one, other = ((out / f"fold{fold}/per_image.csv") for fold in range(2))
    lines = one.read_text(encoding="utf-8").splitlines()
    one.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="1 张图没有测试过，0 张测试了几次，不写汇总.*resume=false"):
        train(tmp_path, *probe)
    one.write_text("\n".join(lines) + "\n", encoding="utf-8")
    other.write_text(other.read_text(encoding="utf-8") + lines[-1] + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="0 张图没有测试过，1 张测试了几次"):
        train(tmp_path, *probe)


def films_of_patients(folder: Path, cells: str) -> list[str]:
    """24 films whose list has patient and label by ``cells``, an f-string of the film's number."""
    from PIL import Image

    (folder / "films").mkdir(exist_ok=True)
    rows = ["file,patient_id,A"]
    for i in range(24):
        file = folder / f"films/{i}.png"
        if not file.exists():
            Image.fromarray(np.full((32, 32), 60 + 120 * (i % 2), np.uint8)).save(file)
        rows.append(f"{i}.png," + eval(f"f'{cells}'", {"i": i}))
    (folder / "films/index.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    source = f"{{name: FindingsFile, root: {folder / 'films'}, finding_columns: [A]}}"
    return [f"DataLoader.Source={source}", "DataLoader.Split={name: NoSplit}"]


# --- the linear probe -----------------------------------------------------------------------------------------------

def test_the_probe_trains_the_last_layer_only_and_says_what_it_leaves_out(tmp_path):
    lines: list[str] = []
    augmented = [*PROBE, "DataLoader.Train.transform_ops=[{name: RandomHorizontalFlip, prob: 0.5}]"]
    task = make_task(tmp_path, *augmented, say=lines.append)
    assert isinstance(task, LinearProbeTask) and any("不做数据增强" in line for line in lines)
    start = {name: value.numpy().copy() for name, value in task.network.state_dict().items()}
    out = train(tmp_path, *PROBE)
    trained = load_file(out / "model/model.safetensors")
    changed = {name for name, value in trained.items() if (value != start[name]).any()}
    assert changed == {"fc.weight", "fc.bias"}


def test_features_are_those_of_the_network_and_computed_once(tmp_path, monkeypatch):
    lines: list[str] = []
    probe = [*PROBE, f"DataLoader.cache.folder={tmp_path}/cache"]
    task = make_task(tmp_path, *probe, say=lines.append)
    pixels = paddle.to_tensor(np.stack([task.data.images[position] for position in task.validation]))
    task.network.eval()
    with paddle.no_grad():
        logits = task.network(task.data.preprocess.normalize_tensor(pixels)).numpy()
    np.testing.assert_allclose(task.scores(task.validation), 1 / (1 + np.exp(-logits)), atol=1e-5)
    assert any("特征" in line for line in lines)
    monkeypatch.setattr(TowerFeatures, "_compute", lambda *_: pytest.fail("computed again"))
    make_task(tmp_path, *probe, "Global.seed=3", "Optimizer.lr.learning_rate=0.1")
    monkeypatch.undo()
    lines.clear()
    make_task(tmp_path, *probe, "Global.seed=4", say=lines.append)  # another random tower
    assert any("特征" in line for line in lines)


def test_a_damaged_feature_file_is_made_anew(tmp_path):
    probe = [*PROBE, f"DataLoader.cache.folder={tmp_path}/cache"]
    first = make_task(tmp_path, *probe)
    files = list((tmp_path / "cache").glob("features-*"))
    assert len(files) == 2
    for file in files:
        file.write_bytes(b"not tensors")
    again = make_task(tmp_path, *probe)
    np.testing.assert_array_equal(first.scores(first.train), again.scores(again.train))


def test_the_probe_finds_what_logistic_regression_finds(tmp_path):
    """Trained to the end without weight decay on separable-enough data, both are the same convex problem."""
    out = train(tmp_path, "Finetune.mode=linear_probe",
                "Optimizer={name: Adam, lr: {name: Cosine, learning_rate: 0.05}}",
                "Global.epochs=3", "Global.keep=last", "Global.eval_every=0", "Global.micro_batches=1",
                "DataLoader.Train.sampler={batch_size: 60, samples_per_epoch: 6000}", "DataLoader.Source.count=150")
    task = make_task(tmp_path, *PROBE, "DataLoader.Source.count=150")
    features = task._rows(task.train).numpy()
    labels = task.labels[task.train]
    state = load_file(out / "model/model.safetensors")
    logits = features @ state["fc.weight"] + state["fc.bias"]
    for k in range(2):
        best = linear_model.LogisticRegression(C=1e6, max_iter=5000).fit(features, labels[:, k])
        ours = sklearn_metrics.log_loss(labels[:, k], 1 / (1 + np.exp(-logits[:, k])))
        assert ours < sklearn_metrics.log_loss(labels[:, k], best.predict_proba(features)) + 0.05


# --- the loss -------------------------------------------------------------------------------------------------------

def random_labels(shape: tuple[int, int], unknown: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.where(rng.random(shape) < unknown, np.nan, rng.integers(0, 2, shape))


@pytest.mark.parametrize("weight", [None, [0.5, 3.0, 1.0], "balanced"])
def test_the_loss_is_the_mean_over_known_labels(weight):
    labels, logits = random_labels((40, 3)), np.random.default_rng(2).normal(size=(40, 3)) * 5
    function = MaskedBCE(labels, weight)
    probability = 1 / (1 + np.exp(-logits))
    total, count = 0.0, 0
    for i in range(40):
        for k in range(3):
            if not np.isnan(labels[i, k]):
                positives, negatives = (labels[:, k] == 1).sum(), (labels[:, k] == 0).sum()
                w = 1 if weight is None else negatives / positives if weight == "balanced" else weight[k]
                total -= w * np.log(probability[i, k]) if labels[i, k] else np.log(1 - probability[i, k])
                count += 1
    assert float(function(paddle.to_tensor(logits, "float32"), labels)) == pytest.approx(total / count, rel=1e-5)
    assert function.of_scores(probability, labels) == pytest.approx(total / count, rel=1e-9)


def test_unknown_labels_have_no_gradient_and_parts_add_up_to_the_whole():
    labels = random_labels((12, 3))
    function = MaskedBCE(labels)
    logits = paddle.to_tensor(np.random.default_rng(3).normal(size=(12, 3)), "float32", stop_gradient=False)
    whole = function(logits, labels)
    whole.backward()
    gradient = logits.grad.numpy()
    assert (gradient[np.isnan(labels)] == 0).all() and (gradient[~np.isnan(labels)] != 0).all()
    parts = [float(function(logits[start:start + size], labels[start:start + size])) * size / 12
             for start, size in ((0, 5), (5, 1), (6, 6))]
    assert sum(parts) == pytest.approx(float(whole), rel=1e-6)


def test_large_logits_stay_finite():
    labels = np.array([[1.0, 0.0]])
    assert float(MaskedBCE(labels)(paddle.to_tensor([[-500.0, 500.0]]), labels)) == pytest.approx(500)


# --- where it starts ------------------------------------------------------------------------------------------------

def make_start(folder: Path, kind: str) -> tuple[Path, dict[str, np.ndarray]]:
    """A trained model of this kind, and the tower that fine-tuning should start with."""
    paddle.seed(77)
    model = ResNet18(class_num=3 if kind == "classifier" else 2 if kind == "finetuned" else 0, in_channels=1)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    recorded = {"image_shape": [1, 32, 32], "preprocess": {"mean": [0.4], "std": [0.2]}}
    if kind == "pretraining":
        both = {f"image_encoder.{name}": value for name, value in state.items()}
        save_weights(folder / "model", both | {"text_encoder.weight": np.ones((2, 2), np.float32)},
                     recorded | {"architecture": "ConVIRT", "image_encoder": "ResNet18"})
    elif kind == "classifier":
        save_weights(folder / "checkpoints/best", state, recorded | {"architecture": "ResNet18", "classes": []})
    else:
        save_weights(folder / "model", state, recorded | {
            "architecture": "ResNet18", "task": "finetuning", "findings": [
                {"name": name, "zh": name, "en": name} for name in ("mass", "nodule")]})
    return folder, {name: value for name, value in state.items() if not name.startswith("fc.")}


@pytest.mark.parametrize("kind", ["pretraining", "classifier", "finetuned"])
def test_any_trained_model_gives_its_tower_and_its_preprocessing(tmp_path, kind):
    start, tower = make_start(tmp_path / "start", kind)
    own = ["Model={checkpoint: " + str(start) + "}", "Global.image_shape=null"]
    task = make_task(tmp_path, *own)
    state = task.network.state_dict()
    for name, value in tower.items():
        np.testing.assert_array_equal(state[name].numpy(), value, err_msg=name)
    assert task.data.preprocess.image_shape == (1, 32, 32) and task.data.preprocess.mean == [0.4]
    assert state["fc.weight"].shape == [512, 2]
    # A last layer for as many findings is not taken over: they are others.
    other = make_task(tmp_path, *own, "Global.seed=4")
    assert (other.network.fc.weight.numpy() != task.network.fc.weight.numpy()).any()


def test_what_the_recipe_says_of_the_input_wins(tmp_path):
    start, _ = make_start(tmp_path / "start", "pretraining")
    task = make_task(tmp_path, f"Model.checkpoint={start}", "Global.image_shape=[1, 48, 40]",
                     "DataLoader.preprocess={mean: [0.1]}")
    assert task.data.images.shape[1:] == (48, 40) and task.data.preprocess.mean == [0.1]
    told = settle(load(write_recipe(tmp_path), [
        f"Model.checkpoint={start}", "DataLoader.preprocess={mean: [0.1]}", "Finetune.mode=linear_probe"]).recipe)
    assert len(told) == 1 and "mean [0.4] → [0.1]" in told[0] and "冻结的图像塔会看到没有见过的图" in told[0]


@pytest.mark.parametrize(("overrides", "told"), [
    (["Model.checkpoint=output/convirt_phantom"],
     "^Model.checkpoint：找不到 .*python tools/train.py -c configs/convirt_phantom.yaml"),
    (["Model.checkpoint=nowhere"], "^Model.checkpoint：找不到 nowhere；请先训练"),
    (["Model={checkpoint: START, arch: ResNet50}"], "^Model.arch：是 ResNet50，而 .* 是 ResNet18"),
    (["Model={checkpoint: LONE}", "Global.image_shape=null"], "^Model.arch：.*没有写明"),
    (["Model={checkpoint: null}"], "^Model.arch："),
    (["Global.image_shape=null"], "^Global.image_shape："),
    (["Model.arch=ResNet19"], "没有叫 'ResNet19' 的组件，是不是 ResNet1"),
    (["Finetune.mode=probe"], "^Finetune.mode：应为 all、linear_probe 之一"),
    (["Finetune.fraction=0"], "^Finetune.fraction：应为大于 0 的数"),
    (["Finetune.mode=linear_probe", "Global.freeze=[conv1]"], "^Global.freeze："),
    (["DataLoader.Train.sampler.balance=true"], "^DataLoader.Train.sampler.balance："),
    (["Loss.positive_weight=[1.0]"], "^Loss.positive_weight：有 1 个数，征象有 2 种"),
    (["Loss.positive_weight=[1.0, -1.0]"], "^Loss.positive_weight：应是大于 0 的数"),
    (["Global.folds=2"], "^Global.folds：.*至少 3 折"),
    (["Global.fold=2"], "^Global.fold："),
    (["DataLoader.Test.subset=tset"], "^子集 'tset' 里没有图像"),
    (["DataLoader.Source={name: PhantomFindings, count: 60, seed: 5, size: 32, findings: [effusion]}"],
     "没有一个征象（finding）既有阳性又有阴性"),
])
def test_mistakes_are_one_clear_line(tmp_path, monkeypatch, overrides, told, root):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(root / "configs", tmp_path / "configs")
    start, tower = make_start(tmp_path / "start", "pretraining")
    from paddle_cxr.weights import write_safetensors

    write_safetensors(tmp_path / "lone.safetensors", tower)
    named = [one.replace("START", str(start)).replace("LONE", str(tmp_path / "lone.safetensors")) for one in overrides]
    with pytest.raises(UserError, match=told) as error:
        train(tmp_path, *named)
    assert "\n" not in str(error.value)


def test_a_probe_is_not_continued_on_another_tower(tmp_path):
    start, _ = make_start(tmp_path / "start", "pretraining")
    overrides = [*PROBE, f"Model.checkpoint={start}"]
    stop_after_first_epoch(tmp_path, overrides)
    paddle.seed(1)
    model = ResNet18(class_num=0, in_channels=1)
    meta = json.loads((start / "model/model.json").read_text(encoding="utf-8"))
    save_weights(start / "model",
                 {f"image_encoder.{name}": tensor for name, tensor in model.state_dict().items()}, meta)
    with pytest.raises(UserError, match="另一份起点权重"):
        train(tmp_path, *overrides)


def test_the_checkpoint_of_a_probe_is_no_network(tmp_path):
    out = train(tmp_path, *PROBE)
    with pytest.raises(UserError, match="线性探针.*只有最后一层.*请用训练完写出的 model 文件夹"):
        open_predictor(load(tmp_path / "tiny.yaml", [f"Global.checkpoint={out}/checkpoints/best"]), "paddle")


@pytest.mark.parametrize("change", [
    {"findings": [3]}, {"findings": "mass"}, {"preprocess": 5}, {"preprocess": {"image_shape": [1]}},
    {"architecture": ["ResNet18"]}, {"architecture": "ResNet19"}, {"thresholds": [1]}, {"thresholds": {"mass": "high"}},
    {"preprocess": {"image_shape": [1, 32, 32], "mean": ["a"]}}])
def test_a_damaged_model_json_is_one_clear_line(tmp_path, change):
    start, _ = make_start(tmp_path / "start", "finetuned")
    file = start / "model/model.json"
    meta = json.loads(file.read_text(encoding="utf-8"))
    meta["preprocess"]["image_shape"] = [1, 32, 32]
    file.write_text(json.dumps(meta | change), encoding="utf-8")
    with pytest.raises(UserError, match="model.json 损坏.*请换一个检查点") as error:
        open_predictor(load(write_recipe(tmp_path), [f"Global.checkpoint={start}"]), "paddle")
    assert "\n" not in str(error.value)


def test_frozen_parts_keep_their_weights_and_statistics(tmp_path):
    task = make_task(tmp_path)
    start = {name: value.numpy().copy() for name, value in task.network.state_dict().items()}
    trained = load_file(train(tmp_path, "Global.freeze=[conv1, bn1, layer1]", "Global.epochs=1", "Global.eval_every=0",
                              "Global.keep=last") / "model/model.safetensors")
    for name, value in trained.items():
        frozen = name.startswith(("conv1.", "bn1.", "layer1."))
        assert (value == start[name]).all() == frozen, name


# --- labels ---------------------------------------------------------------------------------------------------------

def unknown_labels(folder: Path, wanted: str) -> list[str]:
    """A list file over made images: ``wanted`` gives a cell from the image's number."""
    from PIL import Image

    rows = ["file,patient_id,split,A,B"]
    for i in range(40):
        (folder / "films").mkdir(exist_ok=True)
        bright = 60 + 120 * (i % 2)
        Image.fromarray(np.full((32, 32), bright, np.uint8)).save(folder / f"films/{i}.png")
        rows.append(f"{i}.png,p{i},{'train' if i < 24 else 'val' if i < 32 else 'test'},{eval(wanted)}")
    (folder / "films/index.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    source = f"{{name: FindingsFile, root: {folder / 'films'}, finding_columns: [A, B]}}"
    return [f"DataLoader.Source={source}", "DataLoader.Split={name: Published}"]


def test_a_finding_unknown_in_the_test_set_is_left_out_of_the_mean(tmp_path):
    cells = "f'{i % 2},{i % 3 % 2}' if i < 32 else f'{i % 2},'"
    out = train(tmp_path, *PROBE, "Global.epochs=20", *unknown_labels(tmp_path, cells))
    found = evaluation(out)
    assert found["left_out"] == ["B"] and found["per_finding"]["B"]["unknown"] == 8
    assert found["macro_auc"] == found["per_finding"]["A"]["auc"] == 1.0
    assert table(out)[0]["label:B"] == ""


def test_images_without_a_single_label_are_not_trained_on(tmp_path):
    lines: list[str] = []
    task = make_task(tmp_path, *unknown_labels(tmp_path, "',' if i % 4 == 0 else f'{i % 2},{i % 3 % 2}'"),
                     say=lines.append)
    assert len(task.train) == 18 and any("6 张训练图的征象全部未知" in line for line in lines)
    assert not np.isnan(label_matrix([task.data.source.records[i] for i in task.train], ["A", "B"])).all(axis=1).any()


def test_a_finding_with_one_kind_of_training_images_is_named(tmp_path):
    lines: list[str] = []
    make_task(tmp_path, *unknown_labels(tmp_path, "f'{i % 2},{int(i >= 24)}'"), say=lines.append)
    assert any("1 种征象只有阳性或只有阴性，学不到：B" in line for line in lines)


def test_a_validation_set_that_can_choose_nothing_is_refused(tmp_path):
    overrides = unknown_labels(tmp_path, "f'{i % 2 if i < 24 else 1},{i % 3 % 2 if i < 24 else 0}'")
    with pytest.raises(UserError, match="选不出最好的一轮"):
        make_task(tmp_path, *overrides)
    assert make_task(tmp_path, *overrides, "Global.keep=last").validate()["macro_auc"] is None


def test_recipes_that_come_with_the_project_can_be_read(root, monkeypatch):
    monkeypatch.chdir(root)
    for name in ("phantom", "phantom_probe", "chexpert", "chestxray14"):
        loaded = load(f"configs/finetune_{name}.yaml")
        assert loaded.recipe.DataLoader.Source["name"] == "PhantomFindings"
    with pytest.raises(UserError, match="^DataLoader.Source：找不到数据"):
        load("configs/finetune_films.yaml")
