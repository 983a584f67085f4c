"""The machine: cores and threads, memory, disk, shared memory."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from paddle_cxr import cpu
from paddle_cxr.doctor.line import BAD, GOOD, NOTE, Line
from paddle_cxr.download import cache_folder

GIB = 1 << 30
_OURS = "PADDLE_CXR_ENV"


def has_gpu() -> bool:
    """Whether the NVIDIA driver shows a card to this container, or ``nvidia-smi`` names one (Windows, WSL2)."""
    return (any(Path("/dev").glob("nvidia[0-9]*")) or Path("/proc/driver/nvidia/gpus").is_dir()
            or any("," in row for row in _cards_named()))


def cores() -> Line:
    """The cores there are to use, and what limits them."""
    usable, all_of_them = cpu.available_cores(), os.cpu_count() or 1
    limit = "" if usable >= all_of_them else f"（机器有 {all_of_them} 核，容器或系统限制为 {usable} 核）"
    facts = {"usable": usable, "machine": all_of_them}
    text = f"{usable} 核可用{limit}"
    if usable == 1:
        return Line("处理器", NOTE, text, "一个核能用，只是慢一倍；先看 --dry-run 的估计", facts)
    return Line("处理器", GOOD, text, facts=facts)


def threads() -> Iterator[Line]:
    """The settings that Paddle reads when it is imported; only the user's own can be wrong."""
    ours = set(os.environ.get(_OURS, "").split(","))
    usable = cpu.available_cores()
    text = cpu.describe().partition("；")[2] or "没有设置"
    own = os.environ.get("OMP_NUM_THREADS") if "OMP_NUM_THREADS" not in ours else None
    if own is not None and own.isdigit() and int(own) > usable:
        yield Line("线程", NOTE, text, f"线程比核（{usable}）多，会更慢：请 unset OMP_NUM_THREADS，程序会自己设好")
    elif own is not None and own.isdigit() and int(own) < usable:
        yield Line("线程", NOTE, text, f"有 {usable} 核而限制了线程：不是有意的就 unset OMP_NUM_THREADS")
    else:
        yield Line("线程", GOOD, text)
    for name in ("FLAGS_use_mkldnn", "FLAGS_use_onednn"):
        if name in os.environ:
            yield Line("线程", NOTE, f"设了 {name}={os.environ[name]}",
                       f"训练时它没有用，还会让静态图崩溃：请 unset {name}")


def memory() -> Line:
    """What is free, within the container's limit."""
    free, total = _free_memory(), _total_memory()
    if free is None or total is None:
        return Line("内存", NOTE, "看不到内存的大小", "训练前用 --dry-run 看要多少")
    text = f"{free / GIB:.1f} GiB 可用，共 {total / GIB:.1f} GiB"
    facts = {"free_gib": round(free / GIB, 1), "total_gib": round(total / GIB, 1)}
    if free < 1.5 * GIB:
        return Line("内存", BAD, text, "训练放不下：关掉别的程序（notebook 的内核也算），或换内存大的环境", facts)
    if free < 4 * GIB:
        return Line("内存", NOTE, text, "不宽裕：减小 batch_size，先看 --dry-run 的估计", facts)
    return Line("内存", GOOD, text, facts=facts)


def _meminfo(key: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)


def _limit(root: Path = Path("/sys/fs/cgroup")) -> tuple[int, int] | None:
    """The container's memory limit and what it uses of it (cgroup v2 or v1), or None.

    Files kept in memory count as used by the container, but give way to whoever asks: they are taken off.
    """
    for limit, used, details in (("memory.max", "memory.current", "memory.stat"),
                                 ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes",
                                  "memory/memory.stat")):
        try:
            most, now = int((root / limit).read_text()), int((root / used).read_text())
            lines = [line.split() for line in (root / details).read_text().splitlines()]
        except (OSError, ValueError):  # absent, or "max"
            continue
        files = next((int(line[1]) for line in lines if line[0] in ("inactive_file", "total_inactive_file")), 0)
        return most, max(0, now - files)
    return None


def _total_memory() -> int | None:
    total, limit = _meminfo("MemTotal"), _limit()
    return min(total, limit[0]) if total and limit else total


def _free_memory() -> int | None:
    free, limit = _meminfo("MemAvailable"), _limit()
    return min(free, max(0, limit[0] - limit[1])) if free and limit else free


def disks(root: Path) -> Iterator[Line]:
    """Room and permission where outputs, decoded images and downloads go; a disk is told once."""
    places = {"输出 output/": root / "output", "缓存 cache/": root / "cache", "数据 data/": root / "data",
              "下载的权重": cache_folder()}
    there = {name: _nearest(path) for name, path in places.items()}
    folders = {name: path for name, path in there.items() if path.is_dir()}
    by_disk: dict[int, list[str]] = {}
    for name, folder in folders.items():
        by_disk.setdefault(folder.stat().st_dev, []).append(name)
    for names in by_disk.values():
        yield _disk(names, folders[names[0]])
    for name, path in there.items():
        state = NOTE if name.startswith("数据") else BAD
        if name not in folders and path.exists():
            yield Line("磁盘", state, f"{name}：{path} 是文件，不是文件夹", "把它移到别处，文件夹程序会自己建")
        elif name not in folders:
            yield Line("磁盘", state, f"{name}：{path} 是链接，它指的 {os.readlink(path)} 不在",
                       "建好那个文件夹（或挂上那块盘），或删去这个链接")
        elif not os.access(path, os.W_OK):
            yield Line("磁盘", state, f"{name}：{path} 不能写",
                       "把项目放到可写的文件夹；下载目录可用环境变量 PADDLE_CXR_CACHE 另指")


def _nearest(path: Path) -> Path:
    """What is there under this name, or the nearest above it that is there; it need not be a folder."""
    return next(one for one in (path, *path.parents) if os.path.lexists(one))


def _disk(names: Iterable[str], folder: Path) -> Line:
    free = shutil.disk_usage(folder).free
    text = f"{'、'.join(names)}：还有 {free / GIB:.1f} GiB"
    facts = {"folder": str(folder), "free_gib": round(free / GIB, 1)}
    if free < 0.3 * GIB:
        return Line("磁盘", BAD, text, "检查点写不下：删去旧的 output/，或把项目移到别的盘", facts)
    if free < 3 * GIB:
        return Line("磁盘", NOTE, text, "不宽裕：删去 cache/ 和旧的 output/；真实数据集要几到几百 GiB", facts)
    return Line("磁盘", GOOD, text, facts=facts)


def shared_memory() -> Iterator[Line]:
    """Matters only where worker processes read for a GPU."""
    try:
        size = shutil.disk_usage("/dev/shm").total
    except OSError:
        return
    text, facts = f"/dev/shm {size / GIB:.1f} GiB", {"gib": round(size / GIB, 2)}
    if size < GIB and has_gpu():
        yield Line("共享内存", NOTE, text, "GPU 训练读数据会换慢一些的方式；自己开容器时加 --shm-size=8g", facts)
    else:
        yield Line("共享内存", GOOD, text + ("" if has_gpu() else "（只有 GPU 训练用得到）"), facts=facts)


def graphics_memory() -> Iterator[Line]:
    """What other programs have left of each card, as ``nvidia-smi`` says it."""
    program = shutil.which("nvidia-smi")
    if not program:
        return
    done = _nvidia_smi(program)
    if done is None:
        yield Line("显存", NOTE, "nvidia-smi 没有回答", "驱动可能有问题：在终端里运行 nvidia-smi 看它说什么")
        return
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()
        yield Line("显存", NOTE, f"nvidia-smi 失败（{said[0] if said else done.returncode}）", "先修好驱动，或用 CPU")
        return
    for number, row in enumerate(_cards_named()):
        yield _card(number, [cell.strip() for cell in row.split(",")])


@functools.cache  # asked several times; where the driver is stuck each time would take five seconds
def _nvidia_smi(program: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run([program, "--query-gpu=name,memory.total,memory.free,driver_version",
                               "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None


def _cards_named() -> list[str]:
    """One row of comma-separated values for each card."""
    program = shutil.which("nvidia-smi")
    done = _nvidia_smi(program) if program else None
    return done.stdout.strip().splitlines() if done is not None and done.returncode == 0 else []


def _card(number: int, cells: list[str]) -> Line:
    try:
        name, total, free, driver = cells[0], float(cells[1]) / 1024, float(cells[2]) / 1024, cells[3]
    except (IndexError, ValueError):  # "[N/A]"
        return Line("显存", NOTE, f"第 {number} 块 GPU 没有说出显存（{'，'.join(cells)}）", "用 nvidia-smi 看")
    text = f"第 {number} 块 {name}：{free:.1f} GiB 可用，共 {total:.1f} GiB，驱动 {driver}"
    facts = {"gpu": number, "free_gib": round(free, 1), "total_gib": round(total, 1), "driver": driver}
    if free < total / 2:
        return Line("显存", NOTE, text, "别的程序占去一半以上：关掉它（notebook 里重启内核），或用别的卡", facts)
    return Line("显存", GOOD, text, facts=facts)
