"""Paddle: which build, whether it loads, whether it works with this code, and what it can compute on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from paddle_cxr.doctor.line import BAD, GOOD, NOTE, Line
from paddle_cxr.doctor.machine import has_gpu
from paddle_cxr.doctor.probing import Told
from paddle_cxr.doctor.requirements import installed_version

BUILDS = ("paddlepaddle", "paddlepaddle-gpu")
OLDEST, TRIED, NEXT = (2, 6, 2), (3, 0), (3, 4)  # works from here on; tried from here on; not tried any more
INSTALL = '请运行 python -m pip install -e ".[cpu]"；有 NVIDIA GPU 时按 README 的“GPU”一节安装'
REINSTALL = "请把 paddlepaddle 和 paddlepaddle-gpu 都卸载，再只装其中一个"

# What a failed import says → what to do about it.  The first that fits.
_HINTS = (
    (r"No module named 'paddle'", INSTALL),
    (r"Cannot allocate memory|Resource temporarily unavailable|MemoryError|WinError 1455|SIGKILL",
     "内存或进程数不够：关掉别的程序（notebook 的内核也算）再运行一次，或换内存大的环境"),
    (r"_ARRAY_API|numpy\.core\.multiarray|numpy\.dtype size changed|compiled using NumPy 1",
     'NumPy 太新，请运行 python -m pip install "numpy>=1.26,<2"，或换 Paddle 3'),
    (r"GLIBC|libgomp|libstdc\+\+", "系统库太旧或缺少，请换较新的系统镜像，或安装 libgomp1"),
    (r"libcu|libnccl|libnvidia|CUDA", "CUDA 的库与这个 Paddle 不符，请按 README 的“GPU”一节选对应的 CUDA 版本"),
    (r"SIGILL|Illegal instruction", "处理器没有 AVX 指令，飞桨不支持，请换一台机器"),
    (r"No module named '(?!paddle)", f"Paddle 缺少它自己的依赖，{REINSTALL}"),
)


def check(told: Told) -> Iterator[Line]:
    """Lines about the builds installed, the import, the version and the devices."""
    there = {name: version for name in BUILDS if (version := installed_version(name))}
    yield from _both(there)
    if "version" not in told.facts:
        yield _not_loaded(told, there)
        return
    yield _version(told, there)
    yield _computes(told)
    yield from _twice()
    if "cuda" in told.facts:
        yield _gpu(told)


def _both(there: dict[str, str]) -> Iterator[Line]:
    if len(there) > 1:
        names = "、".join(f"{name} {version}" for name, version in there.items())
        yield Line("Paddle", NOTE, f"同时装了 {names}，它们会互相覆盖", REINSTALL, {"builds": there})


def _not_loaded(told: Told, there: dict[str, str]) -> Line:
    names = "、".join(f"{name} {version}" for name, version in there.items())
    facts = {"builds": there, "failure": told.failure}
    if told.late:
        return Line("Paddle", NOTE, f"{told.seconds:.0f} 秒内没有导入完（{names or '没有安装信息'}）",
                    "多半是第一次读盘慢，或机器正忙：再运行一次", facts)
    if told.failure is None or (not there and "No module named 'paddle'" in told.failure):
        return Line("Paddle", BAD, "没有安装", INSTALL, facts)
    advice = next((hint for pattern, hint in _HINTS if re.search(pattern, told.failure)), REINSTALL)
    return Line("Paddle", BAD, f"装了 {names or 'paddle'}，但导入失败（{told.failure}）", advice, facts)


def release(version: str) -> tuple[int, ...]:
    """``3.2.0.post126`` → (3, 2, 0); a development build (``0.0.0``) as it says itself."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")[:3]) if match else (0,)


def _version(told: Told, there: dict[str, str]) -> Line:
    version, cuda = told.facts["version"], told.facts.get("cuda")
    kind = f"GPU 版，CUDA {cuda}" if cuda else "CPU 版"
    text = f"{version}（{kind}），导入用 {told.facts['seconds']} 秒"
    facts = {**told.facts, "builds": there}
    number = release(version)
    if number < OLDEST:
        return Line("Paddle", BAD, text, "太旧：本项目要 2.6.2 以上，推荐 3.0–3.3。" + INSTALL, facts)
    if number < TRIED:
        return Line("Paddle", NOTE, text, "2.6 能用，但 3.x 更好：配 paddlenlp 2.8.1 和 safetensors<0.7；"
                    "自己写脚本时把 import paddle_cxr 放在 import paddle 前面", facts)
    if number >= NEXT:
        return Line("Paddle", NOTE, text, "比试过的版本（3.0–3.3）新：出了怪事先换回 paddlepaddle>=3.0,<3.4", facts)
    return Line("Paddle", GOOD, text, facts=facts)


def _computes(told: Told) -> Line:
    if told.failure is not None:
        return Line("Paddle 计算", BAD, f"导入成功，但试算失败（{told.failure}）", REINSTALL)
    if told.late:
        return Line("Paddle 计算", NOTE, f"{told.seconds:.0f} 秒内没有试算完", "机器正忙，稍后再运行一次")
    if told.facts.get("cpu_learns") is False or told.facts.get("gpu_learns") is False:
        return Line("Paddle 计算", BAD, "卷积的结果或梯度不是有限的数", REINSTALL)
    where = "CPU 和 GPU" if told.facts.get("gpu_learns") else "CPU"
    return Line("Paddle 计算", GOOD, f"在 {where} 上试算一次卷积和梯度，正常")


def _twice() -> Iterator[Line]:
    """A package in two folders of the search path: the first is used, whatever the second one's version is."""
    for name in ("numpy", *BUILDS):
        found: dict[str, str] = {}
        for one in metadata.distributions(name=name):
            found.setdefault(str(Path(str(one.locate_file(""))).resolve()), one.version)
        if len(set(found.values())) > 1:
            places = "；".join(f"{version} 在 {folder}" for folder, version in found.items())
            yield Line(name, NOTE, f"装了不止一份，用的是第一份：{places}",
                       "删去后来装的那一份（多半是自己 pip install 时带进来的）", {"places": found})


def _gpu(told: Told) -> Line:
    cuda, cards = told.facts.get("cuda"), told.facts.get("gpus", [])
    if cards:
        names = "、".join(f"{card['name']}（{card['gib']} GiB）" for card in cards)
        small = min(card["gib"] for card in cards) < 8
        return Line("GPU", NOTE if small else GOOD, f"飞桨能用 {len(cards)} 块：{names}",
                    "显存小于 8 GiB：减小 batch_size，或用 -o Global.amp=auto" if small else "", {"gpus": cards})
    if cuda:
        return Line("GPU", NOTE, f"Paddle 是 GPU 版（CUDA {cuda}），但看不到 GPU，将用 CPU",
                    "先看 nvidia-smi 有没有卡；有卡时按 docs/faq.md 的“找不到 GPU”检查", {"gpus": []})
    if has_gpu():
        return Line("GPU", NOTE, "机器上有 NVIDIA GPU，但 Paddle 是 CPU 版", "要用 GPU：按 README 的“GPU”一节换 GPU 版")
    return Line("GPU", GOOD, "没有，用 CPU；课程的小配方就是为 CPU 做的")
