"""分析：python tools/analyze.py corpus -c configs/synthesis/analysis.yaml（还有 entities、quality、fidelity）"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

from paddle_cxr import cli  # noqa: E402


def main(arguments):
    if arguments.command == "quality":
        from paddle_cxr.synthesis.quality.curate import curate as run
    elif arguments.command == "fidelity":
        from paddle_cxr.synthesis.fidelity.run import measure as run
    else:
        from paddle_cxr.synthesis.analyze import analyze as run

    return run(arguments)


if __name__ == "__main__":
    parser = cli.parser("corpus：实体频率、长尾图、多样性和重复，几个语料并排比较；entities：用 NER 从语料挖出词表；"
                        "quality：整理已有的数据集，找出坏图；fidelity：合成图像离真图多远")
    parser.add_argument("command", choices=("corpus", "entities", "quality", "fidelity"), help="做哪一种分析")
    cli.run(main, parser.parse_args())
