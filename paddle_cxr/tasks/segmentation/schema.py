"""The sections of a segmentation recipe; checked like those of :mod:`paddle_cxr.schema`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from paddle_cxr.schema import Component, EvalSamplerSection, LoaderSection, SamplerSection, Section
from paddle_cxr.tasks.findings_schema import FindingsGlobal, FindingsLoaderSection, IntervalsSection, TestSection


class SegmentationGlobal(FindingsGlobal):
    task: Literal["segmentation"] = Field("segmentation", description="任务")
    findings: list[str] = Field(min_length=1, max_length=24, description="分割什么：数据集里征象的键，如 [lung]；"
                                                                         "各占一个输出通道，可以重叠")


class StartSection(Section):
    checkpoint: str | bool | None = Field(
        None, description="起点：预训练（ConVIRT、GLoRIA）、分类器、微调的输出目录，取其图像塔作编码器；"
                          "分割的输出目录，解码器也取，输出通道按征象的键对应；true：ImageNet；null：随机初值")


class SegmentationArch(Section):
    name: Literal["UNet", "PaddleSegModel"] = Field("UNet", description="U-Net（ResNet 编码器），或 PaddleSeg 的模型")
    encoder: str | None = Field(None, description="UNet 的编码器，ResNet18…ResNet152；null：起点里记录的那种")
    freeze_encoder: bool = Field(True, description="UNet：冻结编码器，只训练解码器（论文的做法）；"
                                                   "其中的 BatchNorm 用推理统计量")
    widths: list[int] = Field(default=[256, 128, 64, 32, 16], description="UNet：解码器五步的通道数，由粗到细")
    model: str | None = Field(None, description="PaddleSegModel：paddleseg.models 里的名字，如 UNet、AttentionUNet")
    arguments: dict[str, Any] = Field(default={}, description="PaddleSegModel：它的参数；骨干网络写成 "
                                                              "{backbone: {type: ResNet18_vd}}")


OWN_KEYS = {"UNet": ("encoder", "freeze_encoder", "widths"), "PaddleSegModel": ("model", "arguments")}
"""The keys of ``Arch`` that only one kind of model reads."""


class SegmentationTrainSection(Section):
    subset: str = Field("train", description="用哪个子集")
    transform_ops: list[Component] = Field(default=[], description="数据增强；移动像素的（仿射、裁剪、翻转）图像和掩膜"
                                                                   "（mask）一起动，掩膜取最近的像素")
    sampler: SamplerSection
    loader: LoaderSection = Field(default_factory=LoaderSection)


class SegmentationEvalSection(Section):
    subset: str = Field("val", description="训练中验证、tools/eval.py 评估用哪个子集；all 表示全部")
    sampler: EvalSamplerSection = Field(default_factory=EvalSamplerSection)


class SegmentationLoaderSection(FindingsLoaderSection):
    Source: Component = Field(description="带掩膜（mask）或框的数据集（findings）：PhantomFindings、FindingsFile、"
                                          "SIIM、RSNA …")
    on_error: Literal["error", "skip"] = Field("error", description="遇到坏图：报错，或点名跳过；坏掩膜总是报错")
    Train: SegmentationTrainSection
    Eval: SegmentationEvalSection = Field(default_factory=SegmentationEvalSection)
    Test: TestSection | None = Field(None, description="写了它，训练完后在它上面评估，否则在 Eval 上")


class SegmentationMetric(IntervalsSection):
    threshold: float = Field(0.5, gt=0, lt=1, description="概率到多少算有；不从测试集上选")
    figures: int = Field(12, ge=0, le=48, description="每张图册画几例；0 表示不画")


class SegmentationRecipe(Section):
    """A whole recipe for segmentation, checked."""

    Global: SegmentationGlobal
    Model: StartSection = Field(default_factory=StartSection, description="起点")
    Arch: SegmentationArch = Field(default_factory=SegmentationArch)
    Loss: Component = Field(default={"name": "BCEDiceLoss"}, description="损失函数")
    Optimizer: Component = Field(description="优化器及学习率")
    DataLoader: SegmentationLoaderSection
    Metric: SegmentationMetric = Field(default_factory=SegmentationMetric)
