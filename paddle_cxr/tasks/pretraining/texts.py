"""Which words of a report go with its image."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from paddle_cxr.data.pairs.record import PairRecord
from paddle_cxr.data.pairs.sections import sentences
from paddle_cxr.errors import UserError
from paddle_cxr.tasks.pretraining.schema import TextSection

_WORD = re.compile(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+")  # a Chinese character, or a run of letters and digits


class Texts:
    """The texts of a data set's pairs.

    Args:
        records: the pairs.
        section: which sections, and whether training takes one sentence, some or all.

    Attributes:
        whole: every pair's text; empty where the chosen sections are.
    """

    def __init__(self, records: Sequence[PairRecord], section: TextSection) -> None:
        self.whole = [" ".join(text for name in section.sections if (text := getattr(record, name)))
                      for record in records]
        self._section = section

    def with_text(self, positions: np.ndarray) -> np.ndarray:
        """Those of ``positions`` that have a text."""
        return np.array([position for position in positions if self.whole[position]], np.int64)

    def training(self, position: int, rng: np.random.Generator) -> str:
        """What a training step shows of pair ``position``: the whole text, or some or one of its sentences."""
        text = self.whole[position]
        if self._section.take == "all":
            return text
        long = [one for one in sentences(text) if len(_WORD.findall(one)) >= self._section.min_words]
        if not long:
            return text
        kept = 1 if self._section.take == "sentence" else int(rng.integers(1, len(long) + 1))
        chosen = np.sort(rng.permutation(len(long))[:kept])  # in the report's order
        return " ".join(long[number] for number in chosen)


def numbers_of(texts: Sequence[str]) -> np.ndarray:
    """A number for every text, int64 [N]; equal where the texts are (but for white space), on every rank."""
    digests = (hashlib.blake2b(" ".join(text.split()).encode(), digest_size=8).digest() for text in texts)
    return np.array([int.from_bytes(digest, "big", signed=True) for digest in digests], np.int64)


def check_variety(texts: Sequence[str]) -> str | None:
    """What the user should know of repeated training texts.

    Raises:
        UserError: all are the same, so that there is nothing to tell apart.
    """
    different = len(set(texts))
    if different == 1 and texts:
        raise UserError(f"训练集 {len(texts)} 对的文字全都相同（“{texts[0][:40]}”），没有可以区分的东西，学不到什么；"
                        "请检查 DataLoader.Text.sections 和数据")
    if different < len(texts):
        return (f"训练集 {len(texts)} 对里有 {different} 种文字；文字相同的对不互作负例（Loss.same_text: exclude），"
                "检索时算作同一条")
    return None
