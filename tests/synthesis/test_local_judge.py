"""The judge that weighs statements with a CLIP model: equal to the original, and clear about what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from clip_texts import TEXTS

from paddle_cxr.errors import UserError
from paddle_cxr.registry import build, check
from paddle_cxr.synthesis.quality.base import QUESTIONS
from paddle_cxr.synthesis.quality.local import LocalJudge
from paddle_cxr.synthesis.quality.rules import answered, fails
from paddle_cxr.weights import read_safetensors, write_safetensors

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests/fixtures/clip"
NAMES = ("like_openai", "like_openclip")


@pytest.fixture(scope="session")
def nlp():
    """PaddleNLP, or a skipped test."""
    return pytest.importorskip("paddlenlp.transformers", reason="PaddleNLP is not installed", exc_type=ImportError)


def expected_of(name: str) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    expected = read_safetensors(FIXTURES / name / "expected.safetensors")[0]
    return expected, [expected[f"image.{number}"] for number in range(3)]


def write_prompts(folder: Path, **files: str) -> str:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text, "utf-8")
    return str(folder)


@pytest.fixture
def prompts(tmp_path) -> str:
    return write_prompts(tmp_path / "statements", sharp_yes=f"{TEXTS[0]}\n\n  {TEXTS[2]}\n", sharp_no=TEXTS[1],
                         human_yes=TEXTS[4], human_no=f"{TEXTS[3]}\n{TEXTS[1]}")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(FIXTURES / "like_openai", tmp_path / "clip"))


def change(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")


def error(match: str, make, *arguments, **options) -> None:
    with pytest.raises(UserError, match=match) as caught:
        make(*arguments, **options)
    assert "\n" not in str(caught.value)


# What needs no model


def test_arguments_and_prompts_that_are_wrong(tmp_path, prompts):
    model = str(FIXTURES / "like_openai")
    error("Judge.threshold", LocalJudge, model, prompts, threshold=1.0)
    error("Judge.batch_size", LocalJudge, model, prompts, batch_size=0)
    error("找不到提示词文件夹.*nowhere", LocalJudge, model, str(tmp_path / "nowhere"))
    error("里没有提示词文件", LocalJudge, model, write_prompts(tmp_path / "empty", system="x"))
    error("只有一半：有 .*sharp_yes.txt，没有 sharp_no.txt", LocalJudge, model,
          write_prompts(tmp_path / "half", sharp_yes="a"))
    error("sharp_no.txt 应有 1–1000 行", LocalJudge, model, write_prompts(tmp_path / "half", sharp_no=" \n"))
    (tmp_path / "half" / "sharp_no.txt").write_bytes("清楚".encode("gbk"))
    error("sharp_no.txt 不是 UTF-8", LocalJudge, model, str(tmp_path / "half"))


def test_the_shipped_statements_ask_all_six_questions(prompts):
    shipped = ROOT / "configs/synthesis/prompts/judge/statements"
    assert {file.stem for file in shipped.iterdir()} == {f"{one}_{kind}" for one in QUESTIONS for kind in ("yes", "no")}
    spec = {"name": "LocalJudge", "folder": "models/clip", "prompts": str(shipped), "threshold": 0.6}
    assert check("judge", spec, "Judge")[0] is LocalJudge


# With PaddleNLP


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_equal_the_originals(nlp, name, tmp_path, prompts):
    expected, images = expected_of(name)
    judge = build("judge", {"name": "LocalJudge", "folder": str(FIXTURES / name), "prompts": prompts,
                            "batch_size": 2, "device": "cpu"}, "Judge")
    logits = expected["logits"].astype(np.float64)
    for question, yes, no in (("sharp", [0, 2], [1]), ("human", [4], [3, 1])):
        pair = np.stack([logits[:, yes].mean(axis=1), logits[:, no].mean(axis=1)], axis=1)
        wanted = np.exp(pair[:, 0]) / np.exp(pair).sum(axis=1)
        for verdict, probability in zip(judge.judge(images), wanted, strict=True):
            assert abs(verdict[question].value - probability) <= 1e-4
            assert verdict[question].passed == (probability >= 0.5)
            assert f"{verdict[question].value:.3f}" in verdict[question].reason
    assert judge.title == name and judge.judge([]) == []


@pytest.mark.parametrize("name", NAMES)
def test_tokens_pixels_and_vectors_equal_the_originals(nlp, name):
    from paddle_cxr.synthesis.quality.clip import Clip

    expected, images = expected_of(name)
    model = Clip(str(FIXTURES / name), "cpu")
    assert [model.tokens(text) for text in TEXTS] == [len(expected[f"ids.{number}"]) for number in range(len(TEXTS))]
    texts, vectors = model.embed_texts(TEXTS), model.embed_images(images)
    wanted = expected["texts"] / np.linalg.norm(expected["texts"], axis=1, keepdims=True)
    np.testing.assert_allclose(texts, wanted, atol=1e-4)
    np.testing.assert_allclose(model.scale * vectors @ texts.T, expected["logits"], atol=1e-4)


def test_questions_without_statements_stay_open(nlp, prompts):
    verdict = LocalJudge(str(FIXTURES / "like_openai"), prompts, device="cpu").judge(expected_of("like_openai")[1])[0]
    assert tuple(verdict) == QUESTIONS
    assert {one for one in QUESTIONS if verdict[one].passed is not None} == {"sharp", "human"}
    assert answered(verdict) and "提示词" in verdict["frontal"].reason and verdict["frontal"].value is None


def test_the_threshold_decides_and_batches_do_not(nlp, prompts):
    images = expected_of("like_openai")[1]
    model = str(FIXTURES / "like_openai")
    strict, lenient = (LocalJudge(model, prompts, threshold, 1, "cpu") for threshold in (0.999, 0.001))
    assert all(fails(verdict, "all") for verdict in strict.judge(images))
    assert not any(fails(verdict, "any") for verdict in lenient.judge(images))
    together = LocalJudge(model, prompts, batch_size=3, device="cpu").judge(images)
    for one, other in zip(together, lenient.judge(images), strict=True):
        assert one["sharp"].value == pytest.approx(other["sharp"].value, abs=1e-6)


def test_prompts_hash_names_the_statements(nlp, tmp_path, prompts):
    model = str(FIXTURES / "like_openai")
    first = LocalJudge(model, prompts, device="cpu").prompts_hash
    assert first == LocalJudge(model, prompts, device="cpu").prompts_hash
    assert first != LocalJudge(model, write_prompts(Path(prompts), sharp_no="a blur"), device="cpu").prompts_hash


def test_paddles_own_layout(nlp, folder, prompts):
    """PaddleNLP's names and matrices, in safetensors and in .pdparams."""
    import paddle

    from paddle_cxr.synthesis.quality.clip import Clip

    images = expected_of("like_openai")[1]
    original = Clip(str(folder), "cpu")
    state = original._model.state_dict()
    write_safetensors(folder / "model.safetensors", state, {"format": "np"})
    np.testing.assert_array_equal(Clip(str(folder), "cpu").embed_images(images), original.embed_images(images))
    (folder / "model.safetensors").unlink()
    paddle.save(state, str(folder / "model_state.pdparams"))
    np.testing.assert_array_equal(Clip(str(folder), "cpu").embed_images(images), original.embed_images(images))


def test_the_folder_stays_as_it_was(nlp, folder, prompts):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    LocalJudge(str(folder), prompts, device="cpu").judge(expected_of("like_openai")[1])
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "vocab.json", "merges.txt",
                                  "model.safetensors"])
def test_a_missing_file_is_named(folder, prompts, name):
    (folder / name).unlink()
    error(f"CLIP 模型文件夹不完整.*{name}", LocalJudge, str(folder), prompts, device="cpu")


def test_pickles_are_refused(folder, prompts):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    error("pickle", LocalJudge, str(folder), prompts, device="cpu")
    error("找不到 CLIP 模型文件夹", LocalJudge, str(folder / "none"), prompts, device="cpu")


def edit_weights(folder: Path, **changes: np.ndarray | None) -> None:
    state, meta = read_safetensors(folder / "model.safetensors")
    for name, value in changes.items():
        name = name.replace("__", ".")
        state.pop(name) if value is None else state.update({name: value})
    write_safetensors(folder / "model.safetensors", state, meta)


def test_weights_that_do_not_fit_are_named(nlp, folder, prompts):
    def judge() -> LocalJudge:
        return LocalJudge(str(folder), prompts, device="cpu")

    edit_weights(folder, visual_projection__weight=np.zeros((6, 13), np.float32))
    error(r"model.safetensors.*形状不符.*vision_projection \[13, 6\] 应为 \[12, 6\]", judge)
    edit_weights(folder, visual_projection__weight=np.zeros((6, 12), np.float32),
                 text_model__final_layer_norm__bias=None)
    error("缺少（missing）1 个参数，例如 text_model.ln_final.bias", judge)
    edit_weights(folder, text_model__final_layer_norm__bias=np.zeros(8, np.float32),
                 grue__weight=np.zeros(3, np.float32))
    error("多出（unexpected）1 个：grue.weight", judge)


@pytest.mark.parametrize("name", ["logit_scale", "text_projection.weight", "visual_projection.weight"])
def test_values_that_are_no_numbers_are_refused(nlp, folder, prompts, name):
    value = read_safetensors(folder / "model.safetensors")[0][name]
    edit_weights(folder, **{name.replace(".", "__"): np.full_like(value, np.nan)})
    error("model.safetensors.*NaN", lambda: LocalJudge(str(folder), prompts, device="cpu").judge(
        expected_of("like_openai")[1]))


def test_descriptions_that_are_wrong(nlp, folder, prompts):
    def judge() -> LocalJudge:
        return LocalJudge(str(folder), prompts, device="cpu")

    def fresh(name: str) -> Path:
        shutil.copy(FIXTURES / "like_openai" / name, folder / name)
        return folder / name

    change(folder / "config.json", model_type="blip")
    error("config.json：model_type 应为 clip", judge)
    change(fresh("config.json"), projection_dim=10**9)
    error("config.json：projection_dim", judge)
    change(fresh("config.json"), vision_config={"hidden_size": 12, "num_attention_heads": 5})
    error("config.json：vision_config .*multiple", judge)
    fresh("config.json").write_text("{", "utf-8")
    error("config.json", judge)
    fresh("config.json")
    change(folder / "preprocessor_config.json", crop_size=48)
    error("crop_size 48×48 与 config.json 的 image_size 32 不符", judge)
    fresh("preprocessor_config.json")
    (folder / "vocab.json").write_text("[]", "utf-8")
    error("分词器损坏.*vocab.json", judge)
    words = json.loads(fresh("vocab.json").read_text("utf-8"))
    (folder / "vocab.json").write_text(json.dumps(words | {"more": len(words)}), "utf-8")
    error("vocab.json 有 526 个词.*525", judge)
    fresh("vocab.json")
    (folder / "model.safetensors").write_bytes(b"\x08" * 100)
    error("model.safetensors", judge)


def test_a_statement_longer_than_the_model_takes_is_named(nlp, folder, prompts):
    write_prompts(Path(prompts), human_no="\n".join(["short", "blurry " * 30]))
    error("human_no.txt：'blurry .*词元（token），模型最多 40 个", LocalJudge, str(folder), prompts, device="cpu")
