"""The sections of a fine-tuning recipe; checked like those of :mod:`paddle_cxr.schema`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from paddle_cxr.schema import Component, EvalSamplerSection, LoaderSection, SamplerSection, Section
from paddle_cxr.tasks.findings_schema import FindingsGlobal, FindingsLoaderSection, IntervalsSection, TestSection


class FinetuningGlobal(FindingsGlobal):
    task: Literal["finetuning"] = Field("finetuning", description="任务")
    checkpoint: str | None = Field(None, description="tools/eval.py、tools/predict.py 用哪份微调好的权重；"
                                                     "默认取 output_dir/model")


class ModelSection(Section):
    checkpoint: str | bool | None = Field(
        None, description="起点：预训练（ConVIRT、GLoRIA）、分类器或微调的输出目录、其中的文件夹或一个权重文件；"
                          "true：ImageNet；null：随机初值")
    arch: str | None = Field(None, description="网络，如 ResNet50；null：起点里记录的那种")


class FinetuneSection(Section):
    mode: Literal["all", "linear_probe"] = Field(
        "all", description="all：训练全部权重；linear_probe（线性探针）：图像塔不动，只训练最后一层")
    fraction: float = Field(1.0, gt=0, le=1, description="用训练集的多少标签，如 0.01、0.1；按患者取，按征象分层，"
                                                         "小的一份总在大的一份里面")
    subset_seed: int = Field(0, ge=0, description="取哪些；与 Global.seed 无关，换训练种子时用同样的图")


class MaskedLossSection(Section):
    name: Literal["MaskedBCE"] = Field(
        "MaskedBCE", description="每种征象一个二元交叉熵（binary cross-entropy），未知的标签不参加")
    positive_weight: Literal["balanced"] | list[float] | None = Field(
        None, description="阳性的权重：balanced（阴性数 ÷ 阳性数）、每种征象一个数，或 null（不加权）")


class FinetuningTrainSection(Section):
    subset: str = Field("train", description="用哪个子集")
    transform_ops: list[Component] = Field(default=[], description="数据增强；linear_probe 时不用")
    augment_on: Literal["cpu", "device"] = Field("cpu", description="增强在 CPU 上逐张做，或在设备上成批做")
    sampler: SamplerSection
    loader: LoaderSection = Field(default_factory=LoaderSection)


class FinetuningEvalSection(Section):
    subset: str = Field("val", description="用哪个子集：训练中用它选最好的一轮，训练后用它定阈值；all 表示全部")
    sampler: EvalSamplerSection = Field(default_factory=EvalSamplerSection)
    loader: LoaderSection = Field(default_factory=LoaderSection)


class FinetuningLoaderSection(FindingsLoaderSection):
    Train: FinetuningTrainSection
    Eval: FinetuningEvalSection = Field(default_factory=FinetuningEvalSection)
    Test: TestSection | None = Field(None, description="训练结束后在哪个子集上评估；null：用 Eval 的子集")


class FinetuningRecipe(Section):
    """A whole recipe for fine-tuning, checked."""

    Global: FinetuningGlobal
    Model: ModelSection = Field(default_factory=ModelSection, description="从哪里开始")
    Finetune: FinetuneSection = Field(default_factory=FinetuneSection, description="训练什么，用多少标签")
    Loss: MaskedLossSection = Field(default_factory=MaskedLossSection, description="损失函数")
    Optimizer: Component = Field(description="优化器及学习率")
    DataLoader: FinetuningLoaderSection
    Metric: IntervalsSection = Field(default_factory=IntervalsSection, description="区间怎样算")
