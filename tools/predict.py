"""预测：python tools/predict.py -c configs/resnet50.yaml -i 图片、文件夹或 zip [--engine inference]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

from paddle_cxr import cli  # noqa: E402


def main(arguments):
    from paddle_cxr.quiet import import_paddle

    import_paddle()
    from paddle_cxr.engine.predict import predict

    return predict(arguments)


if __name__ == "__main__":
    parser = cli.parser("预测：得到表格（CSV、JSON）和带中文标签、概率、Grad-CAM 的图；分割的配方得到掩膜和轮廓图")
    parser.add_argument("-i", "--input", required=True, help="一张图、一个文件夹或一个 zip")
    parser.add_argument("--engine", choices=("paddle", "inference", "onnx"), default="paddle",
                        help="paddle：训练权重（有 Grad-CAM）；inference、onnx：tools/export.py 导出的模型")
    parser.add_argument("--output", help="输出目录，默认 output_dir/predict")
    parser.add_argument("--figures", type=int, default=16, help="最多画几张图（表格总是全部）")
    cli.run(main, parser.parse_args())
