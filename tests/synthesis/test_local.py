"""The local language model, with a tiny random Llama in a real folder; needs PaddleNLP."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from paddle_cxr.errors import UserError
from paddle_cxr.synthesis.entities import Entity
from paddle_cxr.synthesis.writers.base import Request
from paddle_cxr.synthesis.writers.local import LocalWriter, NucleusSampling
from paddle_cxr.synthesis.writers.prompts import Prompts

EFFUSION = Entity("pleural_effusion", "non-disease", "pleural effusion", denies=True)
OPACITY = Entity("opacity", "abnormality", "opacity")
LOBE = Entity("right_lower_lobe", "anatomy", "right lower lobe")
ENDS = [257, *range(216, 256), *range(259, 300)]  # so many that a random model comes to an end
TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def request(number: int, *entities: Entity, section: str = "findings", **more) -> Request:
    return Request(f"r{number}", section, entities or (OPACITY, EFFUSION, LOBE), seed=number, **more)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> Path:
    """Short prompts that ask for prose, so that whatever a random model writes is an answer."""
    folder = tmp_path_factory.mktemp("prompts")
    texts = {"system": "You are a radiologist.", "findings": "Seen: $present Not seen: $absent Where: $anatomy",
             "impression": "Conclude: $findings", "retry": "Wrong: $feedback"}
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, "utf-8")
    return folder


@pytest.fixture(scope="module", params=["Llama", "Llama tied", "Qwen2", "Qwen2 tied"])
def model(request, tmp_path_factory) -> Path:
    """A random model with a byte-level tokenizer, saved as PaddleNLP saves it."""
    paddle = pytest.importorskip("paddle")
    transformers = pytest.importorskip("paddlenlp.transformers")
    kind, _, tied = request.param.partition(" ")
    if not hasattr(transformers, f"{kind}Config"):
        pytest.skip(f"this PaddleNLP has no {kind}")
    folder = tmp_path_factory.mktemp("models") / kind
    paddle.seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, bos_token_id=256, eos_token_id=257, pad_token_id=256,
        initializer_range=0.5, tie_word_embeddings=bool(tied))
    getattr(transformers, f"{kind}ForCausalLM")(config).save_pretrained(str(folder), safe_serialization=True)
    weights = load_file(folder / "model.safetensors")
    for name, value in weights.items():  # exact in bfloat16 as well
        weights[name] = (value.view(np.uint32) & 0xFFFF0000).view(np.float32)
    save_file(weights, folder / "model.safetensors", {"format": "np"})
    write_tokenizer(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ENDS}), "utf-8")
    return folder


def write_tokenizer(folder: Path) -> None:
    """GPT-2's kind of tokenizer without merges: a token a byte, and three special ones."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
    special = {"<|endoftext|>": 256, "<|im_end|>": 257, "<|im_start|>": 258}
    (folder / "vocab.json").write_text(json.dumps(alphabet), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", "utf-8")
    added = {str(number): {"content": text, "special": True, "lstrip": False, "rstrip": False, "normalized": False,
                           "single_word": False} for text, number in special.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added, "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>", "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "chat_template": TEMPLATE}), "utf-8")


def chat_ids(system: str, user: str) -> list[int]:
    """What TEMPLATE and a tokenizer of bytes make of a conversation."""
    return [258, *f"system\n{system}".encode(), 257, 10, 258, *f"user\n{user}".encode(), 257, 10, 258, *b"assistant\n"]


def save_bfloat16(tensors: dict[str, np.ndarray], file: Path) -> None:
    """Write safetensors as PyTorch does; NumPy has no such type, so the format (a JSON header, the bytes) by hand."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, value in tensors.items():
        content = (np.ascontiguousarray(value).view(np.uint32) >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": value.shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_one_reply_a_request_in_order_and_reproducible(model, prompts):
    writer = LocalWriter(str(model), str(prompts), batch_size=3, max_new_tokens=50)
    assert writer.title == model.name and len(writer.prompts_hash) == 64
    requests = [request(number, OPACITY, *[LOBE] * (number % 3)) for number in range(10)]
    replies = writer.write(requests)
    assert len(replies) == 10
    assert all(bool(reply.text) != bool(reply.error) for reply in replies)
    assert len({reply.text for reply in replies}) > 5
    assert all(reply.prompt_tokens > 50 and reply.completion_tokens < 50 for reply in replies)
    assert writer.write(requests) == replies
    assert writer.write([]) == []


def test_a_text_does_not_depend_on_its_company(model, prompts):
    alone = LocalWriter(str(model), str(prompts), batch_size=1, max_new_tokens=50)
    together = LocalWriter(str(model), str(prompts), batch_size=4, max_new_tokens=50)
    requests = [request(number, *[OPACITY] * (1 + 3 * (number % 4))) for number in range(12)]  # of several lengths
    replies = alone.write(requests)
    assert replies == together.write(requests) == together.write(requests[::-1])[::-1]
    assert sum(reply.text != "" for reply in replies) > 2


def test_greedy_equals_a_loop_without_cache_or_padding(model, prompts):
    import paddle

    writer = LocalWriter(str(model), str(prompts), batch_size=3, max_new_tokens=10, temperature=0)
    requests = [request(number, *[OPACITY] * number) for number in range(1, 7)]
    replies = writer.write(requests)
    for reply, one in zip(replies, requests, strict=True):
        ids = writer._encode(one)
        assert ids == chat_ids("You are a radiologist.", Prompts(prompts).messages(one)[1]["content"])
        written = []
        while len(written) < 10 and not set(written) & set(ENDS):
            logits = writer._model(paddle.to_tensor([[*ids, *written]]))
            written.append(int((logits[0] if isinstance(logits, tuple) else logits)[0, -1].argmax()))
        kept = [token for token in written if token not in ENDS]
        assert (reply.prompt_tokens, reply.completion_tokens) == (len(ids), len(kept))
        if len(kept) == 10:
            assert "truncated" in reply.error
        else:
            text = bytes(token for token in kept if token < 256).decode("utf-8", "replace")
            assert reply.text.split() == "".join(c if c.isprintable() else " " for c in text).split()


def test_a_hugging_face_folder_gives_the_same_text(model, prompts, tmp_path):
    """The same weights as others publish them: PyTorch's names and layout, bfloat16, two files, none that are tied."""
    theirs = tmp_path / model.name
    shutil.copytree(model, theirs)
    (theirs / "model.safetensors").unlink()
    tied = json.loads((model / "config.json").read_text())["tie_word_embeddings"]
    tensors = {}
    for name, value in load_file(model / "model.safetensors").items():
        linear = "proj.weight" in name or name == "lm_head.weight"
        base, _, rest = name.partition(".")
        if not (tied and name == "lm_head.weight"):
            tensors[f"model.{rest}" if base in ("llama", "qwen2") else name] = value.T.copy() if linear else value
    shards = {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(tensors)}
    for shard in set(shards.values()):
        save_bfloat16({name: tensors[name] for name in tensors if shards[name] == shard}, theirs / shard)
    (theirs / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}), "utf-8")
    (theirs / "model-evil.bin").write_bytes(b"cos\nsystem\n(S'touch %s'\ntR." % bytes(tmp_path / "owned"))
    before = sorted(theirs.iterdir())
    ours, same = (LocalWriter(str(folder), str(prompts), max_new_tokens=50) for folder in (model, theirs))
    requests = [request(number) for number in range(8)]
    assert same.write(requests) == ours.write(requests)
    assert sorted(theirs.iterdir()) == before and not (tmp_path / "owned").exists()


def test_a_text_too_long_to_conclude_from_is_that_reports_failure_alone(model, prompts):
    writer = LocalWriter(str(model), str(prompts), batch_size=2, max_new_tokens=50)
    requests = [request(number, section="impression", findings="x" * [10, 600][number % 2]) for number in range(5)]
    requests.append(request(5, feedback="y" * 600))
    replies = writer.write(requests)
    assert ["context" in reply.error for reply in replies] == [False, True, False, True, False, True]
    assert [replies[number] for number in (0, 2, 4)] == writer.write(requests[:5:2])


def test_a_whole_run_accounts_for_every_report_and_goes_on_after_a_cut(model, prompts, root, tool, tmp_path):
    """What a random model writes does not pass; the point is that nothing is lost, doubled or told with a traceback."""
    if model.name != "Llama":
        pytest.skip("one kind of model is enough")
    writer = f"{{name: LocalWriter, folder: {model}, prompts: {prompts}, batch_size: 3, max_new_tokens: 40}}"
    settings = [f"Writer={writer}", "Sampler.k=2", "Sampler.m=1", f"Global.output_dir={tmp_path / 'out'}",
                "Global.reports=6", "Global.attempts=2", "Global.chunk=2", "Global.rounds=1"]
    command = ["synthesize", "-c", root / "configs/synthesis/reports.yaml",
               *(part for one in settings for part in ("-o", one))]
    done = tool(*command, cwd=root)
    assert done.returncode == 0 and "通过 0/6 份" in done.stdout, done.stdout + done.stderr
    file = tmp_path / "out/rejected.jsonl"
    written = file.read_bytes()
    records = [json.loads(line) for line in written.splitlines()]
    assert sorted(one["id"] for one in records) == [f"r{number:07d}" for number in range(6)]
    assert all(one["reason"] and one["writer"] == "Llama" and one["tokens"][0] > 0 for one in records)
    file.write_bytes(written[:len(written) // 2])  # killed while it was writing a line
    assert tool(*command, cwd=root).returncode == 0
    assert file.read_bytes() == written


def test_sampling_follows_the_nucleus():
    """Against the definition: frequencies of the tokens kept, renormalised; none beyond."""
    paddle = pytest.importorskip("paddle")
    chances = np.array([0.05, 0.5, 0.15, 0.3], dtype=np.float32)
    rows = 4000
    drawn = NucleusSampling(range(rows), 1.0, 0.8)(paddle.to_tensor(np.tile(np.log(chances), (rows, 1))))
    assert np.array_equal(drawn.numpy().sum(axis=1), np.ones(rows))
    frequency = drawn.numpy().mean(axis=0)
    assert frequency[0] == frequency[2] == 0
    assert abs(frequency[1] - 0.5 / 0.8) < 0.03
    everything = NucleusSampling(range(rows), 1.0, 1.0)(paddle.to_tensor(np.tile(np.log(chances), (rows, 1))))
    assert np.allclose(everything.numpy().mean(axis=0), chances, atol=0.03)


def set_value(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | values), "utf-8")


def broken(folder: Path, name: str) -> None:
    """Damage a copy of the model in one way."""
    match name:
        case "no config":
            (folder / "config.json").unlink()
        case "no tokenizer":
            (folder / "tokenizer_config.json").unlink()
        case "no vocabulary":
            (folder / "vocab.json").unlink()
        case "cut config":
            (folder / "config.json").write_text('{"architectures": [', "utf-8")
        case "classifier":
            (folder / "config.json").write_text('{"architectures": ["BertForSequenceClassification"]}', "utf-8")
        case "unknown model":
            (folder / "config.json").write_text('{"architectures": ["NeverHeardOfForCausalLM"]}', "utf-8")
        case "evil template":
            set_value(folder / "tokenizer_config.json", chat_template="{{ ''.__class__.__mro__ }}")
        case "empty template":
            set_value(folder / "tokenizer_config.json", chat_template="{{ '' }}")
        case "strange end":
            set_value(folder / "generation_config.json", eos_token_id="</s>")
        case "cut weights":
            content = (folder / "model.safetensors").read_bytes()
            (folder / "model.safetensors").write_bytes(content[:len(content) // 2])
        case "missing weights":
            tensors = load_file(folder / "model.safetensors")
            save_file(dict(list(tensors.items())[3:]), folder / "model.safetensors", metadata={"format": "np"})
        case "pickle":
            (folder / "model.safetensors").rename(folder / "model_state.pdparams")
        case "pickle by index":
            (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "evil.pdparams"}}', "utf-8")
            (folder / "evil.pdparams").write_bytes(b"")
        case "outside by index":
            (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x.safetensors"}}', "utf-8")


@pytest.mark.parametrize("name, told", [
    ("no config", "config.json"), ("no tokenizer", "tokenizer_config.json"), ("no vocabulary", "读不了"),
    ("cut config", "config.json"), ("classifier", "causal LM"), ("unknown model", "读不了"),
    ("cut weights", "model.safetensors"), ("missing weights", "缺失"), ("pickle", "pickle"),
    ("pickle by index", "evil.pdparams"), ("outside by index", "../x.safetensors"),
    ("evil template", "chat_template"), ("empty template", "tokenizer"), ("strange end", "eos_token_id")])
def test_wrong_folders_are_one_line(model, prompts, tmp_path, name, told):
    folder = tmp_path / "copy"
    shutil.copytree(model, folder)
    broken(folder, name)
    with pytest.raises(UserError, match=told):
        LocalWriter(str(folder), str(prompts)).write([request(0)])


def test_wrong_arguments_are_one_line(model, prompts, tmp_path):
    with pytest.raises(UserError, match="不会自动下载"):
        LocalWriter("Qwen/Qwen2-7B-Instruct", str(prompts))
    for arguments in ({"temperature": -1.0}, {"top_p": 0.0}, {"batch_size": 0}, {"dtype": "float16"}):
        with pytest.raises(UserError, match=next(iter(arguments))):
            LocalWriter(str(model), str(prompts), **arguments)
    with pytest.raises(UserError, match="512"):
        LocalWriter(str(model), str(prompts), max_new_tokens=500).write([request(0)])
    (tmp_path / "findings.txt").write_text("", "utf-8")
    with pytest.raises(UserError, match=r"system\.txt"):
        LocalWriter(str(model), str(tmp_path))


def test_without_paddlenlp_the_way_out_is_told(prompts, tmp_path):
    try:
        import paddlenlp.transformers  # noqa: F401
    except ImportError:
        for name in ("config.json", "tokenizer_config.json"):
            (tmp_path / name).write_text('{"architectures": ["LlamaForCausalLM"]}', "utf-8")
        save_file({"a": np.zeros(1, np.float32)}, tmp_path / "model.safetensors")
        with pytest.raises(UserError, match="PaddleNLP"):
            LocalWriter(str(tmp_path), str(prompts))
    else:
        pytest.skip("PaddleNLP is installed")
