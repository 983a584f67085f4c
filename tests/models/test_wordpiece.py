"""WordPiece: against transformers' and PaddleNLP's tokenizers, words, training, and folders read or refused."""

import json
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("paddle")
pytest.importorskip("tokenizers")

from paddle_cxr.errors import UserError  # noqa: E402
from paddle_cxr.models.wordpiece import (  # noqa: E402
    ReportTokenizer,
    Spelling,
    read_report_tokenizer,
    train_wordpiece,
)

FIXTURES = Path(__file__).parents[1] / "fixtures" / "text_encoder"
EXPECTED = json.loads((FIXTURES / "tokens.json").read_text())  # by transformers
OLD = FIXTURES / "like_old_bert"
TEXTS = ["Large right pleural effusion with adjacent atelectasis.", "No acute cardiopulmonary process.",
         "Small left apical pneumothorax.", "右侧胸腔积液，左肺不张。", "心影不大，双肺纹理清晰。"] * 3
LETTERS = ("abeffusionLARGEéü 0123.,;:()-/'\"+<=>~$^|\t\n\u00a0\u3000"
           "肺炎心影，。：（）《》℃×±²µ½\u0301\u200b\u00ad日本\U00020000")


@pytest.fixture(scope="module")
def tokenizer():
    return read_report_tokenizer(OLD)


@pytest.fixture(scope="module")
def trained():
    return train_wordpiece(TEXTS, 400)


# --- against others ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_ids_equal_transformers(name):
    tokenizer = read_report_tokenizer(FIXTURES / name, max_tokens=500)
    for one in EXPECTED[name]:
        assert tokenizer.encode(one["text"]).ids == one["ids"], one["text"]


@pytest.fixture(scope="module", params=[("Bert", True), ("Bert", False), ("Ernie", True), ("Electra", False)],
                ids=lambda param: f"{param[0]}-{'lower' if param[1] else 'cased'}")
def of_paddlenlp(request, tokenizer):
    transformers = pytest.importorskip("paddlenlp.transformers")
    name, lower = request.param
    spelling = Spelling(do_lower_case=lower, split_symbols=True)
    theirs = getattr(transformers, f"{name}Tokenizer")(str(OLD / "vocab.txt"), do_lower_case=lower)
    return theirs, ReportTokenizer(tokenizer.tokens, spelling, 500)


def test_ids_equal_paddlenlps(of_paddlenlp):
    theirs, ours = of_paddlenlp
    for text in [one["text"] for one in EXPECTED["like_ernie"]] + TEXTS:
        assert ours.encode(text).ids == theirs(text)["input_ids"], text


@settings(max_examples=60)
@given(text=st.text(LETTERS, max_size=40))
def test_ids_of_any_text_equal_paddlenlps(of_paddlenlp, text):
    theirs, ours = of_paddlenlp
    assert ours.encode(text).ids == theirs(text)["input_ids"]


def test_paddlenlp_reads_what_is_written(trained, tmp_path):
    transformers = pytest.importorskip("paddlenlp.transformers")
    trained.write(tmp_path)
    theirs = transformers.BertTokenizer.from_pretrained(str(tmp_path))
    assert theirs(TEXTS[0])["input_ids"] == trained.encode(TEXTS[0]).ids


# --- tokens and words --------------------------------------------------------------------------------------------

def spell(tokenizer, encoded):
    return [tokenizer.tokens[one] for one in encoded.ids]


def test_pieces_belong_to_words(tokenizer):
    found = tokenizer.encode("Unaffable, 肺炎 left")
    assert spell(tokenizer, found) == ["[CLS]", "un", "##aff", "##able", ",", "肺", "炎", "left", "[SEP]"]
    assert found.words == [-1, 0, 0, 0, 1, 2, 3, 4, -1]
    assert found.spelled == ["Unaffable", ",", "肺", "炎", "left"] and found.cut == 0


def test_what_is_cut_is_counted_and_its_last_word_is_whole(tokenizer):
    tokenizer = ReportTokenizer(tokenizer.tokens, max_tokens=4)
    found = tokenizer.encode("left unaffable left")
    assert spell(tokenizer, found) == ["[CLS]", "left", "un", "[SEP]"]
    assert found.words == [-1, 0, 1, -1] and found.spelled == ["left", "unaffable"] and found.cut == 3


@pytest.mark.parametrize("text", ["", "  \n", "\u200b"])
def test_a_text_without_words(tokenizer, text):
    assert tokenizer.encode(text) == ([tokenizer.tokens.index("[CLS]"), tokenizer.tokens.index("[SEP]")], [-1, -1], [],
                                      0)


def test_special_tokens_in_a_text_are_text(tokenizer):
    special = {tokenizer.tokens.index(one) for one in ("[PAD]", "[CLS]", "[SEP]", "[MASK]")}
    assert not special & set(tokenizer.encode("[PAD] [CLS][SEP] left [MASK]").ids[1:-1])


def test_half_a_surrogate_pair_is_no_crash(tokenizer):
    assert tokenizer.encode("left \ud800 left").spelled == ["left", "?", "left"]
    assert train_wordpiece(["left \ud800"], 40).encode("left \ud800").spelled == ["left", "?"]


@given(text=st.text(LETTERS, max_size=60), limit=st.integers(3, 20))
def test_words_follow_each_other(tokenizer, text, limit):
    found = ReportTokenizer(tokenizer.tokens, max_tokens=limit).encode(text)
    words = found.words[1:-1]
    assert len(found.ids) == len(found.words) <= limit
    assert all(0 <= after - before <= 1 for before, after in pairwise([0, *words]))
    assert len(found.spelled) == (words[-1] + 1 if words else 0)
    place = 0
    for word in found.spelled:
        assert word and not word.isspace() and text.find(word, place) >= place
        place = text.find(word, place) + len(word)


def test_a_batch_is_padded_to_its_longest(tokenizer):
    texts = ["left", "unaffable 肺", ""]
    ids, attention, words = tokenizer.batch(texts)
    assert ids.shape == attention.shape == words.shape == (3, 6)
    assert ids.dtype == attention.dtype == words.dtype == np.int64
    for row, text in enumerate(texts):
        one = tokenizer.encode(text)
        length = len(one.ids)
        assert ids[row, :length].tolist() == one.ids and words[row, :length].tolist() == one.words
        assert attention[row].tolist() == [1] * length + [0] * (6 - length)
        assert set(ids[row, length:]) <= {tokenizer.tokens.index("[PAD]")} and set(words[row, length:]) <= {-1}


def test_a_batch_of_none(tokenizer):
    assert tokenizer.batch([]).ids.shape == (0, 0)


# --- training ----------------------------------------------------------------------------------------------------

def test_the_vocabulary_depends_on_the_texts_alone():
    rng = random.Random(0)
    words = "no acute process left right pleural effusion small large opacity lower lobe heart 肺炎 心影".split()
    texts = [" ".join(rng.choices(words, k=6)) for _ in range(40)]  # ties between pairs in plenty
    found = set()
    for _ in range(12):
        rng.shuffle(texts)
        found.add(tuple(train_wordpiece(texts, 100).tokens))
    assert len(found) == 1


def test_frequent_words_are_one_token_and_none_is_unknown(trained):
    assert trained.size <= 400
    assert trained.tokens[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert {"pleural", "effusion", "肺"} <= set(trained.tokens) and "##肺" not in trained.tokens
    assert len(set(trained.tokens)) == trained.size
    for text in (*TEXTS, "noncardiac sulp"):  # letters of the texts, in new words
        assert "[UNK]" not in spell(trained, trained.encode(text))


@pytest.mark.parametrize(("texts", "size", "message"), [
    ([], 400, "是空的"), (["", " \n"], 400, "是空的"), (TEXTS, 60, "至少要 68"), (TEXTS, "many", "整数")])
def test_no_vocabulary_from(texts, size, message):
    with pytest.raises(UserError, match=message):
        train_wordpiece(texts, size)


# --- folders -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("spelling", [Spelling(), Spelling(do_lower_case=False, strip_accents=True,
                                                          tokenize_chinese_chars=False, split_symbols=True)])
def test_a_written_tokenizer_is_read_again(trained, spelling, tmp_path):
    ReportTokenizer([*trained.tokens, "\u2028", "\x85"], spelling).write(tmp_path)
    again = read_report_tokenizer(tmp_path, 12)
    assert again.tokens[:-2] == trained.tokens and again.size == trained.size + 2
    assert again.spelling == spelling and again.max_tokens == 12


def test_tokenizer_json_says_how_words_are_found(tmp_path):
    content = json.loads((FIXTURES / "like_electra" / "tokenizer.json").read_text())
    content["normalizer"]["lowercase"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert not read_report_tokenizer(tmp_path).spelling.do_lower_case
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    assert read_report_tokenizer(tmp_path).spelling.do_lower_case


def test_a_vocabulary_of_windows_line_ends(tokenizer, tmp_path):
    (tmp_path / "vocab.txt").write_bytes((OLD / "vocab.txt").read_bytes().replace(b"\n", b"\r\n"))
    assert read_report_tokenizer(tmp_path).tokens == tokenizer.tokens


@pytest.mark.parametrize(("name", "content", "message"), [
    ("vocab.txt", "left\nright\n", r"没有 \[PAD\]、\[UNK\]、\[CLS\]、\[SEP\]"),
    ("vocab.txt", "", r"没有 \[PAD\]"),
    ("vocab.txt", b"\xff\xfe\x00", "损坏"),
    ("other.txt", "", "没有 vocab.txt"),
    ("tokenizer.json", "[1", "损坏"),
    ("tokenizer.json", '{"model": {"type": "BPE"}}', "是 BPE 分词器"),
    ("tokenizer.json", "{}", "应为 WordPiece"),
    ("tokenizer.json", '{"model": {"type": "WordPiece", "vocab": {"a": 1, "b": 1}}}', "连续编号"),
    ("tokenizer.json", '{"model": {"type": "WordPiece", "vocab": {"a": {}}}}', "连续编号")])
def test_a_folder_that_is_refused(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as error:
        read_report_tokenizer(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("content", ['{"do_lower_case": "perhaps"}', '{"strip_accents": [1]}'])
def test_a_setting_that_is_refused(content, tokenizer, tmp_path):
    tokenizer.write(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(UserError, match="应为 true 或 false"):
        read_report_tokenizer(tmp_path)


@pytest.mark.parametrize("limit", [2, 0, -1, 9.5, None])
def test_no_room_for_a_word(tokenizer, limit):
    with pytest.raises(UserError, match="max_tokens 应为不小于 3 的整数"):
        ReportTokenizer(tokenizer.tokens, max_tokens=limit)
