"""The sections of a grounding recipe; checked like those of :mod:`paddle_cxr.schema`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from paddle_cxr.schema import CacheSection, Component, EvalSamplerSection, ImageShape, PreprocessSection, Section
from paddle_cxr.tasks.zero_shot.schema import ModelSection, PromptsSection


class GroundingGlobal(Section):
    task: Literal["grounding"] = Field("grounding", description="任务")
    output_dir: str = Field(min_length=1, description="输出目录：结果写在其中的 eval_子集/")
    device: str = Field("auto", pattern=r"^(auto|cpu|gpu(:\d+)?)$",
                        description="auto、cpu、gpu 或 gpu:1；auto 没有 GPU 时用 CPU 并说明")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="重采样（bootstrap）的种子")
    image_shape: ImageShape | None = Field(None, description="模型输入 [通道, 高, 宽]；null：与预训练时相同")


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


class GroundingEvalSection(Section):
    subset: str = Field("test", description="评估哪个子集；all 表示全部")
    threshold_subset: str | None = Field("val", description="在哪个子集上定阈值（平均 Dice 最高），绝不用评估的子集；"
                                                            "null：不定阈值，也就没有 IoU 和 Dice")
    sampler: EvalSamplerSection = Field(default_factory=EvalSamplerSection)


class GroundingLoaderSection(Section):
    Source: Component = Field(description="标出了征象位置的数据集（findings）："
                                          "PhantomFindings、RSNAPneumonia、FindingsFile …")
    Split: Component = Field(default={"name": "NoSplit"}, description="训练/验证/测试的划分")
    on_error: Literal["error", "skip"] = Field("error", description="遇到坏图：报错，或点名跳过")
    preprocess: PreprocessSection | None = Field(None, description="null：与预训练时相同")
    cache: CacheSection = Field(default_factory=CacheSection)
    Eval: GroundingEvalSection = Field(default_factory=GroundingEvalSection)


class GroundingMetric(Section):
    resamples: int = Field(1000, ge=0, description="自助法（bootstrap）重抽几次；0：不算区间")
    findings: list[str] | None = Field(None, min_length=1, description="评估哪些征象；null：标出了位置的全部征象")


class GroundingRecipe(Section):
    """A whole recipe for zero-shot grounding, checked."""

    Global: GroundingGlobal
    Model: ModelSection = Field(description="预训练好的模型")
    Prompts: PromptsSection = Field(description="用什么话描述各种征象；这里只用 positive，几条的图取平均")
    Grounding: GroundingSection = Field(default_factory=GroundingSection, description="怎样定位")
    DataLoader: GroundingLoaderSection
    Metric: GroundingMetric = Field(default_factory=GroundingMetric, description="指标")
