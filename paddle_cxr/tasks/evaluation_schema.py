"""The sections that zero-shot classification and grounding share: both ask a pre-trained model and train nothing."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from paddle_cxr.schema import CacheSection, Component, EvalSamplerSection, ImageShape, PreprocessSection, Section


class EvaluationGlobal(Section):
    task: str = Field(description="任务")  # each task narrows it to its own name
    output_dir: str = Field(min_length=1, description="输出目录；结果写在其中的 eval_子集")
    device: str = Field("auto", pattern=r"^(auto|cpu|gpu(:\d+)?)$",
                        description="auto、cpu、gpu 或 gpu:1；auto 没有 GPU 时用 CPU 并说明")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="随机种子：自助法（bootstrap）重抽、提示词组合的抽样")
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
    missing: Literal["error", "skip"] = Field("error", description="征象没有提示词：报错，或点名略去")


class EvaluationEvalSection(Section):
    subset: str = Field("test", description="评估哪个子集；all 表示全部")
    threshold_subset: str | None = Field("val", description="阈值在哪个子集上选，绝不用评估的子集；null：不选阈值")
    sampler: EvalSamplerSection = Field(default_factory=EvalSamplerSection)


class EvaluationLoaderSection(Section):
    Source: Component = Field(description="有征象（findings）的数据集")
    Split: Component = Field(default={"name": "NoSplit"}, description="验证/测试的划分")
    on_error: Literal["error", "skip"] = Field("error", description="遇到坏图：报错，或点名跳过")
    preprocess: PreprocessSection | None = Field(None, description="由模型决定，不用写")
    cache: CacheSection = Field(default_factory=CacheSection)
    Eval: EvaluationEvalSection = Field(default_factory=EvaluationEvalSection)


class EvaluationMetric(Section):
    resamples: int = Field(1000, ge=0, description="自助法（bootstrap）重抽几次；0：不算区间")
    findings: list[str] | None = Field(None, min_length=1, description="评估哪些征象；null：全部")
