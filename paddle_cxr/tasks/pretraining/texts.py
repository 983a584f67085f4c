"""Which words of a report go with its image."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from paddle_cxr.data.pairs.record import PairRecord
from paddle_cxr.data.pairs.sections import sentences
from paddle_cxr.errors import UserError
from paddle_cxr.tasks.pretraining.schema import TextSection

if TYPE_CHECKING:
    from paddle_cxr.models.wordpiece import ReportTokenizer

_WORD = re.compile(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+")  # a Chinese character, or a run of letters and digits


class Texts:
    """The texts of a data set's pairs.

    Args:
        records: the pairs.
        section: which sections, and whether training takes one sentence, some or all.

    Attributes:
        whole: every pair's text, on one line; empty where the chosen sections are.
    """

    def __init__(self, records: Sequence[PairRecord], section: TextSection) -> None:
        self._records, self._section = records, section
        self.whole = [" ".join(" ".join(self._parts(record)).split()) for record in records]

    def with_text(self, positions: np.ndarray) -> np.ndarray:
        """Those of ``positions`` that have a text."""
        return np.array([position for position in positions if self.whole[position]], np.int64)

    def training(self, position: int, rng: np.random.Generator) -> str:
        """What a training step shows of pair ``position``: the whole text, or some or one of its sentences."""
        if self._section.take == "all":
            return self.whole[position]
        # Section by section: the last sentence of one may lack its full stop.
        found = [one for part in self._parts(self._records[position]) for one in sentences(part)]
        long = [one for one in found if len(_WORD.findall(one)) >= self._section.min_words]
        if not long:
            return self.whole[position]
        kept = int(rng.integers(1, len(long) + 1)) if self._section.take == "some" else 1
        chosen = np.sort(rng.permutation(len(long))[:kept])  # in the report's order
        return " ".join(long[number] for number in chosen)

    def _parts(self, record: PairRecord) -> list[str]:
        return [text for name in self._section.sections if (text := getattr(record, name))]


def numbers_of(texts: Sequence[str]) -> np.ndarray:
    """A number for every text, int64 [N]; equal where the texts are (but for white space), on every rank."""
    digests = (hashlib.blake2b(" ".join(text.split()).encode(), digest_size=8).digest() for text in texts)
    return np.array([int.from_bytes(digest, "big", signed=True) for digest in digests], np.int64)


def count_cut(texts: Sequence[str], tokenizer: ReportTokenizer) -> int:
    """How many of ``texts`` have more tokens than the tokenizer keeps."""
    # Several images share a report.
    return sum(number for text, number in Counter(texts).items() if tokenizer.encode(text).cut)


def cut_notice(cut: int, tokenizer: ReportTokenizer, section: TextSection) -> str:
    """What the user should know of ``cut`` training reports that are too long."""
    line = f"!! {cut} 份训练文字超过 {tokenizer.max_tokens} 个词元（token），多出的部分被截去（Arch.text.max_tokens）"
    if section.take != "all":
        line += f"；训练时按句子取（DataLoader.Text.take: {section.take}），取出的不超过就不受影响，验证时看全文的开头"
    return line


def check_variety(texts: Sequence[str], same_text: str = "exclude") -> str | None:
    """What the user should know of repeated training texts, which count as the same whatever their white space.

    Args:
        texts: of the training pairs.
        same_text: the loss's, see :class:`paddle_cxr.tasks.pretraining.losses.ContrastiveLoss`.

    Raises:
        UserError: all are the same, so that there is nothing to tell apart.
    """
    different = len({" ".join(text.split()) for text in texts})
    if different == 1:
        raise UserError(f"训练集 {len(texts)} 对的文字全都相同（“{texts[0][:40]}”），没有可以区分的东西，学不到什么；"
                        "请检查 DataLoader.Text.sections 和数据")
    if different == len(texts):
        return None
    treated = "不互作负例" if same_text == "exclude" else "也互作负例，与论文相同"
    # What a step compares is what it has drawn: two different sentences of one report are negatives.
    return (f"训练集 {len(texts)} 对里有 {different} 种文字；一批里取到的文字相同的对{treated}"
            f"（Loss.same_text: {same_text}），检索时整份相同的算作同一条")
