"""Pre-training as a user runs it, and the properties its step must have."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import paddle
import paper_formulas
import pytest
from helpers import change, kill_at_first_checkpoint, run_tool
from safetensors.numpy import load_file

pytest.importorskip("paddlenlp")

from paddle_cxr.engine.distributed import World  # noqa: E402
from paddle_cxr.engine.output import RunFolder  # noqa: E402
from paddle_cxr.errors import UserError  # noqa: E402
from paddle_cxr.models.convirt import unit  # noqa: E402
from paddle_cxr.tasks.pretrained import read_settings  # noqa: E402
from paddle_cxr.tasks.pretraining import whole_batch  # noqa: E402
from paddle_cxr.tasks.pretraining.evaluate import as_trained  # noqa: E402
from paddle_cxr.tasks.pretraining.recipe import load  # noqa: E402
from paddle_cxr.tasks.pretraining.report import Report  # noqa: E402
from paddle_cxr.tasks.pretraining.run import check, prepare  # noqa: E402
from paddle_cxr.tasks.pretraining.scoring import scores_of  # noqa: E402
from paddle_cxr.tasks.pretraining.task import PretrainingTask  # noqa: E402
from paddle_cxr.tasks.pretraining.texts import Texts, check_variety  # noqa: E402
from paddle_cxr.tasks.pretraining.towers import read_trained  # noqa: E402

RECIPE = """
Global: {{task: pretraining, output_dir: {output}, device: cpu, seed: 3, epochs: 2, image_shape: [1, 32, 32],
         micro_batches: 2, ranks: 1}}
Arch:
  name: {method}
  dim: 16
  image: {{name: ResNet18}}
  text: {{hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 16, vocab_size: 400,
          max_tokens: 60}}
Loss: {{name: ContrastiveLoss, image_weight: 0.75, text_weight: 0.25}}
Optimizer: {{name: Adam, lr: {{name: Constant, learning_rate: 1.0e-3}}}}
DataLoader:
  Source: {{name: PhantomPairs, count: 24, seed: 5, size: 32, findings: [effusion, consolidation, cardiomegaly]}}
  Split: {{name: PatientSplit, val: 0.34, test: 0.0}}
  cache: {{mode: memory}}
  Text: {{sections: [findings, impression], take: {take}}}
  Train: {{sampler: {{batch_size: 8}}}}
  Eval: {{sampler: {{batch_size: 4}}, attention_maps: 1}}
"""


def write_recipe(folder: Path, method: str = "ConVIRT", take: str = "all") -> Path:
    file = folder / "tiny.yaml"
    file.write_text(RECIPE.format(output=folder / "out", method=method, take=take), encoding="utf-8")
    return file


def make_task(folder: Path, *overrides: str, **wanted: str) -> PretrainingTask:
    return prepare(load(write_recipe(folder, **wanted), overrides), World(), lambda _: None)


def gradients(task: PretrainingTask) -> dict[str, np.ndarray]:
    found = {name: p.grad.numpy().copy() for name, p in task.model.named_parameters() if p.grad is not None}
    for parameter in task.model.parameters():
        parameter.clear_grad()
    return found


def step(task: PretrainingTask, parts: int) -> tuple[float, dict[str, np.ndarray]]:
    """Loss and gradients of one step over the first 8 training pairs, in so many micro-batches."""
    batch = next(iter(task.batches(0, 0)))
    pieces = [type(batch)(*(tensor[k * 8 // parts:(k + 1) * 8 // parts] for tensor in batch)) for k in range(parts)]
    seeds = [(0, 0, k) for k in range(parts)]
    task.begin_step(pieces, seeds, [len(piece.labels) for piece in pieces])
    for piece, seed in zip(pieces, seeds, strict=True):
        loss, sums = task.loss(piece, seed)
        (loss * (len(piece.labels) / 8)).backward()
        assert sums == {"count": len(piece.labels)}
    return float(loss), gradients(task)


@pytest.mark.parametrize("method", ["ConVIRT", "GLoRIA"])
def test_every_part_of_both_towers_learns(tmp_path, method):
    task = make_task(tmp_path, method=method)
    _, found = step(make_task(tmp_path, "Global.micro_batches=1", method=method), 1)
    silent = [name for name, p in task.model.named_parameters() if not p.stop_gradient and (
        name not in found or not np.abs(found[name]).max() > 0)]
    # Text towers know one kind of segment here, and the softmax of attention does not feel the key's bias.
    allowed = ("token_type", "k_proj.bias", "task_type")
    assert [name for name in silent if not any(part in name for part in allowed)] == []


@pytest.mark.parametrize("method", ["ConVIRT", "GLoRIA"])
def test_several_forward_passes_give_the_gradient_of_one(tmp_path, method):
    task = make_task(tmp_path, "Global.micro_batches=1", method=method)
    task.model.eval()  # batch statistics and dropout would differ between the divisions
    whole, expected = step(task, 1)
    for parts in (2, 4):
        loss, found = step(task, parts)
        assert loss == pytest.approx(whole, rel=1e-5)
        for name, gradient in expected.items():
            np.testing.assert_allclose(found[name], gradient, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("method", ["ConVIRT", "GLoRIA"])
def test_text_features_do_not_depend_on_padding(tmp_path, method):
    task = make_task(tmp_path, method=method)
    task.model.eval()
    texts = ["Small left pleural effusion.", "No acute cardiopulmonary abnormality. " * 3]
    alone = [task.model.encode_text(*map(paddle.to_tensor, task.tokenizer.batch([text]))) for text in texts]
    together = task.model.encode_text(*map(paddle.to_tensor, task.tokenizer.batch(texts)))
    for number, one in enumerate(alone):
        np.testing.assert_allclose(together["global"][number].numpy(), one["global"][0].numpy(), atol=1e-5)
        if method == "GLoRIA":
            count = int(one["word_mask"].sum())
            assert int(together["word_mask"][number].sum()) == count
            np.testing.assert_allclose(together["words"][number, :count].numpy(), one["words"][0, :count].numpy(),
                                       atol=1e-5)


def test_convirt_pools_over_real_words_only(tmp_path):
    """Against the maximum taken by hand over the tokens that are neither special nor padding."""
    task = make_task(tmp_path)
    task.model.eval()
    tokens = task.tokenizer.batch(["Large right pneumothorax.", "The heart is enlarged, to a mild degree."])
    ids, attention, words = map(paddle.to_tensor, tokens)
    hidden = task.model.text_encoder(ids, attention)[-1].numpy()
    pooled = np.stack([row[word >= 0].max(axis=0) for row, word in zip(hidden, tokens.words, strict=True)])
    by_hand = task.model.text_head(paddle.to_tensor(pooled)).numpy()
    by_hand /= np.linalg.norm(by_hand, axis=1, keepdims=True)
    np.testing.assert_allclose(task.model.encode_text(ids, attention, words)["global"].numpy(), by_hand, atol=1e-5)


def test_gloria_merges_the_pieces_of_a_word(tmp_path):
    task = make_task(tmp_path, "Arch.layers=2", method="GLoRIA")
    task.model.eval()
    text = "Cardiomegalyx zzeffusionzz."  # not in the vocabulary: spelled in pieces
    tokens, encoded = task.tokenizer.batch([text]), task.tokenizer.encode(text)
    assert len(encoded.ids) - 2 > len(encoded.spelled)
    ids, attention, words = map(paddle.to_tensor, tokens)
    hidden = sum(state.numpy() for state in task.model.text_encoder(ids, attention)[-2:])[0]
    merged = np.stack([hidden[tokens.words[0] == number].sum(axis=0) for number in range(len(encoded.spelled))])
    found = task.model.encode_text(ids, attention, words)
    np.testing.assert_allclose(found["words"][0].numpy(), merged, atol=1e-5)
    mean = merged.mean(axis=0)
    np.testing.assert_allclose(found["global"][0].numpy(), mean / np.linalg.norm(mean), atol=1e-5)


def test_sentences_are_drawn_anew_and_reproducibly(tmp_path):
    task = make_task(tmp_path, take="sentence")
    batch = next(iter(task.batches(0, 0)))
    drawn = {tuple(task._texts_of(batch, (3, number, 0))) for number in range(6)}
    assert len(drawn) > 1 and task._texts_of(batch, (3, 1, 0)) == task._texts_of(batch, (3, 1, 0))
    wholes = [task.texts.whole[int(position)] for position in batch.labels.numpy()]
    assert all(sentence in whole and sentence != whole
               for sentence, whole in zip(task._texts_of(batch, (3, 1, 0)), wholes, strict=True))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A GLoRIA run, finished."""
    folder = tmp_path_factory.mktemp("gloria")
    done = run_tool("train", write_recipe(folder, "GLoRIA"))
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(done.stdout)
    return folder


def test_a_run_leaves_everything_behind(trained):
    out = trained / "out"
    for name in ("config.yaml", "log.txt", "history.csv", "metrics.json", "curves.png", "similarity.png",
                 "retrieval_texts.png", "retrieval_images.png", "attention_0.png", "model/model.safetensors",
                 "model/model.json", "model/text/vocab.txt", "model/text/config.json"):
        assert (out / name).is_file(), name
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["demo_data"] is True and metrics["architecture"] == "GLoRIA"
    found = metrics["evaluation"]
    assert {"R@1", "R@5", "R@10"} <= found["retrieval"]["image_to_text"].keys()
    assert found["also_trained_on"] == 0 and set(found["zero_shot"]["per_finding"]) == {
        "effusion", "consolidation", "cardiomegaly"}
    names = load_file(out / "model" / "model.safetensors")
    assert {name.split(".")[0] for name in names} >= {"image_encoder", "text_encoder", "local_head", "global_head"}


def test_eval_finds_what_training_found(trained):
    done = run_tool("eval", trained / "tiny.yaml")
    assert done.returncode == 0, done.stderr
    after = json.loads((trained / "out/eval_val/metrics.json").read_text())["evaluation"]
    before = json.loads((trained / "out/metrics.json").read_text())["evaluation"]
    assert after["retrieval"] == before["retrieval"]
    assert after["zero_shot"] == before["zero_shot"]


def test_the_image_tower_starts_a_classifier(trained):
    from paddle_cxr.tasks.models import build_backbone

    model, notices = build_backbone({"name": "ResNet18", "pretrained": str(trained / "out/model")}, 1, "Arch")
    expected = load_file(trained / "out/model/model.safetensors")
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), expected[f"image_encoder.{name}"])
    assert "起始权重" in notices[0]
    with pytest.raises(UserError, match="ResNet34"):
        build_backbone({"name": "ResNet34", "pretrained": str(trained / "out/model")}, 1, "Arch")


def test_weights_of_the_other_method_are_refused(trained):
    recipe = load(trained / "tiny.yaml", ["Arch.name=ConVIRT"]).recipe
    with pytest.raises(UserError, match="GLoRIA 的权重.*ConVIRT"):
        read_trained(recipe.Arch, 1, trained / "out/model")


def test_another_vocabulary_is_refused(trained, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(trained / "out/model", model)
    words = (model / "text/vocab.txt").read_text(encoding="utf-8").splitlines()
    (model / "text/vocab.txt").write_text("\n".join([*words[:5], *reversed(words[5:])]) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="词表"):
        read_trained(load(trained / "tiny.yaml").recipe.Arch, 1, model)


def test_a_missing_model_is_one_line(tmp_path):
    done = run_tool("eval", write_recipe(tmp_path))
    assert done.returncode == 2 and "先训练" in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("method", [pytest.param("ConVIRT", marks=pytest.mark.slow), "GLoRIA"])
def test_two_ranks_train_what_one_process_trains(tmp_path, method):
    weights = []
    for ranks in (1, 2):
        done = run_tool("train", write_recipe(tmp_path, method), f"Global.output_dir=ranks{ranks}",
                        "DataLoader.Train.sampler.batch_size=7",  # parts of 4 and 3 pairs
                        f"Global.ranks={ranks}", "Global.epochs=1", "Global.eval_every=0", "Global.keep=last",
                        # Adam would make steps of equal length of the rounding errors in tiny gradients.
                        "Optimizer={name: Momentum, lr: {name: Constant, learning_rate: 1.0e-2}}")
        assert done.returncode == 0, done.stderr
        weights.append(load_file(tmp_path / f"ranks{ranks}" / "checkpoints/latest/model.safetensors"))
    for name, tensor in weights[0].items():
        np.testing.assert_allclose(weights[1][name], tensor, atol=1e-5, err_msg=name)


def test_no_gain_in_retrieval_lowers_the_rate_and_then_stops(tmp_path):
    done = run_tool("train", write_recipe(tmp_path), "Global.epochs=9", "Global.early_stop=3",
                    "Global.freeze=[image_encoder]",  # or its batch statistics would still move
                    "Optimizer.lr={name: Plateau, learning_rate: 1.0e-12, factor: 0.5, patience: 1}")
    assert done.returncode == 0 and "早停" in done.stdout, done.stderr
    with open(tmp_path / "out/history.csv", encoding="utf-8") as lines:
        rates = [float(row["lr"]) for row in csv.DictReader(lines)]
    # Retrieval stays as it is: no gain from the second validation on.
    assert rates == pytest.approx([1e-12, 1e-12, 5e-13, 2.5e-13])


def test_any_depth_of_the_image_tower(tmp_path):
    task = make_task(tmp_path, "Arch.image.name=ResNet50", "Global.image_shape=[3, 40, 56]", method="GLoRIA")
    task.model.eval()
    with paddle.no_grad():
        found = task.model.encode_image(paddle.rand([2, 3, 40, 56]))
    rows, columns = task.model.region_grid(40, 56)
    assert found["regions"].shape == [2, rows * columns, 16] and found["global"].shape == [2, 16]


@pytest.mark.parametrize("override, said", [
    ("DataLoader.Train.sampler.batch_size=1", "batch_size"),
    ("Arch.temperatures=[1.0, 2.0, 3.0]", "GLoRIA"),
    ("DataLoader.Train.sampler.balance=true", "MixedPairs"),
    ("DataLoader.Train.transform_ops=[{name: RandomOrder, transforms: [{name: RandomHorizontalFlip}]}]", "左右翻转"),
    ("DataLoader.Text.sections=[]", "DataLoader.Text.sections"),
])
def test_mistakes_in_a_recipe_are_one_line(tmp_path, override, said):
    with pytest.raises(UserError, match=".*") as caught:
        load(write_recipe(tmp_path), [override])
    assert said in str(caught.value) and "\n" not in str(caught.value)


def pairs_file(folder: Path, rows: list[dict]) -> Path:
    from PIL import Image

    for number, row in enumerate(rows):
        noise = np.random.default_rng(number).integers(0, 255, (32, 32), np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
        row |= {"id": str(number), "image": f"{number}.png"}
    file = folder / "pairs.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return file


def prepare_file(folder: Path, rows: list[dict], *overrides: str) -> tuple[PretrainingTask, list[str]]:
    """A task over a list of pairs, and what was said."""
    said: list[str] = []
    file = pairs_file(folder, rows)
    loaded = load(write_recipe(folder), [f"DataLoader.Source={{name: PairsFile, file: {file}}}",
                                         "DataLoader.Split={name: NoSplit}", "DataLoader.Train.subset=all",
                                         "Global.eval_every=0", "Global.keep=last", *overrides])
    return prepare(loaded, World(), said.append), said


def test_empty_long_and_repeated_texts_are_counted(tmp_path):
    rows = [{"findings": "Long report. " * 60, "impression": "A."}, {"findings": "", "impression": "Effusion left."},
            *[{"findings": "The lungs are clear.", "impression": "Normal."} for _ in range(8)]]
    said = "\n".join(prepare_file(tmp_path, rows, "DataLoader.Text.sections=[findings]")[1])
    assert "训练 9 对" in said and "1 对没有文字" in said
    assert "1 份训练文字超过 60 个词元" in said
    assert "9 对里有 2 种文字" in said


def test_texts_that_are_all_the_same_teach_nothing(tmp_path):
    with pytest.raises(UserError, match="全都相同"):
        prepare_file(tmp_path, [{"findings": "The lungs are clear.", "impression": ""} for _ in range(8)])
    assert check_variety(["a", "b"]) is None


def test_no_text_at_all_is_an_error(tmp_path):
    with pytest.raises(UserError, match="都没有 findings"):
        prepare_file(tmp_path, [{"findings": "", "impression": f"Nodule {n}."} for n in range(8)],
                     "DataLoader.Text.sections=[findings]")


def test_a_missing_image_is_named(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"id": "1", "image": "no.png", "impression": "Normal."}\n', encoding="utf-8")
    loaded = load(write_recipe(tmp_path), [f"DataLoader.Source={{name: PairsFile, file: {file}}}"])
    with pytest.raises(UserError, match="no.png"):
        prepare(loaded, World(), lambda _: None)


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_weights(tmp_path):
    file = write_recipe(tmp_path)
    whole = run_tool("train", file, "Global.output_dir=whole")
    assert whole.returncode == 0, whole.stderr
    often = "Global.save_every_steps=1"
    kill_at_first_checkpoint(file, tmp_path / "parts", often)
    rest = run_tool("train", file, f"Global.output_dir={tmp_path / 'parts'}", often)
    assert rest.returncode == 0 and "续训" in rest.stdout, rest.stderr
    one, two = (load_file(tmp_path / name / "checkpoints/latest/model.safetensors") for name in ("whole", "parts"))
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_resuming_with_another_vocabulary_is_refused(tmp_path):
    """The same recipe over a list whose reports have changed: its words have other numbers now."""
    rows = [{"findings": f"Nodule number {n} in the {side} lung.", "impression": ""} for n in range(6)
            for side in ("left", "right")]
    settings = [f"DataLoader.Source={{name: PairsFile, file: {pairs_file(tmp_path, rows)}}}",
                "DataLoader.Split={name: NoSplit}", "DataLoader.Train.subset=all", "Global.eval_every=0",
                "Global.keep=last", "Global.resume=true"]
    file = write_recipe(tmp_path)
    first = run_tool("train", file, *settings[:-1])
    assert first.returncode == 0, first.stderr
    pairs_file(tmp_path, [row | {"findings": row["findings"].replace("Nodule", "Opacity")} for row in rows])
    again = run_tool("train", file, *settings)
    assert again.returncode == 2 and "词表" in again.stderr and len(again.stderr.strip().splitlines()) == 1


def test_texts_know_which_pairs_have_one(tmp_path):
    from paddle_cxr.data.pairs.record import PairRecord
    from paddle_cxr.tasks.pretraining.schema import TextSection

    records = [PairRecord("a", 0, findings="左肺见斑片影。心影不大。", impression="肺炎。"),
               PairRecord("b", 0, impression="x")]
    texts = Texts(records, TextSection(sections=["findings"], take="sentence"))
    assert texts.with_text(np.arange(2)).tolist() == [0]
    drawn = {texts.training(0, np.random.default_rng(n)) for n in range(20)}
    assert drawn == {"左肺见斑片影。", "心影不大。"}
    some = Texts(records, TextSection(sections=["findings"], take="some"))
    assert {some.training(0, np.random.default_rng(n)) for n in range(40)} == drawn | {"左肺见斑片影。 心影不大。"}




def numpy_features(task: PretrainingTask, batch, texts: list[str]) -> tuple[dict, dict]:
    """What the towers' own outputs become, by NumPy: heads, pooling, merging of pieces; real words only, one by one."""
    def linear(layer, x):
        bias = 0 if layer.bias is None else layer.bias.numpy().astype(np.float64)
        return x @ layer.weight.numpy().astype(np.float64) + bias

    model, tokens = task.model, [task.tokenizer.encode(text) for text in texts]
    with paddle.no_grad():
        maps = {name: one.numpy().astype(np.float64) for name, one in model.image_encoder.forward_features(
            task.data.preprocess.normalize_tensor(batch.images)).items()}
        states = [[state[0].numpy().astype(np.float64) for state in model.text_encoder(
            paddle.to_tensor([one.ids]), paddle.ones([1, len(one.ids)], "int64"))] for one in tokens]
    pooled = maps["layer4"].mean(axis=(2, 3))
    if model.arch == "ConVIRT":
        def head(layers, x):
            return linear(layers[2], np.maximum(linear(layers[0], x), 0))

        words = [state[-1][1:-1].max(axis=0) for state in states]
        return {"global": head(model.image_head, pooled)}, {"global": head(model.text_head, np.stack(words))}
    kernel = model.local_head.weight.numpy().astype(np.float64)[:, :, 0, 0]
    regions = np.einsum("dc,nchw->nhwd", kernel, maps["layer3"]).reshape(len(pooled), -1, len(kernel))
    words = [np.stack([sum(sum(state)[place] for place, word in enumerate(one.words) if word == number)
                       for number in range(len(one.spelled))])
             for state, one in ((state[-model.layers:], one) for state, one in zip(states, tokens, strict=True))]
    return ({"global": linear(model.global_head, pooled), "regions": regions},
            {"global": np.stack([one.mean(axis=0) for one in words]), "words": words})


def numpy_tables(task: PretrainingTask, images: dict, texts: dict) -> dict[str, np.ndarray]:
    if task.model.arch == "ConVIRT":
        return {"global": np.array([[paper_formulas.cosine(v, u) / 0.1 for u in texts["global"]]
                                    for v in images["global"]])}
    return {name: np.array(table) for name, table in paper_formulas.gloria_tables(
        images["regions"], images["global"], texts["words"], texts["global"], (4.0, 5.0, 10.0)).items()}


@pytest.mark.parametrize("method", ["ConVIRT", "GLoRIA"])
def test_the_whole_chain_is_that_of_the_papers(tmp_path, method):
    """From the towers' outputs to the loss, and the very same numbers in retrieval and zero-shot classification."""
    task = make_task(tmp_path, "Global.micro_batches=1", "Arch.layers=2" if method == "GLoRIA" else "Arch.dim=16",
                     "Loss.same_text=negative", method=method)
    task.model.eval()
    batch = next(iter(task.batches(0, 0)))
    texts = task._texts_of(batch, (0, 0, 0))
    assert len({len(task.tokenizer.encode(text).ids) for text in texts}) > 3
    images, words = numpy_features(task, batch, texts)
    expected = paper_formulas.convirt(images["global"], words["global"], 0.1, 0.75) if method == "ConVIRT" else (
        paper_formulas.gloria(images["regions"], images["global"], words["words"], words["global"], (4.0, 5.0, 10.0)))
    weights = {"ConVIRT": (0.75, 0.25), "GLoRIA": (1.0, 1.0)}[method]
    task.contrast.image_weight, task.contrast.text_weight = weights
    assert step_of(task, batch) == pytest.approx(expected, abs=1e-5)

    tables = numpy_tables(task, images, words)
    prompts = ["There is a pleural effusion.", "The heart size is normal.", texts[0]]
    positions = batch.labels.numpy()
    of_prompts = numpy_tables(task, images, numpy_features(task, batch, prompts)[1])
    for asked, found in ((texts, tables), (prompts, of_prompts)):
        scores = scores_of(task.model, task.tokenizer, task.data, positions, asked, 3, World())
        np.testing.assert_allclose(scores, sum(found.values()) / len(found), atol=1e-5)


def step_of(task: PretrainingTask, batch) -> float:
    """The loss of a step over one batch."""
    task.begin_step([batch], [(0, 0, 0)], [len(batch.labels)])
    return float(task.loss(batch, (0, 0, 0))[0])


@pytest.mark.parametrize("method", ["ConVIRT", "GLoRIA"])
def test_scores_do_not_depend_on_how_many_texts_are_compared_at_a_time(tmp_path, method, monkeypatch):
    task = make_task(tmp_path, method=method)
    texts = sorted(set(task.texts.whole))

    def scores(batch_size: int) -> np.ndarray:
        return scores_of(task.model, task.tokenizer, task.data, np.arange(9), texts, batch_size, World())

    expected = scores(4)
    monkeypatch.setattr(whole_batch, "TABLE", 60)
    compared, compare = [], task.model.similarities
    monkeypatch.setattr(type(task.model), "similarities",
                        lambda _, images, part: compared.append(len(part["global"])) or compare(images, part))
    np.testing.assert_allclose(scores(1), expected, atol=1e-5)  # one image at a time, too
    np.testing.assert_allclose(scores(20), expected, atol=1e-5)
    assert max(compared[-len(texts):]) == (6 if method == "ConVIRT" else 1)


@pytest.mark.parametrize("method", ["ConVIRT", "GLoRIA"])
def test_a_text_without_a_word_spoils_nothing(tmp_path, method):
    """Nothing is left of zero-width characters: the special tokens stand for such a text."""
    task = make_task(tmp_path, method=method)
    task.model.eval()
    silent, other = "\u200b\u200b", "Small left pleural effusion."
    assert task.tokenizer.encode(silent).spelled == []
    alone, together = (task.model.encode_text(*map(paddle.to_tensor, task.tokenizer.batch(one)))
                       for one in ([silent], [other, silent]))
    np.testing.assert_allclose(together["global"][1].numpy(), alone["global"][0].numpy(), atol=1e-5)
    assert float(alone["global"].norm()) == pytest.approx(1, abs=1e-5)
    scores = scores_of(task.model, task.tokenizer, task.data, np.arange(3), [silent, other], 2, World())
    assert np.abs(scores).max() < 50


def test_half_precision_keeps_unit_vectors():
    """Their cosines are divided by the temperature: three digits would be too few."""
    vectors = paddle.randn([50, 300])
    for dtype in ("bfloat16", "float16"):
        found = unit(vectors.astype(dtype))
        assert found.dtype == paddle.float32
        np.testing.assert_allclose(found.norm(axis=1).numpy(), 1, atol=1e-6)


def test_weights_of_the_loss_that_the_method_does_not_have_are_told_at_once(tmp_path):
    file = write_recipe(tmp_path)
    for override, said in (("Loss.weights={local: 1.0}", "Loss.weights.local：ConVIRT 没有这一项"),
                           ("Loss.weights={globl: 1.0}", "（可用：global）"), ("Loss.image_weight=-1", "Loss：权重"),
                           ("ZeroShot.prompts=none.yaml", "找不到提示词")):
        with pytest.raises(UserError) as caught:
            check(load(file, [override]).recipe)
        assert said in str(caught.value) and "\n" not in str(caught.value)
    check(load(file, ["Arch.name=GLoRIA", "Loss.weights={local: 0.5}"]).recipe)


def test_what_the_training_recorded_wins_over_the_recipe_loudly(trained):
    settings = read_settings(trained / "out")
    recipe = load(trained / "tiny.yaml", ["Arch.temperatures=[1.0, 2.0, 3.0]", "Arch.dim=8",
                                          "DataLoader.preprocess.mean=[0.1]", "Global.image_shape=[1, 64, 64]"]).recipe
    (said,) = as_trained(recipe, settings)
    for name in ("Arch.dim", "Arch.temperatures", "Global.image_shape", "DataLoader.preprocess"):
        assert name in said
    assert recipe.Arch.temperatures == (4.0, 5.0, 10.0) and recipe.Arch.dim == 16
    assert recipe.Global.image_shape == (1, 32, 32) and recipe.DataLoader.preprocess.mean == [0.5]
    assert as_trained(load(trained / "tiny.yaml").recipe, settings) == []


def test_evaluating_what_was_trained_on_is_said(trained):
    done = run_tool("eval", trained / "tiny.yaml", "DataLoader.Eval.subset=train",
                    "DataLoader.Eval.sampler.batch_size=1")
    assert done.returncode == 0 and "用于训练过这份权重" in done.stdout, done.stderr
    metrics = json.loads((trained / "out/eval_train/metrics.json").read_text())
    assert metrics["evaluation"]["also_trained_on"] == metrics["evaluation"]["pairs"] == 16


def test_an_evaluation_keeps_no_figure_of_the_one_before(trained):
    for maps in (2, 1):
        done = run_tool("eval", trained / "tiny.yaml", "DataLoader.Eval.subset=all",
                        f"DataLoader.Eval.attention_maps={maps}")
        assert done.returncode == 0, done.stderr
        assert len(list((trained / "out/eval_all").glob("attention_*.png"))) == maps


def test_eval_refuses_the_other_method_in_one_line(trained):
    done = run_tool("eval", trained / "tiny.yaml", "Arch.name=ConVIRT")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert "GLoRIA 的权重" in done.stderr and "ConVIRT" in done.stderr


def test_a_damaged_description_is_one_line(trained, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(trained / "out/model", model)
    change(model / "model.json", arguments={"temperatures": "hot"})
    with pytest.raises(UserError, match="model.json") as caught:
        read_settings(model)
    assert "\n" not in str(caught.value)


def test_validation_pairs_without_a_text_are_told_before_training(tmp_path):
    rows = [{"findings": f"Nodule {n}." if n < 8 else "", "impression": "Seen." if n >= 8 else "",
             "split": "train" if n < 8 else "val"} for n in range(12)]
    wanted = ("DataLoader.Split={name: Published}", "DataLoader.Train.subset=train", "Global.eval_every=1",
              "DataLoader.Text.sections=[findings]")
    with pytest.raises(UserError, match="子集 val 的 4 对都没有 findings"):
        prepare_file(tmp_path, rows, *wanted)
    for row in rows[8:]:
        row["findings"] = "Clear."
    assert any("验证集 4 对只有一种文字" in line for line in prepare_file(tmp_path, rows, *wanted)[1])


def test_intervals_of_part_of_the_pairs_are_by_patient_too(tmp_path):
    rows = [{"findings": f"Nodule number {n} of {kind}.", "impression": "", "patient_id": str(n % 3),
             "text_from": kind} for n in range(6) for kind in ("note", "label")]
    task, _ = prepare_file(tmp_path, rows)
    report = Report(task.recipe, task.model, task.tokenizer, task.data, task.texts, task.train, World())
    found = report.write(RunFolder(tmp_path / "report"))
    assert found["retrieval"]["image_to_text"]["unit"] == "patient"
    for one in found["retrieval_by_text"].values():
        assert one["image_to_text"]["unit"] == "patient" and one["images"] == 6
