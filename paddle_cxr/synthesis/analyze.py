"""``tools/analyze.py``: from a recipe to a folder of tables, figures and a page that explains them."""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from paddle_cxr.config import explained
from paddle_cxr.engine.continuing import dump, holds_another_task
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.report import write_table
from paddle_cxr.files import write_text
from paddle_cxr.plots.entities import TYPE_LABELS
from paddle_cxr.registry import build, check
from paddle_cxr.synthesis.analysis import count_corpus
from paddle_cxr.synthesis.analysis_report import write_analysis
from paddle_cxr.synthesis.analysis_schema import AnalysisRecipe
from paddle_cxr.synthesis.corpora import Report, check_corpus, read_corpus
from paddle_cxr.synthesis.entities import NER
from paddle_cxr.synthesis.mining import Mine, Mined, mine, to_vocabulary
from paddle_cxr.synthesis.schema import load_recipe
from paddle_cxr.synthesis.vocabulary import Vocabulary, load_vocabulary

VOCABULARY_FILE = "vocabulary.csv"


def analyze(arguments: argparse.Namespace) -> None:
    """What the tool does: ``arguments.command`` is ``corpus`` or ``entities``.

    Raises:
        UserError: a mistake in the recipe, or in a corpus (with file and line).
    """
    recipe, origins = load_recipe(arguments.config, arguments.override, AnalysisRecipe)
    with explained(origins):
        _check(recipe)
        vocabulary = load_vocabulary(recipe.Vocabulary.file)
        check("ner", recipe.NER, "NER", {"vocabulary": vocabulary})
        # Made when first needed: where every report names its entities, no model is ever loaded.
        ner = functools.cache(lambda: build("ner", recipe.NER, "NER", vocabulary=vocabulary))
        _check_folder(Path(recipe.Global.output_dir))
        folder = RunFolder(recipe.Global.output_dir)
        try:
            write_text(folder.path / "config.yaml", dump(recipe))
            {"corpus": _corpus, "entities": _entities}[arguments.command](recipe, vocabulary, ner, folder)
        finally:
            folder.close()


def _check(recipe: AnalysisRecipe) -> None:
    """What needs no reading of reports is refused before hours of it."""
    names = [corpus.name for corpus in recipe.Corpora]
    for number, corpus in enumerate(recipe.Corpora):
        if corpus.name in names[:number]:
            raise UserError(f"Corpora.{number}.name：{corpus.name!r} 用了两次，请给每个语料不同的名字")
        if re.search(r"[|\n\r]", corpus.name):
            raise UserError(f"Corpora.{number}.name：{corpus.name!r} 里不能有 | 或换行（表格会被它断开）")
        try:
            check_corpus(corpus.path)
        except UserError as error:
            raise UserError(f"Corpora.{number}.path：{error}") from None


def _check_folder(folder: Path) -> None:
    """An analysis made again replaces the old one, but never another run's ``config.yaml``: that could not go on."""
    if holds_another_task(folder, "analysis"):
        raise UserError(f"Global.output_dir：{folder} 是别的运行的输出目录（里面的 config.yaml 不是分析的），"
                        "请给分析另选一个目录")


def _corpus(recipe: AnalysisRecipe, vocabulary: Vocabulary, ner: Callable[[], NER], folder: RunFolder) -> None:
    settings = recipe.Analysis
    corpora = []
    for corpus in recipe.Corpora:
        reports = _with_progress(corpus.path, folder, corpus.name)
        counts = count_corpus(corpus.name, reports, ner, sample=settings.sample, seed=recipe.Global.seed)
        synthetic = f"，其中合成/仿真 {counts.synthetic} 份" if counts.synthetic else ""
        folder.say(f"{corpus.name}：{counts.reports} 份报告{synthetic}，{len(counts.counts)} 个不同的实体，"
                   f"提及 {counts.counts.total()} 次，重复 {len(counts.repeats)} 份")
        corpora.append(counts)
    if not corpora[0].near:
        folder.say("没有安装 rensa，未查近似重复（near duplicates）；要查请先 pip install -e \".[analysis]\"")
    page = write_analysis(folder.path, corpora, vocabulary, settings.top)
    folder.say(f"表、图和说明写到 {folder.path}，先看 {page}")


def _entities(recipe: AnalysisRecipe, vocabulary: Vocabulary, ner: Callable[[], NER], folder: RunFolder) -> None:
    reports = (report for corpus in recipe.Corpora for report in _with_progress(corpus.path, folder, corpus.name))
    found = mine(reports, ner())
    rows, left_out = to_vocabulary(found, vocabulary, recipe.Analysis.min_count)
    if not rows:
        raise UserError(f"{found.reports} 份报告里没有找到一个实体；请检查语料的语言、NER，或减小 Analysis.min_count"
                        f"（现在是 {recipe.Analysis.min_count}）")
    write_table(folder.path / VOCABULARY_FILE, Mined._fields, rows)
    write_table(folder.path / "left_out.csv", ["id", "type", "count"],
                [[*key, found.counts[key]] for key in left_out])
    write_text(folder.path / "entities.md", _page(found, rows, len(left_out)))
    folder.say(f"{found.reports} 份报告里有 {len(rows)} 个实体，词表写到 {folder.path / VOCABULARY_FILE}"
               + (f"；另有 {len(left_out)} 个类型前后不一，见 left_out.csv" if left_out else ""))


def _page(found: Mine, rows: list[Mined], left_out: int) -> str:
    lines = ["# 从语料中挖出的实体（entities）", "",
             f"{found.reports} 份报告。词表在 `{VOCABULARY_FILE}`（count 是提到它的报告数），"
             f"可直接用作 `Vocabulary.file`。没有写入的 {left_out} 个（类型前后不一）在 `left_out.csv`。", "",
             "| 类型 | 实体数 | 提及 | 最常见的五个（报告数） |", "|---|---:|---:|---|"]
    for type_, label in TYPE_LABELS.items():
        own = [row for row in rows if row.type == type_]
        head = "、".join(f"{row.name}（{row.count}）" for row in own[:5]).replace("|", "\\|")
        lines.append(f"| {label} | {len(own)} | {sum(row.count for row in own)} | {head} |")
    return "\n".join(lines) + "\n"


def _with_progress(path: str, folder: RunFolder, name: str) -> Iterator[Report]:
    """The reports of a corpus under a counter; how many there will be is not known before the end."""
    with folder.progress(None, 0, name) as bar:
        for report in read_corpus(path):
            yield report
            bar.update()
