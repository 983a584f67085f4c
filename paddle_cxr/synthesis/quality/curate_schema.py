"""The sections of a recipe for the quality control of an existing data set (``tools/analyze.py quality``)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from paddle_cxr.schema import Component, Section
from paddle_cxr.synthesis.engines import EngineKeys
from paddle_cxr.synthesis.quality.rules import Rule
from paddle_cxr.synthesis.quality.schema import RulesSection, SimilaritySection

MOST_WORKERS = 256


class CurationGlobal(EngineKeys):
    task: Literal["quality"] = Field("quality", description="任务：已有数据集的质量控制")
    output_dir: str = Field(min_length=1, description="输出目录：keep.csv、drop.csv、quality.md、bank/ 等")
    stages: list[Literal["judge", "similarity"]] = Field(
        ["judge", "similarity"], min_length=1,
        description="做哪几步：judge = 六问；similarity = 与坏图比相似度；做过的那一步换一种选法也不重算")
    workers: int | Literal["auto"] = Field("auto", description="裁判的进程数；auto：只用 CPU 的裁判用全部核，否则 1；"
                                                               "Ray 上由它定")
    chunk: int = Field(256, ge=1, description="每多少张图保存一次")
    ask_again: bool = Field(False, description="再问一次裁判一问也没有回答的图（undecided.csv）；别的判断不重做")
    shard: int = Field(0, ge=0, description="只算第几片（从 0 数）；各片用同一个 output_dir，最后完成的一片作决定")
    shards: int = Field(1, ge=1, description="一共分几片；用 paddle.distributed.launch 启动时每个进程就是一片，不必写")


class ImagesSection(Section):
    path: str = Field(min_length=1, description="图像文件夹（含子文件夹），或有图像列的 .csv、.tsv、.jsonl"
                                                "（pairs.jsonl）")
    column: str | None = Field(None, description="图像列的名字；null：image、file、path、filename 中的第一个")
    root: str | None = Field(None, description="列表中的路径相对于哪个文件夹；null：列表所在的文件夹")
    kind: Literal["real", "synthetic", "phantom"] = Field(
        "real", description="图像的来历；不是真实图像时，图和页面都注明（pairs.jsonl 写明 generator 的会自己认出）")
    fallback: Literal["phantom"] | None = Field(
        None, description="path 不存在时：phantom = 用内置模体和它们弄坏的副本；null = 报错")


class CurationRules(RulesSection):
    drop: Rule = Field("all", description="去掉一张图的条件：all = 回答了的都不合格（论文对数据集的规则）；"
                                          "any = 有一问不合格")


class CurationRecipe(Section):
    """A whole recipe for the quality control of a data set, checked."""

    Global: CurationGlobal
    Images: ImagesSection
    Judge: Component = Field(default={"name": "MeasuredJudge"}, description="回答六问的裁判")
    Rules: CurationRules = Field(default_factory=CurationRules)
    Similarity: SimilaritySection | None = Field(None, description="与已知坏图的相似度；不做 similarity 时可以不写")
