"""The sections of a pre-training recipe; checked like those of :mod:`paddle_cxr.schema`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import BeforeValidator, Field

from paddle_cxr.schema import (
    CacheSection,
    Component,
    EvalSamplerSection,
    ImageShape,
    LoaderSection,
    PreprocessSection,
    SamplerSection,
    Section,
    TrainGlobal,
)


def _tuple(value: Any) -> Any:
    """YAML writes a tuple as a list; strict checking would refuse it."""
    return tuple(value) if isinstance(value, list) else value


Temperatures = Annotated[tuple[float, float, float], BeforeValidator(_tuple)]


class PretrainingGlobal(TrainGlobal):
    task: Literal["pretraining"] = Field("pretraining", description="任务")
    image_shape: ImageShape = Field(description="模型输入 [通道, 高, 宽]；通道为 1 或 3")
    checkpoint: str | None = Field(None, description="tools/eval.py 用哪份权重；默认取 output_dir 中保留的那一份")


class TextTowerSection(Section):
    folder: str | None = Field(None, description="本地文本模型（Hugging Face 或飞桨布局，safetensors 或 .pdparams），"
                                                 "如 BioClinicalBERT、ERNIE-Health；null 表示从头训练一个小 BERT")
    hidden_size: int = Field(128, ge=8, description="从头训练：宽度")
    num_hidden_layers: int = Field(2, ge=1, description="从头训练：层数")
    num_attention_heads: int = Field(4, ge=1, description="从头训练：注意力头数")
    intermediate_size: int = Field(256, ge=8, description="从头训练：前馈层宽度")
    dropout: float = Field(0.1, ge=0, lt=1, description="从头训练：dropout")
    vocab_size: int = Field(2000, ge=300, description="从头训练：WordPiece 词表大小，词表由训练集的文字学出")
    max_tokens: int = Field(97, ge=4, description="一段文字最多多少个词元（token），含起止符；超出的截去并计数")
    frozen_layers: int | None = Field(None, ge=0, description="冻结词嵌入和前几层；ConVIRT 为 6；null 全部训练")


class PretrainingArch(Section):
    name: Literal["ConVIRT", "GLoRIA"] = Field(description="预训练方法")
    image: Component = Field(description="图像塔：{name: ResNet50, pretrained: 起始权重}；起始权重可为 true"
                                         "（ImageNet）、本项目的检查点（分类器或预训练的都可以）")
    text: TextTowerSection = Field(default_factory=TextTowerSection, description="文本塔")
    dim: int | None = Field(None, ge=1, description="公共向量的长度；null：ConVIRT 512，GLoRIA 768")
    temperature: float = Field(0.1, gt=0, description="ConVIRT 的温度 τ")
    temperatures: Temperatures = Field((4.0, 5.0, 10.0), description="GLoRIA 的 γ₁、γ₂、γ₃：注意力、汇总、损失")
    layers: int = Field(4, ge=1, description="GLoRIA：文本塔的最后几层相加")
    enlarge: int | None = Field(None, ge=32, description="GLoRIA：先把图像放大到这个边长（论文 299，得 19×19 个区域）")


OWN_KEYS = {"ConVIRT": ("temperature",), "GLoRIA": ("temperatures", "layers", "enlarge")}
"""The keys of ``Arch`` that only one method reads."""

NEW_TOWER_KEYS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "dropout",
                  "vocab_size")
"""The keys of ``Arch.text`` that shape a tower trained from scratch; one from a folder has them there."""


class TextSection(Section):
    sections: list[Literal["findings", "impression"]] = Field(
        default=["findings", "impression"], min_length=1, description="用报告的哪几段")
    take: Literal["sentence", "some", "all"] | None = Field(
        None, description="训练时：每次随机取一句，随机留下几句，或取全文；null：照论文，ConVIRT 一句（sentence），"
                          "GLoRIA 全文（all）")
    min_words: int = Field(3, ge=1, description="不取少于几个词的句子（中文按字）；take: all 时不用")


class PretrainingTrainSection(Section):
    subset: str = Field("train", description="用哪个子集")
    transform_ops: list[Component] = Field(default=[], description="图像增强；不要左右翻转，报告里的“左”“右”会变错")
    augment_on: Literal["cpu", "device"] = Field("cpu", description="增强在 CPU 上逐张做，或在设备上成批做")
    sampler: SamplerSection
    loader: LoaderSection = Field(default_factory=LoaderSection)


class PretrainingEvalSection(Section):
    subset: str = Field("val", description="用哪个子集；all 表示全部")
    sampler: EvalSamplerSection = Field(default_factory=EvalSamplerSection)
    attention_maps: int = Field(6, ge=0, le=50, description="画几张图的词–区域注意力（GLoRIA）")


class PretrainingLoaderSection(Section):
    Source: Component = Field(description="图文对数据集（pairs）：PhantomPairs、PairsFile、MimicCxrPairs、MixedPairs …")
    Split: Component = Field(default={"name": "NoSplit"}, description="训练/验证/测试的划分")
    on_error: Literal["error", "skip"] = Field("error", description="遇到坏图：报错，或点名跳过")
    preprocess: PreprocessSection = Field(default_factory=PreprocessSection)
    cache: CacheSection = Field(default_factory=CacheSection)
    Text: TextSection = Field(default_factory=TextSection, description="用报告的哪些文字")
    Train: PretrainingTrainSection
    Eval: PretrainingEvalSection = Field(default_factory=PretrainingEvalSection)


class ZeroShotSection(Section):
    prompts: str | None = Field(None, description="提示词（YAML：征象 → positive、negative 各几句）；"
                                                  "null：用自带的模体征象提示词，数据没有这些标签就不做")


class PretrainingRecipe(Section):
    """A whole recipe for pre-training, checked."""

    Global: PretrainingGlobal
    Arch: PretrainingArch
    Loss: Component = Field(default={"name": "ContrastiveLoss"}, description="损失函数")
    Optimizer: Component = Field(description="优化器及学习率")
    DataLoader: PretrainingLoaderSection
    ZeroShot: ZeroShotSection = Field(default_factory=ZeroShotSection, description="零样本（zero-shot）评估")

    @pydantic.model_validator(mode="after")
    def _texts_as_in_the_paper(self) -> PretrainingRecipe:
        if self.DataLoader.Text.take is None:
            self.DataLoader.Text.take = "all" if self.Arch.name == "GLoRIA" else "sentence"
        return self
