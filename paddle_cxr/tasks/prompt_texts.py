"""What a text tower cannot read of the prompts it is asked with."""

from __future__ import annotations

from collections.abc import Sequence

from paddle_cxr.models.wordpiece import UNK, ReportTokenizer


def notices_of(texts: Sequence[str], tokenizer: ReportTokenizer) -> list[str]:
    """Lines for the user: prompts longer than the tower reads, and prompts with words that it never learned.

    A model of Chinese reports gives every English prompt a score all the same, and it means nothing.
    """
    unknown_id = tokenizer.tokens.index(UNK)
    encoded = [tokenizer.encode(text) for text in texts]
    cut = [text for text, one in zip(texts, encoded, strict=True) if one.cut]
    unknown = [text for text, one in zip(texts, encoded, strict=True) if unknown_id in one.ids]
    lines = []
    if cut:
        lines.append(f"!! {len(cut)} 句提示词超过文本塔的长度，多出的部分被截去，例如 {cut[0]!r}")
    if unknown:
        lines.append(f"!! {len(texts)} 句提示词里有 {len(unknown)} 句含文本塔不认识的词（{UNK}），例如 {unknown[0]!r}；"
                     "语言与预训练的报告不同时，分数没有意义")
    return lines
