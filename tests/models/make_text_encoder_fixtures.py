"""Makes ``tests/fixtures/text_encoder``: what PyTorch and Hugging Face's transformers say, for tests that have neither.

    python -m venv .venv && . .venv/bin/activate
    pip install torch transformers safetensors
    python tests/models/make_text_encoder_fixtures.py

Not run by the tests.  Written with torch 2.13 and transformers 5.23.  Every folder is in the layout of a published
model, with random weights large enough for errors to show:

    like_bioclinicalbert   BertForMaskedLM: with its head, "bert." before the names, vocab.txt, upper and lower case
    like_old_bert          BertModel as files of 2018 name its tensors, with position_ids and pooler, in a
                           pytorch_model.bin of before PyTorch 1.6; no tokenizer_config.json; ReLU
    like_electra           ElectraForPreTraining: narrower embeddings, in shards; only a tokenizer.json
    like_ernie             ErnieForMaskedLM with an embedding for the task; half precision

and in each an expected.safetensors with ids and attention, int64 [N, L], of :data:`TEXTS`, and hidden.K, float32
[N, L, H], of every layer.  tokens.json has the ids of odd texts too, by the tokenizer of each folder.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    BertTokenizer,
    ElectraConfig,
    ElectraForPreTraining,
    ErnieConfig,
    ErnieForMaskedLM,
)

OUT = Path(__file__).resolve().parents[1] / "fixtures" / "text_encoder"
TEXTS = ["No acute cardiopulmonary process.", "Large right PLEURAL effusion, 3.5 cm; café-au-lait.",
         "双肺纹理增粗，心影增大。", "Left"]
ODD = ["", " ", "  two\tblanks\n\nand lines ", "T2-weighted (AP/lateral) x-ray: 12.5%!", "naïve Ångström İstanbul ΣΑΣ",
       "肺炎 pneumonia肺炎2型COVID-19感染", "，。；：“”（）、《》", "℃ 38.5℃ 2×3 ±5 H₂O µm",
       "a\u0000b\u200bc\u00add\ufffde\u00a0f\u3000g",
       "x" * 100, "x" * 101, "unaffable##able", "日本語のテキスト 한국어", "\U00020000\U0001f600", "e\u0301 \u0301",
       "l'hôpital d’accueil", "_under_score_", "ﬁbrosis ½"]
WORDS = ["no", "No", "acute", "card", "##io", "##pul", "##mon", "##ary", "process", "Large", "large", "right",
         "pleural", "eff", "##usion", "cm", "left", "Left", "双", "肺", "纹", "理", "增", "粗", "心", "影",
         "大", "炎", "un", "##aff", "##able", "PLE", "##URAL", "cafe", "café", "COVID", "covid", "##19", "℃", "5",
         "##℃", "×", "±", "x", "##x"]
COMMON = {"hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 20,
          "max_position_embeddings": 40, "layer_norm_eps": 1e-3}


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    tokens = {}
    for number, make in enumerate((like_bioclinicalbert, like_old_bert, like_electra, like_ernie)):
        torch.manual_seed(number)
        folder = OUT / make.__name__
        folder.mkdir(parents=True)
        tokenizer = make(folder)
        tokens[folder.name] = [{"text": text, "ids": tokenizer(text)["input_ids"]} for text in TEXTS + ODD]
    lines = (f"{json.dumps(name)}: {json.dumps(found)}".replace("}, {", "},\n{") for name, found in tokens.items())
    (OUT / "tokens.json").write_text("{" + ",\n\n".join(lines) + "}\n")
    print(f"{sum(file.stat().st_size for file in OUT.rglob('*') if file.is_file()) / 1000:.0f} kB in {OUT}")


def like_bioclinicalbert(folder: Path) -> BertTokenizer:
    write_vocab(folder)
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}\n')
    tokenizer = BertTokenizer.from_pretrained(folder, do_lower_case=False)
    model = randomised(BertForMaskedLM(BertConfig(vocab_size=len(vocabulary()), type_vocab_size=2, **COMMON)))
    model.save_pretrained(folder)
    expect(folder, model.bert, tokenizer)
    return tokenizer


def like_old_bert(folder: Path) -> BertTokenizer:
    write_vocab(folder)
    tokenizer = BertTokenizer.from_pretrained(folder)
    model = randomised(BertModel(BertConfig(vocab_size=len(vocabulary()) + 3, hidden_act="relu", **COMMON)))
    model.config.save_pretrained(folder)
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
           for name, value in model.state_dict().items()}
    torch.save(old | {"embeddings.position_ids": torch.arange(40)[None]}, folder / "pytorch_model.bin",
               _use_new_zipfile_serialization=False)
    expect(folder, model, tokenizer)
    return tokenizer


def like_electra(folder: Path) -> BertTokenizer:
    write_vocab(folder)
    tokenizer = BertTokenizer.from_pretrained(folder)
    (folder / "vocab.txt").unlink()
    tokenizer.save_pretrained(folder)
    model = randomised(ElectraForPreTraining(ElectraConfig(vocab_size=len(vocabulary()), embedding_size=8, **COMMON)))
    model.save_pretrained(folder, max_shard_size="6KB")
    expect(folder, model.electra, tokenizer)
    return AutoTokenizer.from_pretrained(folder)


def like_ernie(folder: Path) -> BertTokenizer:
    write_vocab(folder)
    tokenizer = BertTokenizer.from_pretrained(folder)
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true, "strip_accents": null}\n')
    model = randomised(ErnieForMaskedLM(ErnieConfig(vocab_size=len(vocabulary()), use_task_id=True, **COMMON)))
    model = model.half().float()
    model.half().save_pretrained(folder)
    expect(folder, model.float().ernie, tokenizer)
    return tokenizer


def vocabulary() -> list[str]:
    letters = sorted(set("abcdefghijklmnopqrstuvwxyzACLNPT0123456789.,;:-!%()/\"'"))
    return list(dict.fromkeys(["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters,
                               *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwyz123"), *WORDS, "，", "。"]))


def write_vocab(folder: Path) -> None:
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary()))


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    for name, parameter in model.named_parameters():  # far from the tiny initial values: every part shows
        torch.nn.init.normal_(parameter, 1.0 if "LayerNorm.weight" in name else 0.0, 0.4)
    return model.eval()


def expect(folder: Path, tower: torch.nn.Module, tokenizer: BertTokenizer) -> None:
    found = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = tower(found["input_ids"], found["attention_mask"], output_hidden_states=True).hidden_states
    save_file({"ids": found["input_ids"], "attention": found["attention_mask"],
               **{f"hidden.{number}": state.contiguous() for number, state in enumerate(states)}},
              folder / "expected.safetensors")


if __name__ == "__main__":
    main()
