"""Makes ``tests/fixtures/deberta``: what PyTorch and Hugging Face's transformers say, for tests that have neither.

    python -m venv .venv && . .venv/bin/activate
    pip install torch transformers sentencepiece protobuf safetensors
    python tests/synthesis/make_deberta_fixtures.py

Not run by the tests.  Written with torch 2.13 and transformers 5.23; any version that has
``DebertaV2ForTokenClassification`` will do.  It writes, all small:

    logits/NAME/{config.json, model.safetensors, expected.safetensors}
        random weights, wide enough for errors to show, token ids with padding, and the logits PyTorch makes of them
    buckets.safetensors  the bucket of every distance at the published size (position_buckets 256, 512 positions)
    rate/                a RaTE-NER in small, in the layout of the published folder, trained for a minute or two on
                         sentences made up here: it knows a handful of entities, and "no"
    tokens.json          texts, and the ids and the ends of their pieces by the "fast" tokenizer, which AutoTokenizer
                         uses; transformers 4 made the published tokenizer.json from spm.model by the same converter
    labels.json          sentences, and the label of every piece by PyTorch on rate/
"""

from __future__ import annotations

import io
import itertools
import json
import random
import re
import shutil
import tempfile
import types
from pathlib import Path

import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import DebertaV2Config, DebertaV2ForTokenClassification
from transformers.convert_slow_tokenizer import DebertaV2Converter
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

OUT = Path(__file__).resolve().parents[1] / "fixtures" / "deberta"

# As the published config.json has them: https://huggingface.co/Angelakeke/RaTE-NER-Deberta
LABELS = ["B-ABNORMALITY", "I-ABNORMALITY", "B-NON-ABNORMALITY", "I-NON-ABNORMALITY", "B-DISEASE", "I-DISEASE",
          "B-NON-DISEASE", "I-NON-DISEASE", "B-ANATOMY", "I-ANATOMY", "O"]
NUMBER = {label: number for number, label in enumerate(LABELS)}

COMMON = {"vocab_size": 24, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12,
          "max_position_embeddings": 40, "type_vocab_size": 0, "layer_norm_eps": 1e-7, "hidden_act": "gelu",
          "id2label": dict(enumerate(["O", "B-DISEASE", "I-DISEASE"]))}
V3 = {"relative_attention": True, "position_buckets": 6, "max_relative_positions": -1, "share_att_key": True,
      "pos_att_type": "p2c|c2p", "norm_rel_ebd": "layer_norm", "position_biased_input": False}
SHAPES = {
    "v3": COMMON | V3,  # as DeBERTa-v3, which RaTE-NER is
    "convolution": COMMON | V3 | {"conv_kernel_size": 3, "conv_act": "gelu", "conv_groups": 2},  # as DeBERTa-v2-xlarge
    "no_buckets": COMMON | V3 | {"position_buckets": -1},
    "near_only": COMMON | V3 | {"position_buckets": -1, "max_relative_positions": 5, "norm_rel_ebd": "none"},
    "c2p": COMMON | V3 | {"pos_att_type": ["c2p"], "share_att_key": False},
    "p2c": COMMON | V3 | {"pos_att_type": ["p2c"], "share_att_key": False, "embedding_size": 6, "type_vocab_size": 2,
                          "position_biased_input": True, "hidden_act": "relu"},
    "own_keys": COMMON | V3 | {"share_att_key": False, "conv_kernel_size": 5, "num_attention_heads": 4},
    "absolute": COMMON | {"relative_attention": False, "position_biased_input": True, "pos_att_type": ["c2p", "p2c"]},
    "no_positions": COMMON | V3 | {"pos_att_type": None},
}
LENGTHS = ([23, 9, 1], [40, 39], [1], [7, 7])  # of the sequences of each batch


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    for number, (name, shape) in enumerate(SHAPES.items()):
        torch.manual_seed(number)
        make_logits(OUT / "logits" / name, DebertaV2Config(**shape))
    distances = torch.arange(-511, 512)
    save_file({"distances": distances.short(), "buckets": make_log_bucket_position(distances, 256, 512).short()},
              OUT / "buckets.safetensors")
    torch.manual_seed(0)
    make_rate(OUT / "rate")
    print(f"{sum(file.stat().st_size for file in OUT.rglob('*') if file.is_file()) / 1000:.0f} kB in {OUT}")


def make_logits(folder: Path, config: DebertaV2Config) -> None:
    model = DebertaV2ForTokenClassification(config).eval()
    for name, parameter in model.named_parameters():  # far from the tiny initial values, so that logits are of size 1
        torch.nn.init.normal_(parameter, 1.0 if name.endswith("LayerNorm.weight") else 0.0, 0.3)
    expected = {}
    for number, lengths in enumerate(LENGTHS):
        ids = torch.randint(4, config.vocab_size, (len(lengths), max(lengths)))
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        ids[~mask] = 0
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask.long()).logits
        expected |= {f"{number}.ids": ids, f"{number}.mask": mask.float(), f"{number}.logits": logits.contiguous()}
    save_folder(folder, model)
    save_file(expected, folder / "expected.safetensors")


def save_folder(folder: Path, model: DebertaV2ForTokenClassification) -> None:
    """``config.json`` and ``model.safetensors`` as ``save_pretrained`` writes them."""
    model.config.architectures = ["DebertaV2ForTokenClassification"]
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        folder.mkdir(parents=True)
        for name in ("config.json", "model.safetensors"):
            shutil.copy(Path(temporary) / name, folder / name)
    assert set(load_file(folder / "model.safetensors")) == set(model.state_dict())


# --- a RaTE-NER in small -----------------------------------------------------------------------------------------

ENTITIES = {"ABNORMALITY": ["pleural effusion", "effusion", "opacity", "patchy opacity", "pneumothorax", "cardiomegaly",
                            "consolidation", "atelectasis", "pulmonary edema"],
            "DISEASE": ["pneumonia", "tuberculosis", "heart failure", "fibrosis"],
            "ANATOMY": ["right lung", "left lung", "lungs", "heart", "mediastinum", "left lower lobe", "hilum"]}
FRAMES = ["There is {X} in the {A}.", "{X} is seen in the {A}.", "No {N} or {N}.", "No evidence of {N}.",
          "The {A} shows {X}.", "There is no {N}, but {X} is present.", "The {A} is normal.",
          "Findings suggest {X} and {X}.", "Without {N} in the {A}, there is {X}.", "{X}, {X} and {X}.",
          "The {A} and {A} are unremarkable.", "{A}: {X}."]


def sentence(rng: random.Random) -> tuple[str, list[tuple[int, int, str]]]:
    """A sentence, and start, end and label type of each entity in it."""
    text, spans = "", []
    for part in re.split("({.})", rng.choice(FRAMES)):
        if part not in ("{X}", "{N}", "{A}"):
            text += part
            continue
        type_ = "ANATOMY" if part == "{A}" else rng.choice(["ABNORMALITY", "DISEASE"])
        words = rng.choice(ENTITIES[type_])
        words = words if text else words.capitalize()
        spans.append((len(text), len(text) + len(words), ("NON-" if part == "{N}" else "") + type_))
        text += words
    return text, spans


def train_pieces(texts: list[str]) -> bytes:
    """A small ``spm.model`` with the special pieces of DeBERTa-v3 and a few rules of normalisation (theirs: 240 kB)."""
    rules = {"\ufb01": "fi", "\ufb02": "fl", "\uff0c": ",", "\u00bd": "1/2", "\t": " ", "\n": " ", "\r": " ",
             "\u00a0": " ", "\u3000": " ", "e\u0301": "\u00e9", "\u200b": ""}
    model = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as file:
        for source, target in rules.items():
            file.write("\t".join(" ".join(f"{ord(c):X}" for c in side) for side in (source, target)) + "\n")
        file.flush()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=model, vocab_size=90, model_type="unigram", minloglevel=2,
            pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]",
            unk_piece="[UNK]", normalization_rule_tsv=file.name)
    return model.getvalue()


def fast_tokenizer(file: Path) -> Tokenizer:
    """The tokenizer that transformers 4 made of an ``spm.model`` and saved as ``tokenizer.json``."""
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(file))
    slow = types.SimpleNamespace(vocab_file=str(file), do_lower_case=False, split_by_punct=False, add_prefix_space=True,
                                 legacy=True, convert_tokens_to_ids=pieces.piece_to_id)
    return DebertaV2Converter(slow).converted()


def make_rate(folder: Path) -> None:
    rng = random.Random(0)
    data = [sentence(rng) for _ in range(4000)]
    model = DebertaV2ForTokenClassification(DebertaV2Config(
        **COMMON | V3 | {"vocab_size": 92, "hidden_size": 24, "intermediate_size": 48, "position_buckets": 16,
                         "max_position_embeddings": 64, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
                         "id2label": dict(enumerate(LABELS)), "label2id": NUMBER}))
    save_folder(folder, model)
    (folder / "spm.model").write_bytes(train_pieces([text for text, _ in data]))
    tokenizer = fast_tokenizer(folder / "spm.model")
    examples = [encode(tokenizer, text, spans) for text, spans in data]
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    model.train()
    for step in range(800):
        batch = rng.sample(examples, 32)
        ids, mask, target = (torch.nn.utils.rnn.pad_sequence([torch.tensor(one[part]) for one in batch], True, value)
                             for part, value in enumerate((0, 0, -100)))
        loss = model(input_ids=ids, attention_mask=mask, labels=target).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / 800)
    print(f"training loss of rate/: {loss.item():.5f}")
    model.eval()
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors",
              {"format": "pt"})
    held_out = [sentence(random.Random(10_000 + number)) for number in range(40)]
    write(OUT / "labels.json", [{"text": text, "spans": spans, "labels": predict(model, tokenizer, text)}
                                for text, spans in held_out])
    write(OUT / "tokens.json", [{"text": text, "ids": (found := tokenizer.encode(text, add_special_tokens=False)).ids,
                                 "ends": [end for _, end in found.offsets]} for text in odd_texts(held_out)])


def encode(tokenizer: Tokenizer, text: str, spans: list[tuple[int, int, str]]) -> tuple[list[int], ...]:
    """Ids, mask and labels of the pieces of a text, [CLS] and [SEP] without a label."""
    found = tokenizer.encode(text)
    labels = [-100]
    for start, end in found.offsets[1:-1]:
        # A piece's place includes the space before it.
        span = next((span for span in spans if start < span[1] and end > span[0] and text[start:end].strip()), None)
        begins = span is not None and start <= span[0] < end
        labels.append(NUMBER["O" if span is None else ("B-" if begins else "I-") + span[2]])
    return found.ids, found.attention_mask, [*labels, -100]


def predict(model: DebertaV2ForTokenClassification, tokenizer: Tokenizer, text: str) -> list[int]:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).logits[0]
    return logits.argmax(-1).tolist()[1:-1]


def odd_texts(known: list[tuple[str, list]]) -> list[str]:
    letters = random.Random(1)
    odd = ["", " ", "  No   effusion  ", "A\nB\tC\r\nD", "\ufb01brosis\uff0cedema", "caf\u00e9 cafe\u0301 \u00bd",
           "\u80ba\u708e \U0001f600", "zero\u200bwidth\u00a0space\u3000wide", "no.effusion,(opacity)/edema-like",
           "UPPER lower 12.5 cm x 3", "\ufeffbom \u0000nul", "[CLX] <s> </s> <unk>"]
    alphabet = "aeno pl.,-() \ufb01\u00bd\u80ba"
    noise = ["".join(letters.choices(alphabet, k=length)) for length in itertools.chain(range(1, 12), (40, 90))]
    return [*odd, *noise, *(text for text, _ in known[:10])]


def write(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")).replace("},{", "},\n{") + "\n", "utf-8")


if __name__ == "__main__":
    main()
