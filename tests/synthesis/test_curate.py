"""``tools/analyze.py quality``: what is kept and dropped, gone on with after anything, and one line for every mistake.

The judge and the encoder of most tests read their answers from a picture's corner: the first pixel's bits are the
questions answered with no (255: none answered), the next four pixels are the features.
"""

import argparse
import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from recipes import ROOT

from paddle_cxr import registry
from paddle_cxr.data.phantom import draw_image
from paddle_cxr.errors import UserError
from paddle_cxr.plots.gallery import plot_sheet
from paddle_cxr.plots.quality import plot_waterfall
from paddle_cxr.synthesis.locks import locked
from paddle_cxr.synthesis.quality import curate as curate_module
from paddle_cxr.synthesis.quality import curate_report, parts
from paddle_cxr.synthesis.quality.bank import load_bank, write_bank
from paddle_cxr.synthesis.quality.base import QUESTIONS, Answer
from paddle_cxr.synthesis.quality.curate import curate

RECIPE = """
Global: {output_dir: out, chunk: 7}
Images: {path: films}
Judge: {name: CornerJudge}
Similarity: {encoder: {name: CornerEncoder}, threshold: 0.9}
"""
judged = 0  # images that CornerJudge was shown
breaks_at = None  # and after how many it fails


class CornerJudge:
    title = "corner"

    def __init__(self, model: str = "a", prompts: str = "p") -> None:
        pass

    def judge(self, images):
        global judged
        judged += len(images)
        if breaks_at is not None and judged > breaks_at:
            raise UserError("Judge.url：连不上")
        return [{question: Answer(None if image[0, 0] == 255 else not int(image[0, 0]) >> bit & 1, float(bit), "r|x")
                 for bit, question in enumerate(QUESTIONS)} for image in images]


class CornerEncoder:
    title, dim = "corner", 4

    def __init__(self, weights: float = 1.0, batch_size: int = 1) -> None:
        self.bend = np.array([1, weights, 1, 1], np.float32)

    def encode(self, images):
        return np.stack([image[0, 1:5] for image in images]).astype(np.float32) * self.bend


@pytest.fixture(autouse=True)
def components(monkeypatch, tmp_path):
    global judged, breaks_at
    judged, breaks_at = 0, None
    for kind, component in (("judge", CornerJudge), ("encoder", CornerEncoder)):
        registry.components(kind)
        monkeypatch.setitem(registry._COMPONENTS[kind], component.__name__, component)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.yaml").write_text(RECIPE)


@pytest.fixture
def no_figures(monkeypatch):
    """What figures would show, written down instead: drawing them takes most of a short run."""
    def write(*shown, **kind):
        path = next(one for one in shown if hasattr(one, "write_text"))
        path.write_text(repr([one for one in shown if one is not path] + [kind]))

    for name in ("plot_waterfall", "plot_sheet", "plot_similarity"):
        monkeypatch.setattr(curate_report, name, write)


def film(file, bits, features=(1, 2, 3, 4)):
    picture = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    picture[0, :5] = (bits, *features)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(file)


@pytest.fixture
def films(tmp_path, no_figures):
    """60 films of which some fail, some fail all, some cannot be judged; {name: (bits, features)}."""
    rng = np.random.default_rng(5)
    corners = {}
    for i in range(60):
        bits = int(rng.choice([0, 0, 0, 0, 63, 255, 1 << rng.integers(6)]))
        corners[f"p{i % 7}/{i:02d}.png"] = bits, [int(x) for x in rng.integers(0, 200, 4)]
    for name, corner in corners.items():
        film(tmp_path / "films" / name, *corner)
    (tmp_path / "films/p1/broken.png").write_bytes(b"\x89PNG")
    (tmp_path / "films/empty.jpg").write_bytes(b"")
    (tmp_path / "films/._hidden.png").write_bytes(b"")
    return corners


def run(*overrides):
    curate(argparse.Namespace(config="q.yaml", override=list(overrides), command="quality"))


def rows(file):
    with open(file, encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def outcome(folder):
    """What a run decided, all of it."""
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    metrics.pop("seconds_this_session")
    files = ["keep.csv", "drop.csv", "quality.md", "waterfall.png", "dropped.png", "bank/images.csv",
             "bank/features.npy", "bank/bank.json"]
    return {"metrics": metrics, **{name: (folder / name).read_bytes() for name in files}}


def same(folder, other):
    one, two = outcome(folder), outcome(other) if not isinstance(other, dict) else other
    return not [name for name in one if one[name] != two[name]]


def direct(corners, drop, known_bad, threshold):
    """(kept, dropped by the judge, dropped by similarity) as one would write it down."""
    def fails(bits, rule):
        return bits != 255 and (bits != 0 if rule == "any" else bits == 63)

    bad = {name for name, (bits, _) in corners.items() if fails(bits, known_bad)}
    dropped = bad | {name for name, (bits, _) in corners.items() if fails(bits, drop)}
    similar = set()
    for name in corners.keys() - dropped:
        for other in bad:
            a, b = np.array(corners[name][1], float), np.array(corners[other][1], float)
            if a @ b / np.sqrt(a @ a * (b @ b)) > threshold:
                similar.add(name)
    return corners.keys() - dropped - similar, dropped, similar


@pytest.mark.parametrize(("drop", "known_bad", "threshold"), [
    ("all", "all", 0.9), ("any", "all", 0.97), ("any", "any", 0.95), ("all", "any", 0.99)])
def test_the_decision_equals_the_plain_computation(films, tmp_path, drop, known_bad, threshold):
    run(f"Rules.drop={drop}", f"Rules.known_bad={known_bad}", f"Similarity.threshold={threshold}")
    kept, dropped, similar = direct(films, drop, known_bad, threshold)
    assert dropped and similar and kept
    keep, drop = rows(tmp_path / "out/keep.csv"), rows(tmp_path / "out/drop.csv")
    assert {row["file"] for row in keep} == kept
    assert {row["file"] for row in drop if row["stage"] == "judge"} == dropped
    assert {row["file"] for row in drop if row["stage"] == "similarity"} == similar
    assert {row["file"] for row in drop if row["stage"] == "read"} == {"p1/broken.png", "empty.jpg"}
    assert all(row["reason"] for row in drop)
    assert all(row["nearest_bad"] and float(row["similarity"]) <= threshold for row in keep)
    assert all(row["nearest_bad"] in row["reason"] for row in drop if row["stage"] == "similarity")
    metrics = json.loads((tmp_path / "out/metrics.json").read_text("utf-8"))
    assert list(metrics["waterfall"].values()) == [62, 60, 60 - len(dropped), len(kept)]
    assert metrics["demo_data"] is False and metrics["synthetic"] is False
    unjudged = sum(bits == 255 for bits, _ in films.values())
    assert metrics["undecided"] == unjudged == len(rows(tmp_path / "out/undecided.csv"))
    for bit, question in enumerate(QUESTIONS):
        no = sum(bits != 255 and bits >> bit & 1 for bits, _ in films.values())
        assert metrics["questions"][question] == {"yes": 60 - unjudged - no, "no": no, "unanswered": unjudged}
    bank = load_bank(tmp_path / "out/bank", "corner", 4)
    np.testing.assert_array_equal(bank.features, [films[file][1] for file in bank.files])
    page = (tmp_path / "out/quality.md").read_text("utf-8")
    assert "213,384" in page and "undecided.csv" in page
    for name in ("waterfall.png", "dropped.png", "similarity.png"):
        assert f"({name})" in page and (tmp_path / "out" / name).is_file()


def test_other_rules_threshold_and_stages_judge_nothing_again(films, tmp_path, capsys):
    run("Global.stages=[judge]")
    assert judged == 60 and not (tmp_path / "out/bank").exists()
    assert {row["similarity"] for row in rows(tmp_path / "out/keep.csv")} == {""}
    run()
    features = next((tmp_path / "out/parts/0of1").glob("*.bin")).stat().st_size
    first = outcome(tmp_path / "out")
    run("Rules.drop=any", "Similarity.threshold=0.2")
    assert not same(tmp_path / "out", first)
    run("Global.chunk=3", "Similarity.encoder.batch_size=2")
    run()
    assert judged == 60 and same(tmp_path / "out", first)
    assert next((tmp_path / "out/parts/0of1").glob("*.bin")).stat().st_size == features


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_shards_in_any_order_decide_what_one_run_does(films, tmp_path, capsys, order):
    run("Global.output_dir=one")
    for shard in order:
        assert not (tmp_path / "out/keep.csv").exists()
        run("Global.shards=3", f"Global.shard={shard}")
    assert "其余分片还有" in capsys.readouterr().out
    assert same(tmp_path / "out", tmp_path / "one")
    before = judged
    run()  # gone on with as one
    assert judged == before and same(tmp_path / "out", tmp_path / "one")


def test_a_judge_that_breaks_off_is_gone_on_with(films, tmp_path):
    global breaks_at
    run("Global.output_dir=one")
    breaks_at = judged + 30
    with pytest.raises(UserError, match="连不上"):
        run()
    done = len((tmp_path / "out/parts/0of1/verdicts.jsonl").read_text().splitlines())
    assert 0 < done < 62 and not (tmp_path / "out/keep.csv").exists()
    breaks_at = None
    run()
    assert same(tmp_path / "out", tmp_path / "one")


def test_half_records_and_zeros_at_the_end_are_made_again(films, tmp_path):
    run()
    first = outcome(tmp_path / "out")
    part = tmp_path / "out/parts/0of1"
    binary = next(part.glob("*.bin"))
    size = (tmp_path / "out/parts/0of1/verdicts.jsonl").stat().st_size
    for file, cut in ((part / "verdicts.jsonl", size // 2), (binary, 24 * 20 + 11)):
        os.truncate(file, cut)
    run()
    assert same(tmp_path / "out", first)
    os.truncate(binary, 24 * 30)
    os.truncate(binary, 24 * 34 + 5)  # what a crash of the machine can leave
    run()
    assert same(tmp_path / "out", first)


def test_features_are_read_in_blocks(films, tmp_path, monkeypatch):
    run("Global.output_dir=one")
    monkeypatch.setattr(parts, "BLOCK", 5)
    run()
    assert same(tmp_path / "out", tmp_path / "one")


def launch(monkeypatch, rank, ranks):
    monkeypatch.setenv("PADDLE_TRAINER_ID", str(rank))
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", str(ranks))


def test_each_rank_of_a_launcher_is_a_shard(films, tmp_path, monkeypatch):
    run("Global.output_dir=one")
    for rank in range(3):
        assert not (tmp_path / "out/keep.csv").exists()
        launch(monkeypatch, rank, 3)
        run()
    assert same(tmp_path / "out", tmp_path / "one") and judged == 120
    with pytest.raises(UserError, match="Global.shards.*3 个进程"):
        run("Global.shards=2")


def test_shards_that_start_together(tmp_path, tool):
    """Both find an empty folder, and neither takes the other for another run."""
    films_for_the_tool(tmp_path, 6)
    started = [subprocess.Popen([sys.executable, ROOT / "tools/analyze.py", "quality", "-c", "q.yaml"], cwd=tmp_path,
                                env=os.environ | {"PADDLE_TRAINER_ID": str(rank), "PADDLE_TRAINERS_NUM": "2"},
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for rank in range(2)]
    said = [process.communicate(timeout=240)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert len(rows(tmp_path / "out/keep.csv")) + len(rows(tmp_path / "out/drop.csv")) == 6


# --- what is not mixed -------------------------------------------------------------------------------------------

def test_another_judge_other_images_or_another_task_are_refused(films, tmp_path):
    run()
    first = outcome(tmp_path / "out")
    with pytest.raises(UserError, match=r"Global.output_dir.*Judge.model"):
        run("Judge.model=b")
    (tmp_path / "words").mkdir()
    (tmp_path / "words/sharp.txt").write_text("Is it sharp?")
    run("Judge.prompts=words", "Global.output_dir=asked")
    (tmp_path / "words/sharp.txt").write_text("Is it?")
    with pytest.raises(UserError, match=r"Global.output_dir.*提示词（内容变了）"):
        run("Judge.prompts=words", "Global.output_dir=asked")
    film(tmp_path / "films/new.png", 0)
    with pytest.raises(UserError, match=r"Global.output_dir.*图像（内容变了）"):
        run()
    (tmp_path / "films/new.png").unlink()
    run()
    assert judged == 120 and same(tmp_path / "out", first)
    (tmp_path / "out/config.yaml").write_text("Global: {task: reports}\n")
    with pytest.raises(UserError, match="Global.output_dir"):
        run()
    (tmp_path / "out/config.yaml").unlink()
    with pytest.raises(UserError, match="config.yaml"):
        run()


def test_features_of_two_encoders_lie_side_by_side(films, tmp_path):
    run()
    first = outcome(tmp_path / "out")
    run("Similarity.encoder.weights=3")
    assert not same(tmp_path / "out", first) and judged == 60
    run()
    assert same(tmp_path / "out", first)


def test_other_weights_under_the_same_name_are_refused(films, tmp_path, monkeypatch):
    run()
    monkeypatch.setattr(CornerEncoder, "encode", lambda self, images: np.eye(4, dtype=np.float32)[[0] * len(images)])
    binary = next((tmp_path / "out/parts/0of1").glob("*.bin"))
    os.truncate(binary, 24 * 20)
    with pytest.raises(UserError, match=r"Similarity.encoder.*权重"):
        run()


def test_a_second_program_for_the_same_shard_is_refused(films, tmp_path):
    run("Global.shards=2", "Global.shard=1")
    with locked(tmp_path / "out/parts/0of2/.lock"), pytest.raises(UserError, match="另一个程序"):
        run("Global.shards=2")
    run("Global.shards=2")
    assert (tmp_path / "out/keep.csv").exists()


def test_what_nobody_answered_is_asked_again_when_told_to(films, tmp_path, monkeypatch, capsys):
    """As after a server that was away: the answers of the second time count, and nothing else is asked."""
    run("Rules.drop=any", "Global.stages=[judge]")
    silent = {row["file"]: row["reason"] for row in rows(tmp_path / "out/undecided.csv")}
    assert silent and set(silent.values()) == {"r|x"} and "ask_again" in capsys.readouterr().out
    run("Rules.drop=any", "Global.stages=[judge]")
    assert judged == 60

    def answer(self, images):
        global judged
        judged += len(images)
        return [{question: Answer(False, 0.0, "now") for question in QUESTIONS} for _ in images]

    monkeypatch.setattr(CornerJudge, "judge", answer)
    run("Rules.drop=any", "Global.stages=[judge]", "Global.ask_again=true")
    assert judged == 60 + len(silent) and not (tmp_path / "out/undecided.csv").exists()
    assert {row["file"] for row in rows(tmp_path / "out/drop.csv") if "now" in row["reason"]} == set(silent)
    run("Rules.drop=any", "Global.stages=[judge]", "Global.ask_again=true")
    run("Rules.drop=any")
    assert judged == 60 + len(silent) and not (tmp_path / "out/undecided.csv").exists()


# --- banks -------------------------------------------------------------------------------------------------------

def test_no_known_bad_image_skips_similarity(tmp_path, capsys, no_figures):
    for i in range(5):
        film(tmp_path / f"films/{i}.png", 1)
    run()
    assert "跳过相似度" in capsys.readouterr().out
    assert len(rows(tmp_path / "out/keep.csv")) == 5 and not list(tmp_path.glob("out/parts/0of1/*.bin"))
    assert "没有做：" in (tmp_path / "out/quality.md").read_text("utf-8")
    assert "bank" not in os.listdir(tmp_path / "out")


def test_a_given_bank_is_joined_to_ones_own(tmp_path, no_figures):
    film(tmp_path / "films/bad.png", 63, (1, 0, 0, 0))
    film(tmp_path / "films/like_bad.png", 0, (9, 1, 0, 0))
    film(tmp_path / "films/like_given.png", 0, (0, 0, 1, 9))
    film(tmp_path / "films/good.png", 0, (0, 9, 0, 0))
    write_bank(tmp_path / "given", np.array([[0, 0, 0, 1.0]]), "corner", ["elsewhere.png"], True)
    run("Similarity.bank=given")
    dropped = {row["file"]: row for row in rows(tmp_path / "out/drop.csv")}
    assert {name: row["nearest_bad"] for name, row in dropped.items()} == {
        "bad.png": "", "like_bad.png": "bad.png", "like_given.png": "elsewhere.png"}
    both = load_bank(tmp_path / "out/bank", "corner", 4)
    assert both.files == ["bad.png", "elsewhere.png"] and both.demo
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["similarity"]["bank"] == {"images": 2, "own": 1, "demo_data": True}
    run("Similarity.bank=given", "Global.stages=[similarity]", "Global.output_dir=alone")  # nobody judges
    assert {row["file"] for row in rows(tmp_path / "alone/drop.csv")} == {"like_given.png"}
    for change, words in (("Similarity.bank=nowhere", "Similarity.bank.*不存在"), ("Similarity.bank=out/bank", "自己"),
                          ("Similarity.encoder.weights=3", "corner")):
        if "weights" in change:  # without a probe the bank cannot tell; with it it can
            run("Global.output_dir=w", "Similarity.bank=out/bank")
            with pytest.raises(UserError, match=words):
                run("Global.output_dir=w", "Similarity.bank=out/bank", change)
            continue
        with pytest.raises(UserError, match=words):
            run("Similarity.bank=given", change)


def test_unreadable_images_without_a_judge_are_dropped(films, tmp_path):
    write_bank(tmp_path / "given", np.array([[0, 0, 0, 1.0]]), "corner", ["x"], False)
    run("Global.stages=[similarity]", "Similarity.bank=given")
    unreadable = {row["file"]: row["reason"] for row in rows(tmp_path / "out/drop.csv") if row["stage"] == "read"}
    assert unreadable.keys() == {"p1/broken.png", "empty.jpg"} and "0 字节" in unreadable["empty.jpg"]


# --- inputs ------------------------------------------------------------------------------------------------------

def test_pairs_keep_their_lines(films, tmp_path):
    names = [*films, "p1/broken.png", "gone.png", *films]  # an image may belong to two reports
    lines = [json.dumps({"id": f"r{i}", "impression": "正常 \ud83d|", "image": name, "generator": "RoentGen"},
                        ensure_ascii=i % 2 == 0) for i, name in enumerate(names)]
    (tmp_path / "films/pairs.jsonl").write_bytes("\n\n".join(lines).encode("utf-8", "replace") + b"\r\n")
    run("Images.path=films/pairs.jsonl", "Similarity.threshold=0.99")
    kept = {row["file"] for row in rows(tmp_path / "out/keep.csv")}
    written = (tmp_path / "out/pairs.jsonl").read_bytes().splitlines()
    originals = [line for line in (tmp_path / "films/pairs.jsonl").read_bytes().splitlines() if line]
    assert written == [line for line in originals if json.loads(line)["image"] in kept]
    assert len(written) == 2 * len(kept) > 20
    metrics = json.loads((tmp_path / "out/metrics.json").read_text("utf-8"))
    assert metrics["synthetic"] is True and metrics["demo_data"] is False and metrics["waterfall"]["all"] == 62
    assert "合成图像（synthetic）" in (tmp_path / "out/quality.md").read_text("utf-8")


def test_tables_name_their_images(films, tmp_path):
    for name, header, overrides in (("a.csv", "file,x", []), ("b.csv", "x,Image", []), ("c.tsv", "Path\tx", []),
                                    ("d.csv", "x,png", ["Images.column=png"])):
        place = header.lower().replace("\t", ",").split(",").index("x")
        separator = "\t" if name.endswith("tsv") else ","
        lines = [header] + [separator.join([file, "1"] if place else ["1", file]) for file in list(films)[:9]]
        (tmp_path / name).write_text("\n".join(lines), "utf-8")
        run(f"Images.path={name}", "Images.root=films", f"Global.output_dir=out_{name}", *overrides)
        found = {row["file"] for list_ in ("keep", "drop") for row in rows(tmp_path / f"out_{name}/{list_}.csv")}
        assert found == set(list(films)[:9])


@pytest.mark.parametrize(("content", "change", "words"), [
    ("a,b\n1,2\n", [], ["t.csv:1", "图像列", "Images.column"]),
    ("file\n1.png\n", ["Images.column=picture"], ["picture", "file"]),
    ("file\n/etc/passwd\n", [], ["t.csv:2", "root"]),
    ("file\n../x.png\n", [], ["t.csv:2", "root"]),
    ("file,b\n1.png\n", [], ["t.csv:2"]),
    ("file\n", [], ["t.csv", "一张图像也没有"]),
    ('{"image": "1.png"}\n{"image": 3}\n', ["Images.path=t.jsonl"], ["t.jsonl:2", "image"]),
    ('{"image": "1.png"}\nnull\n', ["Images.path=t.jsonl"], ["t.jsonl:2", "JSON"]),
    ("[" * 100_000, ["Images.path=t.jsonl"], ["t.jsonl:1", "JSON"]),
    ("", ["Images.path=film"], ["Images.path", "是不是 films"]),
    ("", ["Images.path=q.yaml"], ["Images.path", ".csv"]),
    ("", ["Global.shard=2"], ["Global.shard", "-o"]),
    ("", ["Global.workers=0"], ["Global.workers"]),
    ("", ["Global.stages=[]"], ["Global.stages"]),
    ("", ["Global.stages=[judge, embed]"], ["Global.stages"]),
    ("", ["Global.stages=[similarity]"], ["Similarity.bank"]),
    ("", ["Similarity=null"], ["Similarity", "encoder"]),
    ("", ["Judge.name=CornerJudg"], ["Judge.name", "是不是 CornerJudge"]),
    ("", ["Similarity.encoder.nam=3"], ["Similarity.encoder.nam"]),
    ("", ["Judge={name: ChatJudge, url: 'http://me:secret@x/v1', model: m, prompts: p}"], ["Judge.url"]),
])
def test_one_line_for_every_mistake(films, tmp_path, content, change, words):
    for name in ("t.csv", "t.jsonl"):
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as error:
        run(*(["Images.path=t.csv"] if content else []), *change)
    assert all(word in str(error.value) for word in words), error.value
    assert "secret" not in str(error.value)
    assert not (tmp_path / "out/parts").exists()


@pytest.mark.parametrize("line", [b"", b"null", b"[]", b'{"n": 0}', b'{"n": -1, "file": "1.png", "error": ""}',
                                  b'{"n": 0, "file": "other.png", "error": ""}',
                                  b'{"n": 99, "file": "1.png", "error": ""}', b"\xff", b"[" * 100_000,
                                  b'{"n": 0, "file": "1.png", "answers": {}}', b'{"n": 0.0, "file": "1.png"}'])
def test_a_line_that_is_no_verdict_is_named(tmp_path, line, no_figures):
    film(tmp_path / "films/1.png", 0)
    run()
    with open(tmp_path / "out/parts/0of1/verdicts.jsonl", "ab") as file:
        file.write(line + b"\n")
    with pytest.raises(UserError, match="verdicts.jsonl:2"):
        run()


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(record=st.recursive(st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3), lambda inner: st.lists(
    inner, max_size=3) | st.dictionaries(st.sampled_from(["n", "file", "error", "answers", *QUESTIONS]), inner)))
def test_any_record_is_a_verdict_or_named(tmp_path, record):
    (tmp_path / "parts/0of1").mkdir(parents=True, exist_ok=True)
    (tmp_path / "parts/0of1/verdicts.jsonl").write_text(json.dumps(record) + "\n")
    try:
        for number, found in parts.read_verdicts(tmp_path, ["", "0"]):
            assert number in (0, 1) and ("error" in found or parts.verdict_of(found))
    except UserError as error:
        assert "verdicts.jsonl:1" in str(error)


# --- as a user runs it -------------------------------------------------------------------------------------------

def test_the_shipped_recipe_on_a_machine_without_data(tmp_path, tool):
    done = tool("analyze", "quality", "-c", ROOT / "configs/synthesis/quality.yaml", "-o", "Rules.drop=any",
                cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "改用内置模体（phantom）" in done.stdout
    metrics = json.loads((tmp_path / "output/quality/metrics.json").read_text("utf-8"))
    assert metrics["demo_data"] is True and metrics["waterfall"]["all"] == 129
    for name in ("waterfall.png", "dropped.png"):
        with Image.open(tmp_path / "output/quality" / name) as image:
            assert image.format == "PNG" and image.width > 400
    dropped = {row["file"] for row in rows(tmp_path / "output/quality/drop.csv")}
    assert sum(not name.startswith("film/") for name in dropped) >= 30  # of 33 spoiled copies
    assert sum(name.startswith("film/") for name in dropped) <= 10  # of 96 films
    assert "内置模体（phantom），非临床结果" in (tmp_path / "output/quality/quality.md").read_text("utf-8")


def films_for_the_tool(tmp_path, count):
    for i in range(count):
        picture = draw_image("normal", seed=1, index=i, size=96)
        (tmp_path / "films").mkdir(exist_ok=True)
        Image.fromarray(picture if i % 3 else 255 - picture).save(tmp_path / f"films/{i:02d}.png")
    # Any fixture of an encoder does: what it sees is not looked at.
    (tmp_path / "q.yaml").write_text(f"""
Global: {{output_dir: out, chunk: 1}}
Images: {{path: films}}
Rules: {{known_bad: any}}
Similarity: {{encoder: {{name: RadDino, folder: {ROOT / 'tests/fixtures/dinov2/other'}}}, threshold: 0.9}}
""")


def test_killed_anywhere_and_run_again_it_decides_the_same(tmp_path, tool):
    films_for_the_tool(tmp_path, 18)
    done = tool("analyze", "quality", "-c", "q.yaml", "-o", "Global.output_dir=one", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    part = tmp_path / "out/parts/0of1"
    for pattern in ("verdicts.jsonl", "*.bin"):
        process = subprocess.Popen([sys.executable, ROOT / "tools/analyze.py", "quality", "-c", "q.yaml"], cwd=tmp_path,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not any(file.stat().st_size > 300 for file in part.glob(pattern)) and time.monotonic() < deadline:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = tool("analyze", "quality", "-c", "q.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert same(tmp_path / "out", tmp_path / "one")
    lines = (part / "verdicts.jsonl").read_text("utf-8").splitlines()
    assert sorted(json.loads(line)["n"] for line in lines) == list(range(18))  # nothing was judged twice


def test_a_full_disk_is_one_line_and_gone_on_with(tmp_path, tool):
    films_for_the_tool(tmp_path, 12)
    command = [sys.executable, ROOT / "tools/analyze.py", "quality", "-c", "q.yaml", "-o", "Global.stages=[judge]"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000)))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "verdicts.jsonl" in done.stderr, done.stderr
    whole = (tmp_path / "out/parts/0of1/verdicts.jsonl").read_text("utf-8")
    assert 0 < whole.count("\n") < 12 and whole.endswith("\n")
    assert tool("analyze", "quality", "-c", "q.yaml", "-o", "Global.stages=[judge]", cwd=tmp_path).returncode == 0
    assert len(rows(tmp_path / "out/keep.csv")) + len(rows(tmp_path / "out/drop.csv")) == 12


def test_several_processes_judge_as_one_does(tmp_path, tool):
    films_for_the_tool(tmp_path, 6)
    for workers in (1, 2):
        done = tool("analyze", "quality", "-c", "q.yaml", "-o", f"Global.workers={workers}", "-o",
                    f"Global.output_dir=w{workers}", "-o", "Global.stages=[judge]", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "w1/drop.csv").read_bytes() == (tmp_path / "w2/drop.csv").read_bytes()


@pytest.mark.slow
def test_a_ray_cluster_decides_as_this_machine_does(tmp_path, tool):
    pytest.importorskip("ray")
    films_for_the_tool(tmp_path, 12)
    for engine in ("local", "ray"):
        done = tool("analyze", "quality", "-c", "q.yaml", "-o", f"Global.engine={engine}", "-o",
                    f"Global.output_dir={engine}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert same(tmp_path / "local", tmp_path / "ray")


# --- small things ------------------------------------------------------------------------------------------------

def test_images_never_lie_in_memory_all_at_once(films, monkeypatch):
    largest = 0

    class Watching(CornerJudge):
        def judge(self, images):
            nonlocal largest
            largest = max(largest, len(images))
            return super().judge(images)

    monkeypatch.setattr(curate_module, "_AT_ONCE", 4)
    monkeypatch.setitem(registry._COMPONENTS["judge"], "CornerJudge", Watching)
    run("Global.chunk=50")
    assert 0 < largest <= 4


def test_figures_of_any_counts_and_texts(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a missing glyph, a layout that could not be applied
        for number, stages in enumerate([[("全部", 0)], [("全部", 1), ("六问", 0)],
                                         [("全部（all）", 213_384), ("六问（judge）", 211_936), ("相似度", 206_424)]]):
            plot_waterfall(stages, tmp_path / f"{number}.png", line="合成图像（synthetic），不是真实病例")
        picture = np.zeros((20, 90), np.uint8)
        plot_sheet([], [], tmp_path / "none.png", title="没有")
        for count in (1, 7):
            name, caption = "六问：" + "很长" * 40 + "$x^2$.png", "x" * 300 + "，很长的原因" * 30
            plot_sheet([picture] * count, [caption] * count, tmp_path / "some.png", title="一些", names=[name] * count)
