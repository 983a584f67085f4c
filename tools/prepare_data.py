"""检查数据：python tools/prepare_data.py -c configs/resnet50.yaml [-o Prepare.on_error=skip]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

from paddle_cxr import cli  # noqa: E402


def main(arguments):
    from paddle_cxr.engine.prepare import prepare_data

    print(prepare_data(arguments.config, arguments.override))


if __name__ == "__main__":
    parser = cli.parser("检查每一张图像（和标注），找出损坏与重复，按患者划分，"
                        "写出清单（list.csv、train.csv …）与 report.json")
    cli.run(main, parser.parse_args())
