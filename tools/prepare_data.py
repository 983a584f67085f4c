"""检查数据集的每一张图像，找出损坏与重复，按患者划分，写出列表（list.csv、train.csv …）与 report.json。

    python tools/prepare_data.py -c configs/covid3.yaml -o Prepare.on_error=skip
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from paddle_cxr import cli  # noqa: E402


def main(arguments: argparse.Namespace) -> None:
    from paddle_cxr.config import load_config
    from paddle_cxr.data.prepare import prepare, summary
    from paddle_cxr.data.records import ClassInfo
    from paddle_cxr.registry import build

    config = load_config(arguments.config, arguments.override)
    classes = tuple(ClassInfo(**{**one, "aliases": tuple(one.get("aliases", ()))})
                    for one in config["Global"]["classes"])
    source = build("source", config["DataLoader"]["Source"], "DataLoader.Source", classes=classes)
    split = build("split", config["DataLoader"]["Split"], "DataLoader.Split")
    options = {"output": f"data/prepared/{Path(arguments.config).stem}", **config.get("Prepare", {})}
    print(summary(prepare(source, split, **options)))


if __name__ == "__main__":
    cli.run(main, cli.parser(__doc__).parse_args())
