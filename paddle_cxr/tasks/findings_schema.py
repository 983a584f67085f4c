"""What the recipes of fine-tuning and segmentation share: training on images with findings, from a starting point."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from paddle_cxr.schema import CacheSection, Component, ImageShape, PreprocessSection, Section, TrainGlobal


class FindingsGlobal(TrainGlobal):
    task: str
    image_shape: ImageShape | None = Field(None, description="模型输入 [通道, 高, 宽]；null：与起点训练时相同")
    checkpoint: str | None = Field(None, description="tools/eval.py、tools/predict.py 用哪份权重；"
                                                     "默认取 output_dir 中保留的那一份")
    folds: int | None = Field(None, ge=2, description="交叉验证折数（按患者分组，数据集自带的优先）；null 表示不做")
    fold: int | None = Field(None, ge=0, description="只跑这一折（从 0 数）")


class FindingsLoaderSection(Section):
    Source: Component = Field(description="带征象标签的数据集（findings）：CheXpert、ChestXray14、PhantomFindings …")
    Split: Component = Field(default={"name": "NoSplit"}, description="训练/验证/测试的划分")
    on_error: Literal["error", "skip"] = Field("error", description="遇到坏图：报错，或点名跳过")
    preprocess: PreprocessSection | None = Field(None, description="null：与起点训练时相同")
    cache: CacheSection = Field(default_factory=CacheSection)


class TestSection(Section):
    subset: str = Field("test", description="训练完后在哪个子集上评估一次")


class IntervalsSection(Section):
    bootstrap: int = Field(1000, ge=1, description="95% 区间的重采样（bootstrap）次数")
    seed: int = Field(0, ge=0, description="重采样的种子")
