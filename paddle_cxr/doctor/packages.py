"""Python itself, the packages that are needed, and those that only some features need."""

from __future__ import annotations

import platform
import struct
import sys
from collections.abc import Iterator

from paddle_cxr.doctor.line import BAD, GOOD, NOTE, Line
from paddle_cxr.doctor.requirements import declared, installed_version, parsed, unmet

# What an extra of setup.py is for.  Paddle's own two are looked at elsewhere.
USES = {
    "dicom": "读 DICOM 图像",
    "onnx": "导出 ONNX，用 ONNX 预测",
    "analysis": "查近似重复的报告（near duplicates）",
    "faiss": "在很大的坏图库里查相似的图",
    "nlp": "本地大模型、PaddleNLP 的文本塔、RaTE-NER",
    "diffusion": "扩散模型（diffusion）",
    "ray": "Ray 集群上合成",
    "app": "网页演示 tools/app.py",
    "seg": "PaddleSeg 的分割模型和损失",
    "notebooks": "运行课程的 notebook",
    "docs": "把文档做成网站",
    "test": "运行项目的测试",
}
_PADDLE = ("cpu", "gpu")
_INSTALL = "请运行 python -m pip install -e .；在 AI Studio 上用 python tools/aistudio.py，NumPy 由平台决定"


def python() -> Line:
    """The interpreter: its version, and that it is a 64-bit one."""
    version = platform.python_version()
    text = f"{version}，{sys.executable}"
    if struct.calcsize("P") < 8:
        return Line("Python", BAD, text, "这是 32 位的 Python，飞桨只有 64 位：请安装 64 位的 Python 3.10–3.12")
    if sys.version_info >= (3, 13):
        return Line("Python", NOTE, text, "核心功能能用，.[nlp]、.[diffusion] 装不上；要用它们请换 3.10–3.12")
    return Line("Python", GOOD, text)


def required() -> Line:
    """The packages without which nothing runs."""
    lines = declared().get("", [])
    if not lines:
        return Line("必需的包", NOTE, "读不到 setup.py，没有检查", "请在项目的文件夹里运行")
    try:
        wrong = unmet(lines)
    except ImportError as error:  # neither packaging nor pip
        return Line("必需的包", BAD, f"没有检查：{error}", _INSTALL)
    if not wrong:
        versions = {parsed(line).name: installed_version(parsed(line).name) for line in lines}
        return Line("必需的包", GOOD, f"{len(lines)} 个都在，版本合适", facts=versions)
    missing = [one for one in wrong if one.installed is None]
    return Line("必需的包", BAD if missing else NOTE, "、".join(map(str, wrong)),
                _INSTALL, {one.name: one.installed for one in wrong})


def optional() -> Iterator[Line]:
    """One line for each extra; its first package says whether somebody wanted it."""
    for extra, lines in declared().items():
        if extra and extra not in _PADDLE and lines:
            yield _extra(extra, lines)


def _extra(extra: str, lines: list[str]) -> Line:
    name, use = f"可选 {extra}", USES.get(extra, f"附加功能 {extra}")
    first = parsed(lines[0]).name
    version = installed_version(first)
    if version is None:
        return Line(name, GOOD, f'没有安装（用于：{use}）；要用时 python -m pip install -e ".[{extra}]"',
                    facts={first: None})
    wrong = unmet(lines)
    if not wrong:
        return Line(name, GOOD, f"{first} {version}（用于：{use}）", facts={first: version})
    return Line(name, NOTE, f"{first} {version}，但 {'、'.join(map(str, wrong))}（用于：{use}）",
                f'要用时请运行 python -m pip install -e ".[{extra}]"', {first: version})
