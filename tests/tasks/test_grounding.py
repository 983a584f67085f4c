"""Zero-shot grounding: the maps against loops, the figures against what was planted, and the tool as a user runs it."""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
import pytest
from helpers import run_tool

pytest.importorskip("paddlenlp")

from untrained import untrained  # noqa: E402

from paddle_cxr.data.findings import FindingBox, FindingsRecord, FindingsSource  # noqa: E402
from paddle_cxr.data.labelled import LabelledData  # noqa: E402
from paddle_cxr.data.preprocess import Preprocess  # noqa: E402
from paddle_cxr.data.records import ClassInfo  # noqa: E402
from paddle_cxr.engine.jobs import evaluator  # noqa: E402
from paddle_cxr.errors import UserError  # noqa: E402
from paddle_cxr.evaluation.overlap import dice, iou  # noqa: E402
from paddle_cxr.evaluation.prompts import FindingPrompts  # noqa: E402
from paddle_cxr.evaluation.significance import mean_statistic  # noqa: E402
from paddle_cxr.tasks.grounding.maps import Maps  # noqa: E402
from paddle_cxr.tasks.grounding.marked import Located, Marked, load_marked, locate  # noqa: E402
from paddle_cxr.tasks.grounding.recipe import load  # noqa: E402
from paddle_cxr.tasks.grounding.report import _spread  # noqa: E402
from paddle_cxr.tasks.grounding.schema import GroundingSection  # noqa: E402
from paddle_cxr.tasks.grounding.scores import MEANS, Score, choose_thresholds, score, summarise  # noqa: E402
from paddle_cxr.tasks.pretrained import Pretrained, open_pretrained, read_settings, with_input_of  # noqa: E402

GROUNDING = """
Global: {{task: grounding, output_dir: {output}, device: cpu, seed: 1}}
Model: {{checkpoint: {model}}}
Prompts: {{name: phantom}}
Grounding: {{map: {map}, examples: 3}}
DataLoader:
  Source: {{name: PhantomFindings, count: 24, seed: 9, size: 48, together: 2, findings: [normal, effusion, nodule]}}
  Split: {{name: PatientSplit, val: 0.4, test: 0.4}}
  cache: {{mode: memory}}
  Eval: {{sampler: {{batch_size: 4}}}}
Metric: {{resamples: 20}}
"""

PROMPTS = (FindingPrompts("effusion", ("There is a pleural effusion.", "Fluid in the angle."), (), "积液", "Effusion"),
           FindingPrompts("nodule", ("A nodule is seen in the right upper lung.",), (), "结节", "Nodule"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {method: untrained(folder, method) for method in ("ConVIRT", "GLoRIA")}


@pytest.fixture(scope="module")
def opened(runs: dict[str, Path]) -> dict[str, Pretrained]:
    return {method: open_pretrained(run) for method, run in runs.items()}


@pytest.fixture
def films() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 96, 96), dtype=np.uint8)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def words_of(pretrained: Pretrained, text: str) -> dict[str, np.ndarray]:
    """Features of one text by itself, without padding."""
    tokens = map(paddle.to_tensor, pretrained.tokenizer.batch([text]))
    return {name: value.numpy()[0] for name, value in pretrained.model.encode_text(*tokens).items()}


# --- maps ------------------------------------------------------------------------------------------------------

@paddle.no_grad()
def test_convirt_compares_every_place_with_the_prompt(opened: dict[str, Pretrained], films: np.ndarray) -> None:
    one = opened["ConVIRT"]
    found = Maps(one, PROMPTS, GroundingSection())(films, np.array([0, 1, 0]))
    assert found.shape == (3, 3, 3)
    images = one.preprocess.normalize_tensor(paddle.to_tensor(films))
    layer4 = one.model.image_encoder.forward_features(images)["layer4"].numpy()
    for film, finding in enumerate((0, 1, 0)):
        for row, column in np.ndindex(3, 3):
            place = one.model.image_head(paddle.to_tensor(layer4[film, :, row, column][None])).numpy()[0]
            cosines = [unit(place) @ words_of(one, text)["global"] for text in PROMPTS[finding].positive]
            assert found[film, row, column] == pytest.approx(np.mean(cosines), abs=1e-5)


def test_of_one_place_it_is_the_similarity_of_the_whole_image(tmp_path: Path) -> None:
    one = open_pretrained(untrained(tmp_path, "ConVIRT", side=32))
    films = np.random.default_rng(0).integers(0, 256, (2, 32, 32), dtype=np.uint8)
    prompts = PROMPTS[1:]
    found = Maps(one, prompts, GroundingSection())(films, np.array([0, 0]))
    whole = one.model.encode_image(one.preprocess.normalize_tensor(paddle.to_tensor(films)))["global"].numpy()
    np.testing.assert_allclose(found[:, 0, 0], whole @ words_of(one, prompts[0].positive[0])["global"], atol=1e-5)


@paddle.no_grad()
def test_gloria_compares_every_region_with_the_words(opened: dict[str, Pretrained], films: np.ndarray) -> None:
    one = opened["GLoRIA"]
    found = Maps(one, PROMPTS, GroundingSection())(films, np.array([0, 1, 0]))
    assert found.shape == (3, 6, 6)
    images = one.preprocess.normalize_tensor(paddle.to_tensor(films))
    regions = one.model.encode_image(images)["regions"].numpy()
    for film, finding in enumerate((0, 1, 0)):
        by_text = [np.mean([[unit(region) @ unit(word) for word in words_of(one, text)["words"]]
                            for region in regions[film]], axis=1) for text in PROMPTS[finding].positive]
        np.testing.assert_allclose(found[film].ravel(), np.mean(by_text, axis=0), atol=1e-5)


@paddle.no_grad()
def test_attention_is_the_mean_over_the_words(opened: dict[str, Pretrained], films: np.ndarray) -> None:
    one = opened["GLoRIA"]
    found = Maps(one, PROMPTS, GroundingSection(map="attention"))(films, np.array([1, 1, 0]))
    np.testing.assert_allclose(found.sum(axis=(1, 2)), 1, rtol=1e-5)
    images = one.preprocess.normalize_tensor(paddle.to_tensor(films))
    regions = one.model.encode_image(images)["regions"].numpy()
    words = words_of(one, PROMPTS[1].positive[0])["words"]
    for film in (0, 1):
        products = regions[film] @ words.T  # [R, W]
        of_words = np.exp(products - products.max(axis=1, keepdims=True))
        of_words /= of_words.sum(axis=1, keepdims=True)
        looks = np.exp(4 * of_words)
        np.testing.assert_allclose(found[film].ravel(), (looks / looks.sum(axis=0)).mean(axis=1), rtol=1e-4)


def test_attention_needs_a_model_that_has_it(opened: dict[str, Pretrained]) -> None:
    with pytest.raises(UserError, match="ConVIRT.*attention.*gradcam"):
        Maps(opened["ConVIRT"], PROMPTS, GroundingSection(map="attention"))


@pytest.mark.parametrize("method", ["ConVIRT", "GLoRIA"])
def test_grad_cam_explains_the_similarity_with_the_prompt(opened: dict[str, Pretrained], films: np.ndarray, method: str
                                                          ) -> None:
    """Against gradients taken by hand, on the last map."""
    one = opened[method]
    found = Maps(one, PROMPTS, GroundingSection(map="gradcam"))(films[:1], np.array([0]))
    assert found.shape == (1, 96, 96) and found.min() >= 0 and found.max() in (0, 1)
    images = one.preprocess.normalize_tensor(paddle.to_tensor(films[:1]))
    layer4 = one.model.image_encoder.forward_features(images)["layer4"].detach()
    layer4.stop_gradient = False
    head = one.model.image_head if method == "ConVIRT" else one.model.global_head
    vector = head(layer4.mean(axis=[2, 3]))
    texts = np.mean([words_of(one, text)["global"] for text in PROMPTS[0].positive], axis=0)
    cosine = (vector / vector.norm()) @ paddle.to_tensor(texts)
    (gradient,) = paddle.grad(cosine.sum(), layer4)
    coarse = np.maximum((gradient.mean(axis=[2, 3], keepdim=True) * layer4).sum(axis=1).numpy()[0], 0)
    if coarse.max() > 0:
        fine = paddle.nn.functional.interpolate(paddle.to_tensor(coarse[None, None]), size=[96, 96], mode="bilinear")
        np.testing.assert_allclose(found[0], fine.numpy()[0, 0] / float(fine.max()), atol=1e-3)


def test_nan_is_one_clear_line(opened: dict[str, Pretrained], films: np.ndarray) -> None:
    maps = Maps(opened["GLoRIA"], PROMPTS, GroundingSection())
    maps._share = maps._share * np.nan
    with pytest.raises(UserError, match="NaN"):
        maps(films, np.array([0, 0, 1]))


# --- where things are --------------------------------------------------------------------------------------------

class Boxes(FindingsSource):
    """Films of odd sizes with a box each."""

    shapes = ((120, 80), (60, 150), (97, 97))
    boxes = ((10.5, 20, 30, 40), (60, 12, 40.5, 33), (30, 41, 22, 20))

    def __init__(self) -> None:
        super().__init__("boxes", ".", [ClassInfo("nodule", "结节", "Nodule")], [
            FindingsRecord(f"{i}", 0, f"p{i}", labels={"nodule": 1}, boxes=(FindingBox("nodule", *box),))
            for i, box in enumerate(self.boxes)])

    def read(self, index: int) -> np.ndarray:
        return np.zeros(self.shapes[index], np.uint8)


@pytest.mark.parametrize("resize", ["squash", "letterbox", "crop"])
def test_a_model_that_knows_the_answer_finds_it(resize: str) -> None:
    """Its maps are the true masks, seen through the geometry: undone they lie on the boxes again."""
    source, preprocess = Boxes(), Preprocess((1, 128, 128), resize=resize)
    films = np.stack([preprocess.geometry(source.read(i)) for i in range(3)])
    films[:, 0, 0] = range(3)  # by which the stand-in for a model knows them again

    def maps(images: np.ndarray, findings: np.ndarray) -> np.ndarray:
        return np.stack([preprocess.mask_geometry(source.mask(int(one[0, 0]), "nodule", source.shapes[one[0, 0]]))
                         for one in images]).astype(np.float32)

    data = LabelledData(source, preprocess, films, np.zeros(3, np.int64), ["test"] * 3)
    prompts = [FindingPrompts("nodule", ("A nodule.",), (), "结节", "Nodule")]
    found = list(locate(data, maps, prompts, [Marked(i, 0) for i in range(3)], "none", 2))
    for one, shape in zip(found, source.shapes, strict=True):
        assert one.heat.shape == one.truth.shape == shape
        result = score(one, 0.5)
        assert result.iou > 0.9 and result.pointing == pytest.approx(1, abs=0.05) and not result.cnr_signed <= 3
        assert np.isnan(one.heat).any() == (resize == "crop" and shape[0] != shape[1])


def test_only_marked_films_are_decoded_and_subsets_do_not_mix(tmp_path: Path, runs: dict[str, Path]) -> None:
    loaded = loaded_recipe(tmp_path, runs["GLoRIA"])
    said: list[str] = []
    data, known, marked = load_marked(loaded, ["test", "val"], said.append)
    assert [one.name for one in known] == ["effusion", "nodule"]  # nobody marked the third
    assert len(data.images) == len(data.source.records) < 24
    assert all(any(record.labels.values()) for record in data.source.records)
    seen = {name: {data.source.records[one.position].patient_id for one in rows} for name, rows in marked.items()}
    assert seen["test"] and seen["val"] and not seen["test"] & seen["val"]
    for rows in marked.values():
        for one in rows:
            assert data.source.records[one.position].labels[known[one.finding].name] == 1
    assert any("患者重叠" in line and "0" in line for line in said)


def test_findings_without_prompts(tmp_path: Path, runs: dict[str, Path]) -> None:
    file = tmp_path / "prompts.yaml"
    file.write_text("effusion: {positive: A pleural effusion., negative: No pleural effusion.}", "utf-8")
    overrides, said = [f"Prompts={{file: {file}}}"], []
    with pytest.raises(UserError, match="nodule 在 .*prompts.yaml.*没有提示词.*Metric.findings.*missing: skip"):
        load_marked(loaded_recipe(tmp_path, runs["GLoRIA"], *overrides), ["test"], said.append)
    for more in ("Prompts.missing=skip", "Metric.findings=[effusion]"):
        _, known, marked = load_marked(loaded_recipe(tmp_path, runs["GLoRIA"], *overrides, more), ["test"], said.append)
        assert len(known) == 1 and {one.finding for one in marked["test"]} == {0}
    assert any("nodule 在" in line for line in said)
    with pytest.raises(UserError, match="prompts.yaml.*没有提示词.*改成标签的写法"):
        load_marked(loaded_recipe(tmp_path, runs["GLoRIA"], *overrides, "Prompts.missing=skip",
                                  "Metric.findings=[nodule]"), ["test"], said.append)
    for wrong in ("[efusion]", "[effusion, effusion]"):
        with pytest.raises(UserError, match="Metric.findings.*effusion"):
            load_marked(loaded_recipe(tmp_path, runs["GLoRIA"], f"Metric.findings={wrong}"), ["test"], said.append)


@pytest.mark.parametrize("text", [
    "effusion: {positive: A pleural effusion.}",
    "effusion: {positive: A pleural effusion.}\nnodule: {positive: A nodule., negative: No nodule.}",
    "_templates_: {positive: 'There is {term}.', others: true}\nnodule: {positive: A nodule., negative: No nodule.}",
], ids=["alone", "of some", "by templates"])
def test_prompts_need_no_negative_side(tmp_path: Path, runs: dict[str, Path], text: str) -> None:
    """It is never read: the question is where, and not whether."""
    file = tmp_path / "prompts.yaml"
    file.write_text(text, "utf-8")
    prompts = [f"Prompts={{file: {file}}}", "Metric.findings=[effusion]"]
    (one,), marked = load_marked(loaded_recipe(tmp_path, runs["GLoRIA"], *prompts), ["test"], lambda _: None)[1:]
    assert one.positive and one.negative == () and marked["test"]


def test_findings_that_nobody_marked_are_named(tmp_path: Path, runs: dict[str, Path]) -> None:
    said: list[str] = []
    source = ("DataLoader.Source={name: PhantomFindings, count: 20, size: 48, "
              "findings: [normal, effusion, 'nodule:left']}")
    loaded = loaded_recipe(tmp_path, runs["GLoRIA"], source, "Metric.findings=[nodule, effusion]")
    _, known, _ = load_marked(loaded, ["test", "val"], said.append)
    assert {one.name for one in known} == {"effusion", "nodule"} and not any("没有一张标出" in line for line in said)
    only = "DataLoader.Source.count=2"  # a normal film and one with an effusion
    with pytest.raises(UserError, match="没有一张标出了征象位置"):
        load_marked(loaded_recipe(tmp_path, runs["GLoRIA"], source, only, "DataLoader.Split={name: NoSplit}",
                                  "Metric.findings=[nodule]"), ["all"], said.append)
    assert any("征象 nodule 没有一张标出位置的图像" in line for line in said)


def test_a_subset_without_marks_is_refused(tmp_path: Path, runs: dict[str, Path]) -> None:
    loaded = loaded_recipe(tmp_path, runs["GLoRIA"], "DataLoader.Split={name: PatientSplit, val: 0.0, test: 0.9}")
    with pytest.raises(UserError, match="'val'.*没有一张标出.*threshold_subset"):
        load_marked(loaded, ["test", "val"], lambda _: None)


# --- figures -----------------------------------------------------------------------------------------------------

def located(rng: np.random.Generator, count: int, findings: int = 2) -> list[Located]:
    found = []
    for number in range(count):
        truth = np.zeros((12, 10), bool)
        row, column = rng.integers(0, 8, 2)
        truth[row:row + 4, column:column + 2] = True
        found.append(Located(Marked(number // 2, number % findings), rng.normal(size=truth.shape) * 0.2
                             + 0.3 * truth * (1 + number % findings), truth))
    return found


def test_thresholds_are_the_best_on_validation(rng: np.random.Generator) -> None:
    maps = located(rng, 20)
    chosen = choose_thresholds(maps, "none", per_finding=True)
    assert chosen.pairs == {0: 10, 1: 10}
    steps = np.linspace(-1, 1, 401)
    for finding in (0, 1):
        means = [np.mean([dice(one.heat >= step, one.truth) for one in maps if one.marked.finding == finding])
                 for step in steps]
        assert means[int(np.argmin(np.abs(steps - chosen[finding])))] == pytest.approx(max(means))
    shared = choose_thresholds(maps, "none", per_finding=False)
    assert shared[0] == shared[1] == shared[7] == chosen.shared and chosen[7] == chosen.shared


def test_nothing_to_choose_on() -> None:
    unseen = Located(Marked(0, 0), np.full((3, 3), np.nan), np.eye(3, dtype=bool))
    with pytest.raises(UserError, match="定不出阈值"):
        choose_thresholds([unseen], "none", True)
    assert all(np.isnan(getattr(score(unseen, 0.5), name)) for name in (*MEANS, "sweep_iou", "area"))
    assert score(unseen, 0.5).cut


def test_a_score_is_its_measures(rng: np.random.Generator) -> None:
    for one in located(rng, 6):
        result = score(one, 0.2)
        assert (result.iou, result.dice) == (iou(one.heat >= 0.2, one.truth), dice(one.heat >= 0.2, one.truth))
        assert result.sweep_iou == pytest.approx(np.mean([iou(one.heat >= t, one.truth) for t in
                                                          (0.1, 0.2, 0.3, 0.4, 0.5)]))
        assert result.cnr == abs(result.cnr_signed) and result.area == one.truth.mean() and not result.cut
        everything = dice(np.ones_like(one.truth), one.truth)
        assert result.whole_dice == pytest.approx(everything)
        without = score(one, None)
        assert np.isnan(without.iou) and np.isnan(without.dice) and without.pointing == result.pointing


def test_means_and_intervals_are_those_of_the_comparison(rng: np.random.Generator) -> None:
    """The mean over findings of means over images, as the paired test between models takes it."""
    scores = [score(one, 0.2) for one in located(rng, 30, findings=3)]
    scores[4] = replace(scores[4], cnr_signed=float("nan"))
    names = [FindingPrompts(name, ("x",), (), name, name) for name in "abcd"]
    patients = [f"p{one.marked.position // 2}" for one in scores]
    found = summarise(scores, names, patients, n=50, seed=2)
    kinds = [one.marked.finding for one in scores]
    for name, key in MEANS.items():
        values = np.array([getattr(one, name) for one in scores])
        expected = mean_statistic(values, kinds)(np.ones((1, len(scores))))[0]
        assert found[key] == pytest.approx(expected)
        low, high = found[f"{key}_ci95"]
        assert low <= found[key] <= high
        for number in range(3):
            mine = np.nanmean([value for value, kind in zip(values, kinds, strict=True) if kind == number])
            assert found["per_finding"]["abc"[number]][name] == pytest.approx(mine)
    assert set(found["per_finding"]) == set("abc") and found["bootstrap"]["unit"] == "patient"
    assert found["whole_image"]["mean_iou"] == pytest.approx(8 / 120) == found["whole_image"]["pointing"]
    json.dumps(found, allow_nan=False)


def test_without_patients_an_images_findings_are_drawn_together(rng: np.random.Generator) -> None:
    scores = [score(one, 0.2) for one in located(rng, 20)]
    found = summarise(scores, PROMPTS, None, n=30)
    same = summarise(scores, PROMPTS, [f"p{one.marked.position}" for one in scores], n=30)
    assert found["bootstrap"]["unit"] == "image" and found["mean_iou_ci95"] == same["mean_iou_ci95"]
    assert summarise(scores, PROMPTS, None, n=0)["mean_iou_ci95"] is None


def test_nothing_defined_is_null() -> None:
    nothing = Score(Marked(0, 0), *[float("nan")] * 7, cut=True)
    found = summarise([nothing], PROMPTS, None, n=5)
    assert found["mean_iou"] is found["cnr"] is found["pointing_ci95"] is None
    json.dumps(found, allow_nan=False)


def test_examples_are_spread_over_the_findings() -> None:
    marked = [Marked(i, 0) for i in range(50)] + [Marked(i, 1) for i in range(2)] + [Marked(7, 2)]
    chosen = _spread(marked, 6)
    assert len(chosen) == len(set(chosen)) and {one.finding for one in chosen} == {0, 1, 2}
    assert _spread(marked, 0) == [] and _spread([], 3) == []


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# --- the tool ----------------------------------------------------------------------------------------------------

def write_recipe(folder: Path, run: Path, kind: str = "similarity") -> Path:
    file = folder / "grounding.yaml"
    file.write_text(GROUNDING.format(output=folder / "out", model=run, map=kind), "utf-8")
    return file


def loaded_recipe(folder: Path, run: Path, *overrides: str):
    loaded = load(write_recipe(folder, run), overrides)
    return replace(loaded, recipe=with_input_of(loaded.recipe, read_settings(run)))


def run(file: Path, capsys: pytest.CaptureFixture, *overrides: str) -> str:
    """Evaluate as ``tools/eval.py`` does; returns what it prints."""
    assert evaluator("grounding")(argparse.Namespace(config=str(file), override=list(overrides))) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(("method", "kind"), [("GLoRIA", "similarity"), ("ConVIRT", "gradcam")])
def test_a_run_leaves_everything_behind(tmp_path: Path, runs: dict[str, Path], capsys: pytest.CaptureFixture,
                                        method: str, kind: str) -> None:
    said = run(write_recipe(tmp_path, runs[method], kind), capsys)
    out = tmp_path / "out" / "eval_test"
    for name in ("config.yaml", "log.txt", "metrics.json", "per_image.csv", "grounding_0.png"):
        assert (out / name).is_file(), name
    metrics = json.loads((out / "metrics.json").read_text())
    found = metrics["evaluation"]
    assert metrics["demo_data"] is True and found["subset"] == "test" and found["map"] == kind
    assert found["thresholds"]["chosen_on"] == "val" and set(found["per_finding"]) == {"effusion", "nodule"}
    for key in ("mean_iou", "mean_dice", "pointing", "cnr"):
        low, high = found[f"{key}_ci95"]
        assert 0 <= low <= found[key] <= high
    rows = list(csv.DictReader((out / "per_image.csv").open()))
    assert len(rows) == found["pairs"] == sum(one["pairs"] for one in found["per_finding"].values())
    assert list(rows[0])[:7] == ["file", "patient_id", "finding", "iou", "dice", "pointing", "cnr"]
    mean = np.mean([np.mean([float(row["iou"]) for row in rows if row["finding"] == name])
                    for name in ("effusion", "nodule")])
    assert found["mean_iou"] == pytest.approx(mean, abs=1e-12)
    # As a comparison does, to test differences; it allows 1e-6, and a contrast of 7.12345 would have lost more.
    contrast = np.mean([np.mean([float(row["cnr"]) for row in rows if row["finding"] == name])
                        for name in ("effusion", "nodule")])
    assert found["cnr"] == pytest.approx(contrast, abs=1e-12)
    assert "阈值取自子集 val" in said


@pytest.mark.parametrize(("override", "words"), [
    ("DataLoader.Eval.threshold_subset=test", "测试集"), ("DataLoader.Eval.subset=all", "测试集"),
    ("Prompts.file=x.yaml", "只写一个"), ("Prompts.ensemble=max", "Prompts.ensemble：没有这个键"),
    ("Prompts={file: x.yaml, language: zh}", "Prompts.language：zh.*删去"),
    ("Grounding={map: attention, scale: none}", "Grounding.scale.*attention"),
    ("Grounding.map=heat", "Grounding.map.*similarity"), ("Metric.findings=[]", "Metric.findings"),
])
def test_mistakes_are_one_clear_line(tmp_path: Path, override: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        load(write_recipe(tmp_path, tmp_path / "none"), [override])
    assert "\n" not in str(error.value)


def test_without_thresholds_all_may_be_evaluated(tmp_path: Path, runs: dict[str, Path], capsys: pytest.CaptureFixture
                                                 ) -> None:
    run(write_recipe(tmp_path, runs["ConVIRT"]), capsys, "DataLoader.Eval.threshold_subset=null",
        "DataLoader.Eval.subset=all", "Grounding.examples=0")
    found = json.loads((tmp_path / "out/eval_all/metrics.json").read_text())["evaluation"]
    assert found["mean_iou"] is None and found["thresholds"] is None and found["pointing"] is not None
    assert not (tmp_path / "out/eval_all/grounding_0.png").exists()


def test_an_evaluation_keeps_nothing_of_the_one_before(tmp_path: Path, runs: dict[str, Path],
                                                       capsys: pytest.CaptureFixture) -> None:
    """Of two evaluations in one folder no figure, and no metrics.json beside another's table, where one is stopped."""
    file, out = write_recipe(tmp_path, runs["ConVIRT"]), tmp_path / "out/eval_test"
    run(file, capsys)
    assert (out / "grounding_0.png").is_file()
    for mine in ("grounding_mine.png", "notes.txt"):
        (out / mine).write_text("mine", "utf-8")
    run(file, capsys, "Grounding.examples=0")
    assert {one.name for one in out.glob("*.png")} == {"grounding_mine.png"} and (out / "notes.txt").is_file()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("paddle_cxr.tasks.grounding.evaluate.Report.write", interrupt)
        run(out / "config.yaml", capsys)
    assert not (out / "metrics.json").exists() and not (out / "per_image.csv").exists()
    run(out / "config.yaml", capsys)  # the recipe that was used is there all the time
    assert (out / "metrics.json").is_file()


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_films_that_the_model_was_trained_on_are_counted(tmp_path: Path, runs: dict[str, Path],
                                                         capsys: pytest.CaptureFixture) -> None:
    copy = tmp_path / "run"
    shutil.copytree(runs["GLoRIA"], copy)
    file = write_recipe(tmp_path, copy)
    assert "无法核对" in run(file, capsys)
    with open(tmp_path / "out/eval_test/per_image.csv", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    (copy / "train_files.csv").write_text(f"file,bytes,label,patient_id\nother.png,1,,{rows[0]['patient_id']}\n")
    assert "用于训练过这份权重" in run(file, capsys)
    found = json.loads((tmp_path / "out/eval_test/metrics.json").read_text())["evaluation"]
    assert found["also_trained_on"] == 1  # the patient's film, however many findings are marked on it


def test_what_was_used_can_be_run_again(tmp_path: Path, runs: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    """The written config.yaml is a recipe; a key that this map has no use for is said."""
    said = run(write_recipe(tmp_path, runs["GLoRIA"]), capsys, "Grounding.layer=layer3")
    assert "Grounding.layer 只用于 map: gradcam" in said
    first = json.loads((tmp_path / "out/eval_test/metrics.json").read_text())
    run(tmp_path / "out/eval_test/config.yaml", capsys, f"Global.output_dir={tmp_path / 'again'}")
    assert json.loads((tmp_path / "again/eval_test/metrics.json").read_text()) == first


def test_a_missing_model_is_one_clear_line(tmp_path: Path) -> None:
    done = run_tool("eval", write_recipe(tmp_path, tmp_path / "none"))
    assert done.returncode != 0 and "Model.checkpoint" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
