"""导出：python tools/export.py -c configs/resnet50.yaml [--formats inference onnx pdparams]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

from paddle_cxr import cli  # noqa: E402

FORMATS = ("inference", "onnx", "pdparams")


def main(arguments):
    from paddle_cxr.quiet import import_paddle

    import_paddle()
    from paddle_cxr.engine.export import export

    return export(arguments)


if __name__ == "__main__":
    parser = cli.parser("导出静态图推理模型（Paddle Inference）、ONNX 和 .pdparams，并在图像上与训练的模型核对")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, help="导出哪些格式；默认全部，没装转换工具时不含 onnx")
    parser.add_argument("--output", help="输出目录，默认 output_dir/export")
    cli.run(main, parser.parse_args())
