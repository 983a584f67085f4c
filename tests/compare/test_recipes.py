"""The project's own comparisons: every run's recipe is whole, every arm takes equally many steps."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import yaml

from paddle_cxr.compare.check import check_recipes, unequal_steps
from paddle_cxr.compare.plan import plan
from paddle_cxr.compare.recipe import load
from paddle_cxr.compare.run import compare
from paddle_cxr.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
COMPARISONS = sorted(file.name for file in (ROOT / "configs/compare").glob("*.yaml")
                     if file.stem.startswith(("synthetic_vs", "ablation")))
CENTRAL = "configs/compare/synthetic_vs_real.yaml"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with the project's recipes, and without data."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def few(runs: list) -> list:
    """One run of every arm, method, task and point."""
    return list({(run.arm, run.method, run.task, str(run.point)): run for run in runs}.values())


@pytest.mark.parametrize("name", COMPARISONS)
def test_every_recipe_is_whole_and_every_arm_takes_as_many_steps(project, name):
    loaded = load(f"configs/compare/{name}")
    runs = plan(loaded)
    assert unequal_steps(runs) == []
    absent = check_recipes(few(runs))
    made = [step.makes for step in loaded.recipe.Prepare]
    if name != "synthetic_vs_real_mimic.yaml":
        assert all(any(one in line for one in made) for line in absent), absent
    else:
        assert len(absent) >= 4 and all("找不到" in line or "没有" in line for line in absent), absent


def test_what_the_issue_asks_of_the_central_comparison(project):
    recipe = load(CENTRAL).recipe
    runs = plan(load(CENTRAL))
    assert list(recipe.Arms) == recipe.Expected.order == ["real", "synthetic", "mixed"]
    assert set(recipe.Tasks) == {"zero_shot", "grounding", "finetuning", "segmentation"}
    assert sum(run.task is None for run in runs) == 6
    assert recipe.Tasks["finetuning"].seeds == [0, 1, 2]
    assert recipe.Tasks["finetuning"].vary == {"Finetune.fraction": [0.01, 0.1, 1.0]}
    real = next(run for run in runs if run.id == "real/ConVIRT/seed42/pretraining").recipe()["DataLoader"]["Source"]
    assert real["name"] == "FlawedPairs" and real["source"]["long_tail"] > 0
    assert real["spoiled"] == real["mismatched"] == 0.05
    seeds = {run.recipe()["DataLoader"]["Source"].get("seed") for run in runs if run.task}
    drawn = yaml.safe_load((project / "configs/compare/synthetic_pairs.yaml").read_text(encoding="utf-8"))
    # Nothing is tested that was trained on.
    assert not seeds & {real["source"]["seed"], drawn["Reports"]["pairs"]["seed"]}


@pytest.mark.parametrize(("change", "said"), [
    ("Tasks.finetuning.override.Global.epoch=2", "finetuning/fraction0.01/seed0（configs/finetune_phantom.yaml）："
                                                 "Global.epoch：没有这个键"),
    ("Tasks.finetuning.vary={Finetun.fraction: [0.1]}", "Finetun：没有这个键"),
    ("Methods.GLoRIA.tasks.grounding={Grounding: {map: heat}}", "Grounding.map：应为"),
    ("Arms.synthetic.pretraining.DataLoader.Source.name=PairsFiles", "是不是 PairsFile？"),
    ("Tasks.segmentation.override.Arch.encoder=null", "Arch.encoder：Model.checkpoint 不是训练好的模型时"),
])
def test_a_mistake_in_any_run_is_found_before_the_first(project, change, said):
    arguments = argparse.Namespace(config=CENTRAL, override=[change], dry_run=False, debug=False)
    with pytest.raises(UserError) as error:
        compare(arguments)
    assert said in str(error.value) and "\n" not in str(error.value) and "/tmp" not in str(error.value)
    assert not (project / "output/compare/synthetic_vs_real/runs").exists()


def test_a_dry_run_names_the_data_that_are_not_there_and_writes_nothing(project, capsys):
    arguments = argparse.Namespace(config="configs/compare/synthetic_vs_real_mimic.yaml", dry_run=True, debug=False,
                                   override=["Tasks.finetuning.seeds=[0]", "Tasks.segmentation.seeds=[0]"])
    assert compare(arguments) == 0
    said = capsys.readouterr().out
    assert "!! 缺数据，用到它的各项会失败：DataLoader.Source" in said and "CheXpert" in said
    assert not (project / "output").exists()


@pytest.mark.parametrize(("change", "said"), [
    ("Arms.mixed.pretraining.Global={epochs: 3}", "各组的轮数"),
    ("Pretraining.override={DataLoader: {Train: {sampler: {samples_per_epoch: null}}}}", "数据多的组步数多"),
    ("Pretraining.override={Global: {early_stop: 3, eval_every: 1}}", "有早停"),
])
def test_arms_with_unequal_steps_are_named(project, change, said):
    lines = unequal_steps(plan(load(CENTRAL, [change])))
    assert len(lines) == 2 and all(said in line for line in lines) and lines[0].startswith("ConVIRT")
