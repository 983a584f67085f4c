"""What every tool shares: ``-c``/``-o``/``--debug``, and one clear line on a user's mistake."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from typing import NoReturn

from paddle_cxr.errors import UserError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line that says how ``-o`` is written."""

    def error(self, message: str) -> NoReturn:
        print(f"错误：命令行参数（{message}）；每一项改写前都要写 -o，-c 必填，-h 看全部参数", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)


def take_any_text() -> None:
    """Let stdout and stderr take whatever is printed; to be called before anything is.

    Redirected, they have the system's encoding, which on an English Windows holds no Chinese: they become UTF-8.  What
    still cannot be written (a file name that is not UTF-8, Chinese on a Latin terminal) comes out as ``\\udc…``.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not what a notebook or a test has put there, nor pythonw's None
            readable = stream.isatty() or _holds_chinese(stream.encoding)
            stream.reconfigure(encoding=None if readable else "utf-8", errors="backslashreplace")


def _holds_chinese(encoding: str) -> bool:
    try:
        "胸片".encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the arguments every tool takes.

    Returns a parser whose result has ``config`` (path), ``override`` (list of ``a.b.c=value``) and ``debug``.
    """
    take_any_text()
    result = _Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("-c", "--config", required=True, help="配方文件（recipe），例如 configs/resnet50.yaml")
    result.add_argument("-o", "--override", action="append", default=[], metavar="a.b.c=值",
                        help="改写配方中的一项，可多次使用，例如 -o Global.epochs=2")
    result.add_argument("--debug", action="store_true", help="出错时显示完整的调用栈（traceback）")
    return result


def run(main: Callable[[argparse.Namespace], int | None], arguments: argparse.Namespace) -> None:
    """Call ``main`` and exit: 0 on success, 2 on a user's mistake (one line), 130 on Ctrl-C."""
    take_any_text()
    try:
        code = main(arguments) or 0
    except UserError as error:
        if arguments.debug:
            raise
        print(f"错误：{error}", file=sys.stderr)
        code = EXIT_USER_ERROR
    except KeyboardInterrupt:
        if arguments.debug:
            raise
        print("已中断（Ctrl-C）", file=sys.stderr)
        code = EXIT_INTERRUPTED
    sys.exit(code)
