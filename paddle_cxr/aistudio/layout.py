"""What AI Studio looks like from inside, and which of its folders outlive a restart.

Gathered from the platform's own notebook template and from logs that users published between 2020 and 2026: the home
folder, ``data`` (mounted data sets, put back as they were at each start), ``work`` and ``external-libraries`` (kept).
Newer templates say that all of the home folder but ``data`` is kept, older ones only ``work``.  The platform does not
document a variable that names it, so several signs are looked for, and ``--home`` helps where none is right any more.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from paddle_cxr.errors import UserError

HOME = Path("/home/aistudio")
JOB = Path("/root/paddlejob/workspace")  # a script task (脚本任务), which has no home folder
VARIABLES = ("STUDIO_MODEL_API_URL_PREFIX", "WEBIDE_USERID")
ENVIRONMENT = "paddle120-env"  # in the path of the platform's Python, whatever its version is by now

KEPT, UNSURE, LOST = "会保留", "多半会保留", "重启后会丢"


@dataclass(frozen=True)
class Layout:
    """The folders of a project on the platform.

    Attributes:
        home: the user's folder.
        data: where data sets are mounted.
        work: kept across restarts.
        libraries: where packages are kept.
        signs: by what the platform was recognised.
    """

    home: Path
    data: tuple[Path, ...]
    work: Path
    libraries: Path
    signs: tuple[str, ...]

    def keeps(self, path: Path) -> str:
        """KEPT, UNSURE or LOST: what becomes of a folder at the next start."""
        path = Path(os.path.realpath(path))  # unlike resolve(), it takes a link that leads nowhere, too
        if any(path.is_relative_to(folder.resolve()) for folder in (self.work, self.libraries)):
            return KEPT
        inside = path.is_relative_to(self.home.resolve())
        mounted = any(path.is_relative_to(folder.resolve()) and path != folder.resolve() for folder in self.data)
        return UNSURE if inside and not mounted else LOST


def detect(home: Path | None = None, environment: Mapping[str, str] = os.environ) -> Layout:
    """The layout of this machine.

    Args:
        home: take this for the home folder, whatever the signs say.

    Raises:
        UserError: this does not look like AI Studio.
    """
    if home is not None:
        if not home.is_dir():
            raise UserError(f"--home：没有文件夹 {home}")
        return _notebook(home, (f"--home {home}",))
    signs = tuple(_signs(environment))
    if HOME.is_dir():
        return _notebook(HOME, signs)
    if JOB.is_dir():
        return Layout(JOB, (JOB / "train_data" / "datasets",), JOB / "output", JOB / "external-libraries", signs)
    raise UserError("这里不像 AI Studio（找不到平台的主目录）；在自己的机器上请运行 "
                    'python -m pip install -e ".[cpu]"，确实在 AI Studio 上请加 --home 主目录')


def _notebook(home: Path, signs: tuple[str, ...]) -> Layout:
    return Layout(home, (home / "data",), home / "work", home / "external-libraries", signs)


def _signs(environment: Mapping[str, str]) -> list[str]:
    found = [str(folder) for folder in (HOME, JOB) if folder.is_dir()]
    found += [f"环境变量 {name}" for name in VARIABLES if environment.get(name)]
    return found + ([sys.prefix] if ENVIRONMENT in sys.prefix else [])
