"""The loop from entities to checked reports, and what it leaves behind."""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from paddle_cxr.errors import UserError
from paddle_cxr.registry import register
from paddle_cxr.synthesis.checking import difference
from paddle_cxr.synthesis.entities import Entity, Span
from paddle_cxr.synthesis.run import synthesize
from paddle_cxr.synthesis.writers.base import Reply

ROOT = Path(__file__).resolve().parents[2]
KINDS = (("abnormality", "opacity{}"), ("disease", "lesion{}"), ("anatomy", "place{}"))


@register("writer", "PlainWriter")
class PlainWriter:
    """Says each entity in a sentence of its own; ``trouble`` is what it does wrong.

    ``first``: leaves an entity out until it is told; ``never:N``: fails for report N whatever it is told; ``all``:
    fails always; ``error``: answers with an error now and then; ``late``: leaves one out at first, and never comes to
    an impression.
    """

    title, prompts_hash = "plain", None

    def __init__(self, vocabulary, trouble: str = "") -> None:
        self.trouble = trouble

    def write(self, requests):
        return [self._one(request) for request in requests]

    def _one(self, request):
        names = [f"No {entity.en}." if entity.denies else f"There is {entity.en}." for entity in request.entities]
        random.Random(request.seed).shuffle(names)
        if self.trouble == "error" and request.seed % 3 == 0:
            return Reply(error="connection lost", prompt_tokens=1)
        if self.trouble == "late" and request.section == "impression":
            return Reply(error="connection lost")
        if self.trouble in ("first", "late") and not request.feedback:
            names = names[1:]
        if self.trouble in ("all", f"never:{int(request.id[1:])}"):
            names = ["There is nothing."]
        return Reply(" ".join(names), prompt_tokens=2, completion_tokens=3)


@pytest.fixture
def vocabulary(tmp_path):
    """30 entities of each type, the denied ones with the ids of the others."""
    rows = ["name,type,id"]
    for kind, name in KINDS:
        rows += [f"{name.format(i)},{kind},{name.format(i)}" for i in range(30)]
        rows += [f"{name.format(i)},non-{kind},{name.format(i)}" for i in range(30) if kind != "anatomy"]
    file = tmp_path / "vocabulary.csv"
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return file


@pytest.fixture
def run(tmp_path, vocabulary):
    """Write a recipe and run it in this process; returns the records of reports.jsonl and rejected.jsonl."""
    recipe = {"Global": {"output_dir": str(tmp_path / "out"), "reports": 40, "seed": 1, "chunk": 8, "workers": 1},
              "Vocabulary": {"file": str(vocabulary)},
              "Sampler": {"name": "BalancedSampler", "k": 5, "m": 2, "cap": "auto"},
              "Writer": {"name": "PlainWriter"}, "NER": {"name": "DictionaryNER"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")

    def call(*overrides, out="out"):
        synthesize(argparse.Namespace(config=tmp_path / "recipe.yaml", debug=False,
                                      override=[f"Global.output_dir={tmp_path / out}", *overrides]))
        return tuple(records(tmp_path / out / name) for name in ("reports.jsonl", "rejected.jsonl"))

    return call


def records(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def test_reports_mention_their_entities_and_carry_the_contract(run, tmp_path):
    reports, rejected = run()
    assert len(reports) == 40 and not rejected
    for report in reports:
        assert list(report)[:7] == ["id", "entities", "findings", "impression", "writer", "prompts_hash", "attempts"]
        assert len(report["entities"]) == 7 and isinstance(report["seed"], int) and report["attempts"] == 2
        for one in report["entities"]:
            sentence = f"No {one['id']}." if one["type"].startswith("non-") else f"There is {one['id']}."
            assert sentence in report["findings"] and sentence in report["impression"]
    assert len({report["id"] for report in reports}) == 40
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["accepted"] == 40 and metrics["acceptance"] == 1 and metrics["synthetic"] is True
    counts = Counter((one["id"], one["type"]) for report in reports for one in report["entities"])
    assert max(counts.values()) <= metrics["cap"]
    assert sum(one["mentions"] for one in metrics["types"].values()) == 40 * 7
    assert metrics["tokens"] == {"prompt": 160, "completion": 240} and metrics["cost"] is None
    assert "合成报告" in (tmp_path / "out/report.md").read_text(encoding="utf-8")


def test_a_failed_check_is_told_to_the_writer_and_mended(run):
    reports, rejected = run("Writer.trouble=first")
    assert len(reports) == 40 and not rejected
    assert {report["attempts"] for report in reports} == {4}  # each section twice


def test_errors_of_the_writer_are_tried_again(run, tmp_path):
    reports, rejected = run("Writer.trouble=error")
    assert len(reports) + len(rejected) >= 40 and len(reports) == 40
    assert all("connection lost" in one["reason"] for one in rejected)


def test_what_never_passes_is_kept_apart_and_its_entities_are_drawn_again(run, tmp_path):
    reports, rejected = run("Writer.trouble=never:7", "Sampler.cap=auto")
    assert len(reports) == 40 and [one["id"] for one in rejected] == ["r0000007"]
    assert rejected[0]["reason"].startswith("findings: missing") and rejected[0]["refused"] == "There is nothing."
    assert rejected[0]["attempts"] == 5 and "r0000040" in {report["id"] for report in reports}
    counts = Counter((one["id"], one["type"]) for report in reports for one in report["entities"])
    assert max(counts.values()) <= json.loads((tmp_path / "out/metrics.json").read_text())["cap"]


def command(tmp_path, *overrides):
    """``tools/synthesize.py`` with the fixture's recipe and the grammar."""
    options = [part for one in ("Writer.name=GrammarWriter", *overrides) for part in ("-o", one)]
    return [sys.executable, str(ROOT / "tools/synthesize.py"), "-c", str(tmp_path / "recipe.yaml"), *options]


def test_the_number_of_processes_changes_nothing(run, tmp_path):
    done = subprocess.run(command(tmp_path, f"Global.output_dir={tmp_path}/two", "Global.workers=2"),
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    single, _ = run("Writer.name=GrammarWriter", out="single")
    assert records(tmp_path / "two/reports.jsonl") == single and len(single) == 40


def test_a_second_run_goes_on_where_the_first_was_cut(run, tmp_path):
    whole, _ = run("Writer.trouble=never:7", out="whole")
    run("Writer.trouble=never:7")
    file = tmp_path / "out/reports.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:20]) + lines[20][:30])  # killed in the middle of a line
    again, rejected = run("Writer.trouble=never:7")
    assert sorted(again, key=lambda one: one["id"]) == sorted(whole, key=lambda one: one["id"])
    assert len(rejected) == 1
    assert not list(tmp_path.glob("out-*"))


def test_killed_at_any_moment_nothing_is_lost_or_doubled(run, tmp_path):
    whole, _ = run("Writer.name=GrammarWriter", "Global.reports=1500", "Global.chunk=20", out="whole")
    line = command(tmp_path, "Global.reports=1500", "Global.chunk=20", "Global.workers=2")
    for _ in range(3):
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=tmp_path)
        before = len(records_so_far(tmp_path))
        deadline = time.monotonic() + 60
        while len(records_so_far(tmp_path)) < before + 60 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert records(tmp_path / "out/reports.jsonl") == whole


def records_so_far(tmp_path):
    file = tmp_path / "out/reports.jsonl"
    return file.read_bytes().splitlines() if file.exists() else []


def test_two_reports_are_never_the_same(tmp_path):
    from paddle_cxr.synthesis.reports import Written
    from paddle_cxr.synthesis.store import Store

    record = {"entities": [], "findings": "Same.", "impression": "Same.", "attempts": 2}
    store = Store(tmp_path)
    store.add([Written(number, True, {"id": f"r{number}"} | record) for number in range(3)])
    assert len(store.tally.accepted) == 1 and store.tally.reasons == {"duplicate": 2}
    again = Store(tmp_path)
    assert (again.tally.accepted, again.tally.rejected) == (store.tally.accepted, store.tally.rejected)


def test_shards_together_are_the_whole_and_keep_the_cap(run, tmp_path):
    whole, _ = run(out="whole")
    parts = [run("Global.shards=3", f"Global.shard={shard}", out=f"part{shard}")[0] for shard in range(3)]
    plain = [(one["id"], one["findings"]) for one in whole]
    assert sorted((one["id"], one["findings"]) for part in parts for one in part) == plain


def test_rejections_in_shards_keep_the_cap_of_all(run, tmp_path):
    parts = [run("Global.shards=2", f"Global.shard={shard}", "Writer.trouble=never:7", out=f"part{shard}")[0]
             for shard in range(2)]
    counts = Counter((one["id"], one["type"]) for part in parts for report in part for one in report["entities"])
    assert sum(map(len, parts)) >= 39
    assert max(counts.values()) <= json.loads((tmp_path / "part0/metrics.json").read_text())["cap"]


def test_another_recipe_leaves_the_old_results_aside(run, tmp_path):
    run()
    run("Global.seed=2")
    assert len(list(tmp_path.glob("out-*/reports.jsonl"))) == 1


@pytest.mark.parametrize(("overrides", "said"), [
    (("Global.shard=1",), "Global.shard：1 不在 0–0"),
    (("Global.workers=0",), "Global.workers：应不小于 1"),
    (("Global.reports=3", "Global.shards=4"), "Global.shards：4 片，而只要 3 份"),
    (("Global.workers=100000",), "不大于 256"),
    (("Global.workers=2",), "Global.workers：PlainWriter 只能用 1 个进程"),
    (("Global.reports=1000000000",), "不大于 1000000"),
    (("Sampler.k=200",), "Sampler.k：每份报告要 200 个实体"),
    (("Sampler.m=31",), "Sampler.m：每份报告要 31 个实体"),
    (("Sampler.cap=1",), "最小的 cap"),
    (("Writer.trubble=x",), "没有参数 'trubble'，是不是 trouble？"),
    (("NER.name=DictionryNER",), "是不是 DictionaryNER？"),
    (("Global.report=3",), "是不是 reports？"),
    (("Vocabulary.file=/nowhere.csv",), "/nowhere.csv"),
])
def test_mistakes_are_one_line(run, overrides, said):
    with pytest.raises(UserError) as error:
        run(*overrides)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("line", "said"), [
    (b"[]", r"reports\.jsonl:41：不是本程序写的报告"), (b"\xff", r"reports\.jsonl:41：不是"),
    (b"", r"reports\.jsonl:41：不是"), (b"[" * 100_000, r"reports\.jsonl:41：不是"),
    (b'{"id": "r-5"}', r"reports\.jsonl:41：不是"),
    (b'{"id": "r0000003", "attempts": 2}', r"reports\.jsonl:41：报告 r0000003 已经有了"),
    (b'{"id": "r0000099", "attempts": 2}', "1 份报告不属于这个配方（例如编号 99）"),
    (b'{"id": "r0000099", "attempts": "many"}', r"reports\.jsonl:41：不是")])
def test_a_line_that_is_no_report_of_this_run_is_named(run, tmp_path, line, said):
    run()
    with open(tmp_path / "out/reports.jsonl", "ab") as file:
        file.write(line + b"\n")
    with pytest.raises(UserError, match=said):
        run()


def test_a_report_of_another_shard_is_no_report_of_this_run(run, tmp_path):
    run("Global.shards=2", "Global.shard=1", out="other")
    run("Global.shards=2", "Writer.trouble=never:4")
    line = (tmp_path / "other/reports.jsonl").read_bytes().splitlines(keepends=True)[0]
    with open(tmp_path / "out/reports.jsonl", "ab") as file:
        file.write(line)
    with pytest.raises(UserError, match="不属于这个配方（例如编号 1）"):
        run("Global.shards=2", "Writer.trouble=never:4")


def test_a_changed_vocabulary_leaves_the_old_results_aside(run, tmp_path, vocabulary):
    """The recipe is the same to the letter, yet the plan is another."""
    run()
    vocabulary.write_text(vocabulary.read_text() + "hernia,disease,hernia\n")
    run()
    assert len(list(tmp_path.glob("out-*/reports.jsonl"))) == 1
    assert "vocabulary（内容变了）" in (tmp_path / "out/log.txt").read_text(encoding="utf-8")


def test_more_rounds_go_on_and_fewer_harm_nothing(run, tmp_path):
    assert len(run("Writer.trouble=never:7", "Global.rounds=1")[0]) == 39
    assert "增大 Global.rounds" in (tmp_path / "out/log.txt").read_text(encoding="utf-8")
    assert len(run("Writer.trouble=never:7", "Global.rounds=2")[0]) == 40
    assert len(run("Writer.trouble=never:7", "Global.rounds=1")[0]) == 40
    assert not list(tmp_path.glob("out-*"))


def test_a_recipe_that_cannot_work_leaves_old_results_where_they_are(run, tmp_path):
    reports, _ = run()
    with pytest.raises(UserError, match="nowhere"):
        run("NER={name: RaTENER, folder: nowhere}")
    assert not list(tmp_path.glob("out-*")) and run()[0] == reports


def test_the_folder_of_another_task_is_kept_aside(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/config.yaml").write_text("Global: {epochs: 3}\nArch: {name: ResNet18}\n")
    (tmp_path / "out/metrics.json").write_text("{}")
    run()
    assert [file.read_text() for file in tmp_path.glob("out-*/metrics.json")] == ["{}"]


def test_two_programs_never_write_to_one_folder(run, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    run()
    with open(tmp_path / "out/.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="另一个程序正在写"):
            run("Global.seed=2")
    assert not list(tmp_path.glob("out-*"))


def test_where_nothing_passes_it_ends_after_one_round(run, tmp_path):
    reports, rejected = run("Writer.trouble=all")
    assert not reports and len(rejected) == 40
    log = (tmp_path / "out/log.txt").read_text(encoding="utf-8")
    assert "前 8 份没有一份通过" in log and "不再补写" in log
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["reasons"] == {"findings: missing": 40} and metrics["wanted"] == 40


def test_a_rejected_report_shows_a_text_of_the_section_that_failed(run):
    _, rejected = run("Writer.trouble=late")
    assert rejected and {(one["reason"], one["refused"]) for one in rejected} == {("impression: connection lost", "")}


def test_a_full_disk_leaves_whole_lines_and_the_run_goes_on(run, tmp_path):
    resource = pytest.importorskip("resource")
    whole, _ = run("Writer.name=GrammarWriter", out="whole")
    for limit in (20_000, 30_001):
        done = subprocess.run(command(tmp_path, "Global.chunk=1"), capture_output=True, text=True, preexec_fn=lambda:
                              resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))  # noqa: B023
        assert done.returncode == 2 and done.stderr.startswith("错误：无法写入"), done.stderr
        assert len(done.stderr.splitlines()) == 1 and "再运行同一条命令就接着写" in done.stdout
        assert 0 < (tmp_path / "out/reports.jsonl").stat().st_size <= limit
        assert records(tmp_path / "out/reports.jsonl")  # whole lines of JSON
    assert run("Writer.name=GrammarWriter")[0] == whole


@pytest.mark.parametrize("seconds", [0.05, 0.3, 1.5])
def test_ctrl_c_is_one_line_whenever_it_comes(run, tmp_path, seconds):
    """Workers that have only just begun to start must be as quiet as those at work."""
    line = command(tmp_path, "Global.reports=20000", "Global.workers=2")
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    for said in process.stdout:
        if "2 个进程" in said:
            break
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all processes get it
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors == "已中断（Ctrl-C）\n"
    written = len(records(tmp_path / "out/reports.jsonl"))
    assert not written or f"写好的 {written} 份都已保存" in said


def test_feedback_names_what_is_missing_too_much_and_the_wrong_way_round():
    present = Entity("mass", "abnormality", "mass")
    absent = Entity("edema", "non-disease", "edema", denies=True)
    wrong = difference({present.key: present, absent.key: absent},
                       [Span(0, 5, "edema", "disease"), Span(6, 9, "nodule", "abnormality")])
    assert wrong.missing == (present, absent)
    assert wrong.feedback() == ("Not mentioned: mass. Must be stated as absent: edema. "
                                "Mentioned but not asked for: nodule.")
    assert not difference({present.key: present}, [Span(0, 4, "mass", "abnormality")] * 2)


def test_the_rows_of_a_plan_are_what_is_written(run, tmp_path, vocabulary):
    from paddle_cxr.registry import build
    from paddle_cxr.synthesis.vocabulary import load_vocabulary

    words = load_vocabulary(vocabulary)
    plan = build("sampler", {"name": "BalancedSampler", "k": 5, "m": 2, "cap": "auto"}, "S").plan(words, 40, 1)
    reports, _ = run()
    written = np.array([[words.position[one["id"], one["type"]] for one in report["entities"]] for report in reports])
    np.testing.assert_array_equal(written, plan)
