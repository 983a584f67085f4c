"""Write ``docs/config.md``: the hand-written head below, then every key and component as the code has them.

    python docs/make_config_reference.py

``tests/test_docs.py`` fails when the file is out of date.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

import yaml  # noqa: E402
from pydantic.fields import FieldInfo  # noqa: E402

from paddle_cxr.app.schema import AppRecipe  # noqa: E402
from paddle_cxr.compare.schema import PARTIAL, ComparisonRecipe  # noqa: E402
from paddle_cxr.files import write_text  # noqa: E402
from paddle_cxr.recipe import DEFAULTS  # noqa: E402
from paddle_cxr.registry import accepted_arguments, components  # noqa: E402
from paddle_cxr.schema import Component, Recipe, Section  # noqa: E402
from paddle_cxr.synthesis.analysis_schema import AnalysisRecipe  # noqa: E402
from paddle_cxr.synthesis.fidelity.schema import FidelityRecipe  # noqa: E402
from paddle_cxr.synthesis.pairs.schema import PairsRecipe  # noqa: E402
from paddle_cxr.synthesis.quality.curate_schema import CurationRecipe  # noqa: E402
from paddle_cxr.synthesis.schema import ReportsRecipe  # noqa: E402
from paddle_cxr.tasks.diffusion.schema import DiffusionRecipe  # noqa: E402
from paddle_cxr.tasks.finetuning.schema import FinetuningRecipe  # noqa: E402
from paddle_cxr.tasks.grounding.schema import GroundingRecipe  # noqa: E402
from paddle_cxr.tasks.pretraining.schema import PretrainingRecipe  # noqa: E402
from paddle_cxr.tasks.segmentation.schema import SegmentationRecipe  # noqa: E402
from paddle_cxr.tasks.zero_shot.schema import ZeroShotRecipe  # noqa: E402

OUTPUT = Path(__file__).with_name("config.md")

HEAD = """\
# 配置指南

<!-- 由 docs/make_config_reference.py 生成，请勿手改：文字改脚本，键和参数改代码，然后重新运行脚本 -->

一份配方（recipe）是一个 YAML 文件，写明一次训练的全部设定。
本页先讲写法，再列出全部键和全部组件。
键表取自 `paddle_cxr/schema.py`，组件表取自各组件的函数签名与 docstring（英文原样）。

## 写法

### 继承：`_base_`

```yaml
_base_: _base_/classifier.yaml      # 相对于本文件；也可以是列表，后面的盖过前面的
Global: {output_dir: output/mine, epochs: 4}
Arch: {name: ResNet18}
```

- 映射（键: 值）逐键合并；列表和单个的值整个替换。
- 组件的 `name` 变了，旧组件的其余参数全部丢弃：它们是写给旧组件的。`name` 没变（或没写），参数逐个合并。
- 循环继承、同一文件里重复的键，都是错误。YAML 的锚点（anchor）和 `<<` 合并可以用。

### 改写：`-o`

```bash
python tools/train.py -c configs/resnet18.yaml -o Global.epochs=2 -o Optimizer.lr.learning_rate=1e-4
python tools/train.py -c configs/resnet18.yaml -o Global.classes.1.zh=肺炎
python tools/train.py -c configs/resnet18.yaml -o "DataLoader.Split={name: PatientSplit, val: 0.1, test: 0.1}"
```

- 写法是 `a.b.c=值`，可以写多次，后写的生效。列表用从 0 数的序号。
- 值按 YAML 解析，从不当作代码执行：`true` 是布尔，`[1, 2]` 是列表，`{name: X}` 是组件，`null` 是空。
- 值里有空格或括号时，给整项加引号，否则命令行（shell）会把它拆开。
- `-o` 只换 `name` 时，旧参数仍在，常会报“没有参数”；请像上面第三行那样给出整个组件。

### 回退：`fallback`

`fallback` 是一份局部配方。数据集不在磁盘上时，它盖在其余部分之上，命令行醒目提示。

```yaml
_base_: _base_/classifier.yaml
Global: {output_dir: output/mine}
Arch: {name: ResNet18}
fallback:
  Global: {output_dir: output/mine_phantom, image_shape: [1, 64, 64]}
  DataLoader:
    Source: {name: Phantoms, per_class: 100, size: 64}
    Split: {name: PatientSplit, val: 0.2, test: 0.1}
```

- 只有“不在”才回退：文件夹没有，或是空的。数据在而有错，是错误。
- `-o` 盖过 `fallback`。用 `-o DataLoader.Source.…` 指了数据，就不回退：指了文件夹的人要的就是那个文件夹。
- 删去这一段，或加 `-o fallback=null`，缺数据就是错误。
- 写出的 `config.yaml` 是回退之后的配方，`metrics.json` 里 `demo_data` 为 `true`。

### 组件：`{name: X, 参数…}`

凡是“组件”类型的键，值都是 `{name: 组件名, 参数…}`。参数名和类型按组件的函数签名检查。
类别、图像大小一类的参数由程序填，表中不列；`Arch.class_num` 和 `Arch.in_channels` 可以写，但不能与 `Global` 矛盾。

### 数字与文字

- `1e-3`、`3.0e-4`、`1E5` 都是数字。（标准的 YAML 1.1 把 `1e-3` 读成文字，本项目读成数字。）
- 要整数（int）的地方不能写 `2.0`；要小数（float）的地方可以写 `2`。
- 加了引号就是文字：`"0.5"` 不是数字。
- 不加引号的 `on`、`off`、`yes`、`no` 在 YAML 中是布尔；要写文字 off，加引号：`amp: "off"`。

### 写错了会怎样

每个错误一行，写明 YAML 路径、最接近的名字、可用的写法，能找到出处的还有文件和行号。返回码是 2。例如：

```console
$ python tools/train.py -c configs/resnet18.yaml -o Global.epochs=两轮
错误：Global.epochs：应为整数（int），现在是 '两轮'（见 -o Global.epochs=两轮）
```

更多例子见[常见问题](faq.md)。加 `--debug` 可看到完整的调用栈（traceback）。

### 键之间的规则

- `Arch.class_num` 等于 `Global.classes` 的项数，`Arch.in_channels` 等于 `Global.image_shape` 的通道数。
- `Loss.class_weights` 写成列表时，一类一个数；`preprocess.mean` 和 `std` 是一个数，或每通道一个数。
- `Train.sampler.batch_size` 至少是 `Global.micro_batches` 的两倍；`Global.ranks` 要能整除 `micro_batches`。
- `Global.early_stop` 需要 `Global.eval_every` 不为 0；`Global.fold` 要小于 `Global.folds`。
- `image_shape` 的高和宽不小于 32。
"""


class Kind:
    """One kind of component: where a recipe names it, and what cannot be read off the signatures.

    Attributes:
        place: its YAML path; text: a sentence for the reader.
        supplied: parameters that the program fills.
        extra: keys beside the component's arguments, read by the program: (name, type, default, description).
    """

    def __init__(self, kind: str, title: str, place: str, text: str, *, supplied: Iterable[str] = (),
                 extra: Iterable[tuple[str, str, str, str]] = ()) -> None:
        self.kind, self.title, self.place, self.text = kind, title, place, text
        self.supplied, self.extra = tuple(supplied), tuple(extra)


KINDS = (
    Kind("arch", "模型（Arch）", "Arch", "类别数 `class_num` 和输入通道数 `in_channels` 由程序按 `Global` 填。",
         supplied=["class_num", "in_channels"],
         extra=[("pretrained", "bool / str / {url, checksum}", "`false`",
                 "起始权重：`true` 下载飞桨的 ImageNet 权重；或本地文件、检查点文件夹；或网址连同校验和")]),
    Kind("loss", "损失函数（Loss）", "Loss", "不写 `Loss` 就是 CrossEntropy。", supplied=["class_counts"]),
    Kind("vision_language_loss", "图文预训练的损失（Loss）", "Loss", "图文预训练不写 `Loss` 就是 ContrastiveLoss。"),
    Kind("segmentation_loss", "分割的损失（Loss）", "Loss", "分割不写 `Loss` 就是 BCEDiceLoss。"),
    Kind("optimizer", "优化器（Optimizer）", "Optimizer", "偏置和 BatchNorm 的参数不做权重衰减（weight decay）。",
         supplied=["model"], extra=[("lr", "组件", "**必填**", "学习率，见下一节")]),
    Kind("lr", "学习率（lr）", "Optimizer.lr",
         "学习率是轮数的函数，没有状态。`warmup_epochs` 轮内从 `warmup_start` 线性升到设定的值；"
         "`step_each: epoch` 每轮变一次，`batch` 每步变。", supplied=["epochs"]),
    Kind("source", "数据集（Source）", "DataLoader.Source", "各数据集的获取方法和文件夹布局见[数据指南](data.md)。",
         supplied=["classes"]),
    Kind("split", "划分（Split）", "DataLoader.Split", "划分只取决于清单和种子。各种划分的用途见[数据指南](data.md)。"),
    Kind("transform", "数据增强（transform_ops）", "DataLoader.Train.transform_ops",
         "作用于 uint8 图像，只用于训练。`augment_on: device` 时在设备上成批执行，幅度范围相同。",
         supplied=["yaml_path"]),
    Kind("batch_transform", "成批的增强（batch_transform_ops）", "DataLoader.Train.batch_transform_ops",
         "作用于归一化之后的一批图像。"),
    Kind("metric", "指标（Metric）", "Metric", "不写 `Metric` 就是 ClassificationMetrics。"),
    Kind("sampler", "实体抽样（Sampler）", "Sampler", "合成报告用：每份报告写哪些实体。"),
    Kind("writer", "报告写作（Writer）", "Writer", "合成报告用：把实体写成 FINDINGS 和 IMPRESSION。",
         supplied=["vocabulary"]),
    Kind("ner", "命名实体识别（NER）", "NER", "检查报告、分析语料用：文字里提到了哪些实体。", supplied=["vocabulary"]),
    Kind("pairs", "图文对数据集（pairs）", "DataLoader.Source", "训练扩散模型和图文预训练用；也可写在 "
         "`Reports.pairs`（只用文字）、`Real.pairs` 等处。", supplied=["on_error"]),
    Kind("findings", "征象数据集（findings）", "DataLoader.Source", "零样本、定位、微调、分割用：每种征象各有各的标签，"
         "有的标出了位置。获取方法见[数据指南](data.md)。", supplied=["classes"]),
    Kind("generator", "画图（Generator）", "Generator", "合成图文对用：按 IMPRESSION 画一张图。",
         supplied=["vocabulary"]),
    Kind("judge", "裁判（Judge）", "Judge", "质量控制用：回答六个问题，见[质量控制](quality.md)。"),
    Kind("encoder", "编码器（encoder）", "Similarity.encoder", "图像 → 特征：比较相似度、计算逼真度用。"),
)
# What recipes there are: the heading of its keys, what stands before each section's name, and its schema.
RECIPES = (
    ("全部的键", "", Recipe),
    ("合成报告的键（configs/synthesis/reports.yaml）", "合成报告 ", ReportsRecipe),
    ("语料分析的键（configs/synthesis/analysis.yaml）", "语料分析 ", AnalysisRecipe),
    ("训练扩散模型的键（configs/diffusion_phantom.yaml）", "扩散模型 ", DiffusionRecipe),
    ("图文预训练的键（configs/convirt.yaml）", "图文预训练 ", PretrainingRecipe),
    ("零样本分类的键（configs/eval/zero_shot_phantom.yaml）", "零样本分类 ", ZeroShotRecipe),
    ("零样本定位的键（configs/eval/grounding_phantom.yaml）", "零样本定位 ", GroundingRecipe),
    ("微调的键（configs/finetune_phantom.yaml）", "微调 ", FinetuningRecipe),
    ("分割的键（configs/segment_phantom.yaml）", "分割 ", SegmentationRecipe),
    ("对比的键（configs/compare/synthetic_vs_real.yaml）", "对比 ", ComparisonRecipe),
    ("合成图文对的键（configs/synthesis/pairs.yaml）", "合成图文对 ", PairsRecipe),
    ("质量控制的键（configs/synthesis/quality.yaml）", "质量控制 ", CurationRecipe),
    ("逼真度的键（configs/synthesis/fidelity.yaml）", "逼真度 ", FidelityRecipe),
    ("网页的键（configs/app.yaml）", "网页 ", AppRecipe),
)


def reference() -> str:
    """The whole page."""
    parts = [HEAD, "类型一栏的 `/` 表示“或”；“组件”见[全部的组件](#全部的组件)。\n"]
    for title, label, recipe in RECIPES:
        parts += [f"## {title}\n", *(_section_text(label, path, section) for path, section in sections("", recipe))]
    parts += ["## 全部的组件\n"]
    parts += [_kind_text(kind) for kind in KINDS]
    return "\n".join(parts)


# --- keys -----------------------------------------------------------------------------------------------------------

def sections(path: str, section: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    """Every section with its YAML path, in the order of the schema, from the top down."""
    yield path, section
    for name, field in section.model_fields.items():
        inner = _section_in(field)
        if inner:
            yield from sections(f"{path}.{name}".lstrip("."), inner)


def _section_in(field: FieldInfo) -> type[Section] | None:
    for hint in (field.annotation, *get_args(field.annotation)):
        if isinstance(hint, type) and issubclass(hint, Section):
            return hint
    return None


def _section_text(label: str, path: str, section: type[Section]) -> str:
    rows = [(f"`{name}`", _field_type(field), _field_default(field),
             field.description or _goto(label, path, name, field))
            for name, field in section.model_fields.items()]
    if section is Recipe:
        rows = [(name, kind, value_text(DEFAULTS[name.strip("`")]) if name.strip("`") in DEFAULTS else default, text)
                for name, kind, default, text in rows]
        rows.append(("`fallback`", "局部配方", "没有", "数据集不在磁盘上时盖在其余部分之上，见[回退](#回退fallback)"))
    return f"### {label}{f'`{path}`' if path else '最外层'}\n\n{_table(('键', '类型', '默认', '说明'), rows)}\n"


def _goto(label: str, path: str, name: str, field: FieldInfo) -> str:
    full = f"{path}.{name}".lstrip(".")
    return f"见 [`{full}`](#{anchor(label + full)})" if _section_in(field) else ""


def _field_type(field: FieldInfo) -> str:
    inner = _section_in(field)
    if inner:
        return {list: "列表，每项一组键", dict: "名字 → 一组键"}.get(get_origin(field.annotation), "一组键")
    if PARTIAL in field.metadata:
        return "局部配方"
    return type_text(field.annotation) + "".join(_limits(field))


def _limits(field: FieldInfo) -> Iterator[str]:
    for one in field.metadata:
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            if getattr(one, name, None) is not None:
                yield f"，{sign} {getattr(one, name)}"


def _field_default(field: FieldInfo) -> str:
    if field.is_required():
        return "**必填**"
    return "见下" if field.default_factory else value_text(field.default)


# --- components -----------------------------------------------------------------------------------------------------

def _kind_text(kind: Kind) -> str:
    # As they stand in the source: in the registry their order depends on what was imported first.
    found = dict(sorted(((name, one) for name, one in components(kind.kind).items()
                         if one.__module__.startswith("paddle_cxr.")),
                        key=lambda item: (item[1].__module__, inspect.getsourcelines(item[1])[1])))
    head = f"### {kind.title}\n\n写在 `{kind.place}`。{kind.text}\n"
    if kind.extra:
        head += f"\n除组件自己的参数外还有：\n\n{_table(_ARGUMENTS, [(f'`{n}`', *rest) for n, *rest in kind.extra])}\n"
    return "\n".join([head, *(_component_text(kind, name, one) for name, one in found.items())])


_ARGUMENTS = ("参数", "类型", "默认", "说明")


def _component_text(kind: Kind, name: str, component: Callable[..., Any]) -> str:
    document = inspect.getdoc(component) or ""
    meanings = argument_meanings(document)
    hints = get_type_hints(component.__init__ if inspect.isclass(component) else component)
    rows = []
    for argument, parameter in accepted_arguments(component).items():
        if argument in kind.supplied:
            continue
        empty = parameter.default is inspect.Parameter.empty
        default = "**必填**" if empty else value_text(parameter.default)
        rows.append((f"`{argument}`", type_text(hints.get(argument, Any)), default, meanings.get(argument, "")))
    if not any(row[-1] for row in rows):
        rows = [row[:-1] for row in rows]
    table = f"{_table(_ARGUMENTS[:len(rows[0])], rows)}\n" if rows else "没有参数。\n"
    return f"#### `{name}`\n\n{markdown(summary(document))}\n\n{table}"


def summary(document: str) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(document.split("\n\n")[0].split())


def argument_meanings(document: str) -> dict[str, str]:
    """``Args:`` of a docstring: argument → text; ``a, b: text`` is the text of both, ``a: …; b: …`` of each."""
    block = re.search(r"^Args:\n(.*?)(?:\n\n|\Z)", document, re.MULTILINE | re.DOTALL)
    entries = re.split(r"\n    (?=\S)", "\n" + block.group(1))[1:] if block else []
    result: dict[str, str] = {}
    for entry in entries:
        for part in re.split(r"; (?=\w+: )", " ".join(entry.split())):
            names, _, text = part.partition(": ")
            result.update(dict.fromkeys(names.split(", "), markdown(text)))
    return result


# --- text -----------------------------------------------------------------------------------------------------------

def type_text(hint: Any) -> str:
    """A type for people, the same on every Python: ``int / null``, ``"best" / "last"``, ``[int, int, int]``."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint == Component:
        return "组件"
    if origin is Annotated:
        return type_text(arguments[0])
    if origin in (Union, UnionType):
        # In an order of their own: Python may hand out another union that is equal but for its order.
        return " / ".join(sorted(map(type_text, arguments), key=lambda text: (text == "null", text)))
    if origin is Literal:
        return " / ".join(value_text(one) for one in arguments)
    if origin is tuple and Ellipsis not in arguments:
        return f"[{', '.join(type_text(one) for one in arguments)}]"
    if origin in (list, tuple):
        return "组件的列表" if arguments in ((Component,), (Any,)) else f"{type_text(arguments[0])} 的列表"
    if origin is dict:
        return f"{{{type_text(arguments[0])}: {type_text(arguments[1])}}}"
    return {NoneType: "null", Any: "任意"}.get(hint) or hint.__name__


def value_text(value: Any) -> str:
    """A value as YAML has it, on one line."""
    def plain(one: Any) -> Any:
        if isinstance(one, list | tuple):
            return [plain(item) for item in one]
        return float(f"{one:.6g}") if isinstance(one, float) else one

    value = plain(value)
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=1000)
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"


def markdown(text: str) -> str:
    """reStructuredText as the docstrings use it → Markdown."""
    return re.sub(r":\w+:`~?\.?([^`]+)`", r"`\1`", text).replace("``", "`")


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _table(header: tuple[str, ...], rows: Iterable[Iterable[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    print(f"已写入 {write_text(OUTPUT, reference())}")
