"""The SentencePiece tokenizer of DeBERTa-v2: text → numbered pieces, and where each stands in the text.

A piece is a frequent string ("▁effusion", "▁cardio", "megaly"); "▁" marks the space before a word, and the text is put
in Unicode normal form first, as the model file says.  The result equals that of Hugging Face's ``DebertaV2Tokenizer``
(Kudo and Richardson, "SentencePiece", 2018, arXiv:1808.06226).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.pdparams import one_line

_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, as a broken JSON may hold: not encodable


@dataclass(frozen=True, slots=True)
class Pieces:
    """A text in pieces.

    Attributes:
        ids: int64 [n].
        ends: int64 [n], ascending: a piece stands before this character, and after the end of the piece before it.
    """

    ids: np.ndarray
    ends: np.ndarray


class PieceTokenizer:
    """Reads ``spm.model``.

    Args:
        file: the SentencePiece model.

    Attributes:
        size: number of pieces.
        cls_id, sep_id: what stands before and after a text.

    Raises:
        UserError: the package or the file is absent or damaged, or the model lacks DeBERTa's [CLS] and [SEP].
    """

    def __init__(self, file: Path) -> None:
        try:
            import sentencepiece
        except ImportError:
            raise UserError("读取 spm.model 需要 sentencepiece，请先运行：pip install 'sentencepiece>=0.2.2'") from None
        try:
            self._model = sentencepiece.SentencePieceProcessor()
            self._model.load_from_serialized_proto(file.read_bytes())
        except Exception as error:  # OSError, or what the library raises for a damaged file
            raise UserError(f"SentencePiece 模型损坏或无法读取：{file}（{one_line(error)}）；请重新下载") from None
        if not hasattr(self._model, "encode_as_offset_mapping"):
            raise UserError("sentencepiece 版本太旧，请先运行：pip install -U 'sentencepiece>=0.2.2'")
        self.size: int = self._model.get_piece_size()
        self.cls_id, self.sep_id = (self._id(piece, file) for piece in ("[CLS]", "[SEP]"))

    def _id(self, piece: str, file: Path) -> int:
        number = self._model.piece_to_id(piece)  # the number of [UNK] for what it lacks
        if self._model.id_to_piece(number) != piece:
            raise UserError(f"{file} 里没有 {piece}：不是 DeBERTa-v2 的分词模型（tokenizer）；"
                            "请换成模型自带的 spm.model")
        return number

    def encode(self, text: str) -> Pieces:
        """The pieces of a text of any length, without [CLS] and [SEP]."""
        found = self._model.encode_as_offset_mapping(_SURROGATE.sub("\ufffd", text))
        ends = np.array([end for _, end in found["offsets"]], np.int64)
        return Pieces(np.array(found["ids"], np.int64), ends)
