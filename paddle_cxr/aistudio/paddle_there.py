"""The platform's Paddle and NumPy: looked at, never touched."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path

from paddle_cxr.doctor.paddle_build import BUILDS, OLDEST, TRIED, release
from paddle_cxr.doctor.requirements import declared, installed_version, parsed, problem_with
from paddle_cxr.errors import UserError


def versions() -> dict[str, tuple[str, str]]:
    """Name → (version, folder) of Paddle and NumPy, to be compared before and after."""
    found = {}
    for name in (*BUILDS, "numpy"):
        version = installed_version(name)
        if version is not None:
            found[name] = (version, str(Path(str(metadata.distribution(name).locate_file(""))).resolve()))
    return found


def describe() -> list[str]:
    """Lines about them, with what is not as it should be.

    Raises:
        UserError: no Paddle, or one that this code cannot work with.
    """
    builds = {name: version for name in BUILDS if (version := installed_version(name))}
    if not builds:
        where = "有 paddle 而没有安装信息" if importlib.util.find_spec("paddle") else "没有安装 Paddle"
        raise UserError(f"这个 Python {where}；请在 AI Studio 的环境里选带飞桨 3.x 的一项（本脚本不安装 Paddle）")
    lines = [f"Paddle：{name} {version}（平台自带，不动它）" for name, version in builds.items()]
    oldest = min(builds.values(), key=release)
    if release(oldest) < OLDEST:
        raise UserError(f"平台的 Paddle 是 {oldest}，本项目要 2.6.2 以上；请新建项目或换环境，"
                        "选飞桨 3.x（Python 3.10 以上）")
    if release(oldest) < TRIED:
        lines.append("!! Paddle 2.6 能用；平台有 3.x 的环境时请换成它")
    if len(builds) > 1:
        lines.append("!! CPU 版和 GPU 版同时在：后装的那一个多半是自己装的，请卸载它，重启后平台自带的会回来")
    return lines + _numpy()


def _numpy() -> list[str]:
    line = next((line for line in declared().get("", []) if parsed(line).name == "numpy"), "numpy")
    problem = problem_with(line)
    if problem is None:
        return [f"NumPy：{installed_version('numpy')}（平台自带，不动它）"]
    return [f"!! NumPy：{problem}。它与平台的 Paddle 是一套，不改动；出错时请换一个较新的环境"]
