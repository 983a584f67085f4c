"""The sections of an analysis recipe; checked like those of :mod:`paddle_cxr.schema`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from paddle_cxr.schema import Component, Section
from paddle_cxr.synthesis.schema import VocabularySection


class AnalysisGlobal(Section):
    task: Literal["analysis"] = Field("analysis", description="任务")
    output_dir: str = Field(min_length=1, description="输出目录：表（CSV）、图（PNG）、analysis.md")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="随机种子；决定文字多样性用哪些报告作样本")


class CorpusSection(Section):
    name: str = Field(min_length=1, description="语料的名字，用在表和图里")
    path: str = Field(min_length=1, description=".jsonl、.csv（列 findings、impression）、.txt 的文件夹，"
                                                "或 shard*/reports.jsonl 这样的写法")


class AnalysisSection(Section):
    top: int = Field(50, ge=1, le=100, description="长尾图画每一类型最常见的多少个实体（论文为 50）")
    sample: int = Field(2000, ge=2, description="文字多样性用多少份报告作样本")
    min_count: int = Field(1, ge=1, description="entities：至少在多少份报告中出现的实体才写进词表")


class AnalysisRecipe(Section):
    """A whole recipe for the analysis of corpora, checked."""

    Global: AnalysisGlobal
    Vocabulary: VocabularySection = Field(default_factory=VocabularySection)
    NER: Component = Field(default={"name": "DictionaryNER"}, description="语料里没有写明实体时用的命名实体识别")
    Corpora: list[CorpusSection] = Field(min_length=1, description="要分析的语料；多个并排比较，例如真实与合成")
    Analysis: AnalysisSection = Field(default_factory=AnalysisSection)
