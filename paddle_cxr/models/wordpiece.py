"""Reports → numbers that a text encoder reads: BERT's WordPiece tokenizer, and training a vocabulary for it.

A text is cleaned, cut into words at blanks and punctuation (every Chinese character is a word of its own), and a word
into the longest pieces that the vocabulary has; a piece that goes on with a word begins with ``##``:

    "Cardiomegaly, 心影增大"  →  [CLS] card ##io ##mega ##ly , 心 影 增 大 [SEP]

Which word a piece belongs to is kept, as GLoRIA compares words, and figures name them.

    ReportTokenizer         encodes, and writes itself as files that PaddleNLP and transformers read
    train_wordpiece         texts → a tokenizer with a vocabulary of their frequent pieces
    read_report_tokenizer   the folder of a published BERT, ELECTRA or ERNIE

What stands in a report is text: ``[SEP]`` written there is three words and no special token.

Reference: Wu et al., "Google's Neural Machine Translation System" (2016), arXiv:1609.08144, section 4.1; Devlin et al.,
"BERT" (2018), arXiv:1810.04805.  The work is done by Hugging Face's ``tokenizers``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pydantic

from paddle_cxr.errors import UserError
from paddle_cxr.files import write_json, write_text
from paddle_cxr.models.clip_tokenizer import read_json
from paddle_cxr.pdparams import one_line
from paddle_cxr.quiet import importing

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, UNK, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUES = "##"
VOCAB, WHOLE, SETTINGS = "vocab.txt", "tokenizer.json", "tokenizer_config.json"
MAX_TOKENS = 97  # of one text in GLoRIA
_LONGEST_WORD = 100  # a longer one is [UNK], as in the original
_LARGEST_VOCAB = 64 * 2**20  # bytes; published ones have less than 2 MiB
# What PaddleNLP takes for a symbol, and so for a word of its own.
_SYMBOLS = "[\\p{S}\u00ad\u00b2\u00b5\u00ba\u00d8\u014b\u01b1\u3007]"


class Encoded(NamedTuple):
    """A text as tokens.

    Attributes:
        ids: numbers of the tokens, [CLS] first and [SEP] last.
        words: for every token the number of the word it is a piece of; -1 for [CLS] and [SEP].
        spelled: the words as they stand in the text, by number.
        cut: how many tokens of the text were cut off.
    """

    ids: list[int]
    words: list[int]
    spelled: list[str]
    cut: int


class TextBatch(NamedTuple):
    """Texts as tokens, int64 [N, L], padded to the longest.

    Attributes:
        ids: numbers of the tokens.
        attention: 1 for a token, [CLS] and [SEP] included; 0 for padding.
        words: as in :class:`Encoded`; -1 for padding too.
    """

    ids: np.ndarray
    attention: np.ndarray
    words: np.ndarray


class Spelling(pydantic.BaseModel, frozen=True, extra="ignore"):
    """The keys of a ``tokenizer_config.json`` that say how words are found, with the defaults of transformers.

    BioClinicalBERT is published without that file and so is read in lower case, by GLoRIA and others as well as here.
    """

    do_lower_case: bool = True
    strip_accents: bool | None = None  # é → e; None: as do_lower_case
    tokenize_chinese_chars: bool = True  # a Chinese character is a word
    split_symbols: bool = False  # a symbol (℃, ×, ±) is a word: PaddleNLP's habit, with which its models were trained


class ReportTokenizer:
    """Text → token ids.

    Args:
        tokens: the vocabulary, by number.
        spelling: how words are found.
        max_tokens: ids of one text, [CLS] and [SEP] among them.
        where: what messages name.

    Attributes:
        size: ids are smaller than this.

    Raises:
        UserError: a special token is missing, or ``max_tokens`` leaves no room for a word.
    """

    def __init__(self, tokens: Sequence[str], spelling: Spelling | None = None, max_tokens: int = MAX_TOKENS,
                 where: str = "tokenizer") -> None:
        self.tokens, self.spelling, self.max_tokens = list(tokens), spelling or Spelling(), max_tokens
        vocab = {token: number for number, token in enumerate(self.tokens)}
        if missing := [token for token in (PAD, UNK, CLS, SEP) if token not in vocab]:
            raise UserError(f"{where}：词表里没有 {'、'.join(missing)}；请换成 BERT、ELECTRA、ERNIE 一类模型的词表")
        if type(max_tokens) is not int or max_tokens < 3:
            raise UserError(f"{where}：max_tokens 应为不小于 3 的整数（起止符和一个词），现在是 {max_tokens!r}")
        self.size = len(self.tokens)
        self._pad, self._start, self._end = (vocab[token] for token in (PAD, CLS, SEP))
        self._tokenizer = _pipeline(vocab, self.spelling)

    def encode(self, text: str) -> Encoded:
        """The first ``max_tokens`` tokens of a text of any length."""
        try:
            found = self._tokenizer.encode(text, add_special_tokens=False)
        except (TypeError, UnicodeEncodeError):  # half of a surrogate pair
            text = _sound(text)
            found = self._tokenizer.encode(text, add_special_tokens=False)
        ids, numbers, room = found.ids, found.word_ids, self.max_tokens - 2
        kept = numbers[:room]
        places: list[tuple[int, int]] = []
        for number, (start, end) in zip(numbers, found.offsets, strict=True):
            if number == len(places):
                if len(places) > (kept[-1] if kept else -1):
                    break
                places.append((start, end))
            else:
                places[number] = (places[number][0], end)
        return Encoded([self._start, *ids[:room], self._end], [-1, *kept, -1],
                       [text[start:end] for start, end in places], max(0, len(ids) - room))

    def batch(self, texts: Sequence[str]) -> TextBatch:
        """Texts as arrays [N, L], where L is the number of tokens of the longest."""
        encoded = [self.encode(text) for text in texts]
        shape = len(encoded), max((len(one.ids) for one in encoded), default=0)
        ids, attention, words = np.full(shape, self._pad), np.zeros(shape, np.int64), np.full(shape, -1)
        for row, one in enumerate(encoded):
            length = len(one.ids)
            ids[row, :length], attention[row, :length], words[row, :length] = one.ids, 1, one.words
        return TextBatch(ids, attention, words)

    def write(self, folder: str | Path) -> None:
        """Write ``vocab.txt`` and ``tokenizer_config.json``, as PaddleNLP and transformers read them."""
        write_text(Path(folder) / VOCAB, "".join(f"{token}\n" for token in self.tokens))
        write_json(Path(folder) / SETTINGS, {"tokenizer_class": "BertTokenizer", "model_max_length": self.max_tokens,
                                             **self.spelling.model_dump()})


def _pipeline(vocab: dict[str, int], spelling: Spelling) -> Tokenizer:
    """BERT's tokenizer, without special tokens."""
    with importing("文本塔（text encoder）需要 tokenizers", "请运行 pip install -e \".[nlp]\""):
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=UNK, max_input_chars_per_word=_LONGEST_WORD))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=spelling.tokenize_chinese_chars, strip_accents=spelling.strip_accents,
        lowercase=spelling.do_lower_case)
    words = pre_tokenizers.BertPreTokenizer()
    symbols = [pre_tokenizers.Split(Regex(_SYMBOLS), behavior="isolated")] if spelling.split_symbols else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, *symbols])
    return tokenizer


def _sound(text: str) -> str:
    """``text`` with "?" for halves of surrogate pairs, which JSON may hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


# --- training ----------------------------------------------------------------------------------------------------

def train_wordpiece(texts: Iterable[str], vocab_size: int = 2000, max_tokens: int = MAX_TOKENS,
                    spelling: Spelling | None = None) -> ReportTokenizer:
    """A tokenizer whose vocabulary is the frequent pieces of ``texts``.

    Two neighbouring pieces become one, the most frequent pair first, until the vocabulary is full (as in byte-pair
    encoding, Sennrich et al., arXiv:1508.07909).  All characters of the texts are in it, so that none of their words is
    unknown.

    Args:
        texts: reports; the same texts in any order give the same vocabulary.
        vocab_size: at most so many tokens.
        max_tokens: see :class:`ReportTokenizer`.
        spelling: how words are found.

    Raises:
        UserError: no text, or ``vocab_size`` has no room for the characters.
    """
    # Threads would make a process that forks later print a warning, and save nothing: ranks share the cores anyway.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    spelling, texts = spelling or Spelling(), [_sound(text) for text in texts]
    tokenizer = _pipeline({UNK: 0}, spelling)
    letters = _letters(texts, tokenizer)
    if not letters:
        raise UserError("训练词表（vocabulary）的文字是空的；请检查报告")
    # These first, as if they were special tokens: the trainer numbers them in the order in which it meets words, which
    # is random, and breaks ties between pairs by their numbers (https://github.com/huggingface/tokenizers/issues/1794).
    first = [*SPECIAL, *(CONTINUES + letter for letter in letters if _goes_on(letter, tokenizer))]
    needed = len(first) + len(letters)
    if type(vocab_size) is not int or vocab_size < needed:
        raise UserError(f"vocab_size：训练文字有 {len(letters)} 个不同的字符，词表大小至少要 {needed}（整数），"
                        f"现在是 {vocab_size!r}；请改大")
    from tokenizers import trainers

    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=2, special_tokens=first, continuing_subword_prefix=CONTINUES,
        show_progress=False))
    vocab = tokenizer.get_vocab()
    return ReportTokenizer(sorted(vocab, key=vocab.__getitem__), spelling, max_tokens)


def _letters(texts: Iterable[str], tokenizer: Tokenizer) -> list[str]:
    """The characters of the words of ``texts``."""
    found: set[str] = set()
    for text in texts:
        found.update(tokenizer.normalizer.normalize_str(text))
    return sorted(letter for letter in found if not letter.isspace())


def _goes_on(letter: str, tokenizer: Tokenizer) -> bool:
    """Whether a character can stand within a word, as punctuation and Chinese cannot."""
    return len(tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(f"a{letter}"))) == 1


# --- reading -----------------------------------------------------------------------------------------------------

def read_report_tokenizer(folder: str | Path, max_tokens: int = MAX_TOKENS, split_symbols: bool = False
                          ) -> ReportTokenizer:
    """Read ``vocab.txt``, or ``tokenizer.json`` where there is none, with ``tokenizer_config.json`` if it is there.

    Args:
        folder: of a published model, or written by :meth:`ReportTokenizer.write`.
        max_tokens: see :class:`ReportTokenizer`.
        split_symbols: whether symbols are words, where the folder does not say.

    Raises:
        UserError: a file is missing or damaged, or holds another kind of tokenizer.
    """
    folder, settings = Path(folder), {"split_symbols": split_symbols}
    if (folder / VOCAB).is_file() or not (folder / WHOLE).is_file():
        file = folder / VOCAB
        tokens = _read_vocab(file)
    else:
        file = folder / WHOLE
        tokens, said = _read_whole(file)
        settings |= _given(said)
    if (folder / SETTINGS).is_file():
        settings |= _given(read_json(folder / SETTINGS))
    try:
        spelling = Spelling.model_validate(settings)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{folder / SETTINGS}：{first['loc'][0]} 应为 true 或 false，"
                        f"现在是 {first['input']!r}") from None
    return ReportTokenizer(tokens, spelling, max_tokens, str(file))


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    """Those that have a value: null stands for the default."""
    return {key: value for key, value in settings.items() if value is not None}


def _read_vocab(file: Path) -> list[str]:
    try:
        if file.stat().st_size > _LARGEST_VOCAB:
            raise UserError(f"{file} 有 {file.stat().st_size / 2**20:.0f} MiB，不是 WordPiece 词表；请重新下载")
        lines = file.read_text("utf-8").split("\n")  # not splitlines(): tokens may be other kinds of line breaks
    except FileNotFoundError:
        raise UserError(f"模型文件夹不完整：{file.parent} 里没有 {VOCAB}（WordPiece 词表）或 {WHOLE}；请重新下载整个"
                        "文件夹，RoBERTa、GPT 等的分词器（BPE）不受支持") from None
    except (OSError, ValueError) as error:
        raise UserError(f"分词器文件损坏：{file}（{one_line(error)}）；请重新下载") from None
    return lines[:-1] if lines[-1] == "" else lines


def _read_whole(file: Path) -> tuple[list[str], dict[str, Any]]:
    """Vocabulary and spelling of a ``tokenizer.json``, all that transformers 5 writes."""
    content = read_json(file)
    model, normalizer = content.get("model"), content.get("normalizer")
    if not isinstance(model, dict) or model.get("type") != "WordPiece":
        kind = model.get("type") if isinstance(model, dict) else None
        raise UserError(f"{file} 是 {kind} 分词器，应为 WordPiece（BERT、ELECTRA、ERNIE）；请换一个模型")
    vocab = model.get("vocab")
    if not isinstance(vocab, dict) or sorted(map(repr, vocab.values())) != sorted(map(repr, range(len(vocab)))):
        raise UserError(f"分词器文件损坏：{file} 的 vocab 应为从 0 起连续编号的词；请重新下载")
    names = {"lowercase": "do_lower_case", "strip_accents": "strip_accents",
             "handle_chinese_chars": "tokenize_chinese_chars"}
    normalizer = normalizer if isinstance(normalizer, dict) else {}
    return sorted(vocab, key=vocab.__getitem__), {ours: normalizer.get(theirs) for theirs, ours in names.items()}
