"""``--link``: outputs and decoded images go to ``work/``, wherever the project itself lies."""

from __future__ import annotations

from pathlib import Path

from paddle_cxr.errors import UserError
from paddle_cxr.files import writing_to

NAMES = ("output", "cache")


def link(root: Path, work: Path) -> list[Path]:
    """Make ``output`` and ``cache`` of the project links into ``work``; what is linked already stays.

    Raises:
        UserError: one of them is a folder with something in it: it is the user's to move.
    """
    made = []
    for name in NAMES:
        here, there = root / name, work / "paddle_cxr" / name
        if here.is_symlink() and here.resolve() == there.resolve():
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
