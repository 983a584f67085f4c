"""``tools/aistudio.py``: look, install what is missing, and say what to do next."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib import invalidate_caches
from pathlib import Path

from paddle_cxr.aistudio import links, mounted, packages, paddle_there, startup
from paddle_cxr.aistudio.layout import KEPT, LOST, Layout, detect

ROOT = Path(__file__).resolve().parents[2]


def prepare(arguments: argparse.Namespace, root: Path = ROOT) -> None:
    """Prepare this fork; running it again after a restart installs only what is missing by then.

    Raises:
        UserError: not AI Studio; no Paddle to use; packages that cannot be had.
    """
    layout = detect(Path(arguments.home) if arguments.home else None)
    print(f"AI Studio：{'、'.join(layout.signs)}")
    print(f"Python：{platform.python_version()}，{sys.executable}")
    before = paddle_there.versions()
    print(*paddle_there.describe(), sep="\n")
    print(*_folders(root, layout), sep="\n")
    if arguments.link:
        print(*_linked(root, layout), sep="\n")
    _packages(arguments.extras, layout)
    file = startup.write(_libraries(layout), root, layout.work / "paddle_cxr" / "downloads")
    startup.check(root, before)
    print(f"启动文件：{file}（{layout.keeps(file)}）")
    print(*_data(root, layout), sep="\n")
    print(*_next(file, layout), sep="\n")


def _libraries(layout: Layout) -> Path:
    """Packages with compiled parts are of one Python's: another one of the platform gets its own folder."""
    return layout.libraries / "paddle_cxr" / f"python{sys.version_info.major}.{sys.version_info.minor}"


def _folders(root: Path, layout: Layout) -> list[str]:
    output = Path(os.path.realpath(root / "output"))
    lines = [f"项目：{root}（{layout.keeps(root)}）", f"结果 output/：{output}（{layout.keeps(output)}）"]
    if layout.keeps(root) == LOST:
        lines.append(f"!! 重启后项目就没有了：请把它移到 {layout.work} 下再运行一次")
    elif layout.keeps(output) != KEPT:
        lines.append(f"   要确定保留：加 --link，把 output/ 和 cache/ 链接到 {layout.work}")
    return lines


def _linked(root: Path, layout: Layout) -> list[str]:
    made = links.link(root, layout)
    return [f"  {one} → {one.resolve()}" for one in made] or [
        f"  --link：{'、'.join(f'{name}/' for name in links.NAMES)} 已经在会保留的文件夹里，不用再链接"]


def _packages(extras: list[str], layout: Layout) -> None:
    folder = _libraries(layout)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))  # what was put there before counts as installed
    lines = packages.wanted(extras)
    lacking = packages.missing(lines)
    if not lacking:
        print(f"依赖：都在，没有安装任何东西（{folder}）")
        return
    print(f"依赖：缺 {'、'.join(lacking)}", flush=True)
    constraints = packages.write_constraints(layout.libraries / "paddle_cxr" / "constraints.txt", lines)
    plan = packages.resolve(lines, constraints, folder)
    print(f"  安装 {'、'.join(f'{name} {version}' for name, version in plan.items())}", flush=True)
    packages.install(plan, folder)
    invalidate_caches()
    still = packages.missing(lines)
    print(f"  装到 {folder}（{layout.keeps(folder)}），平台的包一个也没有动")
    if still:
        print(f"!! 仍然缺 {'、'.join(still)}：平台自己的包之间可能有矛盾，用得到时再处理")


def _data(root: Path, layout: Layout) -> list[str]:
    found = list(mounted.find(layout.data))
    if not found:
        places = "、".join(map(str, layout.data))
        return [f"数据集：{places} 下没有挂载；没有也能学，配方会改用内置模体（phantom）"]
    lines = ["数据集（只看了，没有解压）："]
    for one in found:
        lines += [f"  {one.path}", f"    {mounted.command(one, root)}"]
    return lines


def _next(file: Path, layout: Layout) -> list[str]:
    again = "" if layout.keeps(file) != LOST else "\n  每次重启环境后再运行一次本命令（几秒，不重新下载）"
    return ["", "接下来：", "  已经打开的 notebook 请重启内核（kernel）一次" + again, "  python tools/doctor.py",
            "  python tools/train.py -c configs/resnet18_cpu.yaml"]
