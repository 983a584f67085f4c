"""Opening a pre-trained model, and zero-shot classification with it as a user runs it."""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from recipes import ROOT

pytest.importorskip("paddlenlp")

from paddle_cxr.data.labelled import LabelledData  # noqa: E402
from paddle_cxr.data.sources import PhantomFindings  # noqa: E402
from paddle_cxr.engine.distributed import World  # noqa: E402
from paddle_cxr.engine.jobs import (
    evaluator,  # noqa: E402
    job_named,  # noqa: E402
)
from paddle_cxr.errors import UserError  # noqa: E402
from paddle_cxr.evaluation.phantom_prompts import phantom_prompts  # noqa: E402
from paddle_cxr.evaluation.prompts import FindingPrompts, prompt_texts  # noqa: E402
from paddle_cxr.evaluation.zero_shot import margins  # noqa: E402
from paddle_cxr.tasks.models import build_backbone  # noqa: E402
from paddle_cxr.tasks.pretrained import Pretrained, open_pretrained, read_settings, with_input_of  # noqa: E402
from paddle_cxr.tasks.pretraining import recipe as pretraining  # noqa: E402
from paddle_cxr.tasks.pretraining.run import prepare, save_model  # noqa: E402
from paddle_cxr.tasks.prompt_texts import notices_of  # noqa: E402
from paddle_cxr.tasks.zero_shot.recipe import load  # noqa: E402
from paddle_cxr.tasks.zero_shot.schema import ZeroShotPrompts  # noqa: E402
from paddle_cxr.tasks.zero_shot.scoring import PromptScorer, score_images  # noqa: E402
from paddle_cxr.weights import save_weights  # noqa: E402

PRETRAINING = """
Global: {{task: pretraining, output_dir: {output}, device: cpu, seed: 3, epochs: 1, image_shape: [1, 32, 32]}}
Arch:
  name: {method}
  dim: 16
  image: {{name: ResNet18}}
  text: {{hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 16, vocab_size: 400,
          max_tokens: 40}}
Loss: {{name: ContrastiveLoss}}
Optimizer: {{name: Adam, lr: {{name: Constant, learning_rate: 1.0e-3}}}}
DataLoader:
  Source: {{name: PhantomPairs, count: 24, seed: 5, size: 32, findings: [normal, effusion, consolidation]}}
  Split: {{name: PatientSplit, val: 0.3, test: 0.0}}
  preprocess: {{mean: [0.4], std: [0.2], resize: letterbox}}
  cache: {{mode: memory}}
  Train: {{sampler: {{batch_size: 8}}}}
"""
ZERO_SHOT = """
Global: {{task: zero_shot, output_dir: {output}, device: cpu, seed: 1}}
Model: {{checkpoint: {checkpoint}}}
Prompts: {{name: phantom}}
DataLoader:
  Source: {{name: PhantomFindings, count: 60, seed: 9, size: 32, together: 2,
            findings: [normal, effusion, consolidation, nodule]}}
  Split: {{name: PatientSplit, val: 0.4, test: 0.5}}
  cache: {{mode: none}}
  Eval: {{sampler: {{batch_size: 7}}}}
Metric: {{resamples: 20}}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Method → output folder of a pre-training that has not learned anything yet."""
    found = {}
    for method in ("ConVIRT", "GLoRIA"):
        folder = tmp_path_factory.mktemp(method)
        file = folder / "pretraining.yaml"
        file.write_text(PRETRAINING.format(output=folder / "out", method=method), encoding="utf-8")
        task = prepare(pretraining.load(file), World(), lambda _: None)
        save_model(folder / "out/model", task)
        shutil.copy(file, folder / "out/config.yaml")
        found[method] = folder / "out"
    return found


def run(folder: Path, checkpoint: Path, *overrides: str) -> dict:
    """What ``tools/eval.py`` does, and the ``metrics.json`` it writes."""
    file = folder / "zero_shot.yaml"
    file.write_text(ZERO_SHOT.format(output=folder / "zs", checkpoint=checkpoint), encoding="utf-8")
    assert evaluator("zero_shot")(argparse.Namespace(config=str(file), override=list(overrides))) == 0
    return json.loads((folder / "zs/eval_test/metrics.json").read_text("utf-8"))


# --- the pre-trained model --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("method", ["ConVIRT", "GLoRIA"])
def test_a_run_names_its_model(runs: dict[str, Path], method: str) -> None:
    for path in (runs[method], runs[method] / "model", runs[method] / "model/model.safetensors"):
        settings = read_settings(path)
        assert settings.folder == runs[method] / "model" and settings.arch.name == method
        assert settings.image_shape == (1, 32, 32) and settings.preprocess.resize == "letterbox"
    opened = open_pretrained(runs[method])
    assert not opened.model.training and opened.preprocess.mean == [0.4] and opened.meta["demo_data"] is True
    assert any("phantom" in line for line in opened.notices)
    tower, _ = build_backbone(settings.image_tower, 1, "Arch")
    for name, tensor in tower.state_dict().items():
        assert np.array_equal(tensor.numpy(), opened.model.image_encoder.state_dict()[name].numpy())


def test_what_is_no_pretrained_model(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Model.checkpoint：找不到预训练模型 .*nowhere.*convirt_phantom.yaml"):
        read_settings(tmp_path / "nowhere")
    with pytest.raises(UserError, match="Model.checkpoint：找不到预训练模型"):
        read_settings(tmp_path / ("x" * 300))  # longer than the system allows
    save_weights(tmp_path / "classifier/model", {"fc.weight": np.zeros(2)}, {"architecture": "ResNet18"})
    with pytest.raises(UserError, match="ResNet18 的权重，没有文本塔"):
        read_settings(tmp_path / "classifier")
    # As a classifier's run and a segmentation's leave them: with the arguments of their network.
    for number, (place, name) in enumerate([("checkpoints/best", "ResNet50"), ("checkpoints/latest", "UNet"),
                                            ("model", "ResNet18"), ("model", ["odd"])]):
        save_weights(tmp_path / f"run{number}" / place, {"fc.weight": np.zeros(2)},
                     {"architecture": name, "arguments": {}})
        with pytest.raises(UserError, match="的权重，没有文本塔.*pretraining"):
            read_settings(tmp_path / f"run{number}")
    copy = tmp_path / "copy/model"
    shutil.copytree(runs["ConVIRT"] / "model", copy)
    meta = json.loads((copy / "model.json").read_text())
    for change, match in (({"image_shape": None}, "读不懂"), ({"preprocess": {"resize": "odd"}}, "读不懂.*resize"),
                          ({"arguments": {"image": 3}}, "读不懂.*image")):
        (copy / "model.json").write_text(json.dumps(meta | change))
        with pytest.raises(UserError, match=match) as error:
            read_settings(copy)
        assert "model.json" in str(error.value) and "\n" not in str(error.value)
    (copy / "model.json").write_text(json.dumps({key: meta[key] for key in ("architecture", "arguments")}))
    with pytest.raises(UserError, match="缺少 image_shape"):
        read_settings(copy)
    for text in ("{", "[]", "[" * 9000):
        (copy / "model.json").write_text(text)
        with pytest.raises(UserError, match="权重说明文件损坏"):
            read_settings(copy)
    shutil.rmtree(copy / "text")
    (copy / "model.json").write_text(json.dumps(meta))
    with pytest.raises(UserError, match="没有词表"):
        read_settings(copy)


def test_the_model_decides_the_input(runs: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "zero_shot.yaml"
    file.write_text(ZERO_SHOT.format(output=tmp_path, checkpoint=runs["ConVIRT"]), encoding="utf-8")
    settings = read_settings(runs["ConVIRT"])
    filled = with_input_of(load(file).recipe, settings)
    assert filled.Global.image_shape == (1, 32, 32) and filled.DataLoader.preprocess.mean == [0.4]
    assert with_input_of(filled, settings) == filled  # the written config.yaml can be run again
    with pytest.raises(UserError, match=r"Global.image_shape：与 .*训练时 \[1, 32, 32\]，现在 \[1, 64, 64\]"):
        with_input_of(load(file, ["Global.image_shape=[1, 64, 64]"]).recipe, settings)
    with pytest.raises(UserError, match="DataLoader.preprocess：.*请删去"):
        with_input_of(load(file, ["DataLoader.preprocess={mean: [0.5]}"]).recipe, settings)


# --- scores -----------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def opened(runs: dict[str, Path]) -> dict[str, Pretrained]:
    return {method: open_pretrained(path) for method, path in runs.items()}


def some_images(pretrained: Pretrained, count: int) -> LabelledData:
    source = PhantomFindings(count, seed=8, size=32, findings=("effusion", "nodule"))
    images = np.stack([pretrained.preprocess.geometry(source.read(i)) for i in range(count)])
    return LabelledData(source, pretrained.preprocess, images, np.zeros(count, np.int64), ["test"] * count)


def score(pretrained: Pretrained, data: LabelledData, prompts: tuple[FindingPrompts, ...], batch: int = 4,
          **section: str) -> np.ndarray:
    scorer = PromptScorer(pretrained, prompts, ZeroShotPrompts(name="phantom", **section), batch)
    return score_images(scorer, pretrained, data, batch)


@pytest.mark.parametrize(("method", "similarity"), [("ConVIRT", "both"), ("ConVIRT", "global"), ("GLoRIA", "both"),
                                                    ("GLoRIA", "global"), ("GLoRIA", "local")])
def test_margins_are_those_of_the_models_own_similarities(opened: dict[str, Pretrained], method: str, similarity: str
                                                          ) -> None:
    pretrained, prompts = opened[method], phantom_prompts()[:4]
    data, model = some_images(pretrained, 5), opened[method].model
    with paddle.no_grad():
        images = model.encode_image(data.preprocess.normalize_tensor(paddle.to_tensor(data.images)))
        texts = model.encode_text(*map(paddle.to_tensor, pretrained.tokenizer.batch(prompt_texts(prompts))))
        whole = model.score(images, texts) if similarity == "both" else model.similarities(images, texts)[similarity]
    for ensemble in ("scores", "max"):
        found = score(pretrained, data, prompts, similarity=similarity, ensemble=ensemble)
        np.testing.assert_allclose(found, margins(whole.numpy(), prompts, ensemble), atol=1e-4)


@pytest.mark.parametrize("method", ["ConVIRT", "GLoRIA"])
def test_mean_of_embeddings(opened: dict[str, Pretrained], method: str) -> None:
    pretrained, prompts = opened[method], phantom_prompts()[3:6]
    data, model = some_images(pretrained, 3), opened[method].model
    found = score(pretrained, data, prompts, ensemble="embeddings", similarity="global")
    scale = 10.0  # 1 / τ of ConVIRT, γ₃ of GLoRIA
    with paddle.no_grad():
        images = model.encode_image(data.preprocess.normalize_tensor(paddle.to_tensor(data.images)))["global"].numpy()
        for k, one in enumerate(prompts):
            sides = []
            for side in (one.positive, one.negative):
                tokens = map(paddle.to_tensor, pretrained.tokenizer.batch(list(side)))
                mean = model.encode_text(*tokens)["global"].numpy().mean(axis=0)
                sides.append(images @ (mean / np.linalg.norm(mean)) * scale)
            np.testing.assert_allclose(found[:, k], sides[0] - sides[1], atol=1e-4)


@pytest.mark.parametrize(("method", "section"), [
    ("ConVIRT", {}), ("ConVIRT", {"ensemble": "embeddings"}), ("GLoRIA", {}), ("GLoRIA", {"ensemble": "max"})])
def test_an_image_scores_the_same_alone_and_in_any_set(opened: dict[str, Pretrained], method: str,
                                                       section: dict[str, str]) -> None:
    pretrained, prompts = opened[method], phantom_prompts()
    data = some_images(pretrained, 9)
    together = score(pretrained, data, prompts, batch=9, **section)
    order = np.random.default_rng(0).permutation(9)
    shuffled = LabelledData(data.source, data.preprocess, data.images[order], data.labels, data.subsets)
    np.testing.assert_allclose(score(pretrained, shuffled, prompts, batch=4, **section), together[order], atol=1e-4)
    alone = LabelledData(data.source, data.preprocess, data.images[3:4], data.labels, data.subsets)
    np.testing.assert_allclose(score(pretrained, alone, prompts, **section)[0], together[3], atol=1e-4)


def test_what_a_model_cannot_do(opened: dict[str, Pretrained]) -> None:
    prompts = phantom_prompts()
    with pytest.raises(UserError, match="Prompts.similarity：ConVIRT 没有局部相似度"):
        PromptScorer(opened["ConVIRT"], prompts, ZeroShotPrompts(name="phantom", similarity="local"), 8)
    with pytest.raises(UserError, match="Prompts.ensemble：embeddings.*GLoRIA.*similarity: global"):
        PromptScorer(opened["GLoRIA"], prompts, ZeroShotPrompts(name="phantom", ensemble="embeddings"), 8)


def test_memory_is_that_of_one_batch(opened: dict[str, Pretrained]) -> None:
    """The images are asked for a batch at a time, and none is kept."""
    pretrained = opened["ConVIRT"]
    data, asked = some_images(pretrained, 10), []

    class Watched:
        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> np.ndarray:
            asked.append(int(index))
            return data.images[index]

    watched = SimpleNamespace(images=Watched(), preprocess=data.preprocess)
    sizes: list[int] = []
    scorer = PromptScorer(pretrained, phantom_prompts(), ZeroShotPrompts(name="phantom"), 4)
    found = score_images(scorer, pretrained, watched, 4, lambda done: sizes.append((done, len(asked))))
    assert found.shape == (10, 9) and found.dtype == np.float32
    assert asked == list(range(10)) and sizes == [(4, 4), (4, 8), (2, 10)]


# --- the whole evaluation ---------------------------------------------------------------------------------------------

def test_an_evaluation_leaves_everything_behind(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
                                                ) -> None:
    metrics = run(tmp_path, runs["ConVIRT"], "Metric.seen=auto")
    found, folder = metrics["evaluation"], tmp_path / "zs/eval_test"
    assert metrics["demo_data"] is True and metrics["architecture"] == "ConVIRT" and metrics["seed"] == 1
    assert set(found["per_finding"]) == {"effusion", "consolidation", "nodule"}
    assert found["seen"]["findings"] == ["effusion", "consolidation"] and found["unseen"]["findings"] == ["nodule"]
    assert found["unseen"]["macro_auc"] == found["per_finding"]["nodule"]["auc"]
    assert found["samples"] == 30 and found["subset"] == "test" and found["threshold_subset"] == "val"
    assert len(found["macro_auc_ci95"]) == 2 and len(found["macro_f1_ci95"]) == 2
    assert "偏乐观" in found["best_on_test"]["note"]
    assert found["best_on_test"]["macro_f1"] >= found["macro_f1"]
    for name in ("config.yaml", "log.txt", "roc.png", "auc.png", "scores.png"):
        assert (folder / name).stat().st_size > 0
    with open(folder / "per_image.csv", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert list(rows[0]) == ["file", "patient_id", *(f"{kind}:{name}" for kind in ("label", "score")
                                                     for name in found["per_finding"])]
    labels, scores = (np.array([[float(row[f"{kind}:{name}"]) for name in found["per_finding"]] for row in rows])
                      for kind in ("label", "score"))
    for k, one in enumerate(found["per_finding"].values()):
        wins = scores[labels[:, k] == 1, k][:, None] - scores[labels[:, k] == 0, k][None]
        assert one["auc"] == pytest.approx(np.mean((wins > 0) + (wins == 0) / 2), abs=1e-12)
        predicted = scores[:, k] >= one["threshold"]
        assert one["accuracy"] == pytest.approx(np.mean(predicted == labels[:, k]))
    said = capsys.readouterr().out
    assert "没见过" in said and said.count("患者重叠") == 1  # test and validation images are of one division


def test_thresholds_come_from_the_validation_images(runs: dict[str, Path], tmp_path: Path) -> None:
    """They are what the validation images alone would choose, and test labels have no part in them."""
    found = run(tmp_path, runs["ConVIRT"])["evaluation"]["per_finding"]
    overrides = ["DataLoader.Eval={subset: val, threshold_subset: null}", "DataLoader.Eval.sampler={batch_size: 7}"]
    evaluator("zero_shot")(argparse.Namespace(config=str(tmp_path / "zero_shot.yaml"), override=overrides))
    validation = json.loads((tmp_path / "zs/eval_val/metrics.json").read_text("utf-8"))["evaluation"]
    assert validation["threshold_subset"] is None and "macro_f1" not in validation
    for name, one in validation["best_on_test"]["per_finding"].items():
        assert found[name]["threshold"] == one["threshold"]


def test_an_evaluation_that_is_stopped_leaves_nothing_of_the_one_before(runs: dict[str, Path], tmp_path: Path) -> None:
    """A new per_image.csv beside the old metrics.json would pass for one evaluation."""
    run(tmp_path, runs["ConVIRT"])
    folder = tmp_path / "zs/eval_test"
    (folder / "mine.png").write_bytes(b"mine")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("paddle_cxr.tasks.zero_shot.evaluate.say_overlap", interrupt)  # called after scoring
        run(tmp_path, runs["ConVIRT"])
    assert {one.name for one in folder.iterdir()} == {"config.yaml", "log.txt", "mine.png"}


def test_findings_that_compete(runs: dict[str, Path], tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text("effusion: {subtype: [pleural effusion, fluid], location: ['', on the left, on the right]}\n"
                       "consolidation: {severity: ['', dense], subtype: consolidation}\nnodule: {subtype: nodule}\n")
    found = run(tmp_path, runs["GLoRIA"], "Prompts.name=null", f"Prompts.file={prompts}", "Prompts.ensemble=max",
                "Prompts.sample=3", "DataLoader.Source.together=1")["evaluation"]
    one_finding = found["multiclass"]
    assert one_finding["samples"] == sum(one["positives"] for one in found["per_finding"].values())
    assert np.sum(one_finding["confusion_matrix"]) == one_finding["samples"] and one_finding["ci95"]["accuracy"]


@pytest.mark.parametrize(("overrides", "match"), [
    (["Prompts.name=null", "Prompts.file={prompts}"], "征象 consolidation、nodule 在 .*没有提示词.*missing: skip"),
    (["Metric.findings=[effusion, Nodule]"], "Metric.findings：数据 phantom 没有征象 'Nodule'，是不是 nodule"),
    (["Metric.findings=[effusion, nodule, effusion]"], "Metric.findings：effusion 写了两次"),
    (["Metric.seen=[effusion, oedema]"], "Metric.seen：oedema 不在评估的征象里"),
    (["Model.checkpoint={classifier}"], "ResNet18 的权重，没有文本塔"),
    (["DataLoader.Split={{name: BlogSplit}}"], "threshold_subset：子集 'val' 里没有图像"),  # it would give test images
    (["DataLoader.Split={{name: PatientSplit, val: 0.0, test: 0.5}}"],
     "threshold_subset：子集 'val' 里没有图像.*写 null"),
    (["Prompts.similarity=local"], "Prompts.similarity：ConVIRT 没有"),
])
def test_bad_input_is_one_clear_line_and_leaves_no_folder(runs: dict[str, Path], tmp_path: Path,
                                                          overrides: list[str], match: str) -> None:
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text("effusion: {positive: fluid, negative: no fluid}\n")
    save_weights(tmp_path / "classifier", {"fc.weight": np.zeros(2)}, {"architecture": "ResNet18"})
    with pytest.raises(UserError, match=match) as error:
        run(tmp_path, runs["ConVIRT"], *(one.format(prompts=prompts, classifier=tmp_path / "classifier")
                                         for one in overrides))
    assert "\n" not in str(error.value) and not (tmp_path / "zs").exists()


def test_images_of_which_nothing_is_known(runs: dict[str, Path], tmp_path: Path) -> None:
    """Found before an image is read: the files are none."""
    rows = ["file,split,found"]
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(b"404")
        rows.append(f"{number}.png," + (f"val,{'fluid' if number % 2 else 'No Finding'}" if number < 4 else "test,"))
    (tmp_path / "index.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "prompts.yaml").write_text("fluid: {positive: fluid, negative: no fluid}\n")
    with pytest.raises(UserError, match="子集 test 的 4 张图没有征象 fluid 的标签，无法评估"):
        run(tmp_path, runs["ConVIRT"], f"Prompts={{file: {tmp_path / 'prompts.yaml'}}}",
            f"DataLoader.Source={{name: FindingsFile, root: {tmp_path}, label_column: found}}",
            "DataLoader.Split={name: Published}")
    assert not (tmp_path / "zs").exists()


def test_prompts_in_a_language_that_the_model_never_read(runs: dict[str, Path], tmp_path: Path,
                                                         capsys: pytest.CaptureFixture) -> None:
    run(tmp_path, runs["ConVIRT"], "Prompts.language=zh")
    assert "句含文本塔不认识的词（[UNK]）" in capsys.readouterr().out
    tokenizer = open_pretrained(runs["ConVIRT"]).tokenizer
    assert notices_of(["There is a pleural effusion."], tokenizer) == []
    cut, unknown = notices_of(["There is a pleural effusion. " * 20, "双肺清晰。", "effusion"], tokenizer)
    assert cut.startswith("!! 1 句提示词超过文本塔的长度") and "3 句提示词里有 1 句" in unknown


def test_findings_without_prompts_may_be_left_out(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
                                                  ) -> None:
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text("effusion: {positive: fluid, negative: no fluid}\n")
    found = run(tmp_path, runs["ConVIRT"], "Prompts.name=null", f"Prompts.file={prompts}", "Prompts.missing=skip",
                "DataLoader.Eval.threshold_subset=null", "Metric.resamples=0")["evaluation"]
    assert list(found["per_finding"]) == ["effusion"] and found["macro_auc_ci95"] is None
    assert "macro_f1" not in found and found["threshold_subset"] is None
    assert "consolidation、nodule" in capsys.readouterr().out


# --- recipes ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("file", sorted((ROOT / "configs/eval").glob("zero_shot_*.yaml")), ids=lambda file: file.stem)
def test_the_recipes_that_are_shipped(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/any").touch()
    key = "source.root" if "covidx" in file.stem else "root"
    for overrides in ([], [f"DataLoader.Source.{key}={tmp_path / 'data'}"]):
        if "phantom" in file.stem and overrides:
            continue
        try:
            recipe = job_named("zero_shot").load(file, overrides).recipe
        except UserError as error:
            assert str(error).startswith("DataLoader.Source：找不到"), error
            continue
        assert recipe.Prompts.name == "phantom" or Path(recipe.Prompts.file).is_file()


@pytest.mark.parametrize(("override", "match"), [
    ("Prompts.file=a.yaml", "file.*name: phantom 写一个"),
    ("Prompts.name=null", "file.*name: phantom 写一个"),
    ("DataLoader.Eval.threshold_subset=test", "threshold_subset：test 含有要评估的图像"),
    ("DataLoader.Eval.threshold_subset=all", "threshold_subset：all 含有"),
    ("DataLoader.Eval.subset=all", "subset：all 含有选阈值的子集"),
    ("Metric.unseen=[nodule]", "Metric.unseen：要与 Metric.seen"),
    ("Prompts={name: phantom, ensemble: embeddings, similarity: local}", "embeddings.*local"),
    ("DataLoader.Source.counts=3", "没有参数 'counts'，是不是 count"),
])
def test_rules_between_keys(tmp_path: Path, override: str, match: str) -> None:
    file = tmp_path / "zero_shot.yaml"
    file.write_text(ZERO_SHOT.format(output=tmp_path, checkpoint="nowhere"), encoding="utf-8")
    with pytest.raises(UserError, match=match):
        load(file, [override])
