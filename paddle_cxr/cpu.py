"""What a processor needs before Paddle is imported, and how many cores there really are.

Measured on a two-core AMD machine (benchmarks/): Paddle's bundled MKL takes a slow path on AMD processors unless
``MKL_DEBUG_CPU_TYPE=5`` is set before it loads (ResNet-50 training 1.1 → 2.6 images/s on one core), and Paddle sets
one OpenMP thread unless told otherwise.  Nothing the user has set is ever overridden.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
from pathlib import Path

# Names of the variables this package set itself (as opposed to the user): only those may be changed later,
# e.g. when the cores are shared between data-parallel ranks.
_OURS = "PADDLE_CXR_ENV"


def available_cores() -> int:
    """Cores this process may use: its affinity, within the container's CPU quota (cgroup v2 or v1); at least 1."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(cores, math.ceil(quota)) if quota else cores)


def _cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """The container's CPU limit in cores, or None."""
    try:
        limit, period = (root / "cpu.max").read_text().split()  # v2
    except (OSError, ValueError):
        try:
            limit = (root / "cpu/cpu.cfs_quota_us").read_text().strip()  # v1
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if limit in ("max", "-1"):
        return None
    return int(limit) / int(period)


def _is_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def prepare(threads: int | None = None) -> None:
    """Set the environment Paddle reads when it is imported.

    Args:
        threads: OpenMP threads for this process.  None sets what is not set yet, with a thread for every core; a
            process started by this one thus keeps what it was given.
    """
    _keep_freed_memory()
    if "paddle" in sys.modules:
        return  # too late: MKL and OpenMP have read their settings
    wanted = {
        "OMP_NUM_THREADS": str(threads or available_cores()),
        # Waiting threads give their core back at once; with the default of 200 ms of spinning, two threads on a
        # busy two-core machine were slower than one.
        "KMP_BLOCKTIME": "0",
        # Seconds that data-parallel ranks wait for each other at a barrier (decoding a large data set takes a while).
        "FLAGS_stop_check_timeout": "86400",
    }
    if _is_amd():
        wanted["MKL_DEBUG_CPU_TYPE"] = "5"
    ours = set(filter(None, os.environ.get(_OURS, "").split(",")))
    for name, value in wanted.items():
        if name not in os.environ or (name in ours and threads is not None):
            os.environ[name] = value
            ours.add(name)
    os.environ[_OURS] = ",".join(sorted(ours))


def _keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensor instead of giving it back to the kernel.

    A training step allocates and frees the same large buffers again and again; with glibc's defaults each is mapped
    and zeroed anew, which took 15–20 % of a ResNet-50 step.  Works at any time; elsewhere than on glibc does nothing.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return  # the user has set up the allocator
    m_mmap_max, m_trim_threshold = -4, -1
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, -1)


def describe() -> str:
    """One line for the log: cores, and each setting with who made it."""
    ours = os.environ.get(_OURS, "").split(",")
    settings = [f"{name}={os.environ[name]}" + ("" if name in ours else "（用户设置）")
                for name in ("OMP_NUM_THREADS", "KMP_BLOCKTIME", "MKL_DEBUG_CPU_TYPE") if name in os.environ]
    return f"CPU：{available_cores()} 核可用；{'，'.join(settings)}"


def gpu_build_present() -> bool:
    """Whether this machine may have a GPU that Paddle can use; told without importing Paddle (which takes seconds)."""
    from importlib import metadata

    has_driver = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/proc/driver/nvidia").exists()
    names = ("paddlepaddle-gpu", "paddlepaddle_gpu")
    return has_driver and any(_installed(name, metadata) for name in names)


def _installed(name: str, metadata) -> bool:  # noqa: ANN001 - the importlib.metadata module
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
