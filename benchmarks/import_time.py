"""How long ``import paddle_cxr`` and ``tools/train.py --help`` take, each in a new process.

    python benchmarks/import_time.py

The first start of each, which may read files from a cold disk, is left out.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 2.0  # seconds
COMMANDS = {
    "空的 Python（对照）": ["-c", "pass"],
    "import paddle_cxr": ["-c", "import paddle_cxr"],
    "tools/train.py --help": ["tools/train.py", "--help"],
    "import paddle（对照）": ["-c", "import paddle"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="每个命令运行几次，取中位数")
    repeats = parser.parse_args().repeats
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats + 1):
        for name, arguments in COMMANDS.items():
            seconds[name].append(start(arguments))
    for name, values in seconds.items():
        print(f"{name}：{statistics.median(values[1:]):.2f} 秒（{repeats} 次的中位数，最长 {max(values[1:]):.2f} 秒）")
    ours = [name for name in COMMANDS if "对照" not in name]
    met = all(statistics.median(seconds[name][1:]) < LIMIT for name in ours)
    print(f"目标：{' 和 '.join(ours)} 都小于 {LIMIT:.0f} 秒：{'达到' if met else '没有达到'}")


def start(arguments: list[str]) -> float:
    """Seconds from starting Python with ``arguments`` to its end."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
