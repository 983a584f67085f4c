"""RaTE-NER: a DeBERTa-v2 that labels every word of a report (Zhao et al., "RaTEScore", EMNLP 2024, arXiv:2406.16845).

It reads the folder of the published weights (Angelakeke/RaTE-NER-Deberta, in the Hugging Face layout), or of any
DeBERTa-v2 token classifier with IOB or BIOES labels of the five types:

    config.json  model.safetensors  spm.model

The road of a text: sentences → pieces (:mod:`.pieces`) → one label a piece (:mod:`paddle_cxr.models.deberta`) → words →
spans (:mod:`.iob`) → ids by the vocabulary.  The types are the model's: it has learned to see what a sentence denies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydantic

from paddle_cxr.errors import UserError
from paddle_cxr.pdparams import one_line
from paddle_cxr.registry import register
from paddle_cxr.synthesis.entities import TYPES, Span
from paddle_cxr.synthesis.model_folder import WEIGHTS, require_files
from paddle_cxr.synthesis.ner.iob import entities, read_labels
from paddle_cxr.synthesis.ner.pieces import Pieces, PieceTokenizer
from paddle_cxr.synthesis.vocabulary import Vocabulary
from paddle_cxr.weights import apply_weights, read_safetensors

if TYPE_CHECKING:
    from paddle_cxr.models.deberta import DebertaConfig, DebertaForTokenClassification

CONFIG, PIECES = "config.json", "spm.model"

# The model has learned from sentences. A line break alone ends none: reports are often wrapped at some width.
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n[^\S\n]*\n\s*")
_WORD = re.compile(r"[^\W_]+|[^\s\w]|_")  # letters and digits, or one other character

Window = tuple[int, int, int, int, int]  # number of the text, and what windows() yields

# Attention holds some tables of tokens × tokens for every head: what fits into about 1 GB with 12 heads.
_TABLE = 2**21


@register("ner")
class RaTENER:
    """Finds entities with a trained DeBERTa-v2.

    Args:
        folder: of the model.
        vocabulary: gives an entity its id by its name.
        batch_size: sentences at a time; fewer where they are long.

    Raises:
        UserError: a file is missing or damaged, another architecture, labels that are not IOB, weights that do not fit.
    """

    def __init__(self, folder: str, vocabulary: Vocabulary, batch_size: int = 32) -> None:
        if batch_size < 1:
            raise UserError(f"RaTENER 的 batch_size 应 ≥ 1，现在是 {batch_size}")
        path = Path(folder)
        require_files(path, (CONFIG, WEIGHTS, PIECES), "RaTE-NER")
        config, self._tags = _read_config(path / CONFIG)
        self._tokenizer = PieceTokenizer(path / PIECES)
        if self._tokenizer.size > config.vocab_size:
            raise UserError(f"{path / PIECES} 有 {self._tokenizer.size} 个词片，多于 {CONFIG} 的 vocab_size "
                            f"{config.vocab_size}：两个文件不属于同一个模型，请重新下载整个文件夹")
        self._model = _read_model(path / WEIGHTS, config, len(self._tags))
        self._pad_id = config.pad_token_id or 0
        self._room = config.max_position_embeddings - 2  # pieces of one window, beside [CLS] and [SEP]
        self._vocabulary = vocabulary
        self._batch_size = batch_size

    def find(self, texts: Sequence[str]) -> list[list[Span]]:
        """The mentions of each text, from left to right, without overlap.

        A span is made of whole words.  Its id is that of the vocabulary where the words are one of its names, else the
        words themselves, in lower case with single spaces (so that a corpus can be mined for new entities).  Its type
        is the model's; of what the vocabulary knows, the model says only whether it is denied.
        """
        cuts = [list(sentences(text)) for text in texts]
        # Reports repeat themselves: a sentence is read once, however often it stands there.
        unique = list(dict.fromkeys(text[start:end] for text, cut in zip(texts, cuts, strict=True)
                                    for start, end in cut))
        found = dict(zip(unique, self._find_in_sentences(unique), strict=True))
        return [[Span(start + span.start, start + span.end, span.id, span.type)
                 for start, end in cut for span in found[text[start:end]]]
                for text, cut in zip(texts, cuts, strict=True)]

    def _find_in_sentences(self, texts: list[str]) -> list[list[Span]]:
        pieces = [self._tokenizer.encode(text) for text in texts]
        labels = self._labels([one.ids for one in pieces])
        return [list(self._spans(text, *one)) for text, *one in zip(texts, pieces, labels, strict=True)]

    def _spans(self, text: str, pieces: Pieces, labels: np.ndarray) -> Iterator[Span]:
        """A word has the label of the piece that it begins in: the others only spell it to its end."""
        words = [match.span() for match in _WORD.finditer(text)]
        first = np.searchsorted(pieces.ends, [start for start, _ in words], side="right")
        tags = [self._tags[labels[piece]] if piece < len(labels) else ("O", "") for piece in first]
        for begin, end, type_ in entities(tags):
            start, stop = words[begin][0], words[end - 1][1]
            name = " ".join(text[start:stop].split())
            id_ = self._vocabulary.find_id(name)
            if id_ is None:
                yield Span(start, stop, name.lower(), type_)
            else:
                yield Span(start, stop, id_, self._type(id_, type_))

    def _type(self, id_: str, found: str) -> str:
        """The vocabulary's type of a thing, denied or not as the model says.

        Where abnormality ends and disease begins is a matter of taste, and the model's need not be the vocabulary's.
        """
        own = next(type_ for type_ in TYPES if (id_, type_) in self._vocabulary.position)
        if "anatomy" in (own, found):
            return found
        kind = own.removeprefix("non-")
        return f"non-{kind}" if found.startswith("non-") else kind

    def _labels(self, texts: list[np.ndarray]) -> list[np.ndarray]:
        """The most probable label of each piece: for ids [n] of each text, labels [n]."""
        result = [np.zeros(len(ids), np.int64) for ids in texts]
        cut = [(number, *window) for number, ids in enumerate(texts) for window in windows(len(ids), self._room)]
        cut.sort(key=lambda window: window[2] - window[1])  # equal lengths together: little padding
        for batch in self._batches(cut):
            found = self._predict([texts[number][start:end] for number, start, end, _, _ in batch])
            for (number, start, _, first, last), labels in zip(batch, found, strict=True):
                result[number][first:last] = labels[first - start:last - start]
        return result

    def _batches(self, cut: list[Window]) -> Iterator[list[Window]]:
        """Windows, ascending in length, in batches that fit into memory."""
        batch: list[Window] = []
        for window in cut:
            _, start, end, _, _ = window
            if batch and (len(batch) == self._batch_size or (len(batch) + 1) * (end - start + 2) ** 2 > _TABLE):
                yield batch
                batch = []
            batch.append(window)
        if batch:
            yield batch

    def _predict(self, batch: list[np.ndarray]) -> np.ndarray:
        """Ids [n] of each text → labels [B, longest n]; what is beyond a text's end means nothing."""
        import paddle

        longest = max(map(len, batch))
        ids = np.full((len(batch), longest + 2), self._pad_id, np.int64)
        mask = np.zeros(ids.shape, np.float32)
        for row, one in enumerate(batch):
            ids[row, :len(one) + 2] = [self._tokenizer.cls_id, *one, self._tokenizer.sep_id]
            mask[row, :len(one) + 2] = 1
        with paddle.no_grad():
            logits = self._model(paddle.to_tensor(ids), paddle.to_tensor(mask))
        return logits.argmax(-1).numpy()[:, 1:-1]


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each sentence that holds more than white space."""
    start = 0
    for match in [*_SENTENCE_END.finditer(text), None]:
        end, following = match.span() if match else (len(text), len(text))
        if text[start:end].strip():
            yield start, end
        start = following


def windows(length: int, room: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut a text of ``length`` pieces into overlapping windows of at most ``room``.

    Yields:
        start, end of a window, and first, last + 1 of the pieces whose label is taken from it: of the windows that hold
        a piece the one that shows more of what stands around it.  These parts follow each other without a gap.
    """
    if not length:
        return
    count = 1 if length <= room else -(-(length - room) // max(1, room * 3 // 4)) + 1  # a quarter or more overlaps
    starts = [round(number * (length - room) / (count - 1)) for number in range(count)] if count > 1 else [0]
    first = 0
    for number, start in enumerate(starts):
        end = min(start + room, length)
        last = (end + starts[number + 1]) // 2 if number + 1 < count else length
        yield start, end, first, last
        first = last


def _read_config(file: Path) -> tuple[DebertaConfig, list[tuple[str, str]]]:
    from paddle_cxr.models.deberta import DebertaConfig

    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"模型说明损坏或无法读取：{file}（{one_line(error)}）；请重新下载") from None
    content = content if isinstance(content, dict) else {}
    _check_architecture(content, file)
    tags = read_labels(content.get("id2label"), file)
    try:
        return DebertaConfig.model_validate(content), tags
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "config"
        raise UserError(f"{file}：{key} 的值无法用来搭建网络（{first['msg']}）；请重新下载") from None


def _check_architecture(content: dict[str, Any], file: Path) -> None:
    kind, classes = content.get("model_type"), content.get("architectures") or []
    if kind != "deberta-v2":
        raise UserError(f"{file}：model_type 应为 deberta-v2，现在是 {kind!r}；RaTENER 只支持 DeBERTa-v2 / v3 的模型")
    if classes and "DebertaV2ForTokenClassification" not in classes:
        raise UserError(f"{file}：architectures 应为 DebertaV2ForTokenClassification，现在是 {classes!r}；"
                        "请换成做命名实体识别（NER）的权重")


def _read_model(file: Path, config: DebertaConfig, class_num: int) -> DebertaForTokenClassification:
    import paddle

    from paddle_cxr.models.deberta import DebertaForTokenClassification, weights_from_torch

    # Lazily: the memory is taken by the weights of the file once they are seen to fit, not by what a config claims.
    with paddle.LazyGuard():
        model = DebertaForTokenClassification(config, class_num)
    apply_weights(model, weights_from_torch(model, read_safetensors(file)[0]), {}, path=file)
    model.eval()
    return model
