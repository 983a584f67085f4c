"""RaTE-NER: tokenizer and labels against the original's, spans, windows, and folders that are wrong.

The model in ``tests/fixtures/deberta/rate`` was trained on made-up sentences (``make_deberta_fixtures.py``); it has the
layout of the published folder and 64 positions.
"""

import functools
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_cxr.errors import UserError
from paddle_cxr.registry import build
from paddle_cxr.synthesis.entities import TYPES, Entity
from paddle_cxr.synthesis.ner.iob import entities, read_labels
from paddle_cxr.synthesis.ner.pieces import PieceTokenizer
from paddle_cxr.synthesis.ner.rate import RaTENER, sentences, windows
from paddle_cxr.synthesis.vocabulary import Vocabulary
from paddle_cxr.weights import read_safetensors, write_safetensors

FIXTURES = Path(__file__).parents[1] / "fixtures" / "deberta"
RATE = FIXTURES / "rate"
VOCABULARY = Vocabulary([Entity("pleural_effusion", "abnormality", "pleural effusion", also=("effusion",)),
                         Entity("left_lung", "anatomy", "left lung")], "test")


def read(name):
    return json.loads((FIXTURES / name).read_text(encoding="utf-8"))


@functools.cache
def one_model():
    return RaTENER(str(RATE), VOCABULARY)


@pytest.fixture
def ner():
    return one_model()


@pytest.fixture
def folder(tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(RATE, tmp_path / "rate"))


def change_config(folder, **changes):
    file = folder / "config.json"
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value != "delete"}))


# --- tokenizer ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("case", read("tokens.json"), ids=lambda case: repr(case["text"][:20]))
def test_pieces_equal_the_originals(case):
    found = PieceTokenizer(RATE / "spm.model").encode(case["text"])
    assert found.ids.tolist() == case["ids"]
    assert (np.diff(found.ends) >= 0).all()
    # Where normalisation moves no character. The space put before a text has no place in it; the original says 1.
    if case["text"].isascii() and case["text"].isprintable() and case["text"] == " ".join(case["text"].split()):
        assert [end or 1 for end in found.ends.tolist()] == case["ends"]


@given(st.text())
def test_any_text_has_pieces(text):
    found = PieceTokenizer(RATE / "spm.model").encode(text)
    assert len(found.ids) == len(found.ends)
    assert (np.diff(found.ends) >= 0).all() and (found.ends <= len(text)).all()


# --- spans -------------------------------------------------------------------------------------------------------

def test_labels_equal_the_originals(ner):
    """The first labels of words, as PyTorch sees them, decoded the plain way, and the truth."""
    cases = read("labels.json")
    names = list(json.loads((RATE / "config.json").read_text())["id2label"].values())
    for case, found in zip(cases, ner.find([case["text"] for case in cases]), strict=True):
        spans = [[span.start, span.end, span.type.upper()] for span in found]
        assert spans == case["spans"], case["text"]
        begun = [names[label] for label in case["labels"] if names[label].startswith("B-")]
        assert {f"B-{span.type.upper()}" for span in found} == set(begun)


def test_a_span_has_whole_words_their_id_and_the_models_type(ner):
    text = ("  Findings suggest opacity and fibrosis. There is no pleural\neffusion.\n\n"
            "The left lung shows tuberculosis.\n")
    assert [(text[span.start:span.end], span.id, span.type) for span in ner.find([text])[0]] == [
        ("opacity", "opacity", "abnormality"), ("fibrosis", "fibrosis", "disease"),
        ("pleural\neffusion", "pleural_effusion", "non-abnormality"), ("left lung", "left_lung", "anatomy"),
        ("tuberculosis", "tuberculosis", "disease")]


def test_what_the_vocabulary_calls_a_disease_is_one_and_the_model_says_whether_it_is_denied(ner):
    disease = Vocabulary([Entity("pleural_effusion", "disease", "pleural effusion", also=("effusion",)),
                          Entity("pleural_effusion", "non-disease", "pleural effusion", denies=True)], "other")
    text = "No effusion. There is pleural effusion."
    types = [[span.type for span in one.find([text])[0]] for one in (ner, RaTENER(str(RATE), disease))]
    assert types == [["non-abnormality", "abnormality"], ["non-disease", "disease"]]


def test_a_text_longer_than_the_model_is_read_to_its_end(ner):
    rng = random.Random(0)
    wanted = [rng.choice(["pleural effusion", "opacity", "fibrosis", "pneumonia", "consolidation"]) for _ in range(80)]
    text = ", ".join(wanted) + "."
    assert len(PieceTokenizer(RATE / "spm.model").encode(text).ids) > 3 * 64
    assert [text[span.start:span.end] for span in ner.find([text])[0]] == wanted


def test_batches_change_nothing(ner):
    texts = [case["text"] for case in read("labels.json")]
    texts += [" ".join(texts[:n]) for n in range(1, 9)] + [", ".join(texts).replace(".", "")]
    together = ner.find(texts)
    assert together == [ner.find([text])[0] for text in texts]
    assert together == RaTENER(str(RATE), VOCABULARY, batch_size=3).find(texts)


@pytest.mark.parametrize("text", ["", " \n\t ", ".", "\ud800", "肺部正常，无积液。", "😀", "\x00", "word" * 500])
def test_odd_texts(ner, text):
    found = ner.find(["No effusion.", text])
    assert [span.id for span in found[0]] == ["pleural_effusion"]
    for span in found[1]:
        assert 0 <= span.start < span.end <= len(text) and span.type in TYPES


@given(st.text(alphabet="aefinou .!?\n\t,ls", max_size=80))
def test_spans_follow_each_other(text):
    found = one_model().find([text])[0]
    assert all(0 <= span.start < span.end <= len(text) for span in found)
    assert all(one.end <= other.start for one, other in zip(found, found[1:], strict=False))


def test_no_texts(ner):
    assert ner.find([]) == []


def test_a_recipe_builds_it():
    component = build("ner", {"name": "RaTENER", "folder": str(RATE), "batch_size": 4}, "NER", vocabulary=VOCABULARY)
    assert component.find(["No pneumonia."])[0][0].key == ("pneumonia", "non-disease")


def test_importing_it_is_light():
    code = "import sys, paddle_cxr.synthesis.ner.rate; assert not {'paddle', 'sentencepiece'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# --- labels to spans ---------------------------------------------------------------------------------------------

@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.sampled_from(TYPES)), max_size=6), st.booleans())
def test_every_row_of_spans_survives_its_notation(parts, bioes):
    tags, spans = [], []
    for gap, length, type_ in parts:
        tags += [("O", "")] * gap
        spans.append((len(tags), len(tags) + length, type_))
        prefixes = ["B", *"I" * (length - 1)]
        if bioes:
            prefixes = ["S"] if length == 1 else [*prefixes[:-1], "E"]
        tags += [(prefix, type_) for prefix in prefixes]
    assert list(entities(tags)) == spans


@pytest.mark.parametrize(("row", "expected"), [
    ("I-a I-a O", [(0, 2, "a")]), ("O I-a", [(1, 2, "a")]), ("B-a I-b", [(0, 1, "a"), (1, 2, "b")]),
    ("B-a B-a", [(0, 1, "a"), (1, 2, "a")]), ("B-a O I-a", [(0, 1, "a"), (2, 3, "a")]), ("E-a", [(0, 1, "a")]),
    ("B-a E-a I-a", [(0, 2, "a"), (2, 3, "a")]), ("S-a I-a", [(0, 1, "a"), (1, 2, "a")]),
    ("I-a S-a", [(0, 1, "a"), (1, 2, "a")]), ("", []), ("O O", [])])
def test_what_the_notation_forbids_is_read_as_conlleval_does(row, expected):
    tags = [("O", "") if tag == "O" else tuple(tag.split("-")) for tag in row.split()]
    assert list(entities(tags)) == expected


def test_published_labels():
    names = [f"{prefix}-{type_.upper()}" for type_ in TYPES for prefix in "BI"] + ["O"]
    tags = read_labels({str(number): name for number, name in enumerate(names)}, Path("config.json"))
    assert tags[2:4] == [("B", "non-abnormality"), ("I", "non-abnormality")] and tags[-1] == ("O", "")


# --- windows and sentences ---------------------------------------------------------------------------------------

@given(st.integers(0, 3000), st.integers(1, 510))
def test_windows_cover_everything_once(length, room):
    found = list(windows(length, room))
    assert [piece for _, _, first, last in found for piece in range(first, last)] == list(range(length))
    for start, end, first, last in found:
        assert 0 <= start <= first < last <= end <= length and end - start <= room
        for piece, edge, limit in ((first, start, 0), (last, end, length)):
            assert edge == limit or abs(piece - edge) >= room // 8  # something stands around each piece


@pytest.mark.parametrize(("text", "expected"), [
    ("", []), ("One. Two", ["One.", "Two"]), ("Wrapped\nline. 2.5 cm!", ["Wrapped\nline.", "2.5 cm!"]),
    ("FINDINGS:\n\n  Clear.  \n \nIMPRESSION", ["FINDINGS:", "Clear.", "IMPRESSION"]), (" \n\n ", [])])
def test_sentences(text, expected):
    assert [text[start:end].strip() for start, end in sentences(text)] == expected


# --- folders that are wrong --------------------------------------------------------------------------------------

def refused(folder, *words):
    with pytest.raises(UserError) as caught:
        RaTENER(str(folder), VOCABULARY)
    assert all(word in str(caught.value) for word in (*words, str(folder))), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "spm.model"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    refused(folder, "缺", name)


def test_no_folder(tmp_path):
    refused(tmp_path / "absent", "找不到", "folder")


def test_a_pickle_is_not_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, "pytorch_model.bin", "safetensors")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "spm.model"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe{", b"[1]"])
def test_a_damaged_file_is_named(folder, name, content):
    (folder / name).write_bytes(content)
    refused(folder, name)


@pytest.mark.parametrize(("changes", "words"), [
    ({"model_type": "bert"}, ["model_type", "bert"]), ({"model_type": "delete"}, ["model_type", "None"]),
    ({"architectures": ["DebertaV2ForMaskedLM"]}, ["architectures", "DebertaV2ForMaskedLM"]),
    ({"id2label": "delete"}, ["id2label"]), ({"id2label": ["O", "B-DISEASE"]}, ["id2label"]),
    ({"id2label": {"0": "O", "2": "B-DISEASE"}}, ["id2label"]),
    ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, ["IOB", "LABEL_0"]),
    ({"id2label": {"0": "O", "1": "B-PERSON"}}, ["IOB", "B-PERSON"]),
    ({"id2label": {"0": "B-DISEASE", "1": "I-DISEASE"}}, ["IOB", "缺少 O"]),
    ({"id2label": {"0": "O", "1": "B-DISEASE"}}, ["classifier", "形状不符"]),
    ({"hidden_size": 48}, ["形状不符", "model.safetensors"]), ({"num_hidden_layers": 3}, ["缺少"]),
    ({"num_hidden_layers": 1}, ["多出"]), ({"num_attention_heads": 5}, ["num_attention_heads"]),
    ({"conv_kernel_size": 2}, ["conv_kernel_size", "odd"]),
    ({"hidden_size": None}, ["hidden_size"]), ({"vocab_size": 50}, ["spm.model", "vocab_size"]),
    ({"num_hidden_layers": 10**9}, ["num_hidden_layers"]), ({"vocab_size": 10**12}, ["vocab_size"]),
    ({"vocab_size": 2**24, "hidden_size": 2**24}, ["形状不符"])])  # 10**15 bytes that must never be asked for
def test_a_config_that_does_not_fit(folder, changes, words):
    change_config(folder, **changes)
    refused(folder, *words)


def test_weights_of_another_shape(folder):
    file = folder / "model.safetensors"
    state = read_safetensors(file)[0]
    write_safetensors(file, state | {"classifier.bias": np.zeros(9, np.float32)})
    refused(folder, "classifier.bias", "形状不符")


def test_pieces_of_another_model(folder):
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(["no effusion is seen in the lung"] * 20),
                                             model_prefix=str(folder / "spm"), vocab_size=30, hard_vocab_limit=False,
                                             minloglevel=2)
    refused(folder, "[CLS]", "spm.model")


def test_batch_size():
    with pytest.raises(UserError, match="batch_size"):
        RaTENER(str(RATE), VOCABULARY, batch_size=0)
