"""Decode and resize every picture once; after that an epoch reads small uint8 arrays.

On disk the pictures lie one after another in a single file that all ranks and workers map into memory, so a data set
larger than memory works and eight workers cost no more than one.  The file is the raw pictures followed by a JSON
description and its length::

    picture 0 | picture 1 | … | JSON {key, shape, kept, broken} | length of the JSON (8 bytes) | b"CXRCACHE"

It is written beside and renamed into place, so it is whole or absent, and its name holds a hash of everything it
depends on (folder, files, their sizes and times, geometry, versions), so it is never out of date.  Why a file could not
be read is no part of that (a permission, a share that was away), so broken files are tried again whenever the cache is
opened.  It may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import PIL

from paddle_cxr.data.decode import Picture, decode_all
from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.data.records import Source
from paddle_cxr.errors import UserError
from paddle_cxr.files import write_atomic

# Raised by hand when the file's layout, or what Source.read returns, changes.
CACHE_VERSION = 2

_MAGIC = b"CXRCACHE"
_NAMED_IN_ERROR = 5
_SPARE_DISK = 64 * 2**20  # left free for the run's own output

Progress = Callable[[int, int], None]


class DecodedCache:
    """The pictures of a source after :meth:`Preprocess.geometry`.

    Args:
        source: the data set.
        preprocess: size and grey-level treatment.
        mode: ``disk``: a file in ``folder``, made on first use (memory where the disk will not take it); ``memory``:
            decoded at every start and kept; ``none``: decoded anew whenever a picture is asked for.
        folder: where ``disk`` keeps its files.
        on_error: what to do about files that cannot be read: ``error`` raises, ``skip`` leaves them out and lists them.
        workers: decoding processes; None for one per core this process may use.
        progress: called with (done, total) while decoding.

    Attributes:
        images: uint8 ``[N, H, W]`` or ``[N, H, W, 3]``, read-only: a memory map, an array, or (``none``) something
            that is indexed and measured like one.
        kept: int64 ``[N]``, which record of the source each picture is.
        skipped: one line per file left out, naming it and the reason.
        notices: lines the user should see (no space, cache rebuilt …).

    Raises:
        UserError: unreadable files (all are looked for; five are named) with ``error``; no readable file at all.
    """

    def __init__(self, source: Source, preprocess: Preprocess, *, mode: Literal["disk", "memory", "none"] = "disk",
                 folder: str | Path | None = None, on_error: Literal["error", "skip"] = "error",
                 workers: int | None = None, progress: Progress | None = None) -> None:
        self._source, self._preprocess = source, preprocess
        self._workers, self._progress = workers, progress
        self.notices: list[str] = []
        broken: dict[int, str] = {}
        self.images: np.ndarray | PicturesOnDemand
        if mode == "none":
            # Only skipping needs to know the broken files beforehand; otherwise the first one met raises.
            if on_error == "skip":
                broken = {picture.index: picture.error for picture in self._decode() if picture.error}
            self.images = PicturesOnDemand(source, preprocess, self._readable(broken))
        elif mode == "memory":
            self.images, broken = self._in_memory()
        else:
            if folder is None:
                raise ValueError("mode='disk' needs a folder")
            self.images, broken = self._on_disk(Path(folder))
        if broken and on_error == "error":
            raise UserError(broken_files_message(list(broken.values()), len(source.records)))
        self.skipped = list(broken.values())
        self.kept = self._readable(broken)
        if not len(self.kept):
            raise UserError(f"数据 {source.name} 中没有一张能读取的图像"
                            + (f"，例如：{self.skipped[0]}" if self.skipped else ""))

    def _readable(self, broken: dict[int, str]) -> np.ndarray:
        return np.array([index for index in range(len(self._source.records)) if index not in broken], dtype=np.int64)

    def _decode(self) -> Iterator[Picture]:
        """Every picture, in order, telling the progress."""
        total = len(self._source.records)
        for done, picture in enumerate(decode_all(self._source, self._preprocess, self._workers), start=1):
            if self._progress:
                self._progress(done, total)
            yield picture

    def _in_memory(self) -> tuple[np.ndarray, dict[int, str]]:
        total = len(self._source.records)
        images = np.empty((total, *self._preprocess.cached_shape), np.uint8)
        count, broken = 0, {}
        for picture in self._decode():
            if picture.error:
                broken[picture.index] = picture.error
            else:
                images[count] = picture.pixels
                count += 1
        images = images[:count]
        images.flags.writeable = False
        return images, broken

    def _on_disk(self, folder: Path) -> tuple[np.ndarray, dict[int, str]]:
        key = cache_key(self._source, self._preprocess)
        height, width = self._preprocess.image_shape[1:]
        name = "".join(c if c.isalnum() or c in "-_." else "_" for c in self._source.name)
        path = folder / f"{name}-{height}x{width}-{key[:16]}.images"
        needed = len(self._source.records) * int(np.prod(self._preprocess.cached_shape)) + _SPARE_DISK
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _one_at_a_time(folder / f".{path.stem}.lock"):
                opened = self._open(path, key)
                if opened:
                    return opened
                free = shutil.disk_usage(folder).free
                if free < needed:
                    raise OSError(f"需要 {needed / 2**30:.2f} GiB，只剩 {free / 2**30:.2f} GiB")
                self._write(path, key)
                opened = self._open(path, key, try_broken_again=False)
        except (OSError, UserError) as error:
            # files.write_atomic reports a full or read-only disk as a UserError caused by the OSError.
            if isinstance(error, UserError) and not isinstance(error.__cause__, OSError):
                raise
            self.notices.append(f"图像缓存不能写入 {folder}（{error.__cause__ or error}），"
                                "改为放在内存中，下次启动需重新解码")
            return self._in_memory()
        if opened is None:
            raise RuntimeError(f"cache file {path} is unreadable right after it was written")
        return opened

    def _write(self, path: Path, key: str) -> None:
        for left_over in path.parent.glob(f".{path.stem}.*.tmp{path.suffix}"):  # of a run that was killed
            left_over.unlink(missing_ok=True)

        def write(temporary: Path) -> None:
            with open(temporary, "wb") as file:
                broken = {}
                for picture in self._decode():
                    if picture.error:
                        broken[picture.index] = picture.error
                    else:
                        file.write(picture.pixels.tobytes())
                _write_description(file, {"key": key, "shape": list(self._preprocess.cached_shape),
                                          "count": len(self._source.records) - len(broken),
                                          "broken": [[index, line] for index, line in broken.items()]})

        write_atomic(path, write)

    def _open(self, path: Path, key: str, try_broken_again: bool = True) -> tuple[np.ndarray, dict[int, str]] | None:
        """Map the file, or None where it is absent, cut short, damaged, another cache's or lacks a readable picture."""
        if not path.is_file():
            return None
        description = _read_description(path)
        if description is None or description["key"] != key:
            self.notices.append(f"图像缓存 {path} 不完整或已损坏，正在重建")
            return None
        shape = (description["count"], *description["shape"])
        broken = {index: line for index, line in description["broken"]}
        if broken and try_broken_again:
            again = decode_all(self._source, self._preprocess, self._workers, list(broken))
            broken = {picture.index: picture.error for picture in again if picture.error}
            readable = len(description["broken"]) - len(broken)
            if readable:
                self.notices.append(f"图像缓存 {path} 里记为坏图的有 {readable} 张现在能读取，正在重建")
                return None
        # An empty file cannot be mapped; the constructor then reports that no picture is readable.
        images = np.memmap(path, np.uint8, mode="r", shape=shape) if description["count"] else np.empty(shape, np.uint8)
        return images, broken


class PicturesOnDemand:
    """Indexed and measured like the array of all pictures, but every access reads the file again."""

    dtype = np.dtype(np.uint8)

    def __init__(self, source: Source, preprocess: Preprocess, kept: np.ndarray) -> None:
        self._source, self._preprocess, self._kept = source, preprocess, kept
        self.shape = (len(kept), *preprocess.cached_shape)

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, position: int) -> np.ndarray:
        return self._preprocess.geometry(self._source.read(int(self._kept[position])))


def cache_key(source: Source, preprocess: Preprocess) -> str:
    """64 hex digits over all that decides the pictures: source, folder, files' sizes and times, geometry, versions."""
    digest = hashlib.sha256()
    # Two data sets may have files of equal names, sizes and times; a made-up one has no folder.
    root = str(source.root.resolve()) if source.root.is_dir() else ""
    facts = [CACHE_VERSION, PIL.__version__, type(source).__name__, source.name, root, source.fingerprint(),
             preprocess.geometry_dict()]
    digest.update(json.dumps(facts).encode())
    for record in source.records:
        try:
            facts_of_file = os.stat(source.root / record.path)
            digest.update(f"{record.path}\t{facts_of_file.st_size}\t{facts_of_file.st_mtime_ns}\n".encode())
        except OSError:  # a made-up picture, or one missing: the fingerprint stands for it
            digest.update(f"{record.path}\n".encode())
    return digest.hexdigest()


def broken_files_message(lines: list[str], total: int) -> str:
    """One line about all files that cannot be read."""
    more = f" 等 {len(lines)} 个" if len(lines) > _NAMED_IN_ERROR else ""
    named = "；".join(lines[:_NAMED_IN_ERROR])
    return (f"{total} 个图像文件中有 {len(lines)} 个不能读取：{named}{more}。请修复或删除它们，"
            "或设 DataLoader.on_error: skip 跳过（会列出被跳过的文件）")


def _write_description(file: BinaryIO, description: dict[str, Any]) -> None:
    text = json.dumps(description, ensure_ascii=False).encode()
    file.write(text + len(text).to_bytes(8, "little") + _MAGIC)


def _read_description(path: Path) -> dict[str, Any] | None:
    """The JSON at the end of a cache file, or None unless the file has exactly the size it describes."""
    size = path.stat().st_size
    tail = 8 + len(_MAGIC)
    with open(path, "rb") as file:
        if size < tail:
            return None
        file.seek(size - tail)
        length, magic = int.from_bytes(file.read(8), "little"), file.read()
        if magic != _MAGIC or length > size - tail:
            return None
        file.seek(size - tail - length)
        try:
            description = json.loads(file.read(length))
            pixels = description["count"] * int(np.prod(description["shape"]))
        except (ValueError, KeyError, TypeError):
            return None
    return description if pixels + length + tail == size else None


@contextlib.contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    """Let one process (rank) at a time in; the others wait.  A killed process's lock is released by the system.

    Without ``fcntl`` (Windows) all may enter: each then writes its own temporary file, and the last rename wins.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(lock, "w") as file:
        with contextlib.suppress(OSError):  # a file system without locks: as without fcntl
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
