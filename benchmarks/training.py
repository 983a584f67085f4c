"""End-to-end training speed of ResNet-50 at 224², batch 16, two cores: this project, the blog's loop and PyTorch.

    python benchmarks/training.py
    python benchmarks/training.py --torch-python PATH   # an interpreter that has PyTorch, if this one has not

Every contestant is a program of its own that prints a line after each training step, started with none of the
environment variables that decide speed; what is measured is the time between these lines.  Ours is
``tools/train.py -c configs/resnet50.yaml`` as a user starts it, on a folder of generated JPEG files; the blog's is
``blog_training.py``; PyTorch's is ``torch_step.py``, which has its input in memory, already augmented.  They run in
turns, several times, and ratios are taken within a turn, so a machine that slows down slows all of them.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from input_pipeline import BATCH, save_phantoms
from machine import load, shown

HERE = Path(__file__).resolve().parent
WARM_UP = 2  # steps: memory is allocated, threads are started
CORES = 2
CLASSES = ("NORMAL", "Viral Pneumonia", "COVID")  # of configs/resnet50.yaml
# Variables that change how fast somebody runs; a user's fresh shell has none of them.
SETTINGS = re.compile(r"^(OMP|MKL|KMP|GOMP|OPENBLAS|MALLOC|FLAGS|PADDLE)_|^GLIBC_TUNABLES$|^LD_PRELOAD$")


@dataclass
class Contestant:
    """A program to time.

    Attributes:
        title: for the table, in Chinese.
        command: prints a line that matches ``line`` at the end of every training step.
        line: regular expression of such a line.
        steps: how many to measure in a turn.
    """

    title: str
    command: list[str]
    line: str = r"^step "
    steps: int = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="轮流运行几遍，取中位数")
    parser.add_argument("--steps", type=int, default=6, help="每遍测几步（前两步预热，不计）")
    parser.add_argument("--blog-steps", type=int, default=3, help="博客的循环每遍测几步（它一步十几秒）")
    parser.add_argument("--torch-python", default=sys.executable, help="装有 PyTorch 的 Python 解释器")
    parser.add_argument("--only", help="只测这几个，逗号分隔：ours,ours_threads,blog,torch,torch_last,torch_bf16")
    arguments = parser.parse_args()
    cores = use_two_cores()
    print(f"ResNet-50，224²，batch {BATCH}，{cores} 核，Python {sys.version.split()[0]}，开始时负载 {shown(load())}")
    with tempfile.TemporaryDirectory() as folder:
        contestants = all_contestants(Path(folder), arguments)
        speeds: dict[str, list[float]] = {name: [] for name in contestants}
        for turn in range(arguments.repeats):
            for name, contestant in contestants.items():
                seconds = statistics.median(step_seconds(contestant))
                speeds[name].append(BATCH / seconds)
                print(f"第 {turn + 1}/{arguments.repeats} 遍 {contestant.title}：{seconds:.2f} 秒/步，"
                      f"{speeds[name][-1]:.2f} 张/秒（负载 {shown(load())}）", flush=True)
    print_table(contestants, speeds)


def use_two_cores() -> int:
    """Keep this process, and so all it starts, on two cores; returns how many there are."""
    if not hasattr(os, "sched_setaffinity"):
        return os.cpu_count() or 1
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    return len(os.sched_getaffinity(0))


def all_contestants(folder: Path, arguments: argparse.Namespace) -> dict[str, Contestant]:
    """The programs to time, by short name; PyTorch's only where it can be imported."""
    save_class_folders(folder / "chest3", arguments.steps)
    found = {"ours": ours(folder, "本项目（读数据、七种增强、训练一步）", arguments.steps),
             "ours_threads": ours(folder, f"本项目，改为一个进程、{CORES} 个线程", arguments.steps, "Global.ranks=1"),
             "blog": blog(folder, arguments.blog_steps)}
    if subprocess.run([arguments.torch_python, "-c", "import torch"], capture_output=True).returncode == 0:
        for name, title, options in (("torch", "PyTorch fp32", []),
                                     ("torch_last", "PyTorch fp32 channels-last", ["--channels-last"]),
                                     ("torch_bf16", "PyTorch bf16 channels-last", ["--channels-last", "--bf16"])):
            command = [arguments.torch_python, str(HERE / "torch_step.py"), "--threads", str(CORES), *options]
            found[name] = Contestant(f"{title}（{CORES} 线程，输入已在内存）", command, steps=arguments.steps)
    else:
        print(f"略过 PyTorch：{arguments.torch_python} 不能 import torch（可用 --torch-python 指定另一个解释器）")
    only = arguments.only.split(",") if arguments.only else list(found)
    return {name: contestant for name, contestant in found.items() if name in only}


def save_class_folders(folder: Path, steps: int) -> None:
    """Generated JPEG files, one folder a class, enough for all steps of one epoch."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    # BlogSplit keeps every tenth picture of a class from training; two more steps, so that none measured is the last.
    images = (WARM_UP + steps + 2) * BATCH * 10 // 9
    for number, file in enumerate(save_phantoms(folder, images)):
        file.rename(folder / CLASSES[number % len(CLASSES)] / file.name)


def ours(folder: Path, title: str, steps: int, *more: str) -> Contestant:
    """``tools/train.py`` on the class folders; all else as the recipe has it, or ``more``."""
    overrides = [f"DataLoader.Source.root={folder / 'chest3'}", f"DataLoader.Train.sampler.batch_size={BATCH}",
                 f"Global.output_dir={folder / 'run'}", "Global.epochs=1", "Global.log_every=1", "Global.resume=false",
                 "Global.save_every_minutes=60", *more]  # no checkpoint falls into a measured step
    options = [part for override in overrides for part in ("-o", override)]
    command = [sys.executable, str(HERE.parent / "tools/train.py"), "-c", str(HERE.parent / "configs/resnet50.yaml")]
    return Contestant(title, [*command, *options], r"步 损失 .* 秒/步", steps)


def blog(folder: Path, steps: int) -> Contestant:
    """The blog's loop, on the same files."""
    command = [sys.executable, str(HERE / "blog_training.py"), str(folder / "chest3")]
    return Contestant("博客的循环（逐张 PIL、单进程、默认设置）", command, steps=steps)


def step_seconds(contestant: Contestant) -> list[float]:
    """Seconds of each training step after the warm-up; the program is stopped when there are enough."""
    clean = {name: value for name, value in os.environ.items() if not SETTINGS.match(name)}
    process = subprocess.Popen(contestant.command, env=clean, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    complaints: list[str] = []
    reader = threading.Thread(target=lambda: complaints.extend(process.stderr), daemon=True)
    reader.start()
    moments: list[float] = []
    try:
        for text in process.stdout:
            if re.search(contestant.line, text):
                moments.append(time.perf_counter())
                if len(moments) == WARM_UP + contestant.steps:
                    return [after - before for before, after in zip(moments[WARM_UP - 1:-1], moments[WARM_UP:],
                                                                    strict=True)]
    finally:
        process.kill()  # its other ranks, if it has any, end with it
        process.wait()
    reader.join()
    sys.exit(f"错误：{contestant.title} 提前结束：\n{''.join(complaints[-20:])}")


def print_table(contestants: dict[str, Contestant], speeds: dict[str, list[float]]) -> None:
    print("\n| 训练 | 张/秒（中位数） | 最小–最大 | 本项目是它的几倍（中位数） |\n|---|---|---|---|")
    for name, contestant in contestants.items():
        values = speeds[name]
        ratio = "—"
        if "ours" in speeds and name != "ours":
            ratio = f"{statistics.median(a / b for a, b in zip(speeds['ours'], values, strict=True)):.2f}"
            ratio += {"blog": "（目标 ≥ 4）", "torch": "（目标 ≥ 1.15）"}.get(name, "")
        spread = f"{min(values):.2f}–{max(values):.2f}"
        print(f"| {contestant.title} | {statistics.median(values):.2f} | {spread} | {ratio} |")
    print(f"\n结束时负载 {shown(load())}（测量自己约占 {CORES}；远高于此则机器忙，数字只能看比值）")


if __name__ == "__main__":
    main()
