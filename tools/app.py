"""网页：python tools/app.py -c configs/app.yaml [-o Server.port=7861]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

from paddle_cxr import cli  # noqa: E402


def main(arguments):
    from paddle_cxr.app.run import run

    return run(arguments)


if __name__ == "__main__":
    cli.run(main, cli.parser("在浏览器里试模型：给图像分类（Grad-CAM）、找一句话、写报告并检查、照印象画图；"
                             "只在本机打开，除非改写 Server.host").parse_args())
