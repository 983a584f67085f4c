"""Every public data set that the evaluations name, in miniature: checked by prepare_data, evaluated by its recipe."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pytest
from miniatures import MINIATURES
from recipes import ROOT

pytest.importorskip("paddlenlp")

from untrained import untrained  # noqa: E402

from paddle_cxr.engine.jobs import evaluator  # noqa: E402
from paddle_cxr.engine.prepare import prepare_data  # noqa: E402
from paddle_cxr.recipe import task_of  # noqa: E402

RECIPES = [file for file in sorted((ROOT / "configs/eval").glob("*.yaml"))
           if file.stem.partition("_")[2] in MINIATURES or file.stem.removeprefix("zero_shot_") in MINIATURES]

QUICK = ("zero_shot_chexpert", "zero_shot_covidx", "grounding_rsna", "grounding_covid_rural")  # the others: -m slow


def data_set_of(recipe: Path) -> str:
    return recipe.stem.removeprefix("zero_shot_").removeprefix("grounding_")


def root_key(recipe: Path) -> str:
    return "DataLoader.Source.source.root" if data_set_of(recipe) == "covidx" else "DataLoader.Source.root"


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Data set → its folder."""
    folder = tmp_path_factory.mktemp("public")
    for name, make in MINIATURES.items():
        make(folder / name)
    return {name: folder / name for name in MINIATURES}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("run"), "GLoRIA", side=32)


def test_every_data_set_has_a_recipe() -> None:
    assert {data_set_of(file) for file in RECIPES} == set(MINIATURES)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)
def test_prepare_data_finds_nothing_wrong(recipe: Path, roots: dict[str, Path], tmp_path: Path) -> None:
    text = prepare_data(recipe, [f"{root_key(recipe)}={roots[data_set_of(recipe)]}", f"Prepare.output={tmp_path}"])
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["kept"] == report["images"] >= 16 and not report["left_out"] and not report["absent"]
    assert not report["annotations"]["outside"] and not report["annotations"]["empty"]
    assert "各征象（finding）：有/没有/未知" in text and ("跨子集" in text or "没有患者编号" in text)
    if task_of(recipe) == "grounding":
        assert any(report["annotations"]["masks"].values())


@pytest.mark.parametrize("recipe", [
    pytest.param(file, id=file.stem, marks=() if file.stem in QUICK else pytest.mark.slow) for file in RECIPES])
def test_the_evaluation_runs(recipe: Path, roots: dict[str, Path], run: Path, tmp_path: Path,
                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    task = task_of(recipe)
    overrides = [f"{root_key(recipe)}={roots[data_set_of(recipe)]}", f"Model.checkpoint={run}", "Global.device=cpu",
                 f"Global.output_dir={tmp_path}", "DataLoader.cache={mode: memory}", "Metric.resamples=5"]
    overrides += ["Grounding.examples=1"] if task == "grounding" else []
    assert evaluator(task)(argparse.Namespace(config=str(recipe), override=overrides)) == 0
    metrics = json.loads((tmp_path / "eval_test/metrics.json").read_text("utf-8"))
    found = metrics["evaluation"]
    assert found["threshold_subset" if task == "zero_shot" else "subset"] and metrics["demo_data"] is True  # the model
    if task == "grounding":
        assert found["pairs"] > 0 and found["mean_iou"] is not None
    else:
        assert found["samples"] > 0 and found["macro_average_precision"] is not None
        assert (tmp_path / "eval_test/per_image.csv").is_file()


@pytest.mark.skipif("PADDLE_CXR_REAL_DATA" not in os.environ, reason="PADDLE_CXR_REAL_DATA is not set")
def test_every_box_on_real_films_is_evaluated_once(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """39 boxes on as many films: one half of the patients, then the other."""
    monkeypatch.chdir(ROOT)
    real, found = Path(os.environ["PADDLE_CXR_REAL_DATA"]) / "cxr", {}
    for subset, other in (("val", "train"), ("train", "val")):
        overrides = [f"DataLoader.Source.root={real}", f"Model.checkpoint={run}", f"Global.output_dir={tmp_path}",
                     f"DataLoader.Eval={{subset: {subset}, threshold_subset: {other}}}", "Metric.resamples=20",
                     "DataLoader.cache={mode: memory}", "Global.device=cpu"]
        recipe = ROOT / "configs/eval/grounding_films.yaml"
        assert evaluator("grounding")(argparse.Namespace(config=str(recipe), override=overrides)) == 0
        found[subset] = json.loads((tmp_path / f"eval_{subset}/metrics.json").read_text("utf-8"))["evaluation"]
    assert sum(one["pairs"] for one in found.values()) == 39
    assert sum(one["per_finding"]["Pneumonia"]["pairs"] for one in found.values()) == 33
    assert all(one["thresholds"]["per_finding"] == {} and one["mean_iou_ci95"] for one in found.values())
