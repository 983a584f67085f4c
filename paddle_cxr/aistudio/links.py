"""``--link``: outputs and decoded images go to ``work/``, wherever the project itself lies."""

from __future__ import annotations

import os
from pathlib import Path

from paddle_cxr.aistudio.layout import KEPT, Layout
from paddle_cxr.errors import UserError
from paddle_cxr.files import writing_to

NAMES = ("output", "cache")


def link(root: Path, layout: Layout) -> list[Path]:
    """Make ``output`` and ``cache`` of the project links into ``work``; return those made.

    What is kept already stays as it is: a link made before, and everything of a project that lies in a kept folder
    itself.  A link whose target is gone gets it back.

    Raises:
        UserError: one of them is a folder with something in it: it is the user's to move.
    """
    made = []
    for name in NAMES:
        here, there = root / name, layout.work / "paddle_cxr" / name
        with writing_to(here):
            if _leads_to_itself(here):  # of no use to anybody, and Python before 3.13 refuses to resolve it
                here.unlink()
            if layout.keeps(here) == KEPT:
                if here.is_symlink():
                    here.resolve().mkdir(parents=True, exist_ok=True)
                continue
        if here.is_symlink() or (here.exists() and not (here.is_dir() and not any(here.iterdir()))):
            raise UserError(f"--link：{here} 已经在用；请先把它移走：mv {here} {there}")
        with writing_to(here):
            there.mkdir(parents=True, exist_ok=True)
            if here.is_dir():
                here.rmdir()
            here.symlink_to(there, target_is_directory=True)
        made.append(here)
    return made


def _leads_to_itself(path: Path) -> bool:
    return path.is_symlink() and os.path.abspath(path.parent / os.readlink(path)) == os.path.abspath(path)
