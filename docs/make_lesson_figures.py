"""Draw the figures of the lessons: docs/figures/lessons/*.png from docs/lesson_figures/*.py.

    python docs/make_lesson_figures.py              every figure
    python docs/make_lesson_figures.py noising      these
    python docs/make_lesson_figures.py --list       what there is

A figure that is drawn from a trained model's output is left as it is while that output is not there; the command that
makes it is named.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS)]  # runs from a checkout that is not installed

from lesson_figures import Figure, load_all  # noqa: E402

from paddle_cxr.cli import run  # noqa: E402
from paddle_cxr.errors import UserError  # noqa: E402

OUTPUT = DOCS / "figures/lessons"


def missing(figure: Figure, root: Path = ROOT) -> list[str]:
    """What the figure is drawn from and is not there."""
    return [file for file in figure.reads if not (root / file).exists()]


def draw(names: list[str], folder: Path = OUTPUT) -> list[Path]:
    """Draw these figures (all, if none is named) into ``folder``; what cannot be drawn yet is told, or refused by name.

    Raises:
        UserError: no such figure; a figure asked for by name lacks what it is drawn from.
    """
    figures = load_all()
    drawn = []
    for name in names or figures:
        if name not in figures:
            raise UserError(f"没有名为 {name} 的课程插图；有：{'、'.join(sorted(figures))}")
        lacking = missing(figures[name])
        if lacking:
            told = f"插图 {name} 由 {lacking[0]} 画出，它还不在；请先运行 {figures[name].after}"
            if names:
                raise UserError(told)
            print(f"跳过：{told}")
            continue
        path = folder / f"{name}.png"
        figures[name].draw(path)
        print(f"已写入 {path}")
        drawn.append(path)
    return drawn


def main(options: argparse.Namespace) -> None:
    """List the figures, or draw them."""
    if options.list:
        for name, figure in load_all().items():
            print(f"{figure.lesson}  {name}" + (f"  （先运行 {figure.after}）" if figure.after else ""))
        return
    os.chdir(ROOT)  # what a figure reads is named from here
    draw(options.names)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="画课程的插图")
    parser.add_argument("names", nargs="*", help="插图的名字；不写就画全部")
    parser.add_argument("--list", action="store_true", help="只列出有哪些插图")
    parser.add_argument("--debug", action="store_true", help="出错时显示完整的调用栈（traceback）")
    run(main, parser.parse_args())
