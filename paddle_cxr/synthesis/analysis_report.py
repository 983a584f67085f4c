"""The tables (CSV), figures (PNG) and the page (Markdown) of an analysis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from paddle_cxr import plots
from paddle_cxr.evaluation.report import write_table
from paddle_cxr.files import write_text
from paddle_cxr.plots.entities import TYPE_LABELS
from paddle_cxr.synthesis.analysis import (
    CorpusCounts,
    TextNumbers,
    TypeNumbers,
    text_numbers,
    type_numbers,
)
from paddle_cxr.synthesis.diversity import NEAR
from paddle_cxr.synthesis.entities import OPPOSITE, TYPES, Key
from paddle_cxr.synthesis.vocabulary import Vocabulary

FEW_WORDS = 1000  # below it, distinct-n says more about the number of words than about the texts
_TYPE_COLUMNS = [field.name for field in fields(TypeNumbers)]
_TEXT_COLUMNS = ["corpus", "mark", "reports", "empty", "synthetic", "words_mean", "distinct_1", "distinct_2",
                 "distinct_3", "compared_words", "self_similarity", "exact_duplicates", "near_duplicates"]


def write_analysis(folder: Path, corpora: Sequence[CorpusCounts], vocabulary: Vocabulary, top: int) -> Path:
    """Write everything into ``folder``; returns the Markdown page.

    Raises:
        UserError: a file cannot be written.
    """
    numbers = [type_numbers(corpus, vocabulary) for corpus in corpora]
    texts = text_numbers(corpora)
    write_table(folder / "types.csv", ["corpus", "mark", *_TYPE_COLUMNS], (
        [corpus.name, mark(corpus), *map(_cell, astuple(row))]
        for corpus, rows in zip(corpora, numbers, strict=True) for row in rows))
    write_table(folder / "texts.csv", _TEXT_COLUMNS, (
        [corpus.name, mark(corpus), *map(_cell, _flat(row))] for corpus, row in zip(corpora, texts, strict=True)))
    write_table(folder / "frequencies.csv", ["corpus", "mark", "type", "rank", "id", "name", "zh", "count", "share"],
                (row for corpus in corpora for row in _frequencies(corpus, vocabulary)))
    write_table(folder / "duplicates.csv", ["corpus", "id", "kind", "same_as"], (
        [corpus.name, *repeat] for corpus in corpora for repeat in corpus.repeats))
    _draw(folder, corpora, numbers, vocabulary, top)
    return write_text(folder / "analysis.md", _page(corpora, numbers, texts, vocabulary, top))


def mark(corpus: CorpusCounts) -> str:
    """Whether the reports were made by a writer: said wherever a corpus is named."""
    if not corpus.synthetic:
        return "真实（real）"
    return "合成/仿真（synthetic）" if corpus.synthetic == corpus.reports else "部分合成/仿真（partly synthetic）"


def names(key: Key, vocabulary: Vocabulary) -> tuple[str, str]:
    """English and Chinese name of an entity, "no …" of a thing denied; of one that the vocabulary lacks, its id."""
    id_, type_ = key
    if key in vocabulary.position:
        entity = vocabulary[key]
        return ("no " if entity.denies else "") + entity.en, entity.zh
    if (id_, OPPOSITE.get(type_, "")) in vocabulary.position:
        return "no " + vocabulary[id_, OPPOSITE[type_]].en, ""
    return id_.replace("_", " "), ""


def _frequencies(corpus: CorpusCounts, vocabulary: Vocabulary) -> Iterator[list[Any]]:
    for type_ in TYPES:
        ranked = corpus.ranked(type_)
        total = sum(count for _, count in ranked)
        for rank, (key, count) in enumerate(ranked, 1):
            yield [corpus.name, mark(corpus), type_, rank, key[0], *names(key, vocabulary), count, _cell(count / total)]


def _draw(folder: Path, corpora: Sequence[CorpusCounts], numbers: Sequence[Sequence[TypeNumbers]],
          vocabulary: Vocabulary, top: int) -> None:
    figures = [plots.CorpusFigures(
        corpus.name, mark(corpus), corpus.synthetic > 0, corpus.reports,
        {type_: corpus.frequencies(type_) for type_ in TYPES},
        {type_: [_label(key, vocabulary) for key, _ in corpus.ranked(type_)[:top]] for type_ in TYPES},
        {row.type: row.gini for row in rows}) for corpus, rows in zip(corpora, numbers, strict=True)]
    plots.plot_types(figures, folder / "types.png")
    plots.plot_ranks(figures, folder / "ranks.png")
    plots.plot_lorenz(figures, folder / "lorenz.png")
    for type_ in TYPES:
        plots.plot_top_entities(figures, type_, top, folder / _top_file(type_, top))


def _label(key: Key, vocabulary: Vocabulary) -> str:
    en, zh = names(key, vocabulary)
    # An id from a corpus may hold anything; a line break or half a character would spoil the figure.
    return "".join(char if char.isprintable() else " " for char in f"{zh} {en}".strip())


def _top_file(type_: str, top: int) -> str:
    return f"top{top}_{type_}.png"


def _flat(row: TextNumbers) -> list[Any]:
    return [one for value in astuple(row) for one in (value if isinstance(value, tuple) else (value,))]


def _cell(value: Any) -> Any:
    """A table's cell: six digits, nothing for what has no value."""
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value


def _page(corpora: Sequence[CorpusCounts], numbers: Sequence[Sequence[TypeNumbers]], texts: Sequence[TextNumbers],
          vocabulary: Vocabulary, top: int) -> str:
    lines = ["# 报告语料分析", ""]
    if any(corpus.synthetic for corpus in corpora):
        lines += ["> 标有“合成/仿真（synthetic）”的报告由程序写成，不是真实病例。", ""]
    lines += _text_table(corpora, texts)
    lines += ["## 各类型的实体", "", "![各类型](types.png)", ""]
    for place, type_ in enumerate(TYPES):
        lines += _type_table(TYPE_LABELS[type_], corpora, [rows[place] for rows in numbers])
    lines += [f"词表 {vocabulary.name}，共 {len(vocabulary)} 项。每个实体在一份报告里只计一次。", "",
              "- 头部（head）：最常见的 10 % 的实体占全部提及的多少；尾部（tail）：最少见的 50 % 占多少。"
              "完全均衡时分别是 10 % 和 50 %。",
              "- Gini：0 表示所有实体同样常见，越接近 1 越集中；“含未出现的”把词表里从未出现的实体也算作 0 次。",
              "- 语料越小，Gini 越不可靠：平均每项只有几次（提及 ÷ 实体数）时，偶然的多少就能使它不为 0。",
              "- 熵（entropy）以比特计；归一化熵（evenness）是熵除以 log2(实体数)，1 表示完全均衡。", "",
              "## 长尾（long tail）", "", "![频率与名次](ranks.png)", "", "![洛伦兹曲线](lorenz.png)", ""]
    for type_ in TYPES:
        lines += [f"![最常见的 {top} 个：{TYPE_LABELS[type_]}]({_top_file(type_, top)})", ""]
    lines += ["全部实体的频率在 `frequencies.csv`，各类型的数字在 `types.csv`，文字的数字在 `texts.csv`，"
              "每一份重复的报告和它重复了谁在 `duplicates.csv`。"]
    return "\n".join(lines) + "\n"


def _text_table(corpora: Sequence[CorpusCounts], texts: Sequence[TextNumbers]) -> list[str]:
    lines = ["## 文字", "", *_header("报告", "空报告", "平均词数", "distinct-1", "distinct-2", "distinct-3", "自相似",
                                   "完全重复", "近似重复")]
    for corpus, row in zip(corpora, texts, strict=True):
        lines.append(_row(corpus.name, mark(corpus), row.reports, row.empty, f"{row.words_mean:.1f}",
                          *(f"{value:.3f}" for value in row.distinct), _number(row.self_similarity, ".4f"),
                          *("—" if count is None else f"{count}（{count / row.reports:.2%}）"
                            for count in (row.exact, row.near))))
    return [*lines, "", f"- distinct-n：不同的 n 元词组（n-gram）占全部的比例，越大越多样；每个语料取同样多的词"
            f"（随机样本中的 {texts[0].compared_words} 个），因为语料越大这个数越小。"
            + ("**词太少，这三个数不可比：请去掉最小的语料。**" if texts[0].compared_words < FEW_WORDS else ""),
            "- 自相似（self-similarity）：样本中任意两份报告三元词组向量的平均余弦，0 表示毫无共同之处，1 表示全一样。",
            "- 完全重复：词和词序都与前面某一份相同（不计大小写和标点）；近似重复：三元词组集合的 Jaccard 相似度"
            f"不低于 {NEAR}" + ("。" if texts[0].near is not None else "（— 表示没有查：未安装 rensa）。"), ""]


def _type_table(label: str, corpora: Sequence[CorpusCounts], rows: Sequence[TypeNumbers]) -> list[str]:
    lines = [f"### {label}", "", *_header("实体数", "提及", "每份", "头部 10 %", "尾部 50 %", "Gini", "熵（比特）",
                                          "归一化熵", "词表覆盖", "Gini（含未出现的）")]
    for corpus, row in zip(corpora, rows, strict=True):
        lines.append(_row(corpus.name, mark(corpus), row.entities, row.mentions, f"{row.per_report:.2f}",
                          _number(row.head_share, ".1%"), _number(row.tail_share, ".1%"), _number(row.gini, ".3f"),
                          _number(row.entropy if row.entities else None, ".2f"), _number(row.evenness, ".3f"),
                          _number(row.coverage, ".1%"), _number(row.gini_vocabulary, ".3f")))
    return [*lines, ""]


def _header(*numbers: str) -> list[str]:
    return [_row("语料", "来源", *numbers), f"|---|---|{'---:|' * len(numbers)}"]


def _row(*cells: Any) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _number(value: float | None, form: str) -> str:
    return "—" if value is None else format(value, form)
