"""The text tower: against PyTorch and PaddleNLP, gradients and freezing, and folders read, written and refused."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import change

paddle = pytest.importorskip("paddle")
pytest.importorskip("paddlenlp.transformers")
from paddlenlp import transformers  # noqa: E402

from paddle_cxr.errors import UserError  # noqa: E402
from paddle_cxr.models.text_encoder import (  # noqa: E402
    TextConfig,
    TextEncoder,
    build_text_encoder,
    check_text_folder,
    load_text_encoder,
    save_text_encoder,
)
from paddle_cxr.pdparams import save_pdparams  # noqa: E402
from paddle_cxr.weights import read_safetensors, write_safetensors  # noqa: E402

FIXTURES = Path(__file__).parents[1] / "fixtures" / "text_encoder"
NAMES = ["like_bioclinicalbert", "like_electra", "like_ernie", "like_old_bert"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 24,
         "vocab_size": 300, "max_position_embeddings": 32, "dropout": 0.5}
SHAPE = {"vocab_size": 133, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3,
         "intermediate_size": 20, "max_position_embeddings": 40, "type_vocab_size": 2}
REPORTS = ["Large right pleural effusion with adjacent atelectasis.", "No acute process.", "Left", "右侧胸腔积液。"]


@pytest.fixture
def small():
    """A new tower and its tokenizer."""
    paddle.seed(1)
    return build_text_encoder(SMALL, REPORTS, 20)


@pytest.fixture
def folder(tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(FIXTURES / "like_bioclinicalbert", tmp_path / "bert"))


def run(encoder, batch):
    return [state.numpy() for state in encoder(paddle.to_tensor(batch.ids), paddle.to_tensor(batch.attention))]


def listing(folder):
    return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.rglob("*") if file.is_file()}


# --- against others ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", NAMES)
def test_every_layer_equals_pytorchs(name):
    before = listing(FIXTURES / name)
    encoder, tokenizer = load_text_encoder(FIXTURES / name, 40)
    expected = read_safetensors(FIXTURES / name / "expected.safetensors")[0]
    real = expected["attention"] > 0
    found = encoder(paddle.to_tensor(expected["ids"]), paddle.to_tensor(expected["attention"]))
    assert len(found) == 4 and not encoder.training and encoder.hidden_size == 12
    for number, state in enumerate(found):
        wanted = expected[f"hidden.{number}"]
        assert state.shape == list(wanted.shape) and np.abs(wanted).max() > 1  # large enough for an error to show
        np.testing.assert_allclose(state.numpy()[real], wanted[real], rtol=0, atol=1e-5)
    assert listing(FIXTURES / name) == before


def paddle_folder(folder, network, kind, form):
    """Write ``network`` as PaddleNLP, or an old release of it, would; the vocabulary is a fixture's."""
    folder.mkdir()
    shutil.copy(FIXTURES / "like_old_bert" / "vocab.txt", folder)
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    if form == "safetensors":
        write_safetensors(folder / "model.safetensors", state, {"format": "pd"})
    else:
        save_pdparams(folder / "model_state.pdparams", state)
    shape = SHAPE | ({"embedding_size": 8} if kind == "Electra" else {})
    if form == "old":
        inner = {"init_args": [shape | {"init_class": f"{kind}Model"}], "init_class": f"{kind}Model"}
        content, name = {"init_args": [inner], "init_class": f"{kind}ForSequenceClassification"}, "model_config.json"
    else:
        content, name = shape | {"model_type": kind.lower(), "architectures": [f"{kind}ForMaskedLM"]}, "config.json"
    (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("form", ["pdparams", "safetensors", "old"])
@pytest.mark.parametrize("kind", ["Bert", "Electra", "Ernie"])
def test_paddle_folders_equal_paddlenlp(kind, form, tmp_path):
    paddle.seed(3)
    more = {"embedding_size": 8} if kind == "Electra" else {}
    config = getattr(transformers, f"{kind}Config")(**SHAPE, **more, initializer_range=0.5)
    whole = getattr(transformers, f"{kind}ForMaskedLM")(config)
    whole.eval()
    encoder, tokenizer = load_text_encoder(paddle_folder(tmp_path / kind, whole, kind, form), 40)
    batch = tokenizer.batch(["left pleural effusion 5℃", "no"])
    tower = getattr(whole, kind.lower())
    theirs = tower(paddle.to_tensor(batch.ids))  # PaddleNLP finds padding by its number
    theirs = theirs if isinstance(theirs, paddle.Tensor) else theirs[0]
    real = batch.attention > 0
    np.testing.assert_allclose(run(encoder, batch)[-1][real], theirs.numpy()[real], rtol=0, atol=1e-5)
    assert tokenizer.encode("5℃").spelled == ["5", "℃"]  # as PaddleNLP's tokenizers do


def test_of_two_networks_the_discriminator_is_taken(tmp_path):
    """ERNIE-Health's and ELECTRA's pre-training saves both."""
    paddle.seed(4)
    towers = [transformers.ElectraModel(transformers.ElectraConfig(**SHAPE, embedding_size=8)) for _ in range(2)]
    folder = paddle_folder(tmp_path / "health", towers[0], "Electra", "pdparams")
    save_pdparams(folder / "model_state.pdparams", {
        **{f"generator.electra.{name}": value for name, value in towers[0].state_dict().items()},
        **{f"discriminator.electra.{name}": value for name, value in towers[1].state_dict().items()},
        "discriminator.discriminator_predictions.dense.weight": paddle.zeros([12, 12])})
    change(folder / "config.json", model_type="delete", architectures=["ErnieHealthForTotalPretraining"])
    encoder, _ = load_text_encoder(folder, 40)
    np.testing.assert_array_equal(encoder.embeddings.word_embeddings.weight.numpy(),
                                  towers[1].embeddings.word_embeddings.weight.numpy())


# --- a new tower -------------------------------------------------------------------------------------------------

def test_a_new_tower_has_the_asked_shape(small):
    encoder, tokenizer = small
    states = run(encoder, tokenizer.batch(REPORTS))
    assert len(states) == 4 and states[0].shape == (4, max(len(tokenizer.encode(one).ids) for one in REPORTS), 16)
    assert encoder.config.max_position_embeddings == 32 and tokenizer.max_tokens == 20
    assert encoder.embeddings.word_embeddings.weight.shape == [tokenizer.size, 16]
    assert encoder.encoder.layers[0].linear1.weight.shape == [16, 24]
    assert encoder.embeddings.dropout.p == 0.5


def test_defaults_make_a_tower_for_gloria():
    encoder, tokenizer = build_text_encoder({}, REPORTS)
    assert tokenizer.max_tokens == encoder.config.max_position_embeddings == 97


def test_the_same_seed_gives_the_same_tower(small):
    encoder, _ = small
    paddle.seed(1)
    again, _ = build_text_encoder(SMALL, REPORTS[::-1], 20)
    for name, value in encoder.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), again.state_dict()[name].numpy())


@pytest.mark.parametrize(("changes", "message"), [
    ({"hiden_size": 8}, "hiden_size：没有这个键，是不是 hidden_size"),
    ({"hidden_size": "wide"}, "hidden_size：应为整数"),
    ({"hidden_size": 18}, r"hidden_size（18）应是 num_attention_heads（4）的倍数"),
    ({"num_hidden_layers": 0}, "num_hidden_layers"),
    ({"dropout": 1.0}, "dropout：应为小于 1 的数"),
    ({"vocab_size": 30}, "词表大小至少要"),
    ({"max_position_embeddings": 12}, "max_tokens 是 20，多于文本编码器的位置数 12")])
def test_a_shape_that_cannot_be(changes, message):
    with pytest.raises(UserError, match=message):
        build_text_encoder(SMALL | changes, REPORTS, 20)


# --- padding, gradients, freezing --------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["new", *NAMES])
def test_padding_and_company_change_nothing(name, small):
    encoder, tokenizer = small if name == "new" else load_text_encoder(FIXTURES / name, 20)
    encoder.eval()
    batch = tokenizer.batch(REPORTS)
    wider = [np.pad(part, ((0, 0), (0, 8)), constant_values=fill)
             for part, fill in zip(batch, (tokenizer.tokens.index("left") if "left" in tokenizer.tokens else 7, 0, -1),
                                   strict=True)]  # whatever stands there
    together, padded = run(encoder, batch), run(encoder, type(batch)(*wider))
    for row, text in enumerate(REPORTS):
        alone = run(encoder, tokenizer.batch([text]))
        length = alone[0].shape[1]
        for one, all_of_them, more in zip(alone, together, padded, strict=True):
            np.testing.assert_allclose(all_of_them[row, :length], one[0], rtol=0, atol=3e-6 if name != "new" else 1e-6)
            np.testing.assert_allclose(more[row, :length], one[0], rtol=0, atol=3e-6 if name != "new" else 1e-6)


def gradients(encoder, tokenizer):
    """The largest gradient of every parameter, of a loss on the last layer; None where there is none."""
    paddle.seed(5)
    batch = tokenizer.batch(REPORTS)
    last = encoder(paddle.to_tensor(batch.ids), paddle.to_tensor(batch.attention))[-1]
    (last * paddle.randn(last.shape)).sum().backward()
    return {name: None if value.grad is None else float(value.grad.abs().max())
            for name, value in encoder.named_parameters()}


@pytest.mark.parametrize("name", ["new", *NAMES])
def test_gradients_reach_every_parameter(name, small):
    encoder, tokenizer = small if name == "new" else load_text_encoder(FIXTURES / name, 20)
    found = gradients(encoder, tokenizer)
    # A key's bias adds the same to all scores of a row, which the softmax takes away again.
    assert min(value for name, value in found.items() if not name.endswith("k_proj.bias")) > 1e-4, found


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_frozen_layers_have_no_gradient_and_no_dropout(count, small):
    encoder, tokenizer = small
    encoder.freeze_layers(count)
    outer = paddle.nn.Sequential(encoder)
    outer.train()
    batch = tokenizer.batch(REPORTS)
    first, second = run(encoder, batch), run(encoder, batch)
    same = [bool((one == other).all()) for one, other in zip(first, second, strict=True)]
    assert same == [True] * (count + 1) + [False] * (3 - count)
    encoder.eval()
    np.testing.assert_array_equal(run(encoder, batch)[count], first[count])
    if count < 3:
        outer.train()
        frozen = tuple(["embeddings.", *(f"encoder.layers.{number}." for number in range(count))])
        for name, gradient in gradients(encoder, tokenizer).items():
            assert (gradient is None) == name.startswith(frozen), name


def test_freezing_none_trains_all_again(small):
    encoder, tokenizer = small
    encoder.freeze_layers(3)
    assert all(parameter.stop_gradient for parameter in encoder.parameters())
    encoder.freeze_layers(None)
    assert None not in gradients(encoder, tokenizer).values()
    encoder.train()
    batch = tokenizer.batch(REPORTS)
    assert (run(encoder, batch)[0] != run(encoder, batch)[0]).any()


def test_the_narrow_embeddings_of_electra_are_frozen_with_their_projection():
    encoder, tokenizer = load_text_encoder(FIXTURES / "like_electra", 20)
    encoder.freeze_layers(1)
    assert encoder.embeddings_project.weight.stop_gradient and encoder.embeddings.word_embeddings.weight.stop_gradient
    assert not encoder.encoder.layers[1].linear1.weight.stop_gradient


@pytest.mark.parametrize("count", [-1, 4, 12, 1.5, True, "6"])
def test_layers_that_there_are_not(count, small):
    with pytest.raises(UserError, match="frozen_layers：应为 0 到 3 的整数"):
        small[0].freeze_layers(count)


def test_half_precision_is_as_deaf_to_padding(small):
    encoder, tokenizer = small
    encoder.eval()
    batch = tokenizer.batch(REPORTS)
    with paddle.amp.auto_cast(dtype="bfloat16"):
        ids = np.where(batch.attention > 0, batch.ids, 9)
        one, other = (encoder(paddle.to_tensor(some), paddle.to_tensor(batch.attention))[-1].astype("float32").numpy()
                      for some in (batch.ids, ids))
    np.testing.assert_array_equal(one[batch.attention > 0], other[batch.attention > 0])


# --- folders -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", NAMES)
def test_a_saved_tower_is_the_same_again(name, tmp_path):
    encoder, tokenizer = load_text_encoder(FIXTURES / name, 17)
    save_text_encoder(tmp_path / "saved", encoder, tokenizer)
    again, reader = load_text_encoder(tmp_path / "saved", 17)
    batch = tokenizer.batch(REPORTS)
    np.testing.assert_array_equal(reader.batch(REPORTS).ids, batch.ids)
    np.testing.assert_array_equal(run(encoder, batch), run(again, batch))
    assert again.config == encoder.config and reader.spelling == tokenizer.spelling


def test_a_saved_tower_has_hugging_faces_names(tmp_path):
    encoder, tokenizer = load_text_encoder(FIXTURES / "like_bioclinicalbert", 40)
    save_text_encoder(tmp_path, encoder, tokenizer)
    theirs = read_safetensors(FIXTURES / "like_bioclinicalbert" / "model.safetensors")[0]
    ours, metadata = read_safetensors(tmp_path / "model.safetensors")
    assert set(ours) == {name.removeprefix("bert.") for name in theirs if name.startswith("bert.")}
    assert all((value == theirs[f"bert.{name}"]).all() for name, value in ours.items()) and metadata["format"] == "pt"
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["BertModel"]


def test_a_tower_without_weights(small, tmp_path):
    encoder, tokenizer = small
    save_text_encoder(tmp_path, encoder, tokenizer, weights=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "tokenizer_config.json", "vocab.txt"]
    again, reader = load_text_encoder(tmp_path, 20, weights=False)
    assert {name: value.shape for name, value in again.state_dict().items()} == \
        {name: value.shape for name, value in encoder.state_dict().items()}
    assert reader.tokens == tokenizer.tokens
    with pytest.raises(UserError, match="没有权重"):
        load_text_encoder(tmp_path, 20)


@pytest.mark.parametrize(("changes", "message"), [
    ({"model_type": "roberta", "architectures": ["RobertaForMaskedLM"]}, "不支持 roberta"),
    ({"model_type": "delete", "architectures": ["ErnieMModel"]}, "不支持 ErnieMModel"),
    ({"model_type": "delete", "architectures": "delete"}, "没有写明是哪种网络.*\"model_type\": \"bert\""),
    ({"model_type": ["bert"]}, "不支持"),
    ({"hidden_size": 16}, "hidden_size must be a multiple"),
    ({"hidden_size": 24}, "形状不符"),
    ({"hidden_size": 3 * 2**20, "intermediate_size": 2**24}, "形状不符"),
    ({"hidden_size": "delete"}, "hidden_size 的值不受支持"),
    ({"num_hidden_layers": 4}, "缺少（missing）16 个：encoder.layers.3"),
    ({"num_hidden_layers": 2}, "多出（unexpected）16 个：encoder.layers.2"),
    ({"num_hidden_layers": 10**9}, "num_hidden_layers 的值不受支持"),
    ({"position_embedding_type": "relative_key"}, "position_embedding_type 的值不受支持"),
    ({"hidden_act": "swish"}, "hidden_act 的值不受支持"),
    ({"is_decoder": True}, "is_decoder 的值不受支持"),
    ({"pad_token_id": 500}, "pad_token_id"),
    ({"vocab_size": 100}, "词表有 133 个词，多于词嵌入的 100"),
    ({"max_position_embeddings": 20}, "max_tokens 是 40，多于文本编码器的位置数 20")])
def test_a_config_that_is_refused(changes, message, folder):
    change(folder / "config.json", **changes)
    with pytest.raises(UserError, match=message) as error:
        load_text_encoder(folder, 40)
    assert str(folder) in str(error.value)


def test_a_vocabulary_longer_than_the_embedding(folder):
    with open(folder / "vocab.txt", "a") as file:
        file.write("more\n")
    with pytest.raises(UserError, match="词表有 134 个词，多于词嵌入的 133"):
        load_text_encoder(folder, 40)


def test_more_tokens_than_positions(folder):
    with pytest.raises(UserError, match="max_tokens 是 97，多于文本编码器的位置数 40"):
        load_text_encoder(folder)


def test_a_bin_of_before_2020_is_read():
    """As BioClinicalBERT is published; the numbers are compared above."""
    file = FIXTURES / "like_old_bert" / "pytorch_model.bin"
    assert not zipfile.is_zipfile(file)
    encoder, _ = load_text_encoder(file.parent, 40)
    assert len(encoder.encoder.layers) == 3


def test_what_can_be_told_without_the_weights_is_told_at_once(folder):
    check_text_folder(folder, 40, 3)
    (folder / "model.safetensors").write_bytes(b"not read")
    check_text_folder(folder, 40)
    for arguments, message in (((97,), "max_tokens 是 97"), ((40, 4), "Arch.text.frozen_layers：应为 0 到 3"),
                               ((40, -1), "Arch.text.frozen_layers")):
        with pytest.raises(UserError, match=message):
            check_text_folder(folder, *arguments)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="没有权重"):
        check_text_folder(folder, 40)
    with pytest.raises(UserError, match="找不到文本模型文件夹.*Arch.text.folder"):
        check_text_folder(folder / "gone", 40)


@pytest.mark.parametrize("changes", [{"vocab_size": 2**24, "hidden_size": 3 * 2**20}, {"intermediate_size": 2**24,
                                     "hidden_size": 12_000}, {"type_vocab_size": 2**24, "hidden_size": 3 * 2**20}])
def test_a_description_alone_cannot_ask_for_all_memory(changes, folder):
    """Where the weights come from elsewhere, nothing else would show that it is damaged."""
    change(folder / "config.json", **changes)
    with pytest.raises(UserError, match="config.json：按它建的网络有 .* 亿个参数"):
        load_text_encoder(folder, 40, weights=False)


def test_a_bin_that_runs_something_is_refused(folder):
    (folder / "model.safetensors").unlink()
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", b"cposix\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(UserError, match="拒绝加载"):
        load_text_encoder(folder, 40)


def test_a_pdparams_that_runs_something_is_refused(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    (folder / "model_state.pdparams").write_bytes(b"cposix\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(UserError, match="拒绝加载"):
        load_text_encoder(folder, 40)


@pytest.mark.parametrize(("damage", "message"), [
    (lambda folder: shutil.rmtree(folder), "找不到文本模型文件夹"),
    (lambda folder: (folder / "config.json").unlink(), "找不到"),
    (lambda folder: (folder / "config.json").write_text("[]"), "损坏"),
    (lambda folder: (folder / "vocab.txt").unlink(), "没有 vocab.txt"),
    (lambda folder: (folder / "model.safetensors").unlink(), "没有权重"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b"123"), "损坏或不完整"),
    (lambda folder: write_safetensors(folder / "model.safetensors", {"a": np.zeros(3, np.float32)}), "找到 0 个")])
def test_a_folder_that_is_not_whole(damage, message, folder):
    damage(folder)
    with pytest.raises(UserError, match=message):
        load_text_encoder(folder, 40)


@pytest.mark.parametrize("name", ["../model.safetensors", "pytorch_model.bin", "absent.safetensors"])
def test_an_index_that_names_other_files(name, folder):
    (folder / "pytorch_model.bin").write_bytes(b"")
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UserError, match="不是这个文件夹里的 safetensors"):
        load_text_encoder(folder, 40)


def test_a_tensor_too_many_is_named(folder):
    state, metadata = read_safetensors(folder / "model.safetensors")
    write_safetensors(folder / "model.safetensors", state | {"bert.encoder.memory": np.zeros(2, np.float32)}, metadata)
    with pytest.raises(UserError, match="多出（unexpected）1 个：encoder.memory"):
        load_text_encoder(folder, 40)


def test_the_limits_of_a_config_stop_before_memory_is_taken():
    with pytest.raises(ValueError, match="vocab_size"):
        TextConfig(model_type="bert", **SHAPE | {"vocab_size": 2**40})
    assert TextEncoder(TextConfig(model_type="bert", **SHAPE)).frozen_layers is None


@pytest.mark.slow
def test_loading_is_quiet_and_leaves_nothing_at_home(tmp_path):
    program = ("from paddle_cxr.quiet import import_paddle\nimport_paddle()\n"
               "from paddle_cxr.models.text_encoder import load_text_encoder\n"
               f"load_text_encoder({str(FIXTURES / 'like_ernie')!r}, 40)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          env=os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])})
    assert done.returncode == 0 and done.stdout == ""
    assert done.stderr == ""
    assert [file for file in (tmp_path / ".paddlenlp").rglob("*") if file.is_file()] == []
