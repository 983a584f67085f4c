"""A comparison end to end, its runs done by a stand-in for the tools: planning, resuming, failing, reporting."""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from paddle_cxr.compare import execute as execution
from paddle_cxr.compare.execute import devices, execute
from paddle_cxr.compare.plan import plan
from paddle_cxr.compare.recipe import load
from paddle_cxr.compare.report import write_report
from paddle_cxr.compare.results import collect
from paddle_cxr.compare.run import compare
from paddle_cxr.errors import UserError

# Writes what a run would: figures that depend on the arm and the seed, and the rows they are made of.
STAND_IN = '''
import csv, json, os, random, sys, time
from pathlib import Path
import yaml
from paddle_cxr.compare.one_run import end_with_parent

end_with_parent()
tool, recipe = sys.argv[1], yaml.safe_load(open(sys.argv[3], encoding="utf-8"))
settings = recipe["Global"]
with open(os.environ["CALLS"], "a") as calls:
    calls.write(settings["output_dir"] + "\\n")
time.sleep(float(os.environ.get("NAP", 0)))
if os.environ.get("FAIL", "nothing") in settings["output_dir"]:
    print("cannot do it")
    sys.exit(2)
subset = recipe.get("DataLoader", {}).get("Eval", {}).get("subset", "test")
folder = Path(settings["output_dir"]) / (f"eval_{subset}" if tool == "eval" else "")
print("checkpoints there:", (folder / "checkpoints").exists())
folder.mkdir(parents=True, exist_ok=True)
for part in ("checkpoints", "model"):
    (folder / part).mkdir(exist_ok=True)
(folder / "model/model.safetensors").touch()
if settings["task"] != "pretraining":
    checkpoint = str(recipe.get("Model", {}).get("checkpoint"))
    lift = {"real": 2.0, "synthetic": 1.2}.get(checkpoint.split("/")[-4] if checkpoint != "None" else "", 0.2)
    same, own = random.Random(1), random.Random(settings.get("seed", 0))
    scores = [i % 2 * lift + same.gauss(0, 1) + own.gauss(0, 0.1) for i in range(80)]
    pairs = [(yes, no) for yes in scores[1::2] for no in scores[::2]]
    with open(folder / "per_image.csv", "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "patient_id", "label:effusion", "score:effusion"])
        rows.writerows([f"{i}.png", f"p{i // 2}", i % 2, score] for i, score in enumerate(scores))
    auc = sum(yes > no for yes, no in pairs) / len(pairs)
    (folder / "metrics.json").write_text(json.dumps({"demo_data": True, "evaluation": {"macro_auc": auc}}))
'''


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A folder with a comparison's recipe, and the program that stands in for the tools."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls.txt"))
    (tmp_path / "stand_in.py").write_text(STAND_IN, encoding="utf-8")
    for name, task in (("pretrain", "pretraining"), ("zero", "zero_shot"), ("tune", "finetuning")):
        (tmp_path / f"{name}.yaml").write_text(f"Global: {{task: {task}, output_dir: elsewhere}}\n", encoding="utf-8")
    (tmp_path / "compare.yaml").write_text(textwrap.dedent("""\
        Global: {task: comparison, output_dir: out, devices: [cpu, cpu]}
        Arms:
          real: {zh: 真实, reference: true, pretraining: {DataLoader: {Source: {name: A}}}}
          synthetic: {zh: 合成, note: 由扩散模型画, pretraining: {DataLoader: {Source: {name: B}}}}
        Methods:
          ConVIRT: {recipe: pretrain.yaml}
        Tasks:
          zero_shot: {zh: 零样本, recipe: zero.yaml, metric: macro_auc}
          finetuning: {zh: 微调, recipe: tune.yaml, metric: macro_auc, vary: {Finetune.fraction: [0.01, 1.0]},
                       seeds: [0, 1], baseline: true}
        Expected: {order: [real, synthetic], source: 论文}
        Significance: {resamples: 200}
        """), encoding="utf-8")
    return tmp_path


def run_all(folder: Path, *overrides: str):
    loaded = load(folder / "compare.yaml", overrides)
    runs = plan(loaded)
    said: list[str] = []
    outcome = execute(runs, loaded.tasks, devices(loaded.recipe.Global.devices), said.append,
                      program=[sys.executable, str(folder / "stand_in.py")])
    return loaded, runs, outcome, said


def calls(folder: Path) -> list[str]:
    file = folder / "calls.txt"
    return sorted(file.read_text().split()) if file.exists() else []


def test_the_plan_has_every_arm_method_task_setting_and_seed(bench):
    loaded = load(bench / "compare.yaml")
    runs = plan(loaded)
    assert sum(run.task is None for run in runs) == 2
    assert sum(run.task == "zero_shot" for run in runs) == 2
    assert sum(run.task == "finetuning" for run in runs) == (2 + 1) * 2 * 2  # with the baseline
    assert len({run.id for run in runs}) == len({run.key for run in runs}) == len(runs)
    places = {run.id: place for place, run in enumerate(runs)}
    assert all(places[id_] < places[run.id] for run in runs for id_ in run.after)
    tuned = next(run for run in runs if run.id == "synthetic/ConVIRT/seed42/finetuning/fraction0.01/seed1")
    recipe = tuned.recipe()
    assert recipe["Finetune"] == {"fraction": 0.01} and recipe["Global"]["seed"] == 1
    assert recipe["Model"] == {"checkpoint": "out/runs/synthetic/ConVIRT/seed42/pretraining"}
    pretraining = next(run for run in runs if run.id == "synthetic/ConVIRT/seed42/pretraining")
    assert pretraining.recipe()["DataLoader"]["Source"] == {"name": "B"}
    baseline = next(run for run in runs if run.id == "none/finetuning/fraction0.01/seed0")
    assert baseline.recipe()["Model"] == {"checkpoint": None} and not baseline.after


def test_every_run_is_done_once_and_only_what_changed_is_done_again(bench):
    loaded, runs, outcome, _ = run_all(bench)
    assert set(outcome.seconds) == {run.id for run in runs} and not outcome.failed
    assert calls(bench) == sorted(str(run.folder) for run in runs)
    left = {path.parent.name for path in bench.glob("out/runs/**/model")}
    assert left == {"pretraining", "eval_test"}  # tuned weights would fill the disk
    assert not list(bench.glob("out/runs/**/pretraining/checkpoints"))
    run_all(bench)
    assert len(calls(bench)) == len(runs)
    # Another tuning recipe: the tunings again, the pretrainings and the zero-shot evaluation not.
    (bench / "tune.yaml").write_text("Global: {task: finetuning, output_dir: x, epochs: 3}\n", encoding="utf-8")
    run_all(bench)
    assert len(calls(bench)) == len(runs) + 12
    # Another pretraining: everything that stands on it.
    run_all(bench, "Arms.real.pretraining.DataLoader.Source.name=C")
    assert len(calls(bench)) == len(runs) + 12 + 1 + 1 + 4


def test_results_that_are_gone_are_made_again(bench):
    run_all(bench)
    before = len(calls(bench))
    (bench / "out/runs/real/ConVIRT/seed42/zero_shot/eval_test/metrics.json").unlink()
    run_all(bench)
    assert len(calls(bench)) == before + 1


def test_an_evaluation_of_another_subset_takes_the_place_of_the_old_one(bench):
    loaded, runs, outcome, _ = run_all(bench)
    (bench / "zero.yaml").write_text("Global: {task: zero_shot}\nDataLoader: {Eval: {subset: val}}\n", encoding="utf-8")
    loaded, runs, outcome, _ = run_all(bench)
    folder = bench / "out/runs/real/ConVIRT/seed42/zero_shot"
    assert [one.name for one in folder.glob("eval_*")] == ["eval_val"]
    assert not collect(loaded.recipe, runs, list(outcome.seconds)).missing


def test_a_training_that_began_with_other_data_is_not_continued(bench):
    """Under the same settings it looks like its own to the training, which would go on from the checkpoint."""
    runs = plan(load(bench / "compare.yaml"))
    real, synthetic = (run for run in runs if run.task is None)
    for run, key in ((real, "of another pairs.jsonl"), (synthetic, synthetic.key)):
        (run.folder / "checkpoints/latest").mkdir(parents=True)
        run.folder.with_name("pretraining.key").write_text(key)
    run_all(bench)
    logs = [run.folder.with_name("pretraining.log").read_text() for run in (real, synthetic)]
    assert "checkpoints there: False" in logs[0] and "checkpoints there: True" in logs[1]
    assert real.folder.with_name("pretraining.key").read_text().strip() == real.key


def test_a_comparison_never_falls_back_to_phantoms(bench):
    (bench / "zero.yaml").write_text(
        "Global: {task: zero_shot}\nfallback: {Model: {checkpoint: another}, Global: {output_dir: x}}\n", "utf-8")
    recipes = [run.recipe() for run in plan(load(bench / "compare.yaml")) if run.task == "zero_shot"]
    assert [recipe["fallback"] for recipe in recipes] == [None, None]


def test_a_file_that_a_recipe_names_belongs_to_the_result(bench):
    (bench / "pairs.jsonl").write_text("{}", encoding="utf-8")
    more = "Arms.synthetic.pretraining.DataLoader.Source.path=pairs.jsonl"
    keys = {run.id: run.key for run in plan(load(bench / "compare.yaml", [more]))}
    (bench / "pairs.jsonl").write_text("{ }", encoding="utf-8")
    again = {run.id: run.key for run in plan(load(bench / "compare.yaml", [more]))}
    assert {id_ for id_ in keys if keys[id_] != again[id_]} == {id_ for id_ in keys if id_.startswith("synthetic")}


def list_films(root: Path, positive: int) -> dict[str, object]:
    """Six listed films in ``root``, of which ``positive`` of every three shows A; returns their FindingsFile."""
    root.mkdir(exist_ok=True)
    for i in range(6):
        (root / f"{i}.png").write_bytes(b"x" * (100 + i))  # never opened to list them
    rows = [f"{i}.png,p{i},{int(i % 3 < positive)}" for i in range(6)]
    (root / "index.csv").write_text("\n".join(["file,patient_id,A", *rows]) + "\n", encoding="utf-8")
    return {"name": "FindingsFile", "root": str(root), "finding_columns": ["A"]}


def test_figures_of_other_labels_or_images_are_made_again(bench):
    """The recipe names a folder, and its key knows nothing of what is in it."""
    root = bench / "data"
    recipe = {"Global": {"task": "zero_shot"}, "DataLoader": {"Source": list_films(root, 1)}}
    (bench / "zero.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    _, runs, _, said = run_all(bench)
    assert not any("变了" in line for line in said)
    zero_shot = sorted(str(run.folder) for run in runs if run.task == "zero_shot")

    def done_again() -> list[str]:
        before = calls(bench)
        said[:] = run_all(bench)[3]
        after = calls(bench)
        for one in before:
            after.remove(one)
        return after

    assert done_again() == []
    list_films(root, 2)
    assert done_again() == zero_shot
    assert "2 项要重做，它们的数据（图像、标签、患者或文字）变了：real/ConVIRT/seed42/zero_shot" in "\n".join(said)
    (root / "0.png").write_bytes(b"painted over")
    assert done_again() == zero_shot
    index = root / "index.csv"
    index.write_text(index.read_text(encoding="utf-8").replace("p5", "p4"), encoding="utf-8")
    assert done_again() == zero_shot
    assert done_again() == []
    root.rename(bench / "away")  # whoever tidies up keeps the figures
    assert done_again() == []
    (bench / "away").rename(root)
    for file in bench.glob("out/runs/**/done.json"):  # as written before data were looked at
        done = json.loads(file.read_text())
        del done["data"]
        file.write_text(json.dumps(done))
    assert done_again() == []


def test_other_pretraining_data_make_everything_again_that_stands_on_them(bench):
    root = bench / "data"
    list_films(root, 1)
    (root / "index.csv").write_text("file,label\n" + "".join(f"{i}.png,A\n" for i in range(6)), encoding="utf-8")
    source = f"{{name: LabelledPairs, source: {{name: ListFile, root: {root}}}, prompts: {{A: Shown., B: Clear.}}}}"
    change = f"Arms.real.pretraining.DataLoader.Source={source}"
    _, runs, _, _ = run_all(bench, change)
    before = calls(bench)
    (root / "index.csv").write_text("file,label\n" + "".join(f"{i}.png,B\n" for i in range(6)), encoding="utf-8")
    # A training of it that was interrupted would be continued with the new data, and evaluated as if it had seen them.
    pretraining = next(run for run in runs if run.id == "real/ConVIRT/seed42/pretraining")
    (pretraining.folder / "checkpoints/latest").mkdir(parents=True)
    run_all(bench, change)
    again = calls(bench)
    for one in before:
        again.remove(one)
    assert again == sorted(str(run.folder) for run in runs if run.arm == "real") and len(again) == 1 + 1 + 4
    assert "checkpoints there: False" in pretraining.folder.with_name("pretraining.log").read_text()


def test_a_pretraining_without_weights_is_made_again_only_for_a_run_that_needs_it(bench):
    _, runs, _, _ = run_all(bench)
    pretraining = next(run for run in runs if run.id == "real/ConVIRT/seed42/pretraining")
    shutil.rmtree(pretraining.folder / "model")
    before = calls(bench)
    run_all(bench)
    assert calls(bench) == before  # weights take room, and all figures are there
    (bench / "out/runs/real/ConVIRT/seed42/zero_shot/eval_test/metrics.json").unlink()
    _, _, outcome, _ = run_all(bench)
    again = calls(bench)
    for one in before:
        again.remove(one)
    assert again == sorted([str(pretraining.folder), str(pretraining.folder.with_name("zero_shot"))])
    assert not outcome.failed and (pretraining.folder / "model/model.safetensors").is_file()


def test_a_failure_leaves_out_what_needs_it_and_nothing_else(bench, monkeypatch):
    monkeypatch.setenv("FAIL", "synthetic/ConVIRT/seed42/pretraining")
    loaded, runs, outcome, said = run_all(bench)
    assert list(outcome.failed) == ["synthetic/ConVIRT/seed42/pretraining"]
    assert "cannot do it" in outcome.failed["synthetic/ConVIRT/seed42/pretraining"]
    assert len(outcome.skipped) == 5 and all(id_.startswith("synthetic") for id_ in outcome.skipped)
    assert len(outcome.seconds) == len(runs) - 6
    results = collect(loaded.recipe, runs, list(outcome.seconds))
    assert len(results.missing) == 5
    page = write_report(bench / "out", loaded.recipe, results, runs, outcome.seconds).read_text(encoding="utf-8")
    assert "还缺 5 项" in page
    monkeypatch.delenv("FAIL")
    assert not run_all(bench)[2].failed


def test_the_tool_says_which_run_failed_and_where_its_log_is(bench, monkeypatch, capsys):
    monkeypatch.setenv("FAIL", "seed42/zero_shot")
    monkeypatch.setattr(execution.execute, "__defaults__", (False, (sys.executable, str(bench / "stand_in.py"))))
    monkeypatch.setattr("paddle_cxr.compare.run._check", lambda *_: None)  # the recipes here are no whole ones
    arguments = argparse.Namespace(config=str(bench / "compare.yaml"), override=[], dry_run=False, debug=False)
    with pytest.raises(UserError, match=r"2 项失败。.*zero_shot：cannot do it（退出码 2；全部输出在 .*zero_shot\.log"):
        compare(arguments)
    assert (bench / "out/compare.md").is_file()  # what the others found
    assert "!! 失败 real/ConVIRT/seed42/zero_shot" in (bench / "out/log.txt").read_text(encoding="utf-8")
    arguments.dry_run = True
    assert compare(arguments) == 0
    assert "共 16 项：2 次预训练，14 次评估；同时用 cpu、cpu" in capsys.readouterr().out


def test_the_table_holds_means_deviations_and_what_the_bootstrap_says(bench):
    loaded, runs, outcome, _ = run_all(bench)
    results = collect(loaded.recipe, runs, list(outcome.seconds))
    assert results.demo and not results.missing and not results.notices
    cells = {(cell.arm, cell.task, *cell.point.values()): cell for cell in results.cells}
    assert len(cells) == 2 + 3 * 2
    cell = cells["real", "finetuning", 1.0]
    written = [json.loads((bench / f"out/runs/real/ConVIRT/seed42/finetuning/fraction1.0/seed{seed}/metrics.json"
                           ).read_text())["evaluation"]["macro_auc"] for seed in range(2)]
    assert cell.values == tuple(written) and cell.difference is None
    assert cell.mean == pytest.approx(np.mean(written)) and cell.sd == pytest.approx(np.std(written, ddof=1))
    other = cells["synthetic", "finetuning", 1.0]
    assert other.difference.value == pytest.approx(other.mean - cell.mean)
    low, high = other.difference.ci95
    assert low < other.difference.value < high and other.p >= other.difference.p
    page = write_report(bench / "out", loaded.recipe, results, runs, outcome.seconds).read_text(encoding="utf-8")
    assert "非临床结果" in page and f"{cell.mean:.3f} ± {cell.sd:.3f}" in page and "不预训练" in page
    assert "没有出现，这里是 合成 < 真实" in page and "共 3 处，0 处出现了这个次序，3 处没有" in page
    assert (bench / "out/finetuning.png").stat().st_size > 5000 and (bench / "out/zero_shot.png").is_file()
    with open(bench / "out/compare.csv", encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(results.cells) and rows[0]["task"] == "zero_shot"
    assert float(rows[-1]["mean"]) == pytest.approx(results.cells[-1].mean, abs=1e-4)


def test_runs_on_different_images_are_not_compared(bench):
    loaded, runs, outcome, _ = run_all(bench)
    file = bench / "out/runs/real/ConVIRT/seed42/zero_shot/eval_test/per_image.csv"
    file.write_text(file.read_text().replace("0.png", "other.png", 1))
    results = collect(loaded.recipe, runs, list(outcome.seconds))
    assert any("不是同一批图" in notice for notice in results.notices)
    assert all(cell.difference is None for cell in results.cells if cell.task == "zero_shot")


@pytest.mark.parametrize("change", [("0.png,p0,0,", "0.png,p0,1,"), ("0.png,p0,", "0.png,p7,")],
                         ids=["label", "patient"])
def test_runs_on_other_labels_or_patients_are_not_compared(bench, change):
    loaded, runs, outcome, _ = run_all(bench)
    file = bench / "out/runs/real/ConVIRT/seed42/zero_shot/eval_test/per_image.csv"
    file.write_text(file.read_text().replace(*change, 1))
    results = collect(loaded.recipe, runs, list(outcome.seconds))
    assert any("标签、患者或真实掩膜的大小不同" in notice for notice in results.notices)
    assert all(cell.difference is None for cell in results.cells if cell.task == "zero_shot")


@pytest.mark.parametrize(("change", "said"), [
    ("Tasks.zero_shot.seeds=[1]", "Tasks.zero_shot.seeds：zero_shot 只评估"),
    ("Tasks.finetuning.seeds=null", "Tasks.finetuning.seeds：finetuning 要训练"),
    ("Tasks.zero_shot.baseline=true", "没有文本塔"),
    ("Tasks.zero_shot.recipe=pretrain.yaml", "Global.task 是 pretraining"),
    ("Tasks.zero_shot.recipe=absent.yaml", "找不到配方 absent.yaml"),
    ("Methods.ConVIRT.recipe=zero.yaml", "这里要 pretraining 的配方"),
    ("Arms.synthetic.reference=true", "只能有一组写 reference"),
    ("Expected.order=[real, synthetik]", "是不是 synthetic"),
    ("Tasks.finetuning.vary={Finetune.fraction: []}", "应写几个不同的值"),
    ("Arms={a/b: {zh: x, pretraining: {}}}", "名字用字母"),
    ("Arms.none={zh: x, pretraining: {}}", "Arms.none：这个名字程序自己要用"),
    ("Tasks={pretraining: {recipe: zero.yaml, metric: x}}", "Tasks.pretraining：这个名字程序自己要用"),
    ("Tasks.finetuning.seeds=[0, 0]", "Tasks.finetuning.seeds：应写几个不同的值"),
    ("Tasks.finetuning.vary={Finetune.findings: [a b, c, a_b]}",
     "Tasks.finetuning.vary.Finetune.findings：'a b' 和 'a_b' 的文件夹名都是 a_b"),
    ("Pretraining.seeds=[1, 1]", "Pretraining.seeds：应写几个不同的值"),
])
def test_a_mistake_in_the_recipe_is_one_clear_line(bench, change, said):
    with pytest.raises(UserError) as caught:
        load(bench / "compare.yaml", [change])
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_the_card_a_run_gets_is_one_the_user_left_to_the_program(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert execution._environment("gpu:1")["CUDA_VISIBLE_DEVICES"] == "5"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert execution._environment("gpu:1")["CUDA_VISIBLE_DEVICES"] == "1"


@pytest.mark.parametrize(("wanted", "said"), [
    (["tpu"], "'tpu'"), (["gpu:97"], "没有 gpu:97"), ([], "一个设备也没有写")])
def test_a_device_that_is_none_is_named(wanted, said):
    with pytest.raises(UserError, match=said):
        devices(wanted)


def test_a_figure_that_no_run_wrote_is_named_with_those_there_are(bench):
    loaded, runs, outcome, _ = run_all(bench, "Tasks.zero_shot.metric=macro_f1")
    with pytest.raises(UserError, match="没有 evaluation.macro_f1（有：macro_auc）"):
        collect(loaded.recipe, runs, list(outcome.seconds))


def test_killed_and_started_again_does_what_is_left(bench):
    """kill -9 of the comparison: its runs end with it, and those that were done are not done again."""
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[1])
        from paddle_cxr.compare.execute import execute
        from paddle_cxr.compare.plan import plan
        from paddle_cxr.compare.recipe import load
        loaded = load("compare.yaml")
        execute(plan(loaded), loaded.tasks, ["cpu", "cpu"], lambda line: print(line, flush=True),
                program=[sys.executable, "stand_in.py"])
        """)
    package = str(Path(execution.__file__).parents[2])
    environment = os.environ | {"NAP": "0.5", "PYTHONPATH": package}
    process = subprocess.Popen([sys.executable, "-c", script, package], env=environment, stdout=subprocess.PIPE,
                               text=True, cwd=bench)
    for line in process.stdout:
        if line.startswith("[3/"):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(2.5)  # the runs notice
    begun = len(calls(bench))
    done = len(list(bench.glob("out/runs/**/done.json")))
    assert 3 <= done < begun
    loaded, runs, outcome, said = run_all(bench)
    assert not outcome.failed and said[0].startswith(f"{done} 项已经做完")
    assert len(calls(bench)) == begun + len(runs) - done


def test_a_recipe_it_wrote_can_be_run_by_hand(bench):
    run_all(bench)
    file = bench / "out/runs/real/ConVIRT/seed42/finetuning/fraction1.0/seed1.yaml"
    recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert recipe["Global"] == {"task": "finetuning", "device": "cpu", "seed": 1, "ranks": 1,
                                "output_dir": "out/runs/real/ConVIRT/seed42/finetuning/fraction1.0/seed1"}


# --- what the report says -------------------------------------------------------------------------------------------

def page_of(bench: Path, *overrides: str, change=lambda: None) -> str:
    loaded, runs, outcome, _ = run_all(bench, *overrides)
    change()
    results = collect(loaded.recipe, runs, list(outcome.seconds))
    return write_report(bench / "out", loaded.recipe, results, runs, outcome.seconds).read_text(encoding="utf-8")


def test_an_order_is_said_with_what_is_more_than_chance(bench):
    page = page_of(bench)
    assert "没有出现，这里是 合成 < 真实；显著的差别：合成更低" in page
    page = page_of(bench, "Expected.order=[synthetic, real]")
    assert "：出现了；显著的差别：合成更低" in page and "共 3 处，3 处出现了这个次序，0 处没有。" in page


def test_without_a_reference_nothing_is_said_of_differences(bench):
    page = page_of(bench, "Arms.real.reference=false")
    assert "参照组" not in page and "显著" not in page and "平均 ± 标准差（几个训练种子）。" in page


def test_an_undefined_figure_is_named_and_left_out(bench):
    """The others are reported; a seed without a figure is no 0."""
    of_seed = bench / "out/runs/synthetic/ConVIRT/seed42/finetuning/fraction1.0/seed1/metrics.json"
    of_cell = bench / "out/runs/synthetic/ConVIRT/seed42/zero_shot/eval_test/metrics.json"

    def change() -> None:
        for file in (of_seed, of_cell):
            file.write_text(json.dumps({"evaluation": {"macro_auc": None}}))

    page = page_of(bench, change=change)
    assert "finetuning/fraction1.0/seed1 的 macro_auc 没有定义（null）" in page
    assert "另有 1 处缺结果，没有判断" in page and "| ConVIRT | 合成 | — |" in page
    with open(bench / "out/compare.csv", encoding="utf-8", newline="") as stream:
        rows = {(row["arm"], row["setting"]): row for row in csv.DictReader(stream)}
    assert rows["synthetic", "fraction=1.0"]["seeds"] == "1" and rows["real", "fraction=1.0"]["seeds"] == "2"
    assert {row["demo_data"] for row in rows.values()} == {"1"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"evaluation": 3}'])
def test_damaged_results_are_one_clear_line(bench, content):
    loaded, runs, outcome, _ = run_all(bench)
    (bench / "out/runs/real/ConVIRT/seed42/zero_shot/eval_test/metrics.json").write_text(content)
    with pytest.raises(UserError, match=r"metrics\.json 读不了.*请删去 .*zero_shot，重新运行") as error:
        collect(loaded.recipe, runs, list(outcome.seconds))
    assert "\n" not in str(error.value)


def test_a_table_that_cannot_be_read_is_said_and_not_compared(bench):
    loaded, runs, outcome, _ = run_all(bench)
    file = bench / "out/runs/synthetic/ConVIRT/seed42/zero_shot/eval_test/per_image.csv"
    file.write_text(file.read_text().replace("0.png,p0,0,", "0.png,p0,0,zero", 1))
    results = collect(loaded.recipe, runs, list(outcome.seconds))
    assert any("读不了的行" in notice for notice in results.notices)


def test_it_is_not_started_by_a_launcher(bench, monkeypatch):
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    with pytest.raises(UserError, match="不要用 paddle.distributed.launch"):
        compare(argparse.Namespace(config=str(bench / "compare.yaml"), override=[], dry_run=True, debug=False))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_ctrl_c_and_sigterm_give_every_run_one_signal_so_that_it_can_save(bench, number):
    """A training takes the second signal for "at once", and its steps since the last checkpoint would be lost.

    SIGTERM is what a cluster sends before it takes the machine.
    """
    (bench / "child.py").write_text(textwrap.dedent("""
        import signal, sys, time
        from pathlib import Path
        seen = Path("signals.txt")
        def note(number, _):
            with open(seen, "a") as file:
                file.write(f"{signal.Signals(number).name} ")
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, note)
        Path("ready").touch()
        while not seen.exists():
            time.sleep(0.05)
        time.sleep(0.5)  # saving
        sys.exit(130)
        """))
    script = textwrap.dedent("""
        import argparse, sys
        from paddle_cxr import cli
        from paddle_cxr.compare import execute, run
        execute.execute.__defaults__ = (False, (sys.executable, "child.py"))
        run._check = lambda *_: None  # the recipes here are no whole ones
        cli.run(run.compare, argparse.Namespace(config="compare.yaml", override=["Global.devices=[cpu]"], dry_run=False,
                                                debug=False))
        """)
    environment = os.environ | {"PYTHONPATH": str(Path(execution.__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, cwd=bench, start_new_session=True,
                               stdout=subprocess.PIPE, text=True)
    limit = time.monotonic() + 60
    while not (bench / "ready").exists() and time.monotonic() < limit:
        time.sleep(0.05)
    os.killpg(process.pid, number)  # what a terminal does; the runs have sessions of their own
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "训练到一半的先保存" in said
    assert (bench / "signals.txt").read_text() == "SIGTERM "


def test_a_run_that_is_still_loading_when_the_comparison_is_killed_ends_too(bench):
    """It would train on beside its successor in one folder: what is its parent when it looks is nobody's process."""
    (bench / "child.py").write_text(textwrap.dedent("""
        import os, time
        from pathlib import Path
        Path("pid.new").write_text(str(os.getpid()))
        os.rename("pid.new", "pid")
        parent = os.getppid()
        while os.getppid() == parent:  # loading Paddle
            time.sleep(0.05)
        from paddle_cxr.compare.one_run import end_with_parent
        end_with_parent()
        time.sleep(120)
        """))
    script = textwrap.dedent("""
        import sys
        from paddle_cxr.compare.execute import execute
        from paddle_cxr.compare.plan import plan
        from paddle_cxr.compare.recipe import load
        loaded = load("compare.yaml")
        execute(plan(loaded)[:1], loaded.tasks, ["cpu"], print, program=[sys.executable, "child.py"])
        """)
    environment = os.environ | {"PYTHONPATH": str(Path(execution.__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, cwd=bench)
    limit = time.monotonic() + 60
    while not (bench / "pid").exists() and time.monotonic() < limit:
        time.sleep(0.05)
    process.kill()
    process.wait()
    child = int((bench / "pid").read_text())
    try:
        while running(child) and time.monotonic() < limit:
            time.sleep(0.1)
        assert not running(child)
    finally:
        if running(child):
            os.kill(child, signal.SIGKILL)


def running(pid: int) -> bool:
    """Ended processes whose new parent does not ask for them stay listed as zombies."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
