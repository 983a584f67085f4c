"""The sections of a synthesis recipe; checked like those of :mod:`paddle_cxr.schema`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field

from paddle_cxr.config import Origins, apply_overrides, explained, read_recipe
from paddle_cxr.schema import Component, Section, checked
from paddle_cxr.synthesis.engines import EngineKeys

S = TypeVar("S", bound=Section)

MOST_REPORTS = 1_000_000  # the plan lies in memory
MOST_ROUNDS = 100
MOST_WORKERS = 256


class ReportsGlobal(EngineKeys):
    task: Literal["reports"] = Field("reports", description="合成什么：reports = 报告")
    output_dir: str = Field(min_length=1, description="输出目录：reports.jsonl、rejected.jsonl、report.md 等")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="随机种子；实体组合、措辞都由它决定")
    reports: int = Field(ge=1, le=MOST_REPORTS, description="要得到多少份通过检查的报告")
    attempts: int = Field(5, ge=1, le=100, description="每一段最多写几次；都不通过则这份报告算作被拒")
    rounds: int = Field(3, ge=1, le=MOST_ROUNDS,
                        description="写几轮：第一轮以后，用被拒报告放回的实体重新抽样补写；增大后可接着补写")
    workers: int | Literal["auto"] = Field("auto", description="进程数；auto：语法写作与词典 NER 用全部核"
                                                                       "（engine: ray：集群放得下多少就多少），否则 1")
    chunk: int = Field(200, ge=1, description="每多少份报告保存一次")
    shard: int = Field(0, ge=0, description="只写第几片（从 0 数）；各片合起来仍不超过每个实体的上限")
    shards: int = Field(1, ge=1, description="一共分几片")
    resume: bool = Field(True, description="接着上次的结果写；false：旧结果改名保留，从头写")


class VocabularySection(Section):
    file: str | None = Field(None, description="词表：null 为自带的；或 .yaml 文件、文件夹、.csv（列 name,type）")


class ReportsRecipe(Section):
    """A whole recipe for report synthesis, checked."""

    Global: ReportsGlobal
    Vocabulary: VocabularySection = Field(default_factory=VocabularySection)
    Sampler: Component = Field(description="抽取每份报告的实体")
    Writer: Component = Field(description="写报告的：语法、本地大模型，或 OpenAI 兼容的接口")
    NER: Component = Field(description="检查报告的命名实体识别")


def load_recipe(file: str | Path, overrides: Sequence[str], schema: type[S]) -> tuple[S, Origins]:
    """Read a recipe and check its keys.

    Returns:
        The checked recipe, and where each value was written (for :func:`~paddle_cxr.config.explained`).

    Raises:
        UserError: a mistake in the file, an override, or a key, with its place.
    """
    raw, origins = read_recipe(file)
    apply_overrides(raw, overrides, origins)
    with explained(origins):
        return checked(raw, schema), origins
