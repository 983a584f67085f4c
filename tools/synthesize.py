"""合成报告或图文对：python tools/synthesize.py -c configs/synthesis/pairs.yaml [-o a.b.c=值]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

from paddle_cxr import cli  # noqa: E402


def main(arguments):
    from paddle_cxr.synthesis.tasks import tool_for

    return tool_for(arguments)(arguments)


if __name__ == "__main__":
    cli.run(main, cli.parser("按配方合成，结果写到 Global.output_dir。Global.task: reports 写报告（抽取实体、写作、"
                             "用 NER 检查）；pairs 再按报告画图、用裁判和坏图库筛选、重画，得到图文对").parse_args())
