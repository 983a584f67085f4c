"""体检：python tools/doctor.py [--json 文件]"""

import sys
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036 - before anything that an older Python cannot read
    sys.exit("[坏] Python：{}.{}.{}，本项目需要 3.10 以上；请另装 Python 3.11，或在 AI Studio 换环境"
             "（见 docs/aistudio.md）".format(*sys.version_info[:3]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

import argparse  # noqa: E402

from paddle_cxr import cli  # noqa: E402


def main(arguments):
    from paddle_cxr.doctor.run import doctor

    return doctor(arguments)


if __name__ == "__main__":
    cli.take_any_text()  # -h prints before cli.run does
    parser = argparse.ArgumentParser(description="检查 Python、Paddle、处理器、内存、磁盘、字体、包和数据集，每行说"
                                                 "“好”、“注意”或“坏”和怎么办；不安装、不下载、不改动任何东西")
    parser.add_argument("--json", metavar="文件", help="同样的内容另存为 JSON，求助时可以附上")
    parser.add_argument("--debug", action="store_true", help="出错时显示完整的调用栈（traceback）")
    cli.run(main, parser.parse_args())
