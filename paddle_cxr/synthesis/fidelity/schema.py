"""The sections of a fidelity recipe; checked like those of :mod:`paddle_cxr.schema`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from paddle_cxr.schema import Component, Section


class FidelityGlobal(Section):
    task: Literal["fidelity"] = Field("fidelity", description="任务")
    output_dir: str = Field(min_length=1, description="输出目录：fidelity.md、fidelity.csv、metrics.json、图和特征")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="随机种子；决定真实集怎样分成两半、抽哪些图和图对")


class ImageSetSection(Section):
    name: str = Field(min_length=1, description="这一组图像的名字，用在表和图里")
    path: str | None = Field(None, description="图像文件夹（子文件夹名即标签）、pairs.jsonl（可写 shard*/pairs.jsonl）"
                                               "或 .csv（列 file，可有 label、patient_id）；与 pairs 二选一")
    pairs: Component | None = Field(None, description="现画或现读的图像，"
                                                      "例如 {name: PhantomPairs, count: 500, seed: 7}")
    only: list[str] = Field(default=[], description="只用这些标签的图像；空为全部")
    limit: int | None = Field(None, ge=1, description="最多用多少张（按种子随机抽）；null 为全部")
    mark: Literal["auto", "real", "synthetic"] = Field(
        "auto", description="写在表里的来源：auto 把 Real、Training 当作真实，Generated 当作合成；模体总是写明是模体")


class MeasuresSection(Section):
    least: int = Field(50, ge=4, description="一组图少于这么多张，分布的距离就不算（表中写明原因）")
    kid_subsets: int = Field(100, ge=2, description="核距离 KID 取多少个随机子集")
    kid_size: int = Field(1000, ge=2, description="KID 每个子集的张数；不超过参与比较的张数的一半")
    k: int = Field(3, ge=1, description="精确率/召回率（precision/recall）用第几近的邻居")
    coverage_k: int = Field(5, ge=1, description="密度/覆盖率（density/coverage）用第几近的邻居")
    ssim_pairs: int = Field(200, ge=1, description="MS-SSIM 随机取多少对图")
    ssim_size: int = Field(256, ge=176, le=1024, multiple_of=16,
                           description="算 MS-SSIM 前图像缩放到的边长（16 的倍数）")
    closest: float = Field(0.01, gt=0, lt=0.5, description="记忆检查：比最近的百分之几的留出真实图还近，算作太近")
    sheet: int = Field(12, ge=1, le=48, description="记忆检查的对照图画多少对")


class AgreementSection(Section):
    classifier: str = Field(min_length=1, description="用真实图训练的分类器：训练的输出目录、检查点或导出的目录")
    negative: str = Field("normal", description="一项阳性标签都没有的图像算哪一类")
    aliases: dict[str, list[str]] = Field(default={}, description="类名 → 图像标签里的其他写法，例如 {COVID: [covid]}")
    batch_size: int = Field(32, ge=1, description="分类器一批多少张")


class FidelityRecipe(Section):
    """A whole recipe for the fidelity figures, checked."""

    Global: FidelityGlobal
    Encoder: Component = Field(description="图像 → 特征向量；距离都在它的特征空间里算")
    Real: ImageSetSection = Field(description="真实图（reference）：生成器没有训练过的")
    Generated: list[ImageSetSection] = Field(min_length=1, description="要评的图像，一组一行")
    Training: ImageSetSection | None = Field(None, description="生成器训练用的图；不写则不做记忆检查")
    Agreement: AgreementSection | None = Field(None, description="标签一致性；不写则不做")
    Measures: MeasuresSection = Field(default_factory=MeasuresSection)
