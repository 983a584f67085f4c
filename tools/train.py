"""训练：python tools/train.py -c configs/resnet50.yaml [-o a.b.c=值] [--dry-run]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

from paddle_cxr import cli  # noqa: E402


def main(arguments):
    from paddle_cxr.engine.launch import train

    return train(arguments)


if __name__ == "__main__":
    parser = cli.parser("训练一个配方（recipe），结果写到 Global.output_dir")
    parser.add_argument("--dry-run", action="store_true", help="搭好全部部件，报告每步时间、总时间和内存，不写文件")
    cli.run(main, parser.parse_args())
