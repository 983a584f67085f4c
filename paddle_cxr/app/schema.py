"""The sections of the page's recipe; checked like those of :mod:`paddle_cxr.schema`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from paddle_cxr.schema import Component, Section

Language = Literal["zh", "en"]


class AppGlobal(Section):
    task: Literal["app"] = Field("app", description="任务")
    device: str = Field("auto", pattern=r"^(auto|cpu|gpu(:\d+)?)$",
                        description="auto、cpu、gpu 或 gpu:1；auto 没有 GPU 时用 CPU 并说明")
    language: Language = Field("zh", description="打开时的语言：zh 中文，en 英文；页上可以换")


class ServerSection(Section):
    host: str = Field("127.0.0.1", min_length=1,
                      description="在哪个地址上等：127.0.0.1 只有本机能打开；0.0.0.0 同一网络里都能打开（没有密码）")
    port: int = Field(7860, ge=1, le=65535, description="端口（port）")
    root_path: str = Field("", pattern=r"^(/[^\s]*)?$", description="经反向代理打开时，网址里域名后面的那一段")
    max_upload_mb: int = Field(20, ge=1, le=500, description="上传的文件最大多少 MB")
    waiting: int = Field(8, ge=1, le=10, description="一个模型同时收下几个请求：一个在算，其余排队；"
                                                     "各模型分开排队，互不等待")
    queue: int = Field(64, ge=1, le=10_000, description="还没有收下的请求，整页最多排多少个；再多就请用户稍后再试")
    seconds: float = Field(120.0, gt=0, description="一个请求最多等多少秒")


class ModelTab(Section):
    folder: str = Field(min_length=1, description="训练的输出目录")
    make: str = Field("", description="没有模型时，这一页上显示的命令")


class FindSection(ModelTab):
    map: Literal["similarity", "attention", "gradcam"] = Field(
        "similarity", description="用什么图，与零样本定位的 Grounding.map 相同")
    layer: Literal["layer1", "layer2", "layer3", "layer4"] = Field("layer4", description="gradcam 用哪一层的特征图")


class WriteSection(Section):
    vocabulary: str | None = Field(None, description="词表；null：自带的")
    Writer: Component = Field(default={"name": "GrammarWriter"}, description="写报告的")
    NER: Component = Field(default={"name": "DictionaryNER"}, description="检查报告的")
    attempts: int = Field(5, ge=1, le=100, description="每段最多写几次")
    most: int = Field(12, ge=1, le=40, description="一份报告最多选几个实体")


class DrawSection(Section):
    Generator: Component = Field(description="画图的：DiffusersGenerator，或 PhantomGenerator")
    stand_in: bool = Field(True, description="打不开 Generator 时用内置模体（phantom）代替，并写明")
    make: str = Field("", description="打不开 Generator 时，这一页上显示的命令")


class AppRecipe(Section):
    """A whole recipe for the page, checked."""

    Global: AppGlobal = Field(default_factory=AppGlobal)
    Server: ServerSection = Field(default_factory=ServerSection, description="服务器")
    Classify: ModelTab | None = Field(None, description="“分类”页：训练好的分类器；null：没有")
    Find: FindSection | None = Field(None, description="“找一句话”页：图文预训练的模型；null：没有")
    Write: WriteSection | None = Field(None, description="“写报告”页；null：没有")
    Draw: DrawSection | None = Field(None, description="“画图”页；null：没有")
