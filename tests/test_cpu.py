"""The processor's settings before Paddle is imported."""

import os
import subprocess
import sys
from pathlib import Path

from paddle_cxr import cpu


def settings(**environment):
    code = "import paddle_cxr, os; print({k: os.environ.get(k) for k in ('OMP_NUM_THREADS', 'MKL_DEBUG_CPU_TYPE')})"
    names = ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "KMP_BLOCKTIME", "PADDLE_CXR_ENV")
    clean = {k: v for k, v in os.environ.items() if k not in names}
    done = subprocess.run([sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True,
                          check=True, cwd=Path(__file__).parents[1])
    return eval(done.stdout)  # noqa: S307 - our own print of a dict


def test_threads_follow_the_cores_there_are():
    assert settings()["OMP_NUM_THREADS"] == str(cpu.available_cores())


def test_what_the_user_set_is_kept():
    kept = settings(OMP_NUM_THREADS="7", MKL_DEBUG_CPU_TYPE="4")
    assert kept == {"OMP_NUM_THREADS": "7", "MKL_DEBUG_CPU_TYPE": "4"}


def test_amd_gets_the_fast_path_of_mkl():
    amd = "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    assert settings()["MKL_DEBUG_CPU_TYPE"] == ("5" if amd else None)


def test_container_quota_is_read(tmp_path):
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert cpu._cgroup_quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cpu._cgroup_quota(tmp_path) is None
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("200000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert cpu._cgroup_quota(tmp_path) == 2.0


def test_importing_the_package_is_light():
    names = ("paddle", "matplotlib", "numpy", "visualdl")
    heavy = f"import paddle_cxr, sys; print([m for m in {names} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parents[1])
    assert done.stdout.strip() == "[]"
