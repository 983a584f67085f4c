"""在 AI Studio 上准备 fork 来的项目：python tools/aistudio.py [--link] [--extras dicom onnx]"""

import sys
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036 - before anything that an older Python cannot read
    print("错误：这里的 Python 是 {}.{}.{}，本项目需要 3.10 以上；请在 AI Studio 新建项目，或在环境里换一个带飞桨 3.x、"
          "Python 3.10 以上的版本，再 fork 或上传本项目".format(*sys.version_info[:3]), file=sys.stderr)
    sys.exit(2)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

import argparse  # noqa: E402

from paddle_cxr import cli  # noqa: E402


def main(arguments):
    from paddle_cxr.aistudio.run import prepare

    return prepare(arguments)


if __name__ == "__main__":
    cli.take_any_text()  # -h prints before cli.run does
    parser = argparse.ArgumentParser(description="用平台自带的飞桨，把缺的包装到会保留的文件夹，列出挂载的数据集；"
                                                 "不重装 Paddle 和 NumPy。重启环境后可以再运行")
    parser.add_argument("--link", action="store_true", help="把 output/ 和 cache/ 链接到会保留的 work/ 下")
    parser.add_argument("--extras", nargs="+", default=[], metavar="名称", help="同时安装可选的包，例如 dicom onnx")
    parser.add_argument("--home", metavar="文件夹", help="平台的主目录；只在认不出时需要")
    parser.add_argument("--debug", action="store_true", help="出错时显示完整的调用栈（traceback）")
    cli.run(main, parser.parse_args())
