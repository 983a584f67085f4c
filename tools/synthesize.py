"""合成报告：python tools/synthesize.py -c configs/synthesis/reports.yaml [-o a.b.c=值]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

from paddle_cxr import cli  # noqa: E402


def main(arguments):
    from paddle_cxr.synthesis.run import synthesize

    return synthesize(arguments)


if __name__ == "__main__":
    cli.run(main, cli.parser("按配方合成报告：抽取实体、写作、用 NER 检查，结果写到 Global.output_dir").parse_args())
