"""CLIP's tokenizer: text → numbers that a text encoder reads (byte-level byte-pair encoding).

A word is spelled with the 256 bytes of UTF-8, the last one marked ``</w>``; then the pairs that were frequent in the
texts the tokenizer was trained on are merged, in the order in which training found them.  So every text has a spelling,
and frequent words are one token.  Sennrich et al., arXiv:1508.07909; Radford et al., arXiv:2103.00020.

    train_clip_tokenizer    texts → a small tokenizer of their own
    read_clip_tokenizer     the folder ``tokenizer`` of a Stable Diffusion model
    ClipTokenizer           encodes, and writes itself as such a folder

The encoding itself is PaddleNLP's ``CLIPTokenizer``.
"""

from __future__ import annotations

import heapq
import itertools
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paddle_cxr.errors import UserError
from paddle_cxr.files import write_json, write_text
from paddle_cxr.pdparams import one_line

START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
_LEAST = 2  # times that a pair must be there to be merged
VOCAB, MERGES, WHOLE, SETTINGS, MARKS = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json",
                                         "special_tokens_map.json")


class ClipTokenizer:
    """Text → token ids.

    Args:
        vocab: token → id, with the start and the end token.
        merges: pairs of tokens, the most frequent first.
        max_tokens: ids of one text, the start and end tokens among them.
        pad: what fills a shorter text; the end token in Stable Diffusion 1, ``!`` in 2.

    Attributes:
        size: ids are smaller than this.

    Raises:
        UserError: no start or end token, ids twice or below 0.
    """

    def __init__(self, vocab: dict[str, int], merges: Sequence[tuple[str, str]], max_tokens: int = 77, pad: str = END,
                 where: str = "tokenizer") -> None:
        _check_vocab(vocab, pad, where)
        if type(max_tokens) is not int or max_tokens < 3:
            raise UserError(f"{where}：text_encoder 的 max_position_embeddings 应为不小于 3 的整数（起止符和一个词），"
                            f"现在是 {max_tokens!r}")
        from paddlenlp.transformers import CLIPTokenizer

        self.vocab, self.merges, self.max_tokens, self.pad = vocab, list(merges), max_tokens, pad
        self.size = max(vocab.values()) + 1
        with tempfile.TemporaryDirectory() as folder:  # PaddleNLP reads files, and has read them when it returns
            self._write_spelling(Path(folder))
            self._encoder = CLIPTokenizer(str(Path(folder) / VOCAB), str(Path(folder) / MERGES))

    def encode(self, text: str) -> tuple[list[int], int]:
        """Exactly ``max_tokens`` ids of a text (start, text, end, padding), and how many of its tokens were cut."""
        # As in the original, padding that stands in a text ("!" in Stable Diffusion 2) is the padding's token.
        parts = text.split(self.pad) if self.pad != END else [text]
        ids = [one for part in parts for one in (self.vocab[self.pad], *self._ids(part))][1:]
        room = self.max_tokens - 2
        row = [self.vocab[START], *ids[:room], self.vocab[END]]
        return row + [self.vocab[self.pad]] * (self.max_tokens - len(row)), max(0, len(ids) - room)

    def _ids(self, text: str) -> list[int]:
        return [self.vocab.get(token, self.vocab[END]) for token in self._encoder._tokenize(text)]

    def write(self, folder: Path) -> None:
        """Write the four files that PaddleNLP, diffusers and transformers read."""
        self._write_spelling(folder)
        marks = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": self.pad}
        write_json(folder / MARKS, marks)
        write_json(folder / SETTINGS, {"tokenizer_class": "CLIPTokenizer", "model_max_length": self.max_tokens,
                                       "do_lower_case": True, "errors": "replace", "add_prefix_space": False, **marks})

    def _write_spelling(self, folder: Path) -> None:
        write_json(folder / VOCAB, self.vocab)
        # The first line is a comment, which every reader skips.
        write_text(folder / MERGES, "\n".join(["#version: 0.2", *(" ".join(pair) for pair in self.merges)]) + "\n")


def _check_vocab(vocab: dict[str, int], pad: str, where: str) -> None:
    missing = [token for token in (START, END, pad) if token not in vocab]
    if missing:
        raise UserError(f"{where}：词表（vocab）里没有 {'、'.join(missing)}；请换成 CLIPTokenizer 的文件")
    ids = list(vocab.values())
    if any(type(one) is not int or one < 0 for one in ids) or len(set(ids)) < len(ids):
        raise UserError(f"{where}：词表（vocab）的编号应为互不相同的非负整数；请重新下载")


def train_clip_tokenizer(texts: Sequence[str], vocab_size: int = 2048, max_tokens: int = 77) -> ClipTokenizer:
    """A tokenizer whose merges are the frequent pairs of ``texts``.

    Args:
        texts: reports; the same texts in any order give the same tokenizer.
        vocab_size: at most so many tokens; 514 of them are the bytes and the two special tokens.
        max_tokens: see :class:`ClipTokenizer`.

    Raises:
        UserError: ``vocab_size`` leaves no room for a merge.
    """
    alphabet = _byte_letters()
    base = [*alphabet, *(letter + WORD_END for letter in alphabet)]
    if type(vocab_size) is not int or vocab_size <= len(base) + 2:
        raise UserError(f"tokenizer.vocab_size：应为大于 {len(base) + 2} 的整数（字节和起止符），现在是 {vocab_size!r}")
    merges = _train_merges(texts, vocab_size - len(base) - 2)
    # CLIP's own order: bytes, bytes that end a word, merges, special tokens.
    tokens = dict.fromkeys([*base, *(first + second for first, second in merges), START, END])
    return ClipTokenizer({token: number for number, token in enumerate(tokens)}, merges, max_tokens)


def _byte_letters() -> list[str]:
    """The printable letters that stand for the 256 bytes, in the order in which GPT-2 and CLIP list them."""
    from paddlenlp.transformers.clip.tokenizer import bytes_to_unicode

    return list(bytes_to_unicode().values())


def _train_merges(texts: Sequence[str], count: int) -> list[tuple[str, str]]:
    """The pairs to merge, at most ``count``: each the most frequent one once those before it are merged.

    Of equally frequent pairs the one whose tokens are older comes first: the order may not hang on anything but the
    texts, for every rank, and every session that goes on with a training, makes its tokenizer anew.
    """
    from paddlenlp.transformers.clip.tokenizer import bytes_to_unicode

    letters = bytes_to_unicode()
    # Token → its number: the bytes, then those that end a word, as the sorted texts bring them, then what is merged.
    numbers = {letter: number for number, letter in enumerate(sorted(letters.values()))}
    words, times = _spelled(sorted(texts), letters, numbers)
    names = list(numbers)
    totals: Counter[tuple[int, int]] = Counter()
    where: defaultdict[tuple[int, int], set[int]] = defaultdict(set)  # pair → words that had it at some time

    def tally(place: int, sign: int) -> list[tuple[int, int]]:
        pairs = list(itertools.pairwise(words[place]))
        for pair in pairs:
            totals[pair] += sign * times[place]
            where[pair].add(place)
        return pairs

    for place in range(len(words)):
        tally(place, 1)
    queue = [(-total, pair) for pair, total in totals.items()]
    heapq.heapify(queue)
    merges: list[tuple[str, str]] = []
    while queue and len(merges) < count:
        total, best = heapq.heappop(queue)
        if -total != totals[best]:  # from before another merge; what it has become stands elsewhere in the queue
            continue
        if -total < _LEAST:
            break
        first, second = (names[number] for number in best)
        merges.append((first, second))
        merged = numbers.setdefault(first + second, len(names))  # "ab" + "c" may be there as "a" + "bc"
        if merged == len(names):
            names.append(first + second)
        changed: set[tuple[int, int]] = set()
        for place in where.pop(best):
            changed.update(tally(place, -1))
            words[place] = _merged(words[place], best, merged)
            changed.update(tally(place, 1))
        for pair in changed:
            heapq.heappush(queue, (-totals[pair], pair))
    return merges


def _spelled(texts: Sequence[str], letters: Mapping[int, str], numbers: dict[str, int]
             ) -> tuple[list[list[int]], list[int]]:
    """The different words of texts, each as the numbers of its letters, and how often each is there.

    Letters that end a word get their numbers here.
    """
    import regex

    # As CLIP cuts them: letters, single digits, or the rest.
    cut = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
    found = Counter(word for text in texts for word in cut.findall(text.lower()))
    words = []
    for word in found:
        *start, end = (letters[byte] for byte in word.encode("utf-8", "replace"))
        words.append([*map(numbers.__getitem__, start), numbers.setdefault(end + WORD_END, len(numbers))])
    return words, list(found.values())


def _merged(word: Sequence[int], pair: tuple[int, int], number: int) -> list[int]:
    """``word`` with every ``pair`` in it, from left to right, as the one token ``number``."""
    result: list[int] = []
    left = False  # whether the last token is the first half of a pair that may be completed
    for token in word:
        if left and token == pair[1]:
            result[-1] = number
            left = False
        else:
            result.append(token)
            left = token == pair[0]
    return result


def _pair(merge: Any) -> tuple[str, str]:
    """A merge as older ("a b") or newer (["a", "b"]) releases of ``tokenizers`` write it."""
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return str(first), str(second)


def read_clip_tokenizer(folder: Path, max_tokens: int) -> ClipTokenizer:
    """Read ``vocab.json`` and ``merges.txt``, or a ``tokenizer.json``.

    Args:
        folder: the sub-folder ``tokenizer``.
        max_tokens: what the text encoder takes.

    Raises:
        UserError: a file is missing or damaged.
    """
    if (folder / VOCAB).is_file() or not (folder / WHOLE).is_file():
        vocab, merges = read_json(folder / VOCAB), _read_merges(folder / MERGES)
    else:
        file = folder / WHOLE
        try:
            model = read_json(file)["model"]
            vocab, merges = dict(model["vocab"]), [_pair(one) for one in model["merges"]]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"分词器文件损坏：{file}（{one_line(error)}）；请重新下载") from None
    settings = {}
    for name in (MARKS, SETTINGS):
        if (folder / name).is_file():
            settings |= read_json(folder / name)
    return ClipTokenizer(vocab, merges, max_tokens, _content(settings.get("pad_token")) or END, str(folder))


def _read_merges(file: Path) -> list[tuple[str, str]]:
    try:
        lines = file.read_text("utf-8").strip().split("\n")
        return [_pair(line.rstrip("\r")) for line in lines if not line.startswith("#version")]
    except FileNotFoundError:
        raise UserError(f"找不到分词器文件 {file}；请重新下载整个文件夹") from None
    except (OSError, ValueError) as error:
        raise UserError(f"分词器文件损坏：{file}（{one_line(error)}）；请重新下载") from None


def _content(token: Any) -> str:
    """A special token, written as its text or as a description of it."""
    value = token.get("content") if isinstance(token, dict) else token
    return value if isinstance(value, str) else ""


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a model's folder; raises :class:`UserError` for a file that is missing or damaged."""
    try:
        value = json.loads(file.read_text("utf-8"))
        if not isinstance(value, dict):
            raise ValueError("应为一个对象（object）")
        return value
    except FileNotFoundError:
        raise UserError(f"模型文件夹不完整：找不到 {file}；请重新下载整个文件夹") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"模型说明损坏或无法读取：{file}（{one_line(error)}）；请重新下载") from None
