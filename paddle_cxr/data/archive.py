"""Unpacking an archive from the internet without trusting it.

Python's own ``extractall`` follows what the archive says; a data set from a forum may say ``../../.bashrc``, hide a
symbolic link, or grow to a terabyte.  Nothing here ever writes outside the target folder, the bytes are counted while
they are written, and the target appears only when everything is there.
"""

from __future__ import annotations

import errno
import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from paddle_cxr.errors import UserError
from paddle_cxr.files import writing_to

ARCHIVE_EXTENSIONS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

GIB = 1 << 30
_BLOCK = 1 << 20
# Below this an archive may have any ratio: text and masks legitimately shrink a thousandfold.
_RATIO_FREE_BYTES = 64 << 20
_MARKER = ".unpacked_from"
# A tar header that holds a name or attributes is read into memory whole, before anybody has seen its size.
_TAR_HEADERS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
                tarfile.GNUTYPE_LONGLINK)
_TAR_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class _Member:
    """One regular file of an archive; ``open`` gives its bytes."""

    name: str
    size: int
    stream: IO[bytes]


def is_archive(path: str | Path) -> bool:
    """Whether the file name says zip or tar."""
    return str(path).lower().endswith(ARCHIVE_EXTENSIONS)


def archive_stem(path: str | Path) -> str:
    """``covid.tar.gz`` → ``covid``."""
    name = Path(path).name
    longest = max((end for end in ARCHIVE_EXTENSIONS if name.lower().endswith(end)), key=len, default="")
    return name[:len(name) - len(longest)]


def unpack_once(archive: str | Path, spare_parent: str | Path = "data") -> Path:
    """Unpack beside the archive, or under ``spare_parent`` where that folder is read-only; return the folder.

    The folder is named after the archive, with 8 hex digits added where that name is taken by something else.  An
    earlier complete unpacking of the same archive (see :func:`_identity`) is reused, and so is a folder beside it that
    somebody unpacked by hand; one under ``spare_parent`` is not, since it need not have to do with this archive.

    Raises:
        UserError: as :func:`unpack`.
    """
    archive = Path(archive)
    label = _identity(archive)
    stem = archive_stem(archive)
    other = f"{stem}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
    for parent in (archive.parent, Path(spare_parent)):
        for name in (stem, other):
            if _marker_of(parent / name) == label:
                return parent / name
    by_hand = archive.parent / stem
    if by_hand.is_dir() and _marker_of(by_hand) is None:
        return by_hand
    parent = archive.parent if _writable(archive.parent) else Path(spare_parent)
    return unpack(archive, parent / (other if (parent / stem).exists() else stem), marker=label)


def _identity(archive: Path) -> str:
    """One line that tells this archive from another of its name: size, time, and a hash of the first and last MiB."""
    try:
        facts = archive.stat()
        with open(archive, "rb") as file:
            ends = hashlib.sha256(file.read(_BLOCK))
            file.seek(max(0, facts.st_size - _BLOCK))
            ends.update(file.read(_BLOCK))
    except OSError as error:
        raise UserError(f"无法读取压缩包 {archive}（{error.strerror}）；请检查路径和权限") from None
    return f"{archive.name} {facts.st_size} {facts.st_mtime_ns} {ends.hexdigest()}\n"


def _marker_of(folder: Path) -> str | None:
    """What was left in the folder when it was unpacked, or None."""
    try:
        return (folder / _MARKER).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def _writable(folder: Path) -> bool:
    """Whether a folder can be created here (permission bits lie on read-only mounts, so try)."""
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".paddle_cxr."):
            return True
    except OSError:
        return False


def unpack(archive: str | Path, into: str | Path, *, max_bytes: int = 200 * GIB, max_ratio: float = 100.0,
           max_files: int = 1_000_000, marker: str = "") -> Path:
    """Unpack a zip or tar (plain, gz, bz2, xz) into the new folder ``into`` and return it.

    The files first go to a temporary folder beside it (``.NAME.*.unpacking``, safe to delete if the process was
    killed), which is renamed at the end: ``into`` is either absent or complete.  macOS and Windows litter is left out;
    Chinese names are read as UTF-8 or GBK where the zip does not say.

    Args:
        max_bytes: most bytes to write, declared or actual.
        max_ratio: most bytes to write per byte of the archive, once past 64 MiB (a decompression bomb has ~1000).
        max_files: most files.
        marker: text left in ``.unpacked_from`` inside the folder (used by :func:`unpack_once`).  Where ``into`` is
            there already with the same text, another process was faster, and it is returned.

    Raises:
        UserError: not an archive, broken or truncated, encrypted, a path or link leading outside, too large, too many
            files, the folder exists, no space or permission.
    """
    archive, into = Path(archive), Path(into)
    if not archive.is_file():
        raise UserError(f"找不到压缩包 {archive}")
    taken = UserError(f"文件夹 {into} 已存在；请先删除或改名，再解压 {archive}")
    if into.exists():
        if marker and _marker_of(into) == marker:
            return into
        raise taken
    limit = int(min(max_bytes, max(max_ratio * archive.stat().st_size, _RATIO_FREE_BYTES)))
    with writing_to(into):
        into.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{into.name}.", suffix=".unpacking", dir=into.parent))
        try:
            _extract(archive, temporary, limit, max_files)
            temporary.chmod(0o777 & ~_umask())  # mkdtemp's 0700 would shut out the other users of a shared machine
            if marker:
                (temporary / _MARKER).write_text(marker, encoding="utf-8")
            try:
                temporary.rename(into)
            except OSError:
                if not into.exists():
                    raise
                if not marker or _marker_of(into) != marker:
                    raise taken from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return into


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _extract(archive: Path, into: Path, limit: int, max_files: int) -> None:
    members = _zip_members(archive) if archive.suffix.lower() == ".zip" else _tar_members(archive)
    written = files = 0
    try:
        for member in members:
            target = _target(archive, into, member.name)
            if target is None:
                continue
            files += 1
            if files > max_files:
                raise UserError(f"压缩包 {archive}：文件超过 {max_files} 个，拒绝解压")
            if written + member.size > limit:
                raise _too_large(archive, limit)
            written += _copy(archive, member, target, limit - written)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError,
            ValueError) as error:
        raise _broken(archive, error) from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(f"压缩包 {archive}：文件名 {Path(str(error.filename)).name!r} 重复出现，拒绝解压") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"压缩包 {archive}：文件名太长（file name too long）："
                            f"{Path(str(error.filename)).name[:60]}…；请缩短后重新打包") from None
        if error.errno is not None:  # the disk's; gzip and bz2 raise OSError for bad data too, without a number
            raise
        raise _broken(archive, error) from None
    if not files:
        raise UserError(f"压缩包 {archive} 里没有文件")


def _broken(archive: Path, error: Exception) -> UserError:
    return UserError(f"压缩包 {archive} 已损坏或不完整（{error}），请重新下载")


def _too_large(archive: Path, limit: int) -> UserError:
    return UserError(f"压缩包 {archive}：解压后超过 {limit / GIB:.2f} GiB，可能是解压炸弹（decompression bomb），"
                     "拒绝解压；若确信无害，请自行解压后把 root 指向文件夹")


def _copy(archive: Path, member: _Member, target: Path, limit: int) -> int:
    """Write one file, counting the bytes that really come out; return their number."""
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with open(target, "xb") as out:
        while block := member.stream.read(_BLOCK):
            written += len(block)
            if written > limit:
                raise _too_large(archive, limit)
            out.write(block)
    if written != member.size:
        raise EOFError(f"{member.name} 只有 {written} 字节，应为 {member.size}")
    return written


def _target(archive: Path, into: Path, name: str) -> Path | None:
    """Where a member goes, None for litter; raises UserError for a path that would leave ``into``."""
    path = PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/")))
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise UserError(f"压缩包 {archive}：路径 {name!r} 指向目标文件夹之外，拒绝解压")
    if any(":" in part for part in path.parts):  # a drive, or a stream hidden behind another file
        raise UserError(f"压缩包 {archive}：路径 {name!r} 含冒号，在 Windows 上指向目标文件夹之外，拒绝解压")
    litter = "__MACOSX" in path.parts or path.name.startswith("._")
    if not path.parts or litter or path.name in (".DS_Store", "Thumbs.db", "desktop.ini", _MARKER):
        return None
    return into.joinpath(*path.parts)


def _zip_members(archive: Path) -> Iterator[_Member]:
    try:
        opened = zipfile.ZipFile(archive)
    except zipfile.BadZipFile:
        raise UserError(f"压缩包 {archive} 不是 zip 文件，或已损坏、不完整，请重新下载") from None
    with opened:
        for info in opened.infolist():
            if info.is_dir():
                continue
            name = _zip_name(info)
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                raise UserError(f"压缩包 {archive}：{name!r} 是链接或特殊文件，拒绝解压")
            if info.flag_bits & 0x1:
                raise UserError(f"压缩包 {archive} 有密码，请先解密，自行解压后把 root 指向文件夹")
            with opened.open(info) as stream:
                yield _Member(name, info.file_size, stream)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The member's name, decoded: zip tools on Chinese Windows write GBK, macOS UTF-8, both without saying so."""
    if info.flag_bits & 0x800:  # declared UTF-8
        return info.filename
    try:
        raw = info.filename.encode("cp437")  # undo zipfile's assumption
    except UnicodeEncodeError:  # it was none: newer versions of Python read the Unicode name some tools add
        return info.filename
    for encoding in ("utf-8", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return info.filename


class _CheckedTarInfo(tarfile.TarInfo):
    """A tar header that says what it is before it is read."""

    def _proc_member(self, file: tarfile.TarFile) -> tarfile.TarInfo:
        # tarfile offers no public place between parsing a header and reading what belongs to it.
        if self.type in _TAR_HEADERS and self.size > _TAR_HEADER_BYTES:
            raise UserError(f"压缩包 {file.name}：文件头有 {self.size} 字节，可能是解压炸弹（decompression bomb），"
                            "拒绝解压")
        return super()._proc_member(file)


def _tar_members(archive: Path) -> Iterator[_Member]:
    try:
        opened = tarfile.open(archive, tarinfo=_CheckedTarInfo)
    except (tarfile.TarError, EOFError, zlib.error):
        raise UserError(f"压缩包 {archive} 不是 tar 文件，或已损坏、不完整，请重新下载") from None
    with opened:
        for info in opened:
            if info.isdir():
                continue
            if not info.isfile():
                raise UserError(f"压缩包 {archive}：{info.name!r} 是链接或特殊文件，拒绝解压")
            stream = opened.extractfile(info)
            assert stream is not None  # isfile() says so
            with stream:
                yield _Member(info.name, info.size, stream)
        # tarfile stops at the archive's end mark; the compressor's checksum comes after the padding that follows.
        for _ in range(64):
            if opened.fileobj is None or not opened.fileobj.read(_BLOCK):
                break
