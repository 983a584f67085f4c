"""The sections of a grounding recipe; checked like those of :mod:`paddle_cxr.schema`."""

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


class GroundingGlobal(EvaluationGlobal):
    task: Literal["grounding"] = Field("grounding", description="任务")


class GroundingSection(Section):
    map: Literal["similarity", "attention", "gradcam"] = Field(
        "similarity", description="用什么图：similarity 各区域与提示词的余弦相似度；attention（GLoRIA）提示词的词对"
                                  "区域的注意力；gradcam 整图与提示词的相似度来自哪里")
    layer: Literal["layer1", "layer2", "layer3", "layer4"] = Field(
        "layer4", description="gradcam 用哪一层的特征图；浅层细，深层懂得多")
    scale: Literal["auto", "none", "image"] = Field(
        "auto", description="none：图的数值不变；image：每张图拉伸到 0–1；auto：similarity 不变，其余拉伸")
    thresholds: Literal["per_finding", "shared"] = Field(
        "per_finding", description="每种征象一个阈值（验证集上没有它的标注时用共同的），或都用共同的")
    examples: int = Field(12, ge=0, le=120, description="画几张叠加图，平均分给各征象")


class GroundingEvalSection(EvaluationEvalSection):
    threshold_subset: str | None = Field("val", description="在哪个子集上定阈值（平均 Dice 最高），绝不用评估的子集；"
                                                            "null：不定阈值，也就没有 IoU 和 Dice")


class GroundingLoaderSection(EvaluationLoaderSection):
    Source: Component = Field(description="标出了征象位置的数据集（findings）："
                                          "PhantomFindings、RSNAPneumonia、FindingsFile …")
    Eval: GroundingEvalSection = Field(default_factory=GroundingEvalSection)


class GroundingMetric(EvaluationMetric):
    findings: list[str] | None = Field(None, min_length=1, description="评估哪些征象；null：标出了位置的全部征象")


class GroundingRecipe(Section):
    """A whole recipe for zero-shot grounding, checked."""

    Global: GroundingGlobal
    Model: ModelSection = Field(description="预训练好的模型")
    Prompts: PromptsSection = Field(description="用什么话描述各种征象；这里只用 positive，几条的图取平均")
    Grounding: GroundingSection = Field(default_factory=GroundingSection, description="怎样定位")
    DataLoader: GroundingLoaderSection
    Metric: GroundingMetric = Field(default_factory=GroundingMetric, description="指标")
