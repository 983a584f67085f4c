"""The sections of a recipe and what each key means.

The models below are the reference of every YAML key outside the components (whose arguments are the signatures of
the registered classes).  ``Field(description=…)`` is what the docs print.  Checking is strict: an unknown key or a
value of another type is an error that names the YAML path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from paddle_cxr.errors import UserError, did_you_mean

Component = dict[str, Any]
S = TypeVar("S", bound="Section")


def _three(value: Any) -> Any:
    """YAML writes a tuple as a list; strict checking would refuse it."""
    if isinstance(value, list) and len(value) != 3:
        raise PydanticCustomError("three", "三个数 [通道, 高, 宽]")
    return tuple(value) if isinstance(value, list) else value


ImageShape = Annotated[tuple[int, int, int], BeforeValidator(_three)]

# YAML 1.1 reads an unquoted ``off`` as false.
Precision = Annotated[Literal["off", "auto", "bf16", "fp16"], BeforeValidator(lambda v: "off" if v is False else v)]


class Section(pydantic.BaseModel):
    """A part of the recipe with known keys only."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ClassSpec(Section):
    name: str = Field(description="类名：文件夹名或标签列中的写法")
    zh: str = Field(description="中文显示名")
    en: str = Field(description="英文显示名")
    aliases: list[str] = Field(default=[], description="同一类的其他写法（不分大小写）")


class TrainGlobal(Section):
    """The keys of ``Global`` that the training loop reads, whatever it trains."""

    output_dir: str = Field(min_length=1, description="输出目录：权重、日志、图、metrics.json")
    device: str = Field("auto", pattern=r"^(auto|cpu|gpu(:\d+)?)$",
                        description="auto、cpu、gpu 或 gpu:1；auto 没有 GPU 时用 CPU 并说明")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="随机种子；相同种子、相同机器得到相同结果")
    epochs: int = Field(ge=1, description="训练轮数")
    micro_batches: int | Literal["auto"] = Field(
        "auto", description="一个全局批次切成几份；多个进程分担，单个进程依次累积（梯度累积）。"
                            "结果只取决于份数，不取决于进程数；auto = 进程数")
    ranks: int | Literal["auto"] = Field(
        "auto", description="CPU 上的数据并行进程数（gloo）；auto = 核数所及且能整除 micro_batches")
    amp: Precision = Field("off", description="混合精度；设备不支持时关闭并说明")
    resume: Literal["auto"] | bool = Field(
        "auto", description="auto/true：配方相同且未完成的训练自动续训；false：旧结果改名保留，从头训练")
    keep: Literal["best", "last"] = Field("best", description="最终采用哪一份权重：验证最好的，或最后一轮的")
    eval_every: int = Field(1, ge=0, description="每几轮验证一次；0 表示训练中不验证")
    early_stop: int | None = Field(None, ge=1, description="连续几次验证没有进步就停止")
    save_every_minutes: float = Field(5.0, gt=0, description="轮内每隔多少分钟存一次可续训的检查点（每轮结束总会存）")
    save_every_steps: int | None = Field(None, ge=1, description="轮内每隔多少步存一次检查点")
    log_every: int = Field(10, ge=1, description="每几步记一行日志")
    ema: float | None = Field(None, gt=0, lt=1, description="权重滑动平均（EMA）的衰减；评估和保存用平均后的权重")
    freeze: list[str] = Field(default=[], description="冻结的参数名前缀，例如 [conv1, bn1, layer1]；"
                                                      "其中的 BatchNorm 用推理统计量")


class GlobalSection(TrainGlobal):
    task: Literal["classification"] = Field("classification", description="任务")
    image_shape: ImageShape = Field(description="模型输入 [通道, 高, 宽]；通道为 1 或 3")
    classes: list[ClassSpec] = Field(min_length=2, description="类别，顺序即标签号")
    checkpoint: str | None = Field(None, description="评估、预测、导出所用权重；默认取 output_dir 中保留的那一份")
    folds: int | None = Field(None, ge=2, description="交叉验证折数（按患者分组）；null 表示不做")
    fold: int | None = Field(None, ge=0, description="只跑这一折（从 0 数）")


class SamplerSection(Section):
    batch_size: int = Field(ge=1, description="全局批大小（所有进程之和）")
    shuffle: bool = Field(True, description="每轮打乱")
    drop_last: bool = Field(False, description="丢弃最后不满的一批")
    balance: bool = Field(False, description="按类别频率的倒数有放回抽样")
    samples_per_epoch: int | None = Field(None, ge=1, description="一轮看多少张；null：全部。写了它，"
                                                                  "大小不同的数据集每轮步数相同")


class LoaderSection(Section):
    num_workers: int | Literal["auto"] = Field("auto", description="读数据的子进程数；auto：CPU 为 0，GPU 按核数")


class PreprocessSection(Section):
    resize: Literal["squash", "letterbox", "crop"] = Field("squash", description="缩放：直接压缩、补边或居中裁剪")
    normalize: Literal["fixed", "per_image"] = Field("fixed", description="减均值除标准差：固定数值，或每张图自己的")
    mean: list[float] = Field(default=[0.5], description="灰度均值（0–1），一个数或每通道一个")
    std: list[float] = Field(default=[0.25], description="灰度标准差（0–1）")
    equalize: Literal["none", "hist", "clahe"] = Field("none", description="直方图均衡")
    color: bool = Field(False, description="保留颜色；X 光片是灰度图，通常为 false")


class CacheSection(Section):
    mode: Literal["disk", "memory", "none"] = Field("disk", description="解码一次后放在哪里；none 表示每次重读")
    folder: str = Field("cache", description="disk 时的目录")


class TrainSection(Section):
    subset: str = Field("train", description="用哪个子集")
    transform_ops: list[Component] = Field(default=[], description="数据增强")
    augment_on: Literal["cpu", "device"] = Field("cpu", description="增强在 CPU 上逐张做，或在设备上成批做"
                                                                    "（喂饱快的 GPU）")
    batch_transform_ops: list[Component] = Field(default=[], description="成批的增强，如 Mixup")
    sampler: SamplerSection
    loader: LoaderSection = Field(default_factory=LoaderSection)


class EvalSamplerSection(Section):
    batch_size: int = Field(32, ge=1, description="评估批大小")


class EvalSection(Section):
    subset: str = Field("val", description="用哪个子集；all 表示全部")
    hide: Literal["nothing", "centre", "border"] = Field(
        "nothing", description="捷径检查（shortcut）：盖住中央（肺）或四边再评估；盖住中央仍远高于猜测，是在认来源")
    sampler: EvalSamplerSection = Field(default_factory=EvalSamplerSection)
    loader: LoaderSection = Field(default_factory=LoaderSection)
    views: Literal["one", "flip", "crops"] = Field(
        "one", description="评估和预测时看几个样子取平均（TTA）：one 原图；flip 加左右翻转；crops 再加四角与中心的裁剪")


class DataLoaderSection(Section):
    Source: Component = Field(description="数据集")
    Split: Component = Field(default={"name": "NoSplit"}, description="训练/验证/测试的划分")
    on_error: Literal["error", "skip"] = Field("error", description="遇到坏图：报错，或点名跳过")
    preprocess: PreprocessSection = Field(default_factory=PreprocessSection)
    cache: CacheSection = Field(default_factory=CacheSection)
    Train: TrainSection
    Eval: EvalSection = Field(default_factory=EvalSection)


class PrepareSection(Section):
    output: str = Field("data/prepared", description="tools/prepare_data.py 的输出目录")
    on_error: Literal["error", "skip"] = Field("error", description="遇到坏图：报错，或点名跳过")
    duplicates: Literal["report", "drop", "error"] = Field("report", description="重复图：报告、去掉或报错")
    workers: int | Literal["auto"] = Field("auto", description="检查图像的进程数")


class Recipe(Section):
    """A whole recipe, checked."""

    Global: GlobalSection
    Arch: Component = Field(description="模型")
    Loss: Component = Field(description="损失函数；不写则为 CrossEntropy")
    Optimizer: Component = Field(description="优化器及学习率")
    DataLoader: DataLoaderSection
    Metric: Component = Field(description="指标；不写则为 ClassificationMetrics")
    Prepare: PrepareSection = Field(default_factory=PrepareSection)


def checked(recipe: Mapping[str, Any], schema: type[S] = Recipe) -> S:
    """Check a merged recipe against ``schema``; raises :class:`UserError` for the first mistake, naming its path."""
    try:
        return schema.model_validate(dict(recipe))
    except pydantic.ValidationError as error:
        raise UserError(_explain(error.errors(), schema)) from None


def _location(detail: Mapping[str, Any]) -> list[str]:
    return [str(part) for part in detail["loc"] if not _is_union_branch(part)]


def _explain(details: Sequence[Mapping[str, Any]], schema: type[Section]) -> str:
    """The first mistake; a value that may be of several types has one entry for each it is not."""
    detail, location = details[0], _location(details[0])
    path = ".".join(location)
    if detail["type"] == "extra_forbidden":
        accepted = list(_section_at(location[:-1], schema).model_fields)
        near = did_you_mean(location[-1], accepted) or _elsewhere(location[-1], schema)
        return f"{path}：没有这个键{near}（这一层可用：{'、'.join(accepted)}）"
    if detail["type"] == "missing":
        return f"{path}：缺少这个必填的键"
    value = detail.get("input")
    same = [one for one in details if _location(one) == location]
    expected = " 或 ".join(dict.fromkeys(map(_expected, same)))
    accepted = [name for one in same for name in _quoted(one)]
    gap = " " if expected[:1].isascii() else ""
    return f"{path}：应为{gap}{expected}{did_you_mean(str(value), accepted)}，现在是 {as_written(value)}"


def _elsewhere(key: str, schema: type[Section]) -> str:
    """``"，是不是 Global.epochs？"`` for a key that stands in another section."""
    found = [path for path in _paths(schema) if path.rpartition(".")[2].lower() == key.lower()]
    return f"，是不是 {' 或 '.join(found)}？" if found else ""


def _paths(section: type[Section], prefix: str = "") -> Iterator[str]:
    """The dotted paths of all keys below ``section``, those of list items left out."""
    for name, field in section.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _paths(field.annotation, f"{prefix}{name}.")


def as_written(value: Any) -> str:
    """A value as YAML writes it, shortened."""
    words = {None: "空（null）", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    if isinstance(value, str) and re.search(r"^\w+[:：]\S", value):
        text += "（键和值之间要用半角冒号加一个空格）"
    return text if len(text) <= 80 else text[:77] + "…"


def _expected(detail: Mapping[str, Any]) -> str:
    if detail["type"] == "literal_error":
        return "、".join(_quoted(detail)) + (" 之一" if len(_quoted(detail)) > 1 else "")
    limits = {key: f"{value:g}" if isinstance(value, float) else value for key, value in detail.get("ctx", {}).items()}
    return _EXPECTED.get(detail["type"], "{msg}").format(msg=detail["msg"], **limits)


def _quoted(detail: Mapping[str, Any]) -> list[str]:
    """The accepted words of a ``literal_error``."""
    return re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))


def _is_union_branch(part: int | str) -> bool:
    """Pydantic puts the tried branch of ``int | Literal`` into the location; a user's path has no such step."""
    return isinstance(part, str) and (part in ("int", "bool", "str", "float") or "[" in part)


def _section_at(location: list[str], section: type[Section]) -> type[Section]:
    for part in location:
        if part.isdigit():
            continue
        annotation = section.model_fields[part].annotation
        for candidate in (annotation, *getattr(annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, Section):
                section = candidate
    return section


_EXPECTED = {
    "int_type": "整数（int）",
    "float_type": "数字（float）",
    "string_type": "文字（str）",
    "bool_type": "true 或 false（bool）",
    "list_type": "列表（list）",
    "dict_type": "{{name: 组件名, 参数…}}",
    "model_type": "一组 键: 值",
    "tuple_type": "列表，如 [3, 224, 224]",
    "too_short": "至少 {min_length} 项的列表",
    "string_too_short": "不空的文字",
    "string_pattern_mismatch": "auto、cpu、gpu 或 gpu:1 这样的写法",
    "greater_than": "大于 {gt} 的数",
    "greater_than_equal": "不小于 {ge} 的数",
    "less_than": "小于 {lt} 的数",
    "less_than_equal": "不大于 {le} 的数",
}
