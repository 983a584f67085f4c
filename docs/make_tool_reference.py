"""Write ``docs/tools.md``: every tool with its arguments, as the tools themselves declare them.

    python docs/make_tool_reference.py

``tests/test_docs.py`` fails when the file is out of date, or a tool has no text here.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout that is not installed

from paddle_cxr.files import write_text  # noqa: E402

OUTPUT = Path(__file__).with_name("tools.md")
HIDDEN = {"help", "config", "override", "debug"}  # the head explains them


class Tool(NamedTuple):
    """What a tool's own words do not say.

    Attributes:
        example: a command that can be copied.
        writes: where its results are.
        more: the guides.
    """

    example: str
    writes: str
    more: str


TOOLS = {
    "doctor": Tool("python tools/doctor.py", "不写文件；`--json` 另存一份", "[常见问题](faq.md)"),
    "aistudio": Tool("python tools/aistudio.py --link", "会保留的文件夹里的包，`output/`、`cache/` 的链接",
                     "[AI Studio](aistudio.md)"),
    "prepare_data": Tool("python tools/prepare_data.py -c configs/resnet50.yaml",
                         "`Prepare.output`：清单和 `report.json`", "[数据指南](data.md)"),
    "train": Tool("python tools/train.py -c configs/resnet50.yaml",
                  "`Global.output_dir`：完整的配方、日志、检查点、`metrics.json`、图",
                  "[README](../README.md)、[图文预训练](pretraining.md)、[合成图像](images.md)、[下游评估](evaluation.md)"),
    "eval": Tool("python tools/eval.py -c configs/resnet50.yaml -o DataLoader.Eval.subset=test",
                 "`Global.output_dir` 下的 `eval_子集`：指标、表、图", "[下游评估](evaluation.md)"),
    "predict": Tool("python tools/predict.py -c configs/resnet50.yaml -i 图片",
                    "`Global.output_dir` 下的 `predict`，或 `--output`：表和图", "[README](../README.md)"),
    "export": Tool("python tools/export.py -c configs/resnet50.yaml",
                   "`Global.output_dir` 下的 `export`，或 `--output`：各种格式的模型", "[常见问题](faq.md)"),
    "synthesize": Tool("python tools/synthesize.py -c configs/synthesis/pairs.yaml",
                       "`Global.output_dir`：报告（`reports.jsonl`）或图文对（`pairs.jsonl`、图）、统计",
                       "[合成报告](synthesis.md)、[合成图像](images.md)、[做 20 万对](scaling.md)"),
    "analyze": Tool("python tools/analyze.py corpus -c configs/synthesis/analysis.yaml",
                    "`Global.output_dir`：表、图和一页小结",
                    "[合成报告](synthesis.md)、[质量控制](quality.md)、[逼真度](fidelity.md)"),
    "compare": Tool("python tools/compare.py -c configs/compare/synthetic_vs_real.yaml",
                    "`Global.output_dir`：`compare.md`、`compare.csv`、`runs.csv`、图，`runs/` 里是每一项",
                    "[真实、合成、混合](comparison.md)"),
    "app": Tool("python tools/app.py -c configs/app.yaml", "不写文件；上传的文件约一小时后删除", "[网页](app.md)"),
}

HEAD = """\
# 工具

<!-- 由 docs/make_tool_reference.py 生成，请勿手改：参数改 tools/ 里的代码，其余改脚本，然后重新运行脚本 -->

{count} 个工具，都在 `tools/` 里，都在项目的根目录下运行。做什么由配方（recipe）决定，命令行只说用哪一份、改哪几项：

| 参数 | 说明 |
| --- | --- |
{shared}

除了 `tools/doctor.py` 和 `tools/aistudio.py`，每个工具都要 `-c`。配方里有什么键，见[配置指南](config.md)。
`-o` 写在命令里任何地方都行，后写的盖过先写的；值按 YAML 读，列表和字典要加引号：
`-o "Global.image_shape=[1, 224, 224]"`。

| 退出码 | 意思 |
| --- | --- |
| 0 | 做完了 |
| 1 | `tools/predict.py`：没有一张图能读；`tools/doctor.py`：有“坏”的一项 |
| 2 | 命令、配方或数据有错：一行说明哪里错、怎么办 |
| 130 | Ctrl-C；训练、合成、对比都存好了进度，重新运行同一条命令就接着做 |
"""


def reference() -> str:
    """The whole page."""
    parsers = {name: parser_of(ROOT / "tools" / f"{name}.py") for name in TOOLS}
    shared = [action for action in parsers["train"]._actions if action.dest in HIDDEN]
    parts = [HEAD.format(count=len(TOOLS), shared="\n".join(map(row, shared)))]
    parts += [section(name, parser) for name, parser in parsers.items()]
    return "\n".join(parts)


def section(name: str, parser: argparse.ArgumentParser) -> str:
    """One tool."""
    tool = TOOLS[name]
    lines = [f"## `tools/{name}.py`", "", f"{parser.description}。", "", "```bash", tool.example, "```", ""]
    rows = [row(action) for action in parser._actions if action.dest not in HIDDEN]
    if rows:
        lines += ["| 参数 | 说明 |", "| --- | --- |", *rows, ""]
    return "\n".join([*lines, f"- 结果：{tool.writes}", f"- 详见：{tool.more}", ""])


def row(action: argparse.Action) -> str:
    """One argument: how it is written, and what it means."""
    written = "、".join(f"`{way}`" for way in action.option_strings or [action.dest])
    return f"| {written} | {'；'.join(meaning(action))} |"


def meaning(action: argparse.Action) -> Iterator[str]:
    """What an argument is, may be, and is when it is not given."""
    yield "这个说明" if action.dest == "help" else action.help
    if action.choices:
        yield "可用：" + "、".join(f"`{choice}`" for choice in action.choices)
    if action.required and action.option_strings:
        yield "必填"
    elif action.default not in (None, False, [], argparse.SUPPRESS):
        yield f"默认 `{action.default}`"


def parser_of(tool: Path) -> argparse.ArgumentParser:
    """A tool's parser, taken as it is about to read the command line."""
    class Taken(Exception):
        pass

    def take(self: argparse.ArgumentParser, *_: object) -> None:
        raise Taken(self)

    with mock.patch.object(argparse.ArgumentParser, "parse_args", take):
        try:
            runpy.run_path(str(tool), run_name="__main__")
        except Taken as taken:
            return taken.args[0]
    raise ValueError(f"{tool} reads no command line")


if __name__ == "__main__":
    write_text(OUTPUT, reference())
    print(f"已写入 {OUTPUT}")
