"""The sections of a diffusion recipe; checked like those of :mod:`paddle_cxr.schema`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from paddle_cxr.schema import (
    CacheSection,
    Component,
    EvalSamplerSection,
    ImageShape,
    SamplerSection,
    Section,
    TrainGlobal,
)


class DiffusionGlobal(TrainGlobal):
    task: Literal["diffusion"] = Field("diffusion", description="任务")
    image_shape: ImageShape = Field(description="图像 [通道, 高, 宽]；通道写 1（灰度），网络要 3 个通道时复制")


class DiffusionArch(Section):
    name: Literal["LatentDiffusion"] = Field("LatentDiffusion", description="潜空间扩散模型（latent diffusion）")
    folder: str | None = Field(None, description="从这个本地文件夹（diffusers 布局）接着训练；null 表示从头训练，"
                                                 "此时由下面几项搭网络")
    vae: dict[str, Any] = Field(default={}, description="自编码器：{name: PatchAutoencoder, patch, channels}，"
                                                        "训练前由训练图像算出；训练中不变")
    unet: dict[str, Any] = Field(default={}, description="ppdiffusers 的 UNet2DConditionModel 的参数")
    text_encoder: dict[str, Any] = Field(default={}, description="PaddleNLP 的 CLIPTextConfig 的参数")
    tokenizer: dict[str, Any] = Field(default={}, description="分词器：vocab_size；词表由训练集的文字学出")
    scheduler: dict[str, Any] = Field(default={}, description="加噪方案，如 beta_schedule；prediction_type 为 epsilon"
                                                              "（预测噪声）或 v_prediction")


class DenoisingLossSection(Section):
    name: Literal["DenoisingLoss"] = Field("DenoisingLoss", description="噪声（或 v）的均方误差")
    min_snr: float | None = Field(None, gt=0, description="min-SNR 加权的 γ（Hang 等 2023，常用 5）；null 不加权")
    text_dropout: float = Field(0.1, ge=0, lt=1, description="训练时把文字换成空串的概率；"
                                                             "无分类器引导（classifier-free guidance）要用")


class ImageSection(Section):
    resize: Literal["squash", "letterbox", "crop"] = Field("crop", description="缩放：直接压缩、补边或居中裁剪")
    equalize: Literal["none", "hist", "clahe"] = Field("none", description="直方图均衡")


class LatentCacheSection(Section):
    mode: Literal["disk", "memory", "none"] = Field(
        "memory", description="每张图的潜变量（latents）只算一次，放在哪里；none 表示每步重算（省内存，慢）")
    folder: str = Field("cache", description="disk 时的目录；多个进程（rank）要能共用")


class DiffusionTrainSection(Section):
    subset: str = Field("train", description="用哪个子集")
    sampler: SamplerSection


class DiffusionEvalSection(Section):
    subset: str = Field("val", description="验证用哪个子集")
    sampler: EvalSamplerSection = Field(default_factory=EvalSamplerSection)


class PairsLoaderSection(Section):
    Source: Component = Field(description="图文对数据集（pairs）：PhantomPairs、PairsFile 或 LabelledPairs")
    Split: Component = Field(default={"name": "NoSplit"}, description="训练/验证/测试的划分")
    on_error: Literal["error", "skip"] = Field("error", description="遇到坏图：报错，或点名跳过")
    preprocess: ImageSection = Field(default_factory=ImageSection)
    cache: CacheSection = Field(default_factory=CacheSection)
    latents: LatentCacheSection = Field(default_factory=LatentCacheSection)
    Train: DiffusionTrainSection
    Eval: DiffusionEvalSection = Field(default_factory=DiffusionEvalSection)


class SamplingSection(Section):
    images: int = Field(24, ge=0, le=200, description="训练后画多少张样图（samples.png），提示词取自验证子集")
    steps: int = Field(50, ge=1, description="采样步数")
    guidance: float = Field(4.0, ge=0, description="引导强度（guidance scale）；1 表示不引导")
    scheduler: Literal["ddim", "pndm", "dpmsolver++"] = Field("pndm", description="采样方法")
    batch_size: int = Field(8, ge=1, description="一次画几张")


class DiffusionRecipe(Section):
    """A whole recipe for training a diffusion model, checked."""

    Global: DiffusionGlobal
    Arch: DiffusionArch
    Loss: DenoisingLossSection = Field(default_factory=DenoisingLossSection)
    Optimizer: Component = Field(description="优化器及学习率")
    DataLoader: PairsLoaderSection
    Sampling: SamplingSection = Field(default_factory=SamplingSection)
