"""Whole runs of segmentation: training, evaluating, starting from other models, folds, predicting."""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

from paddle_cxr import models
from paddle_cxr.engine.distributed import World
from paddle_cxr.engine.jobs import evaluator
from paddle_cxr.errors import UserError
from paddle_cxr.recipe import Loaded
from paddle_cxr.tasks.segmentation.models import build_segmenter, open_segmenter, settle
from paddle_cxr.tasks.segmentation.predict import predict
from paddle_cxr.tasks.segmentation.recipe import load
from paddle_cxr.tasks.segmentation.run import check, dry_run, run
from paddle_cxr.weights import load_weights, save_weights

RECIPE = """
Global: {{task: segmentation, output_dir: {output}, device: cpu, seed: 3, epochs: 1, image_shape: [1, 32, 32],
         findings: [lung, effusion], micro_batches: 2, ranks: 1}}
Arch: {{encoder: ResNet18, freeze_encoder: false, widths: [8, 8, 8, 8, 8]}}
Optimizer: {{name: AdamW, lr: {{name: Constant, learning_rate: 1.0e-3}}}}
DataLoader:
  Source: {{name: PhantomFindings, count: 16, seed: 5, size: 48, findings: [normal, effusion]}}
  Split: {{name: PatientSplit, val: 0.25, test: 0.25}}
  cache: {{mode: memory}}
  Train: {{transform_ops: [{{name: RandomAffine}}], sampler: {{batch_size: 4}}}}
  Eval: {{sampler: {{batch_size: 4}}}}
  Test: {{subset: test}}
Metric: {{bootstrap: 20, figures: 2}}
"""


def recipe(folder: Path, *overrides: str) -> Loaded:
    folder.mkdir(exist_ok=True)
    (folder / "tiny.yaml").write_text(RECIPE.format(output=folder / "out"), encoding="utf-8")
    return load(folder / "tiny.yaml", overrides)


def train(loaded: Loaded) -> Path:
    check(loaded.recipe)
    run(loaded, World(), print)
    return Path(loaded.recipe.Global.output_dir)


def arguments(folder: Path, *overrides: str, **more: object) -> argparse.Namespace:
    return argparse.Namespace(config=folder / "tiny.yaml", override=list(overrides), **more)


def metrics(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def table(folder: Path) -> list[dict]:
    with open(folder / "per_image.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of a recipe that has been run."""
    folder = tmp_path_factory.mktemp("segmentation")
    train(recipe(folder))
    return folder


def test_a_run_leaves_figures_that_can_be_computed_again(trained):
    out = trained / "out"
    assert {"config.yaml", "log.txt", "history.csv", "metrics.json", "per_image.csv", "examples.png", "curves.png",
            "worst_cases.png", "train_files.csv", "chosen_files.csv"} <= {one.name for one in out.iterdir()}
    found, rows = metrics(out), table(out)
    evaluation = found["evaluation"]
    assert found["demo_data"] is True and evaluation["subset"] == "test" and evaluation["also_trained_on"] == 0
    assert evaluation["also_chosen_on"] == 0
    assert len(rows) == 8 and {row["finding"] for row in rows} == {"lung", "effusion"}
    for metric in ("dice", "iou", "hd95"):
        means = [np.mean([float(row[metric]) for row in rows if row["finding"] == name and row[metric]] or [np.nan])
                 for name in ("lung", "effusion")]
        assert evaluation[metric] == pytest.approx(np.nanmean(means), abs=1e-9) and f"{metric}_ci95" in evaluation
    assert all(row["dice_present"] == (row["dice"] if int(row["truth_pixels"]) else "") for row in rows)
    log = (out / "log.txt").read_text(encoding="utf-8")
    assert " Dice 0." in log and " IoU 0." in log  # each epoch's line
    history = (out / "history.csv").read_text(encoding="utf-8")
    assert "val_dice" in history and "val_loss" in history


def test_the_tool_finds_what_training_found(trained):
    assert evaluator("segmentation")(arguments(trained, "DataLoader.Eval.subset=test")) == 0
    again, first = metrics(trained / "out" / "eval_test")["evaluation"], metrics(trained / "out")["evaluation"]
    assert first.pop("also_pretrained_on") == 0 and again == first
    assert evaluator("segmentation")(arguments(trained, "DataLoader.Eval.subset=train", "Global.findings=[effusion]",
                              "DataLoader.preprocess={std: [0.3]}")) == 0
    other = metrics(trained / "out" / "eval_train")["evaluation"]
    assert other["findings"] == ["effusion"] and other["also_trained_on"] == other["images"] == 8
    log = (trained / "out" / "eval_train" / "log.txt").read_text(encoding="utf-8")
    assert "!! 其中 8 张" in log
    assert evaluator("segmentation")(arguments(trained)) == 0  # the images that chose the epoch
    found = metrics(trained / "out" / "eval_val")["evaluation"]
    assert found["also_chosen_on"] == found["images"] == 4
    assert "!! 其中 4 张（或同一患者的图）用来选过" in (trained / "out/eval_val/log.txt").read_text(encoding="utf-8")


def test_what_is_judged_on_the_images_that_chose_the_epoch_says_so(tmp_path):
    few = ("DataLoader.Test=null", "DataLoader.Source.count=8", "Metric.figures=0")
    for keep, number in (("best", 2), ("last", 0)):
        out = train(recipe(tmp_path / keep, *few, f"Global.keep={keep}"))
        assert metrics(out)["evaluation"]["also_chosen_on"] == number
        log = (out / "log.txt").read_text(encoding="utf-8")
        assert ("2 张也用来选最好的一轮，这个结果偏乐观" in log) == bool(number)


def test_no_epoch_is_chosen_on_test_images(tmp_path):
    both = ("DataLoader.Eval.subset=all", "DataLoader.Test.subset=test")
    with pytest.raises(UserError, match="^DataLoader.Eval.subset：all 含有.*选的最好的一轮偏乐观"):
        check(recipe(tmp_path, *both).recipe)
    check(recipe(tmp_path, *both, "Global.keep=last").recipe)  # nothing is chosen


def test_an_evaluation_keeps_nothing_of_the_one_before(trained):
    out = trained / "out" / "eval_all"
    one = ("DataLoader.Eval.subset=all", "Metric.bootstrap=2")
    evaluator("segmentation")(arguments(trained, *one, "Metric.figures=1"))
    (out / "mine.png").write_bytes(b"mine")
    evaluator("segmentation")(arguments(trained, *one, "Metric.figures=0"))
    assert {file.name for file in out.iterdir()} == {"config.yaml", "log.txt", "metrics.json", "per_image.csv",
                                                     "mine.png"}

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("paddle_cxr.tasks.segmentation.evaluate.evaluate_on", interrupt)
        evaluator("segmentation")(arguments(trained, *one))
    assert {file.name for file in out.iterdir()} == {"config.yaml", "log.txt", "mine.png"}


@pytest.mark.slow
def test_two_ranks_share_the_same_work(trained, tool, tmp_path):
    """Through the tool, as a user starts it; figures and weights are those of one rank."""
    (tmp_path / "tiny.yaml").write_text(RECIPE.format(output=tmp_path / "out"), encoding="utf-8")
    done = tool("train", "-c", "tiny.yaml", "-o", "Global.ranks=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    one, two = (load_weights(folder / "out" / "checkpoints" / "latest")[0] for folder in (trained, tmp_path))
    assert all(np.allclose(one[name], two[name], atol=1e-5) for name in one)
    assert metrics(tmp_path / "out")["evaluation"]["dice"] == pytest.approx(
        metrics(trained / "out")["evaluation"]["dice"], abs=1e-3)


def test_masks_are_written_in_the_images_size(trained, tmp_path):
    films = tmp_path / "films" / "ward"
    films.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, shape in (("a.png", (50, 70)), ("b.png", (33, 20))):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(films / name)
    (films / "c.png").write_bytes(b"no image")
    given = {"input": str(tmp_path / "films"), "engine": "paddle", "output": str(tmp_path / "masks"), "figures": 1}
    assert predict(arguments(trained, "DataLoader.Source={name: FindingsFile, root: nowhere}", **given)) == 0
    out = tmp_path / "masks"
    for name, size in (("a", (70, 50)), ("b", (20, 33))):
        with Image.open(out / "masks" / "ward" / f"{name}.png.lung.png") as mask:
            assert mask.size == size and set(np.unique(np.asarray(mask))) <= {0, 255}
    rows = list(csv.DictReader((out / "predictions.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["file"], row["finding"]) for row in rows] == [
        (f"ward/{name}.png", finding) for name in "ab" for finding in ("lung", "effusion")]
    assert len(list((out / "figures").rglob("*.png"))) == 1
    with pytest.raises(UserError, match="--engine：分割只能用训练的权重"):
        predict(arguments(trained, **given | {"engine": "onnx"}))


# --- starting points -----------------------------------------------------------------------------------------------

PREPROCESS = {"resize": "squash", "mean": [0.4], "std": [0.2], "normalize": "fixed", "equalize": "none",
              "color": False}


def saved(folder: Path, prefix: str, architecture: str) -> tuple[Path, dict]:
    """A run's folder with a ResNet-18's weights."""
    paddle.seed(7)
    tower = models.ResNet18(class_num=0 if prefix else 3, in_channels=1)
    state = {prefix + name: value.numpy() for name, value in tower.state_dict().items()}
    place = folder / "model" if prefix else folder / "checkpoints" / "best"
    save_weights(place, state, {"architecture": architecture, "image_encoder": "ResNet18" if prefix else None,
                                "image_shape": [1, 64, 64], "preprocess": PREPROCESS | {"image_shape": [1, 64, 64]}})
    return folder, {name.removeprefix(prefix): value for name, value in state.items()}


@pytest.mark.parametrize(("prefix", "architecture"), [("image_encoder.", "ConVIRT"), ("", "ResNet18")])
def test_the_encoder_comes_from_a_pretraining_or_a_classifier(tmp_path, prefix, architecture):
    start, tower = saved(tmp_path / "run", prefix, architecture)
    loaded = recipe(tmp_path, f"Model.checkpoint={start}", "Arch.encoder=null", "Global.image_shape=null",
                    "Arch.freeze_encoder=true")
    assert settle(loaded.recipe) == []
    assert loaded.recipe.Global.image_shape == (1, 64, 64) and loaded.recipe.DataLoader.preprocess.mean == [0.4]
    model, notices = build_segmenter(loaded.recipe)
    encoder = model.image_encoder.state_dict()
    assert all(np.array_equal(value.numpy(), tower[name]) for name, value in encoder.items())
    assert any("起始权重" in line for line in notices) and not any("随机初始化" in line for line in notices)


def test_what_does_not_go_with_the_encoder_is_said(tmp_path):
    start, _ = saved(tmp_path / "run", "", "ResNet18")
    told = settle(recipe(tmp_path, f"Model.checkpoint={start}", "DataLoader.preprocess={mean: [0.5]}",
                         "Arch.freeze_encoder=true").recipe)
    assert len(told) == 1 and "mean [0.4] → [0.5]" in told[0] and "冻结的编码器会看到没有见过的图" in told[0]
    with pytest.raises(UserError, match="Arch.encoder：是 ResNet50，而 .* 是 ResNet18 的权重"):
        settle(recipe(tmp_path, f"Model.checkpoint={start}", "Arch.encoder=ResNet50").recipe)
    with pytest.raises(UserError, match="Model.checkpoint：找不到 nowhere"):
        settle(recipe(tmp_path, "Model.checkpoint=nowhere").recipe)
    alone = recipe(tmp_path, "Arch.freeze_encoder=true").recipe
    settle(alone)
    assert "编码器是随机初始化的，又被冻结" in build_segmenter(alone)[1][0]


def test_a_segmenter_goes_on_from_another_by_finding(trained, tmp_path):
    loaded = recipe(tmp_path, f"Model.checkpoint={trained / 'out'}", "Global.findings=[normal, effusion]")
    settle(loaded.recipe)
    model, notices = build_segmenter(loaded.recipe)
    assert "解码器也取自" in notices[-1] and "normal 那次没有学过（学过 lung、effusion）" in notices[-1]
    before, state = load_weights(trained / "out" / "checkpoints" / "best")[0], model.state_dict()
    assert np.array_equal(state["head.weight"].numpy()[1], before["head.weight"][1])
    assert not np.array_equal(state["head.weight"].numpy()[0], before["head.weight"][0])
    same = [name for name in before if not name.startswith("head.")]
    assert all(np.array_equal(state[name].numpy(), before[name]) for name in same)


def test_weights_that_are_no_segmenter_are_refused(trained, tmp_path):
    start, _ = saved(tmp_path / "run", "", "ResNet18")
    weights = start / "checkpoints" / "best"
    with pytest.raises(UserError, match="不是分割（Global.task: segmentation）训练的权重，而是 ResNet18"):
        open_segmenter(recipe(tmp_path).recipe, weights)
    with pytest.raises(UserError, match="没有学过 covid（学过：lung、effusion）"):
        open_segmenter(recipe(tmp_path, "Global.findings=[covid]").recipe, trained / "out" / "checkpoints" / "best")
    with pytest.raises(UserError, match="下没有检查点"):
        evaluator("segmentation")(arguments(tmp_path, "Global.output_dir=nothing"))
    (tmp_path / "empty").mkdir()
    for given in ("gone", tmp_path / "empty"):
        with pytest.raises(UserError, match="^Global.checkpoint：找不到 .*用 -o Global.checkpoint=… 指定别的权重"):
            evaluator("segmentation")(arguments(tmp_path, f"Global.checkpoint={given}"))


@pytest.mark.parametrize("change", [
    {"findings": "lung"}, {"findings": 3}, {"arguments": [1]}, {"arguments": {"widths": "x"}},
    {"arguments": {"depth": 3}}, {"image_shape": 5}, {"image_shape": [1, 2]}, {"image_shape": [1, -32, 32]},
    {"preprocess": [1]}, {"preprocess": {"mean": "high"}}])
def test_a_damaged_model_json_is_one_clear_line(trained, tmp_path, change):
    state, meta = load_weights(trained / "out" / "checkpoints" / "best")
    save_weights(tmp_path / "weights", state, meta | change)
    with pytest.raises(UserError, match="model.json 损坏.*请换一个检查点") as error:
        open_segmenter(recipe(tmp_path).recipe, tmp_path / "weights")
    assert "\n" not in str(error.value)


def test_nothing_that_a_model_json_names_is_downloaded(trained, tmp_path, monkeypatch):
    """PaddleSeg would fetch a backbone's ``pretrained`` and unpickle it, only for the weights to replace it."""
    state, meta = load_weights(trained / "out" / "checkpoints" / "best")
    meta |= {"architecture": "PaddleSegModel", "arguments": {"model": "FCN", "arguments": {
        "backbone": {"type": "ResNet18_vd", "pretrained": "http://x/a.pdparams"}, "pretrained": "http://x/b.pdparams",
        "backbone_indices": [-1]}}}
    save_weights(tmp_path / "weights", state, meta)
    asked = {}

    class Built(Exception):
        pass

    def build(model, outputs, channels, arguments):
        asked.update(arguments)
        raise Built

    monkeypatch.setattr("paddle_cxr.tasks.segmentation.models.PaddleSegModel", build)
    with pytest.raises(Built):
        open_segmenter(recipe(tmp_path).recipe, tmp_path / "weights")
    assert asked == {"backbone": {"type": "ResNet18_vd"}, "backbone_indices": [-1]}


def test_a_frozen_encoder_is_the_starting_points_after_training(tmp_path):
    start, tower = saved(tmp_path / "run", "image_encoder.", "ConVIRT")
    out = train(recipe(tmp_path, f"Model.checkpoint={start}", "Arch.encoder=null", "Arch.freeze_encoder=true",
                       "Global.ema=0.9"))
    state = load_weights(out / "checkpoints" / "best")[0]
    assert all(np.array_equal(state[f"image_encoder.{name}"], value) for name, value in tower.items())


# --- folds ---------------------------------------------------------------------------------------------------------

def test_folds_are_pooled_by_patient(tmp_path, capsys):
    overrides = ("Global.folds=2", "Global.keep=last", "Global.eval_every=0", "DataLoader.Test=null",
                 "DataLoader.Source.count=8")
    out = train(recipe(tmp_path, *overrides))
    found, rows = metrics(out)["evaluation"], table(out)
    assert len(rows) == 16 and len({row["file"] for row in rows}) == found["images"] == 8
    held_out = [{row["patient_id"] for row in table(out / f"fold{fold}")} for fold in range(2)]
    assert not held_out[0] & held_out[1] and len(held_out[0] | held_out[1]) == 8
    for fold in range(2):
        trained_on = (out / f"fold{fold}" / "train_files.csv").read_text(encoding="utf-8")
        assert not any(f",{patient}\n" in trained_on for patient in held_out[fold])
    lungs = [float(row["dice"]) for row in rows if row["finding"] == "lung"]
    assert found["per_finding"]["lung"]["dice"] == pytest.approx(np.mean(lungs)) and len(found["by_fold"]["dice"]) == 2
    capsys.readouterr()
    train(recipe(tmp_path, *overrides))  # nothing is left to do
    assert capsys.readouterr().out.count("折已完成，跳过") == 2
    assert evaluator("segmentation")(arguments(tmp_path, *overrides, "Global.fold=1")) == 0
    again = metrics(out / "eval_fold1")["evaluation"]
    assert again["also_trained_on"] == 0
    assert again["dice"] == pytest.approx(metrics(out / "fold1")["evaluation"]["dice"])
    for damage in (lambda file: file.write_text("file,dice\na.png,good\n"), Path.unlink):
        damage(out / "fold1" / "per_image.csv")
        with pytest.raises(UserError, match=r"fold1/per_image\.csv 读不了.*请删去它所在的文件夹"):
            train(recipe(tmp_path, *overrides))


def test_folds_of_other_data_are_done_again_and_never_pooled(tmp_path, capsys):
    root = films(tmp_path / "films", (40, 30))
    overrides = (f"DataLoader.Source={{name: FindingsFile, root: {root}, mask_column: {{lung_mask: lung}}}}",
                 "Global.findings=[lung]", "Global.folds=2", "Global.keep=last", "Global.eval_every=0",
                 "DataLoader.Test=null", "DataLoader.Train.sampler.batch_size=2", "Global.micro_batches=1")
    out = train(recipe(tmp_path, *overrides, "Global.fold=0"))
    list_file = root / "index.csv"
    list_file.write_text(list_file.read_text(encoding="utf-8").replace("p1", "p0"), encoding="utf-8")
    capsys.readouterr()
    train(recipe(tmp_path, *overrides))
    said = capsys.readouterr().out
    assert "第 0 折要重做，数据（图像、标签或患者）与那次不同" in said and "已完成，跳过" not in said
    assert sorted(row["file"] for row in table(out)) == [f"{number}.png" for number in range(4)]
    # A mask that was painted anew, under its old name.
    Image.fromarray(np.random.default_rng(0).integers(0, 2, (30, 40), np.uint8) * 255).save(root / "m2.png")
    train(recipe(tmp_path, *overrides))
    assert "第 1 折要重做" in capsys.readouterr().out
    rows = (out / "fold0/per_image.csv").read_text(encoding="utf-8").splitlines()
    (out / "fold0/per_image.csv").write_text("\n".join([*rows, rows[-1]]) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="0 处标注没有预测过，1 处预测了几次.*resume=false"):
        train(recipe(tmp_path, *overrides))
    (out / "fold0/per_image.csv").write_text("\n".join(rows[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="1 处标注没有预测过，0 处预测了几次"):
        train(recipe(tmp_path, *overrides))


# --- data with mistakes, and real data -----------------------------------------------------------------------------

def films(folder: Path, mask_size: tuple[int, int]) -> Path:
    """Four films with a lung mask each, the last of ``mask_size`` (width, height)."""
    folder.mkdir()
    lines = ["file,patient_id,lung_mask"]
    for number in range(4):
        Image.new("L", (40, 30), 90).save(folder / f"{number}.png")
        Image.new("L", mask_size if number == 3 else (40, 30), 255).save(folder / f"m{number}.png")
        lines.append(f"{number}.png,p{number},m{number}.png")
    (folder / "index.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_a_mask_of_another_size_is_an_error(tmp_path):
    source = f"{{name: FindingsFile, root: {films(tmp_path / 'films', (30, 40))}, mask_column: {{lung_mask: lung}}}}"
    loaded = recipe(tmp_path, f"DataLoader.Source={source}", "Global.findings=[lung]", "DataLoader.Split.val=0.25",
                    "DataLoader.on_error=skip")
    with pytest.raises(UserError, match="m3.png：大小 30×40 与图像 40×30 不同"):
        run(loaded, World(), print)


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    dry_run(recipe(tmp_path), World(), print)
    assert "试运行" in capsys.readouterr().out and not (tmp_path / "out").exists()
