"""Which packages are missing, and getting them into a folder of their own that outlives a restart.

pip works it out against what the platform has (nothing installed there is ever changed), and the packages that come
out are put into one folder.  A folder given to pip as target is a blind spot of it: it would put NumPy there too, so
it is told exactly what to put there and to look no further.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from paddle_cxr.doctor.requirements import declared, installed_version, is_version, parsed, same_name, unmet
from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.files import write_text

# Belongs to the platform's Paddle: a second copy would be found first, and might not fit.
PROTECTED = re.compile(r"paddlepaddle.*|numpy|nvidia-.*|protobuf|opt-einsum")
OLDEST_PIP = (22, 2)  # from here on it can say what it would install


def wanted(extras: Sequence[str]) -> list[str]:
    """The requirement lines of the project and of some extras, without the platform's.

    Raises:
        UserError: no such extra.
    """
    lines = declared()
    for extra in extras:
        if extra not in lines or extra in ("", "cpu", "gpu"):
            names = [name for name in lines if name not in ("", "cpu", "gpu")]
            raise UserError(f"--extras：没有 {extra}{did_you_mean(extra, names)}（可用：{'、'.join(names)}；"
                            "Paddle 用平台自带的，不在这里装）")
    return [line for name in ("", *extras) for line in lines.get(name, []) if not is_protected(parsed(line).name)]


def is_protected(name: str) -> bool:
    """Whether only the platform may install this."""
    return PROTECTED.fullmatch(same_name(name)) is not None


def missing(lines: Sequence[str]) -> list[str]:
    """What has to be installed, in words; empty where everything is there, or only the platform could mend it."""
    return [str(one) for one in unmet(lines, deep=True) if not is_protected(one.name)]


def write_constraints(file: Path, lines: Sequence[str]) -> Path:
    """Pin every package there is to its version, except those that are too old for the project.

    An interrupted pip leaves ``~umpy-1.24.4.dist-info`` beside NumPy's own: looked up by name, only the one that is
    imported is found.  A version that pip cannot read would end it, and gets no pin.
    """
    too_old = {same_name(one.name) for one in unmet(lines)}
    names = {same_name(one.metadata["Name"] or "") for one in metadata.distributions()} - {""}
    pins = {name: installed_version(name) for name in names if name not in too_old or is_protected(name)}
    text = "".join(f"{name}=={version}\n" for name, version in sorted(pins.items()) if is_version(version))
    return write_text(file, "# 平台已装的版本：自己 pip install 时加 -c 这个文件，就不会动它们\n" + text)


def resolve(lines: Sequence[str], constraints: Path, folder: Path) -> dict[str, str]:
    """Name → version of what pip would install beside what there is.

    Raises:
        UserError: no network, versions that cannot be had together, a pip that is too old, or a plan that would
            change the platform's Paddle or NumPy.
    """
    _check_pip()
    try:
        plan = _dry_run(lines, constraints, folder)
    except _Conflict:
        # A package of the platform stands in the way of a newer one; its Paddle and NumPy stay pinned.
        loose = write_text(constraints.with_name("constraints_paddle.txt"), "".join(
            line for line in constraints.read_text(encoding="utf-8").splitlines(keepends=True)
            if is_protected(line.partition("==")[0])))
        plan = _dry_run(lines, loose, folder)
    touched = [f"{name} {version}" for name, version in plan.items() if is_protected(name)]
    if touched:
        raise UserError(f"pip 想换掉平台的 {'、'.join(touched)}，没有照办；请换一个较新的环境，或少装几个 --extras")
    return plan


def _check_pip() -> None:
    version = installed_version("pip")
    if version is None:
        raise UserError("这个 Python 没有 pip；请用平台自带的 Python")
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST_PIP:
        raise UserError(f"pip {version} 太旧，请先运行 python -m pip install --upgrade pip")


def _dry_run(lines: Sequence[str], constraints: Path, folder: Path) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.json"
        _pip("install", "--dry-run", "--report", str(report), "-c", str(constraints), *lines, folder=folder)
        plan = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {same_name(one["metadata"]["name"]): one["metadata"]["version"] for one in plan}


def install(plan: Mapping[str, str], folder: Path) -> None:
    """Put exactly these packages into ``folder``, in place of older ones there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in plan:
        _forget(name, folder)
    _pip("install", "--quiet", "--no-deps", "--upgrade", "--target", str(folder),
         *(f"{name}=={version}" for name, version in plan.items()), folder=folder)


def _forget(name: str, folder: Path) -> None:
    """Remove what says that an older version is there; pip leaves it when it replaces a package in a target."""
    for one in folder.glob("*.dist-info"):
        if same_name(one.stem.rpartition("-")[0]) == name:
            shutil.rmtree(one)


def _pip(*arguments: str, folder: Path) -> None:
    """Run this Python's pip, with what lies in ``folder`` counted as installed.

    Raises:
        UserError: it failed; with what it said last.
    """
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    # Settings of the platform about where to install would contradict ours; an empty one is none.
    own = {"PIP_USER": "0", "PIP_TARGET": "", "PIP_PREFIX": "", "PIP_REQUIRE_VIRTUALENV": "0", "PYTHONPATH": path,
           "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], env=os.environ | own, text=True,
                          capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode != 0:
        _refuse(done.stdout, done.stderr)


def _refuse(out: str, error: str = "") -> NoReturn:
    """Say in one line why pip would not."""
    if "The conflict is caused by:" in out:
        raise _Conflict(out)
    raise UserError(f"pip 失败（{_said(error or out)}）；请检查网络后再运行一次")


class _Conflict(UserError):
    """Packages that cannot be had together; pip lists who wants what."""

    def __init__(self, out: str) -> None:
        lines = out.partition("The conflict is caused by:")[2].strip().splitlines()
        wants = [line.strip() for line in lines[:lines.index("")] if line.strip()] if "" in lines else lines[:3]
        super().__init__(f"这些包不能与平台的版本装在一起（{'；'.join(wants[:4])}）；少装几个 --extras，"
                         "或换一个较新的环境")


def _said(text: str) -> str:
    """pip's own errors, the first ones: what follows is advice."""
    lines = [line.strip().removeprefix("ERROR: ") for line in text.splitlines() if line.startswith("ERROR")]
    return "；".join(lines[:2])[:400] or (text.strip().splitlines() or ["没有说明"])[-1][:400]
