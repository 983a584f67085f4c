"""The sections of a zero-shot recipe; checked like those of :mod:`paddle_cxr.schema`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from paddle_cxr.schema import Component, Section
from paddle_cxr.tasks.evaluation_schema import (
    EvaluationEvalSection,
    EvaluationGlobal,
    EvaluationLoaderSection,
    EvaluationMetric,
    ModelSection,
    PromptsSection,
)


class ZeroShotGlobal(EvaluationGlobal):
    task: Literal["zero_shot"] = Field("zero_shot", description="任务")


class ZeroShotPrompts(PromptsSection):
    ensemble: Literal["scores", "embeddings", "max"] = Field(
        "scores", description="几条提示词怎样合成一个分数：scores 分数的平均；max 最高分（GLoRIA）；embeddings "
                              "先平均文本向量再比（BioViL、CLIP）")
    similarity: Literal["both", "global", "local"] = Field(
        "both", description="用哪种相似度：both 与训练相同（ConVIRT 只有全局，GLoRIA 全局与局部的平均）；"
                            "global 全局；local 局部（GLoRIA）")


class ZeroShotEvalSection(EvaluationEvalSection):
    threshold_subset: str | None = Field("val", description="阈值在哪个子集上选（F1 最高），绝不用评估的子集；"
                                                            "null：不选阈值，也就没有 F1 和准确率")


class ZeroShotLoaderSection(EvaluationLoaderSection):
    Source: Component = Field(description="有征象标签的数据集（findings）：CheXpert、ChestXray14、FindingsFile、"
                                          "PhantomFindings …")
    Eval: ZeroShotEvalSection = Field(default_factory=ZeroShotEvalSection)


class ZeroShotMetric(EvaluationMetric):
    findings: list[str] | None = Field(None, min_length=1, description="评估哪些征象；null：数据集的全部征象")
    seen: list[str] | Literal["auto"] | None = Field(
        None, description="预训练见过的征象，单独求平均；auto：预训练的标签里有阳性的那些")
    unseen: list[str] | None = Field(None, description="没见过的征象；null：seen 以外的全部")


class ZeroShotRecipe(Section):
    """A whole recipe for zero-shot classification, checked."""

    Global: ZeroShotGlobal
    Model: ModelSection = Field(description="评估哪个模型")
    Prompts: ZeroShotPrompts = Field(description="用什么话描述各种征象")
    DataLoader: ZeroShotLoaderSection
    Metric: ZeroShotMetric = Field(default_factory=ZeroShotMetric, description="指标")
