"""Image–report pairs: what is drawn, judged, compared, drawn again, and what comes out."""

import io
import json
import os
import re

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from synthesis.pairs_parts import CornerEncoder, Pairs, PickyJudge, TinyGenerator, final_files, picture, records

from paddle_cxr.errors import UserError
from paddle_cxr.synthesis.generators.phantom import PhantomGenerator
from paddle_cxr.synthesis.pairs.source import drawing_seed
from paddle_cxr.synthesis.pairs.store import Store
from paddle_cxr.synthesis.quality.bank import write_bank
from paddle_cxr.synthesis.store import Store as ReportStore

CONTRACT = ["id", "image", "findings", "impression", "entities", "labels", "patient_id", "view", "source", "writer",
            "generator", "seed", "judge", "similarity"]


@pytest.fixture(autouse=True)
def fresh():
    """The counters of the test's own parts."""
    TinyGenerator.calls = PickyJudge.calls = 0
    PickyJudge.broken = False


@pytest.fixture
def pairs(tmp_path):
    return Pairs(tmp_path)


def attempts_needed(identity, floor=100, attempts=5, bank=None, threshold=0.5):
    """What the recipe says, done by hand: the first attempt whose image passes, from 1; None where none does."""
    for attempt in range(attempts):
        image = picture(drawing_seed(3, identity, attempt))
        if image[0, 0] < floor:
            continue
        if bank is not None:
            features = image[:2, :2].ravel().astype(np.float64)
            if max(features @ bad / np.linalg.norm(features) / np.linalg.norm(bad) for bad in bank) > threshold:
                continue
        return attempt + 1
    return None


# ---------------------------------------------------------------- what comes out

def test_pairs_keep_the_contract(pairs, tmp_path):
    accepted, rejected = pairs()
    assert len(accepted) + len(rejected) == 40
    for pair in accepted:
        assert list(pair)[:14] == CONTRACT
        with Image.open(tmp_path / "out" / pair["image"]) as image:
            assert np.array_equal(np.array(image), picture(pair["seed"]))
        assert pair["labels"] == {"pleural_effusion": 1, "nodule": 0}
        assert {entity["id"] for entity in pair["entities"]} == {"pleural_effusion", "nodule", "left_lung"}
        assert (pair["source"], pair["writer"], pair["generator"]) == ("synthetic", "grammar", "tiny")
        assert pair["judge"]["name"] == "picky" and pair["judge"]["answers"]["human"] is None
        assert pair["similarity"] is None and pair["patient_id"] == pair["id"]
    assert len({pair["seed"] for pair in accepted}) == len(accepted)


def test_what_fails_is_drawn_again_with_a_new_seed(pairs):
    accepted, rejected = pairs("Judge.floor=160")
    needed = {f"r{number:07d}": attempts_needed(f"r{number:07d}", 160) for number in range(40)}
    assert {pair["id"]: pair["attempts"] for pair in accepted} == {one: n for one, n in needed.items() if n}
    assert {pair["id"] for pair in rejected} == {one for one, n in needed.items() if not n}
    assert any(n == 3 for n in needed.values()) and rejected
    for pair in rejected:
        assert [one["stage"] for one in pair["drawings"]] == ["judge"] * 5
        assert re.fullmatch(r"judge: sharp: first pixel \d+", pair["reason"])
        assert len({one["seed"] for one in pair["drawings"]}) == 5
    assert PickyJudge.calls == TinyGenerator.calls == sum(n or 5 for n in needed.values())


def test_metrics_count_the_first_drawings_and_what_drawing_again_won(pairs, tmp_path):
    accepted, rejected = pairs("Judge.floor=160", figures=True)
    metrics, first = pairs.metrics(), [pair for pair in accepted if pair["attempts"] == 1]
    assert metrics["waterfall"] == {"reports": 40, "drawn": 40, "judged": len(first),
                                    "redrawn": len(accepted) - len(first), "pairs": len(accepted)}
    assert metrics["synthetic"] is True and "demo_data" not in metrics
    assert metrics["attempts"][0]["acceptance"] == pytest.approx(len(first) / 40, abs=1e-4)
    assert [one["attempt"] for one in metrics["attempts"]] == [1, 2, 3, 4, 5]
    assert sum(one["drawn"] for one in metrics["attempts"]) == metrics["drawings"]
    page = (tmp_path / "out/summary.md").read_text(encoding="utf-8")
    assert "合成的图文对（synthetic）" in page and "judge: sharp" in page
    for name in ("accepted.png", "rejected.png", "waterfall.png"):
        with Image.open(tmp_path / "out" / name) as figure:
            assert min(figure.size) > 200


def test_similarity_decides_as_the_direct_computation(tmp_path):
    bank = np.random.default_rng(0).integers(0, 256, (3, 4)).astype(np.float32)
    write_bank(tmp_path / "bank", bank, CornerEncoder.title, ["a", "b", "c"], False)
    pairs = Pairs(tmp_path, Similarity={"encoder": {"name": "CornerEncoder"}, "bank": str(tmp_path / "bank"),
                                        "threshold": 0.9})
    accepted, rejected = pairs("Global.stages=[reports, draw, judge, similarity]")
    needed = {f"r{number:07d}": attempts_needed(f"r{number:07d}", bank=bank, threshold=0.9) for number in range(40)}
    assert {pair["id"]: pair["attempts"] for pair in accepted} == {one: n for one, n in needed.items() if n}
    assert all(pair["similarity"] <= 0.9 for pair in accepted)
    stages = [one["stage"] for pair in rejected for one in pair["drawings"]]
    assert pairs.metrics()["reasons"].get("similarity", 0) > 0 and set(stages) <= {"judge", "similarity"}
    assert pairs.metrics()["threshold"] == 0.9 and pairs.metrics()["encoder"] == ["corners"]


# ---------------------------------------------------------------- stages on their own

def test_stages_may_be_done_one_after_the_other(pairs, tmp_path):
    pairs(out="whole")
    judged = PickyJudge.calls
    assert len(pairs("Global.stages=[draw]")[0]) == 40 and PickyJudge.calls == judged
    before = TinyGenerator.calls
    drawn_so_far = pairs("Global.stages=[judge]")
    assert TinyGenerator.calls == before  # what fails waits for its next drawing
    assert {len(pair["drawings"]) for pair in drawn_so_far[1]} == {1}
    pairs()
    assert final_files(tmp_path / "out") == final_files(tmp_path / "whole")
    calls = TinyGenerator.calls, PickyJudge.calls
    pairs()
    assert (TinyGenerator.calls, PickyJudge.calls) == calls  # finished: nothing is done again


def test_drawing_and_judging_take_turns_until_nothing_is_left(pairs, tmp_path, capsys):
    """As where both models need the one GPU: the run that draws heeds what was judged before."""
    pairs("Judge.floor=160", out="whole")
    drawn = TinyGenerator.calls
    for turn in range(5):
        accepted, _ = pairs("Judge.floor=160", "Global.stages=[draw]")
        assert all(pair["attempts"] == turn + 1 or pair["judge"] for pair in accepted)
        _, rejected = pairs("Judge.floor=160", "Global.stages=[judge]")
        waiting = len(rejected) if turn < 4 else 0
        assert pairs.metrics()["waiting"] == waiting
        assert ("对等着画或重画" in capsys.readouterr().out) == bool(waiting)
        assert pairs.metrics()["waterfall"]["judged"] < 40
    assert TinyGenerator.calls == 2 * drawn
    pairs("Judge.floor=160")
    assert TinyGenerator.calls == 2 * drawn
    assert final_files(tmp_path / "out") == final_files(tmp_path / "whole")


def test_what_is_like_a_bad_image_is_not_judged_any_more(tmp_path):
    bank = np.full((1, 4), 100, np.float32)
    write_bank(tmp_path / "bank", bank, CornerEncoder.title, ["a"], False)
    pairs = Pairs(tmp_path, Similarity={"encoder": {"name": "CornerEncoder"}, "bank": str(tmp_path / "bank"),
                                        "threshold": 0.9})
    pairs("Global.stages=[draw, similarity]", "Global.attempts=1")
    similar = pairs.metrics()["reasons"]["similarity"]
    assert 0 < similar < 40
    pairs("Global.stages=[judge]", "Global.attempts=1")
    assert PickyJudge.calls == 40 - similar


def test_judging_what_was_never_drawn_draws_nothing(pairs):
    accepted, rejected = pairs("Global.stages=[judge]")
    assert not accepted and len(rejected) == 40 and "还没有画" in rejected[0]["reason"] and not TinyGenerator.calls


def test_a_stage_can_be_done_again_by_another_judge(pairs, tmp_path):
    pairs("Judge.floor=160", out="other")
    pairs()
    with pytest.raises(UserError, match=r"^Judge\.floor：.*redo=\[judge\]"):
        pairs("Judge.floor=160")
    drawn = TinyGenerator.calls
    pairs("Judge.floor=160", "Global.redo=[judge]")
    assert TinyGenerator.calls > drawn  # more of them fail, and those are drawn again
    assert final_files(tmp_path / "out") == final_files(tmp_path / "other")
    judged = PickyJudge.calls
    pairs("Judge.floor=160")  # without the key nothing is forgotten
    assert PickyJudge.calls == judged
    assert final_files(tmp_path / "out") == final_files(tmp_path / "other")


def test_drawing_again_forgets_the_judge_too(pairs, tmp_path):
    pairs()
    expected = final_files(tmp_path / "out")
    calls = TinyGenerator.calls, PickyJudge.calls
    pairs("Global.redo=[draw]")
    assert (TinyGenerator.calls, PickyJudge.calls) == (2 * calls[0], 2 * calls[1])
    assert final_files(tmp_path / "out") == expected


def test_a_mistake_elsewhere_costs_no_results(pairs, tmp_path):
    pairs()
    for override in ("Generator.moody=true", f"Reports.file={tmp_path / 'nowhere.jsonl'}"):
        with pytest.raises(UserError):
            pairs("Global.redo=[judge]", override)
    judged = PickyJudge.calls
    pairs()
    assert PickyJudge.calls == judged  # nothing was forgotten


def test_pairs_of_images_that_are_drawn_over_do_not_stay(pairs, tmp_path):
    pairs()
    pairs("Global.redo=[judge]", "Global.shards=2", "Global.shard=0")
    assert (tmp_path / "out/pairs.jsonl").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TinyGenerator, "draw", lambda *_: (_ for _ in ()).throw(UserError("out of paint")))
        with pytest.raises(UserError, match="out of paint"):
            pairs("Global.redo=[draw]")
    assert not (tmp_path / "out/pairs.jsonl").exists() and not (tmp_path / "out/rejected.jsonl").exists()


def test_doing_again_with_another_recipe_concerns_all_shards(pairs, tmp_path):
    """Else the shards that have not started yet would keep what the old recipe made."""
    for shard in (0, 1):
        pairs("Global.shards=2", f"Global.shard={shard}")
    pairs("Global.shards=2", "Global.shard=0", "Global.redo=[draw]", "Global.seed=9")
    assert not (tmp_path / "out/pairs.jsonl").exists()
    pairs("Global.shards=2", "Global.shard=1", "Global.seed=9")
    pairs("Global.seed=9", out="whole")
    assert final_files(tmp_path / "out") == final_files(tmp_path / "whole")


def test_only_the_questions_that_count_decide(pairs):
    """The judge refuses for ``sharp`` alone: where that is not asked for, every first drawing is kept."""
    accepted, rejected = pairs("Rules.questions=[chest_xray, frontal]")
    assert len(accepted) == 40 and not rejected
    assert pairs.metrics()["attempts"][0]["accepted"] == 40
    assert pairs.metrics()["questions"] == ["chest_xray", "frontal"]
    fewer, _ = pairs("Global.attempts=1", "Rules.questions=[sharp]")  # decided again, nothing is drawn again
    assert 0 < len(fewer) < 40


def test_rules_and_limits_decide_anew_from_the_same_rows(pairs):
    accepted, _ = pairs("Global.attempts=1", "Global.pairs=10")
    assert [pair["id"] for pair in accepted] == [f"r{number:07d}" for number in range(10)
                                                 if attempts_needed(f"r{number:07d}", attempts=1)]
    calls = TinyGenerator.calls
    accepted, _ = pairs("Global.attempts=1", "Global.pairs=10", "Rules.drop=all")
    assert len(accepted) == 10 and TinyGenerator.calls == calls
    accepted, rejected = pairs()
    assert len(accepted) + len(rejected) == 40
    assert all(pair["attempts"] == attempts_needed(pair["id"]) for pair in accepted)


def test_from_the_start_keeps_the_old_results(pairs, tmp_path):
    pairs()
    pairs("Global.resume=false", "Global.seed=4")
    kept = [folder for folder in tmp_path.glob("out-*")]
    assert len(kept) == 1 and len(records(kept[0] / "pairs.jsonl")) > 0
    assert records(kept[0] / "pairs.jsonl")[0]["seed"] != pairs.records()[0][0]["seed"]


# ---------------------------------------------------------------- what goes wrong

def test_errors_of_the_generator_are_drawn_again_and_told(pairs):
    accepted, rejected = pairs("Generator.moody=true", "Generator.hopeless=[r0000003]")
    assert all(pair["seed"] % 2 == 0 for pair in accepted)
    hopeless = next(pair for pair in rejected if pair["id"] == "r0000003")
    assert hopeless["reason"] == "draw: out of paint" and {one["image"] for one in hopeless["drawings"]} == {""}
    assert pairs.metrics()["attempts"][0]["errors"] > 0
    assert pairs.metrics()["reasons"]["draw: out of paint"] > 5


def test_a_judge_that_answers_nonsense_passes_nothing_and_is_asked_later(pairs, tmp_path, capsys):
    pairs(out="well")
    well, asked = final_files(tmp_path / "well"), PickyJudge.calls
    PickyJudge.broken = True
    accepted, rejected = pairs()
    assert not accepted and len(rejected) == 40 and PickyJudge.calls - asked == 40 * 5
    assert rejected[0]["reason"].startswith("unjudged: ") and "banana" in rejected[0]["reason"]
    assert pairs.metrics()["judge_errors"] == {"答非是否": 40 * 5 * 6}
    assert pairs.metrics()["attempts"] == [{"attempt": 1, "drawn": 40, "errors": 0, "failed_judge": 0, "unjudged": 40,
                                            "failed_similarity": 0, "accepted": 0, "acceptance": 0.0}]
    said = capsys.readouterr().out
    assert "裁判没有答上的问题：1200 个" in said and "再运行同一条命令会重新提问" in said
    PickyJudge.broken = False
    pairs()
    assert final_files(tmp_path / "out")["pairs.jsonl"] == well["pairs.jsonl"]


def test_ready_images_are_never_drawn_again(tmp_path):
    (tmp_path / "ready").mkdir()
    for number in range(9):
        Image.fromarray(picture(number)).save(tmp_path / "ready" / f"r{number:07d}.png")
    pairs = Pairs(tmp_path, 10, Generator={"name": "FolderGenerator", "folder": str(tmp_path / "ready")})
    accepted, rejected = pairs()
    passing = [f"r{number:07d}" for number in range(9) if picture(number)[0, 0] >= 100]
    assert [pair["id"] for pair in accepted] == passing and {pair["attempts"] for pair in accepted} == {1}
    assert {len(pair["drawings"]) for pair in rejected} == {1}
    assert rejected[-1]["id"] == "r0000009" and rejected[-1]["reason"].startswith("draw: ")


def test_prompts_that_were_cut_are_counted(pairs, capsys):
    pairs("Generator.cut=3")
    assert pairs.metrics()["tokens_cut"] == {"prompts": 40, "tokens": 120}
    assert "共截去 120 个词元" in capsys.readouterr().out


def test_what_is_normal_in_itself_has_no_label(tmp_path):
    pairs = Pairs(tmp_path, 1)
    said = [("clear_lungs", "non-abnormality"), ("nodule", "non-abnormality"), ("pneumonia", "non-disease"),
            ("cardiomegaly", "disease"), ("no_thoracic_disease", "non-disease"), ("own_finding", "non-abnormality")]
    entities = [{"id": id_, "type": type_} for id_, type_ in said]
    (tmp_path / "reports.jsonl").write_text(json.dumps({"id": "a", "impression": "x", "entities": entities}) + "\n")
    (accepted,), _ = pairs("Rules.drop=all")
    assert accepted["labels"] == {"nodule": 0, "pneumonia": 0, "cardiomegaly": 1, "own_finding": 0}
    (tmp_path / "words.csv").write_text("name,type,id\nown finding,non-abnormality,own_finding\n")
    (accepted,), _ = pairs("Rules.drop=all", f"Reports.vocabulary={tmp_path / 'words.csv'}")
    assert "own_finding" not in accepted["labels"] and accepted["labels"]["clear_lungs"] == 0  # unknown to that one


def test_reports_without_impression_and_contradicting_reports(tmp_path):
    pairs = Pairs(tmp_path, 2)
    both = [{"id": "nodule", "type": "abnormality"}, {"id": "nodule", "type": "non-abnormality"}]
    with open(tmp_path / "reports.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"id": "none", "findings": "Something."}) + "\n")
        file.write(json.dumps({"id": "no/file name", "impression": "Both.", "entities": both}) + "\n")
    accepted, rejected = pairs("Rules.drop=all")
    assert rejected[0]["id"] == "none" and "IMPRESSION" in rejected[0]["reason"]
    assert accepted[-1]["id"] == "p0000003" and accepted[-1]["labels"] == {"nodule": None}


@pytest.mark.parametrize("override, told", [
    ("Global.stages=[draw, jugde]", "Global.stages"),
    ("Global.stages=[draw, similarity]", "Similarity：Global.stages 里有 similarity"),
    ("Judge=null", "Judge：Global.stages 里有 judge"),
    ("Global.shard=2", "Global.shard：2 不在 0–0"),
    ("Global.workers=0", "Global.workers"),
    ("Global.engine=spark", "Global.engine"),
    ("Reports.recipe=other.yaml", "Reports：recipe（先写报告）、file"),
    ("Reports.file=null", "Reports：recipe（先写报告）、file"),
    ("Reports.file=nowhere.jsonl", "找不到语料"),
    ("Reports.overrides=[Global.reports=2]", "Reports.overrides"),
    ("Reports={pairs: {name: PhantomPairs}, vocabulary: words.csv}", "Reports.vocabulary：只用于 Reports.file"),
    ("Reports.vocabulary=words.csv", "找不到词表（vocabulary）words.csv"),
    ("Rules.known_bad=all", "Rules.known_bad"),
    ("Generator.name=TinyGenerater", "是不是 TinyGenerator"),
    ("Generator.colour=red", "Generator.colour"),
    ("Generator={name: EndpointGenerator, url: 'http://me:secret@host/v1', model: m}", "用户名、密码"),
    ("Judge={name: ChatJudge, url: 'http://h/v1', model: m, prompts: p, key_variable: sk-123}", "不是密钥本身"),
    ("Reports={recipe: r.yaml, overrides: ['Writer.url=http://me:secret@host/v1']}", "用户名、密码"),
    ("Similarity={encoder: {name: CornerEncoder}, threshold: 2}", "Similarity.threshold"),
    ("Rules.drop=some", "Rules.drop"),
    ("Generator.name=PhantomGenerator", "没有 entities")])
def test_a_wrong_key_is_one_line(tmp_path, override, told):
    pairs = Pairs(tmp_path, 2)
    if told == "没有 entities":
        (tmp_path / "reports.jsonl").write_text('{"id": "a", "impression": "Clear."}\n')
    with pytest.raises(UserError, match=re.escape(told)) as error:
        pairs(override)
    assert "\n" not in str(error.value) and "secret" not in str(error.value) and "sk-123" not in str(error.value)


@pytest.mark.parametrize("bank, told", [("nowhere", "analyze.py quality"), (None, "Global.stages 去掉 similarity")])
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_missing_bank_is_told_before_anything_is_done(tmp_path, bank, told, engine):
    pairs = Pairs(tmp_path, 2, Similarity={"encoder": {"name": "CornerEncoder"}, "bank": bank})
    with pytest.raises(UserError, match=rf"^Similarity\.bank：.*{told}"):
        pairs("Global.stages=[draw, similarity]", f"Global.engine={engine}")
    assert not TinyGenerator.calls and not (tmp_path / "out").exists()


def test_an_empty_bank_is_one_line(tmp_path):
    write_bank(tmp_path / "bank", np.ones((1, 4), np.float32), CornerEncoder.title, ["a"], False)
    np.save(tmp_path / "bank/features.npy", np.zeros((0, 4), np.float32))
    (tmp_path / "bank/images.csv").write_text("file\n")
    about = json.loads((tmp_path / "bank/bank.json").read_text())
    (tmp_path / "bank/bank.json").write_text(json.dumps(about | {"images": 0}))
    pairs = Pairs(tmp_path, 2, Similarity={"encoder": {"name": "CornerEncoder"}, "bank": str(tmp_path / "bank")})
    with pytest.raises(UserError, match="bank 是空的"):
        pairs("Global.stages=[draw, similarity]")
    assert not TinyGenerator.calls


def test_what_rows_were_made_from_may_not_change(pairs, tmp_path):
    pairs()
    for override, told in (("Global.seed=9", "Global.seed"), ("Generator.moody=true", "Generator.moody")):
        with pytest.raises(UserError, match=rf"^{told}：与 .* 里已有的结果不同"):
            pairs(override)
    with open(tmp_path / "reports.jsonl", "a", encoding="utf-8") as file:
        file.write('{"id": "new", "impression": "More."}\n')
    with pytest.raises(UserError, match="Reports（报告）的内容与已有结果所用的不同"):
        pairs()
    (tmp_path / "reports.jsonl").write_text('{"id": "a", "impression": "x"}\n{"id": "A", "impression": "y"}\n')
    with pytest.raises(UserError, match="reports.jsonl:2：id A 已经用过"):
        pairs(out="other")


def test_a_model_that_was_trained_again_is_another_one(pairs, tmp_path):
    model = tmp_path / "model"
    (model / "unet").mkdir(parents=True)
    weights = model / "unet/model.safetensors"
    weights.write_bytes(bytes(1_000_000))
    given = f"Generator.folder={model}"
    pairs(given)
    os.utime(weights, (0, 0))
    (model / "log.txt").write_text("evaluated again")
    pairs(given)  # the same model
    weights.write_bytes(bytes(500_000) + b"1" * 500_000)
    with pytest.raises(UserError, match=r"Generator（模型权重）的内容与已有结果所用的不同.*redo=\[draw\]"):
        pairs(given)
    drawn = TinyGenerator.calls
    pairs(given, "Global.redo=[draw]")
    assert TinyGenerator.calls > drawn
    pairs(given)


@pytest.mark.parametrize("line", ["oops", "[]", '{"pair": 0}', '{"pair": 0, "attempt": 0, "version": 0, "seed": 1, '
                                  '"image": "../../etc/x.png", "error": "", "tokens_cut": 0, "generator": "g"}'])
def test_a_foreign_line_is_named(pairs, tmp_path, line):
    pairs("Global.pairs=2", "Global.attempts=1")
    with open(tmp_path / "out/shards/0-of-1/drawn.jsonl", "a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=r"drawn\.jsonl:3"):
        pairs("Global.pairs=2")


def test_a_lost_image_is_named(pairs, tmp_path):
    pairs("Global.stages=[draw]")
    (tmp_path / "out/images/0000/r0000005-1.png").unlink()
    with pytest.raises(UserError, match=r"r0000005-1\.png.*redo=\[draw\]"):
        pairs()


def test_a_broken_image_is_named(pairs, tmp_path):
    pairs("Global.stages=[draw]")
    file = tmp_path / "out/images/0000/r0000005-1.png"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"r0000005-1\.png（文件损坏.*redo=\[draw\]"):
        pairs()


def test_refused_images_may_be_deleted(pairs, tmp_path):
    _, rejected = pairs("Judge.floor=160", "Global.attempts=1")
    for pair in rejected:
        (tmp_path / "out" / pair["drawings"][0]["image"]).unlink()
    pairs("Judge.floor=160", "Global.attempts=1", figures=True)
    assert (tmp_path / "out/rejected.png").is_file()


def test_a_run_that_stops_says_how_to_go_on(pairs, capsys):
    for overrides, told in (((), "，再运行同一条命令就接着做"),
                            (("Global.redo=[draw]",), "，去掉 Global.redo 再运行就接着做")):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match="gone"):
            patch.setattr(PickyJudge, "judge", lambda *_: (_ for _ in ()).throw(UserError("gone")))
            pairs(*overrides)
        assert told in capsys.readouterr().out


# ---------------------------------------------------------------- shards and interruptions

def test_shards_of_any_division_make_the_same_pairs(pairs, tmp_path, capsys):
    pairs(out="whole")
    pairs("Global.shards=3", "Global.shard=1")
    assert not (tmp_path / "out/pairs.jsonl").exists() and "由其余各片做" in capsys.readouterr().out
    pairs("Global.shards=2", "Global.shard=0")
    pairs("Global.shards=2", "Global.shard=1")
    assert final_files(tmp_path / "out") == final_files(tmp_path / "whole")
    drawn = TinyGenerator.calls
    pairs("Global.shards=5", "Global.shard=4")
    assert TinyGenerator.calls == drawn
    assert final_files(tmp_path / "out") == final_files(tmp_path / "whole")


def test_each_rank_of_a_launcher_is_a_shard(pairs, tmp_path, monkeypatch, capsys):
    pairs(out="whole")
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    with pytest.raises(UserError, match="Global.shards：用 paddle.distributed.launch 启动了 2 个进程"):
        pairs("Global.shards=3")
    for rank in (1, 0):
        monkeypatch.setenv("PADDLE_TRAINER_ID", str(rank))
        pairs()
    assert "第 0 片，共 2 片" in capsys.readouterr().out
    assert final_files(tmp_path / "out") == final_files(tmp_path / "whole")


def test_forgetting_concerns_the_own_shard_alone(pairs, tmp_path):
    pairs(out="whole")
    pairs()
    calls = PickyJudge.calls
    pairs("Global.shards=4", "Global.shard=1", "Global.redo=[judge]")
    assert 10 <= PickyJudge.calls - calls < calls / 4
    assert final_files(tmp_path / "out") == final_files(tmp_path / "whole")


class Interrupted(Exception):
    pass


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stops=st.lists(st.integers(0, 8), min_size=1, max_size=3), shards=st.sampled_from([(1,), (2, 1), (1, 3)]),
       half=st.booleans())
def test_an_interruption_anywhere_changes_nothing(tmp_path_factory, stops, shards, half):
    """Stopped before, after or in the middle of writing a chunk, and gone on with by any number of shards."""
    folder = tmp_path_factory.mktemp("stops")
    pairs = Pairs(folder, 12)
    quick = ("Global.chunk=4", "Judge.floor=160")
    add = Store.add
    for number, stop in enumerate(stops):
        left = [stop]

        def stopping(self, stage, rows, left=left):
            if left[0] == 0:
                add(self, stage, rows)
                file = self.folder / {"draw": "drawn.jsonl", "judge": "judged.jsonl"}[stage]
                whole = file.read_bytes()
                file.write_bytes(whole[:-9] if half else whole[:whole.rfind(b"\n", 0, -1) + 1])
                raise Interrupted
            left[0] -= 1
            add(self, stage, rows)

        parts = shards[number % len(shards)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "add", stopping)
            try:
                pairs(*quick, f"Global.shards={parts}")
            except Interrupted:
                pass
    pairs(*quick)
    pairs(*quick, out="whole")
    assert final_files(folder / "out") == final_files(folder / "whole")


# ---------------------------------------------------------------- with the real parts

@pytest.fixture
def phantoms(tmp_path, root):
    """A recipe that writes its reports, and draws phantoms."""
    recipe = {"Global": {"output_dir": "elsewhere", "reports": 12, "seed": 1},
              "Sampler": {"name": "BalancedSampler", "k": 2, "m": 1, "only": "drawable"},
              "Writer": {"name": "GrammarWriter"}, "NER": {"name": "DictionaryNER"}}
    (tmp_path / "reports.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return Pairs(tmp_path, Reports={"recipe": str(tmp_path / "reports.yaml"), "overrides": ["Global.workers=1"]},
                 Generator={"name": "PhantomGenerator", "size": 64}, Judge=None)


def test_phantoms_of_written_reports(phantoms, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="Global.stages：没有 reports"):
        phantoms("Global.stages=[draw]")
    accepted, rejected = phantoms("Global.stages=[reports, draw]")
    assert len(accepted) == 12 and not rejected and phantoms.metrics()["demo_data"] is True
    assert "模体（phantom）" in (tmp_path / "out/summary.md").read_text(encoding="utf-8")
    assert not (tmp_path / "elsewhere").exists()
    written = (tmp_path / "out/reports/reports.jsonl").stat().st_mtime_ns
    phantoms("Global.stages=[reports, draw]")
    assert (tmp_path / "out/reports/reports.jsonl").stat().st_mtime_ns == written
    with pytest.raises(UserError, match=r"Reports\.recipe：.*redo=\[reports\]"):
        phantoms("Global.stages=[reports, draw]", "Reports.overrides=[Global.seed=2]")
    accepted, _ = phantoms("Global.stages=[reports, draw]", "Reports.overrides=[Global.seed=2]",
                           "Global.redo=[reports]")
    assert len(accepted) == 12
    one = accepted[5]
    monkeypatch.setattr(PhantomGenerator, "many_processes", True, raising=False)
    again, _ = phantoms("Global.stages=[reports, draw]", "Reports.overrides=[Global.seed=2]", "Global.workers=2",
                        "Global.chunk=3", out="two")
    assert again == accepted  # two processes, other chunks
    assert (tmp_path / "two" / one["image"]).read_bytes() == (tmp_path / "out" / one["image"]).read_bytes()


def test_writing_the_reports_again_is_gone_on_with(phantoms, tmp_path, monkeypatch):
    phantoms("Global.stages=[reports, draw]")
    other = "Reports.overrides=[Global.seed=2, Global.workers=1, Global.chunk=4]"
    add, left = ReportStore.add, [1]

    def stopping(self, reports):
        if not left[0]:
            raise UserError("disk full")
        left[0] -= 1
        return add(self, reports)

    with monkeypatch.context() as patch, pytest.raises(UserError, match="disk full"):
        patch.setattr(ReportStore, "add", stopping)
        phantoms("Global.stages=[reports, draw]", other, "Global.redo=[reports]")
    assert len(records(tmp_path / "out/reports/reports.jsonl")) == 4
    phantoms("Global.stages=[reports, draw]", other)
    assert len(list((tmp_path / "out").glob("reports-*"))) == 1  # only the first ones were put aside
    phantoms("Global.stages=[reports, draw]", other, out="whole")
    assert final_files(tmp_path / "out") == final_files(tmp_path / "whole")


def test_a_mistake_in_the_recipe_of_the_reports_is_told_as_such(phantoms):
    with pytest.raises(UserError, match=r"^Reports\.recipe：\S*reports\.yaml 的 Global\.reports：") as error:
        phantoms("Global.stages=[reports, draw]", "Reports.overrides=[Global.reports=0]")
    assert "\n" not in str(error.value)


def test_the_tool_tells_tasks_apart(tool, tmp_path, root):
    Pairs(tmp_path, 3, Judge=None)
    done = tool("synthesize", "-c", "recipe.yaml", "-o", "Global.task=pears", cwd=tmp_path)
    assert done.returncode == 2 and "Global.task：没有叫 'pears' 的合成任务，是不是 pairs？" in done.stderr
    (tmp_path / "images").mkdir()
    for number in range(3):
        data = io.BytesIO()
        Image.fromarray(picture(number)).save(data, "PNG")
        (tmp_path / "images" / f"r{number:07d}.png").write_bytes(data.getvalue())
    done = tool("synthesize", "-c", "recipe.yaml", "-o", "Generator={name: FolderGenerator, folder: images}",
                "-o", "Global.stages=[draw]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "合成的图文对" in done.stdout and len(records(tmp_path / "out/pairs.jsonl")) == 3


@pytest.mark.parametrize("name", ["pairs", "pairs_roentgen"])
def test_the_shipped_recipes_are_in_order(root, name):
    from paddle_cxr.synthesis.pairs.schema import PairsRecipe, check_recipe
    from paddle_cxr.synthesis.schema import load_recipe

    recipe, _ = load_recipe(root / "configs/synthesis" / f"{name}.yaml", [], PairsRecipe)
    check_recipe(recipe)
    assert (root / recipe.Reports.recipe).is_file()
