"""The sections of a zero-shot recipe; checked like those of :mod:`paddle_cxr.schema`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from paddle_cxr.schema import CacheSection, Component, EvalSamplerSection, ImageShape, PreprocessSection, Section


class ZeroShotGlobal(Section):
    task: Literal["zero_shot"] = Field("zero_shot", description="任务")
    output_dir: str = Field(min_length=1, description="输出目录；结果写在其中的 eval_子集")
    device: str = Field("auto", pattern=r"^(auto|cpu|gpu(:\d+)?)$",
                        description="auto、cpu、gpu 或 gpu:1；auto 没有 GPU 时用 CPU 并说明")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="随机种子：自助法重抽、提示词组合的抽样")
    image_shape: ImageShape | None = Field(None, description="由模型决定，不用写")


class ModelSection(Section):
    checkpoint: str = Field(min_length=1, description="图文预训练的输出目录，如 output/convirt_phantom；"
                                                      "或其中的 model 文件夹")


class PromptsSection(Section):
    file: str | None = Field(None, description="提示词（YAML：征象 → positive、negative；或 terms；或 severity、"
                                               "subtype、location）；与 name 只写一个")
    name: Literal["phantom"] | None = Field(None, description="phantom：自带的模体征象提示词")
    language: Literal["en", "zh"] = Field("en", description="name: phantom 用哪种语言，与预训练的报告相同")
    sample: int | None = Field(None, ge=1, description="severity × subtype × location 的组合多于这个数时，"
                                                       "每种征象随机抽这么多条（Global.seed）；null：全部")
    ensemble: Literal["scores", "embeddings", "max"] = Field(
        "scores", description="几条提示词怎样合成一个分数：scores 分数的平均；max 最高分（GLoRIA）；embeddings "
                              "先平均文本向量再比（BioViL、CLIP）")
    similarity: Literal["both", "global", "local"] = Field(
        "both", description="用哪种相似度：both 与训练相同（ConVIRT 只有全局，GLoRIA 全局与局部的平均）；"
                            "global 全局；local 局部（GLoRIA）")
    missing: Literal["error", "skip"] = Field("error", description="征象没有提示词：报错，或点名略去")


class ZeroShotEvalSection(Section):
    subset: str = Field("test", description="评估哪个子集；all 表示全部")
    threshold_subset: str | None = Field("val", description="阈值在哪个子集上选（F1 最高），绝不用评估的子集；"
                                                            "null：不选阈值，也就没有 F1 和准确率")
    sampler: EvalSamplerSection = Field(default_factory=EvalSamplerSection)


class ZeroShotLoaderSection(Section):
    Source: Component = Field(description="有征象标签的数据集（findings）：CheXpert、ChestXray14、FindingsFile、"
                                          "PhantomFindings …")
    Split: Component = Field(default={"name": "NoSplit"}, description="验证/测试的划分")
    on_error: Literal["error", "skip"] = Field("error", description="遇到坏图：报错，或点名跳过")
    preprocess: PreprocessSection | None = Field(None, description="由模型决定，不用写")
    cache: CacheSection = Field(default_factory=CacheSection)
    Eval: ZeroShotEvalSection = Field(default_factory=ZeroShotEvalSection)


class ZeroShotMetric(Section):
    resamples: int = Field(1000, ge=0, description="自助法（bootstrap）重抽几次；0：不算区间")
    findings: list[str] | None = Field(None, min_length=1, description="评估哪些征象；null：数据集的全部征象")
    seen: list[str] | Literal["auto"] | None = Field(
        None, description="预训练见过的征象，单独求平均；auto：预训练的标签里有阳性的那些")
    unseen: list[str] | None = Field(None, description="没见过的征象；null：seen 以外的全部")


class ZeroShotRecipe(Section):
    """A whole recipe for zero-shot classification, checked."""

    Global: ZeroShotGlobal
    Model: ModelSection = Field(description="评估哪个模型")
    Prompts: PromptsSection = Field(description="用什么话描述各种征象")
    DataLoader: ZeroShotLoaderSection
    Metric: ZeroShotMetric = Field(default_factory=ZeroShotMetric, description="指标")
