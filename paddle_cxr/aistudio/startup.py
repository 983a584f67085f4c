"""A ``.pth`` file: every Python started from now on, notebook kernels too, finds the project and its packages."""

from __future__ import annotations

import json
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

from paddle_cxr.download import CACHE_VARIABLE
from paddle_cxr.errors import UserError
from paddle_cxr.files import write_text

NAME = "paddle_cxr_aistudio.pth"
_LINE = ("import os, sys; sys.path[:0] = [p for p in {folders} if p not in sys.path]; sys.path += [{root}]; "
         "os.environ.setdefault({variable}, {cache})\n")


def place() -> Path:
    """Where this Python looks for such files: the user's own folder, which lies in the home folder and is kept, or
    the one of the interpreter where the former is switched off."""
    if site.ENABLE_USER_SITE:
        return Path(site.getusersitepackages())
    return Path(sysconfig.get_path("purelib"))


def write(libraries: Path, root: Path, cache: Path) -> Path:
    """Write it.  Before the platform's packages come only those in ``libraries``, which has none of Paddle's.

    The names are written as ASCII: the file is read in the system's encoding, which may be any.
    """
    line = _LINE.format(folders=ascii([str(libraries)]), root=ascii(str(root)), variable=ascii(CACHE_VARIABLE),
                        cache=ascii(str(cache)))
    return write_text(place() / NAME, line)


def check(root: Path, before: dict[str, tuple[str, str]]) -> None:
    """Start a Python elsewhere and see that it has the project, and the same Paddle and NumPy as before.

    Raises:
        UserError: it has not.
    """
    code = ("import json, paddle_cxr, paddle_cxr.config, paddle_cxr.schema; "
            "from paddle_cxr.aistudio.paddle_there import versions; "
            "print(json.dumps([paddle_cxr.__file__, versions()]))")
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["没有说明"])[-1]
        raise UserError(f"写好了 {place() / NAME}，但新的 Python 还不能用本项目（{said}）；"
                        f"请在每次启动后运行 export PYTHONPATH={root}")
    file, now = json.loads(done.stdout.strip().splitlines()[-1])
    if not Path(file).resolve().is_relative_to(root.resolve()):
        raise UserError(f"新的 Python 用的是另一份 paddle_cxr（{file}）；请卸载它：python -m pip uninstall paddle_cxr")
    after = {name: tuple(one) for name, one in now.items()}
    if after != before:
        raise UserError(f"Paddle 或 NumPy 变了（{before} → {after}）；请删去 {place() / NAME} 恢复原样，并报告给项目")
