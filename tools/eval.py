"""评估：python tools/eval.py -c configs/resnet50.yaml [-o DataLoader.Eval.subset=test]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

from paddle_cxr import cli  # noqa: E402


def main(arguments):
    from paddle_cxr.engine.jobs import evaluator
    from paddle_cxr.quiet import import_paddle
    from paddle_cxr.recipe import task_of

    task = task_of(arguments.config, arguments.override)
    import_paddle()
    return evaluator(task)(arguments)


if __name__ == "__main__":
    parser = cli.parser("评估训练好的权重：指标（带 95% 置信区间）、图和最严重的错误，写到 output_dir/eval_子集")
    cli.run(main, parser.parse_args())
