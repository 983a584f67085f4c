"""Which texts pre-training learns from, and what a recipe is told about its pairs and its text tower."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from paddle_cxr.data.pairs.record import PairRecord
from paddle_cxr.engine.continuing import dump
from paddle_cxr.errors import UserError
from paddle_cxr.tasks.pairs import load_pairs
from paddle_cxr.tasks.pretraining.recipe import load
from paddle_cxr.tasks.pretraining.schema import TextSection
from paddle_cxr.tasks.pretraining.texts import Texts, check_variety, count_cut, cut_notice, numbers_of

RECIPE = {
    "Global": {"task": "pretraining", "output_dir": "out", "device": "cpu", "epochs": 1, "image_shape": [1, 32, 32]},
    "Arch": {"name": "ConVIRT", "image": {"name": "ResNet18"}},
    "Optimizer": {"name": "Adam", "lr": {"name": "Constant", "learning_rate": 1.0e-3}},
    "DataLoader": {"Source": {"name": "PhantomPairs", "count": 8, "size": 32}, "cache": {"mode": "memory"},
                   "Train": {"sampler": {"batch_size": 4}}}}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    return tmp_path / "recipe.yaml"


def error(match: str, make, *arguments) -> None:
    with pytest.raises(UserError, match=match) as caught:
        make(*arguments)
    assert "\n" not in str(caught.value)


# Texts


def drawn(record: PairRecord, **section) -> set[str]:
    texts = Texts([record], TextSection(**section))
    return {texts.training(0, np.random.default_rng(seed)) for seed in range(60)}


def test_sections_are_cut_into_sentences_one_by_one():
    """The last sentence of a section may lack its full stop; it does not swallow the next section."""
    record = PairRecord("a", 0, findings="The lungs are clear.\n\nNo effusion is seen", impression="No acute disease")
    assert drawn(record, take="sentence") == {"The lungs are clear.", "No effusion is seen", "No acute disease"}
    some = drawn(record, take="some")
    assert some >= {"No effusion is seen No acute disease", "The lungs are clear. No effusion is seen No acute disease"}
    assert drawn(record, take="all") == {"The lungs are clear. No effusion is seen No acute disease"}
    assert drawn(record, take="sentence", sections=["impression"]) == {"No acute disease"}


def test_short_sentences_are_left_out_unless_there_is_nothing_else():
    record = PairRecord("a", 0, findings="Normal. The heart is not enlarged.", impression="气胸。右侧胸腔积液。")
    assert drawn(record, take="sentence") == {"The heart is not enlarged.", "右侧胸腔积液。"}
    assert drawn(PairRecord("a", 0, impression="Clear. Normal."), take="sentence") == {"Clear. Normal."}
    assert drawn(record, take="sentence", min_words=1) > {"Normal.", "气胸。"}


def test_texts_that_differ_in_white_space_are_the_same():
    texts = ["The lungs  are clear.", "The lungs are\nclear."]
    assert len(set(numbers_of(texts))) == 1
    error("2 对的文字全都相同", check_variety, texts)
    assert "3 对里有 2 种文字" in check_variety([*texts, "Effusion."])
    assert check_variety(["A.", "B."]) is None


def test_what_is_done_about_equal_texts_is_told_as_it_is():
    assert "不互作负例（Loss.same_text: exclude）" in check_variety(["A.", "A.", "B."])
    assert "也互作负例，与论文相同（Loss.same_text: negative）" in check_variety(["A.", "A.", "B."], "negative")


def test_long_reports_are_counted():
    pytest.importorskip("tokenizers")
    from paddle_cxr.models.wordpiece import train_wordpiece

    tokenizer = train_wordpiece(["clear lungs"] * 3, 100, max_tokens=6)
    texts = ["clear lungs " * 3, "clear lungs " * 3, "clear lungs", "clear lungs clear lungs"]
    assert count_cut(texts, tokenizer) == 2
    whole, one = (cut_notice(2, tokenizer, TextSection(take=take)) for take in ("all", "sentence"))
    assert "2 份训练文字超过 6 个词元" in whole and "句子" not in whole
    assert "训练时按句子取（DataLoader.Text.take: sentence）" in one


# Recipes


def test_the_recipe_of_a_run_is_a_recipe(recipe):
    """config.yaml writes every key, those of the other method and of the other kind of text tower too."""
    first = load(recipe)
    recipe.with_name("config.yaml").write_text(dump(first.recipe), encoding="utf-8")
    assert load(recipe.with_name("config.yaml")).recipe == first.recipe
    for name in ("ConVIRT", "GLoRIA"):
        assert load(recipe.with_name("config.yaml"), [f"Arch.name={name}"]).recipe.Arch.name == name


def test_texts_are_taken_as_each_paper_does_unless_the_recipe_says_otherwise(recipe):
    taken = {name: load(recipe, [f"Arch.name={name}"]).recipe.DataLoader.Text.take for name in ("ConVIRT", "GLoRIA")}
    assert taken == {"ConVIRT": "sentence", "GLoRIA": "all"}
    assert load(recipe, ["Arch.name=GLoRIA", "DataLoader.Text.take=some"]).recipe.DataLoader.Text.take == "some"


def test_keys_without_effect_are_told(recipe):
    loaded = load(recipe, ["Arch.text.folder=models/bert", "Arch.text.hidden_size=64", "Arch.text.dropout=0.0"])
    assert "hidden_size、dropout 只用于从头训练的文本塔" in loaded.notices[-1]
    assert load(recipe, ["Arch.text.folder=models/bert"]).notices == load(recipe).notices == []


@pytest.mark.parametrize(("overrides", "match"), [
    (["DataLoader.Train.sampler.batch_size=1"], "batch_size：对比学习.*至少要 2 对"),
    (["Arch.text.hidden_size=30"], "Arch.text.hidden_size：30 应是 Arch.text.num_attention_heads（4）的倍数"),
    (["Arch.text.frozen_layers=3"], "Arch.text.frozen_layers：3 大于 Arch.text.num_hidden_layers（2）"),
    (["DataLoader.Source={name: PairsFile, file: recipe.yaml, on_error: skip}"], "PairsFile 没有参数 'on_error'"),
    (["Arch.layers=2"], "Arch.layers：是 GLoRIA 的参数")])
def test_mistakes_are_told_before_anything_is_read(recipe, overrides, match, monkeypatch):
    monkeypatch.chdir(recipe.parent)
    error(match, load, recipe, overrides)


# Images that are not there, or cannot be read


def test_images_that_are_not_there_or_empty_are_named_and_left_out(recipe):
    folder = recipe.parent
    for number in range(3):
        Image.new("L", (8, 8), number).save(folder / f"{number}.png")
    (folder / "1.png").write_bytes(b"")
    (folder / "pairs.jsonl").write_text("".join(
        json.dumps({"image": f"{number}.png", "impression": f"Report {number}."}) + "\n" for number in range(5)))
    source = f"DataLoader.Source={{name: PairsFile, file: {folder / 'pairs.jsonl'}}}"
    error("pairs.jsonl:4：找不到图像 .*3.png.*on_error: skip", load_pairs, load(recipe, [source]), print)
    said: list[str] = []
    data = load_pairs(load(recipe, [source, "DataLoader.on_error=skip"]), said.append)
    assert [record.impression for record in data.source.records] == ["Report 0.", "Report 2."] and len(data.images) == 2
    assert any("略过 2 张找不到的图像" in line and "3.png" in line and "4.png" in line for line in said)
    assert any("跳过坏图" in line and "1.png" in line for line in said)


# The text tower's folder


BERT = Path(__file__).parents[1] / "fixtures" / "text_encoder" / "like_bioclinicalbert"


@pytest.mark.parametrize(("damage", "overrides", "match"), [
    (lambda folder: shutil.rmtree(folder), [], "找不到文本模型文件夹 .*Arch.text.folder"),
    (lambda folder: (folder / "model.safetensors").unlink(), [], "没有权重"),
    (lambda folder: (folder / "vocab.txt").unlink(), [], "没有 vocab.txt"),
    (lambda folder: None, ["Arch.text.frozen_layers=6"], "Arch.text.frozen_layers：应为 0 到 3 的整数"),
    (lambda folder: None, ["Arch.text.max_tokens=97"], "max_tokens 是 97，多于文本编码器的位置数 40")])
def test_a_text_tower_that_cannot_be_is_told_before_the_images_are_read(recipe, damage, overrides, match):
    pytest.importorskip("paddlenlp")
    from paddle_cxr.engine.distributed import World
    from paddle_cxr.tasks.pretraining.run import prepare

    folder = recipe.parent / "bert"
    shutil.copytree(BERT, folder)
    damage(folder)
    settings = [f"Arch.text={{folder: {folder}, max_tokens: 40}}", *overrides]
    said: list[str] = []
    error(match, prepare, load(recipe, settings), World(), said.append)
    assert said == []


def test_a_missing_paddlenlp_is_told_before_the_images_are_read(recipe, monkeypatch):
    pytest.importorskip("paddlenlp")
    from paddle_cxr.engine.distributed import World
    from paddle_cxr.models import text_encoder
    from paddle_cxr.tasks.pretraining.run import prepare

    monkeypatch.setattr(text_encoder.importlib.util, "find_spec", lambda name: None)
    said: list[str] = []
    error("需要 PaddleNLP；请运行 pip install", prepare, load(recipe), World(), said.append)
    assert said == []


@pytest.mark.parametrize(("name", "language"), [("like_bioclinicalbert", "en"), ("like_old_bert", "en"),
                                                ("like_electra", "zh"), ("like_ernie", "zh")])
def test_published_towers_learn_above_what_is_frozen(recipe, name, language):
    """One step, in English and in Chinese: gradients reach the layers that are not frozen, and no others."""
    pytest.importorskip("paddlenlp")
    from paddle_cxr.engine.distributed import World
    from paddle_cxr.tasks.pretraining.run import prepare

    said: list[str] = []
    task = prepare(load(recipe, [f"Arch.text={{folder: {BERT.parent / name}, max_tokens: 40, frozen_layers: 1}}",
                                 f"DataLoader.Source.language={language}", "DataLoader.Train.subset=all",
                                 "Global.eval_every=0", "Global.keep=last"]), World(), said.append)
    assert task.cut and any(f"{task.cut} 份训练文字超过 40 个词元" in line for line in said)
    batch = next(iter(task.batches(0, 0)))
    task.begin_step([batch], [(0, 0, 0)], [len(batch.labels)])
    task.loss(batch, (0, 0, 0))[0].backward()
    moved = {key for key, value in task.model.text_encoder.named_parameters()
             if value.grad is not None and float(value.grad.abs().max()) > 0}
    assert not [key for key in moved if key.startswith(("embeddings", "encoder.layers.0."))]
    for layer in (1, 2):
        assert {f"encoder.layers.{layer}.{part}.weight" for part in ("linear1", "norm2", "self_attn.q_proj")} <= moved
