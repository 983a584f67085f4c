"""对比：python tools/compare.py -c configs/compare/synthetic_vs_real.yaml [-o a.b.c=值] [--dry-run]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

from paddle_cxr import cli  # noqa: E402


def main(arguments):
    from paddle_cxr.compare.run import compare

    return compare(arguments)


if __name__ == "__main__":
    parser = cli.parser("每组数据 × 每种方法预训练，再做每项评估，写出一张表（平均 ± 标准差、显著性）和图；"
                        "可中断后接着做")
    parser.add_argument("--dry-run", action="store_true", help="只列出要做的各项，不运行")
    cli.run(main, parser.parse_args())
