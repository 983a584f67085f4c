"""The sections of a comparison's recipe; checked like those of :mod:`paddle_cxr.schema`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from paddle_cxr.schema import Section

PARTIAL = "part of a recipe"  # tells the reference of keys what such a mapping is
PartialRecipe = Annotated[dict[str, Any], PARTIAL]
NAME = r"^[A-Za-z0-9_\-]+$"


def _plain(names: dict[str, Any]) -> dict[str, Any]:
    """Names of arms and the like become folder names."""
    for name in names:
        if not re.match(NAME, name):
            raise PydanticCustomError("plain", "名字用字母、数字、下划线和连字符（会成为文件夹名），"
                                               f"不能是 {name!r}；显示名写在 zh")
    return names


def _without_dropped(named: Any) -> Any:
    """``null`` takes out what a base recipe has."""
    return {name: value for name, value in named.items() if value is not None} if isinstance(named, dict) else named


_DROPPED, _NAMED = BeforeValidator(_without_dropped), AfterValidator(_plain)


class ComparisonGlobal(Section):
    task: Literal["comparison"] = Field("comparison", description="任务")
    output_dir: str = Field(min_length=1, description="输出目录：各次运行、表格、图")
    devices: Literal["auto"] | list[str] = Field(
        "auto", description="同时用哪些设备，每个设备一次一项：auto（有 GPU 就用全部 GPU，否则每个 CPU 核一项），"
                            "或 [cpu, cpu]、[gpu:0, gpu:1]")
    keep_weights: bool = Field(False, description="微调和分割做完后留不留权重和检查点；一次约 200 MB，"
                                                  "几十次就占满磁盘。预训练的模型总是留下")


class StepSection(Section):
    tool: Literal["train", "synthesize", "eval", "analyze"] = Field(description="用哪个工具：tools/<tool>.py")
    recipe: str = Field(description="配方文件")
    override: list[str] = Field(default=[], description="改写配方的几项，同 -o")
    makes: str = Field(description="做成后就有的文件或文件夹；已经有了就不再做")
    processes: int = Field(1, ge=1, description="几个进程分担（paddle.distributed.launch）；train 自己会分，写 1")


class ArmSection(Section):
    zh: str = Field(description="中文显示名")
    reference: bool = Field(False, description="其他各组与它比较（配对自助法）；只有一组可以写 true")
    note: str = Field("", description="写在表下的说明，如“上界：直接画的模体”")
    pretraining: PartialRecipe = Field(description="盖在预训练配方上的一部分，通常是 DataLoader.Source")


class MethodSection(Section):
    zh: str = Field("", description="显示名；不写则用方法的键")
    recipe: str = Field(description="预训练配方")
    override: PartialRecipe = Field(default={}, description="盖在该配方上的一部分")
    tasks: Annotated[dict[str, dict[str, Any]], PARTIAL] = Field(
        default={}, description="这种方法在某项评估里另有写法：Tasks 的键 → 盖在那份配方上的一部分")


class PretrainingRuns(Section):
    seeds: list[int] = Field(default=[42], min_length=1, description="每组每法预训练几次，各用哪个种子")
    override: PartialRecipe = Field(default={}, description="盖在每个预训练配方上的一部分，如各组相同的步数")


class TaskSection(Section):
    zh: str = Field("", description="显示名；不写则用任务的键")
    recipe: str = Field(description="评估、微调或分割的配方")
    metric: str = Field(description="比较 metrics.json 里 evaluation 的哪个数，如 macro_auc、mean_dice、dice")
    weights: str = Field("Model.checkpoint", description="配方里哪个键说用哪份预训练权重")
    override: PartialRecipe = Field(default={}, description="盖在配方上的一部分")
    vary: dict[str, list[Any]] = Field(default={}, description="逐个取值的键，如 {Finetune.fraction: [0.01, 0.1, 1.0]}")
    seeds: list[int] | None = Field(None, description="每个设置跑几次，各用哪个种子；null：只评估，没有随机性，跑一次")
    baseline: bool = Field(False, description="再跑一次不预训练的（随机初始化），作为底线")


class SignificanceSection(Section):
    resamples: int = Field(1000, ge=100, le=100_000, description="配对自助法（paired bootstrap）重抽几次")
    seed: int = Field(0, ge=0, description="重抽的种子")


class ExpectedSection(Section):
    order: list[str] = Field(min_length=2, description="预期的次序，从低到高，写 Arms 的键；指标应是越大越好的")
    source: str = Field(description="谁说的，如论文")


class ComparisonRecipe(Section):
    """A whole recipe for a comparison, checked."""

    Global: ComparisonGlobal
    Prepare: list[StepSection] = Field(default=[], description="事先要有的东西，缺了就先做；时间另计")
    Arms: Annotated[dict[str, ArmSection], _DROPPED, _NAMED] = Field(
        min_length=1, description="几组数据：真实、合成、混合……；null 去掉 _base_ 里的一组，下同")
    Methods: Annotated[dict[str, MethodSection], _DROPPED, _NAMED] = Field(
        min_length=1, description="几种预训练方法")
    Pretraining: PretrainingRuns = Field(default_factory=PretrainingRuns, description="预训练的共同设置")
    Tasks: Annotated[dict[str, TaskSection], _DROPPED, _NAMED] = Field(min_length=1, description="几项评估")
    Expected: ExpectedSection | None = Field(None, description="结果出来后，说明这个次序有没有出现")
    Significance: SignificanceSection = Field(default_factory=SignificanceSection, description="差别是不是偶然")
