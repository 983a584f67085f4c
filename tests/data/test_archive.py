"""Archives that mean well, and archives that do not."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from paddle_cxr.data.archive import _zip_name, archive_stem, is_archive, unpack, unpack_once
from paddle_cxr.errors import UserError


def make_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as out:
        for name, content in members.items():
            out.writestr(name, content)
    return path


def make_tar(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as out:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def refused(archive: Path, into: Path, match: str, **limits) -> None:
    with pytest.raises(UserError, match=match) as caught:
        unpack(archive, into, **limits)
    assert str(archive) in str(caught.value) and "\n" not in str(caught.value)
    assert not into.exists() and not list(into.parent.glob(".*unpacking"))


GOOD = {"data/COVID/a.png": b"a" * 1000, "data/NORMAL/b.png": b"b"}
LITTER = {"__MACOSX/data/._a.png": b"x", "data/.DS_Store": b"x", "data/COVID/._a.png": b"x", "data/Thumbs.db": b"x"}


@pytest.mark.parametrize("name, mode", [("a.zip", ""), ("a.tar", "w:"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"),
                                        ("a.tar.bz2", "w:bz2"), ("a.tar.xz", "w:xz")])
def test_unpack_leaves_litter_out(tmp_path, name, mode):
    members = {**GOOD, **LITTER}
    archive = make_tar(tmp_path / name, members, mode) if mode else make_zip(tmp_path / name, members)
    assert is_archive(archive) and archive_stem(archive) == "a"
    assert contents(unpack(archive, tmp_path / "out")) == GOOD
    assert not list(tmp_path.glob(".*unpacking"))


def test_folder_is_readable_by_others(tmp_path):
    unpack(make_zip(tmp_path / "a.zip", GOOD), tmp_path / "out")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~mask


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "C:\\evil", "C:/evil"])
def test_paths_that_lead_outside(tmp_path, name):
    refused(make_zip(tmp_path / "a.zip", {**GOOD, name: b"x"}), tmp_path / "in" / "out", "之外")
    refused(make_tar(tmp_path / "a.tar.gz", {**GOOD, name: b"x"}), tmp_path / "in" / "out", "之外")
    assert not (tmp_path / "evil").exists() and not (tmp_path / "in" / "evil").exists()


def test_links_and_devices(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        out.writestr(link, "/etc/passwd")
    refused(tmp_path / "a.zip", tmp_path / "out", "链接")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        with tarfile.open(tmp_path / "a.tar", "w") as out:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = kind, "/etc/passwd"
            out.addfile(info)
        refused(tmp_path / "a.tar", tmp_path / "out", "链接")


def test_bombs(tmp_path):
    zeros = make_zip(tmp_path / "a.zip", {"zeros": bytes(80 << 20)})
    assert zeros.stat().st_size < 100_000
    refused(zeros, tmp_path / "out", "解压炸弹")
    refused(make_zip(tmp_path / "b.zip", GOOD), tmp_path / "out", "解压炸弹", max_bytes=500)
    refused(make_zip(tmp_path / "c.zip", {f"{n}": b"" for n in range(11)}), tmp_path / "out", "10 个", max_files=10)
    refused(make_tar(tmp_path / "d.tar.gz", {"zeros": bytes(80 << 20)}), tmp_path / "out", "解压炸弹")


def test_bomb_that_lies_about_its_size(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"zeros": bytes(1 << 20)})
    raw = bytearray(archive.read_bytes())
    for place in (raw.index(b"PK\x03\x04") + 22, raw.index(b"PK\x01\x02") + 24):  # the two size fields
        raw[place:place + 4] = (10).to_bytes(4, "little")
    archive.write_bytes(raw)
    refused(archive, tmp_path / "out", "损坏|炸弹", max_bytes=1000)


def test_broken_archives(tmp_path):
    noise = {"a.png": os.urandom(100_000), "b.png": os.urandom(100_000)}
    for archive in (make_zip(tmp_path / "a.zip", noise), make_tar(tmp_path / "a.tar.gz", noise),
                    make_tar(tmp_path / "a.tar", noise, "w:")):
        whole = archive.read_bytes()
        for length in (0, 10, len(whole) // 2, len(whole) - 30_000):
            archive.write_bytes(whole[:length])
            refused(archive, tmp_path / "out", "损坏|没有文件")
    for mode in ("gz", "bz2", "xz"):
        archive = make_tar(tmp_path / f"damaged.tar.{mode}", noise, f"w:{mode}")
        raw = bytearray(archive.read_bytes())
        for place in range(len(raw) // 2, len(raw), len(raw) // 9):
            raw[place] ^= 255
        archive.write_bytes(raw)
        refused(archive, tmp_path / "out", "损坏")
    archive = make_zip(tmp_path / "b.zip", noise, zipfile.ZIP_STORED)
    raw = bytearray(archive.read_bytes())
    raw[5000] ^= 255  # the checksum no longer fits
    archive.write_bytes(raw)
    refused(archive, tmp_path / "out", "损坏")
    (tmp_path / "c.zip").write_text("not a zip")
    refused(tmp_path / "c.zip", tmp_path / "out", "zip")
    refused(tmp_path / "absent.zip", tmp_path / "out", "找不到")
    refused(make_zip(tmp_path / "d.zip", LITTER), tmp_path / "out", "没有文件")


def test_encrypted_zip(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {"a": b"x"})
    raw = bytearray(archive.read_bytes())
    raw[raw.index(b"PK\x03\x04") + 6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(raw)
    refused(archive, tmp_path / "out", "密码")


def test_same_name_twice(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr("a", b"1")
        out.writestr("a", b"2")
    refused(tmp_path / "a.zip", tmp_path / "out", "重复")
    refused(make_zip(tmp_path / "b.zip", {"a": b"1", "a/b": b"2"}), tmp_path / "out", "重复")


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_chinese_names_from_windows_and_macos(tmp_path, encoding):
    name = "新冠肺炎/胸片一.png"
    raw = name.encode(encoding)
    archive = make_zip(tmp_path / "a.zip", {"x" * len(raw): b"film"})
    archive.write_bytes(archive.read_bytes().replace(b"x" * len(raw), raw))  # as tools do: no UTF-8 flag
    assert contents(unpack(archive, tmp_path / "out")) == {name: b"film"}
    assert list(contents(unpack(make_zip(tmp_path / "b.zip", {name: b""}), tmp_path / "flagged"))) == [name]


def test_existing_folder_is_not_touched(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="已存在"):
        unpack(make_zip(tmp_path / "a.zip", GOOD), tmp_path / "out")


def replace(archive: Path, members: dict[str, bytes], mtime: int) -> None:
    """Another archive under the same name; stored, so that equal lengths make equal sizes."""
    make_zip(archive, members, zipfile.ZIP_STORED)
    os.utime(archive, ns=(mtime, mtime))


def test_unpack_once_reuses_and_unpacks_a_replaced_archive_anew(tmp_path):
    archive = tmp_path / "a.zip"
    replace(archive, {"film": b"old"}, 10**18)
    assert unpack_once(archive) == unpack_once(archive) == tmp_path / "a"
    size = archive.stat().st_size
    for content, mtime in ((b"new", 10**18), (b"new", 2 * 10**18)):  # same size and time; same size and content
        replace(archive, {"film": content}, mtime)
        folder = unpack_once(archive)
        assert archive.stat().st_size == size and folder.name.startswith("a-")
        assert contents(folder)["film"] == content and unpack_once(archive) == folder
    assert contents(tmp_path / "a")["film"] == b"old"  # the user's, left alone
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 3


def test_a_folder_unpacked_by_hand_counts_only_beside_the_archive(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "b.zip", GOOD)
    (tmp_path / "data" / "b").mkdir(parents=True)
    monkeypatch.setattr("paddle_cxr.data.archive._writable", lambda folder: False)
    folder = unpack_once(archive, tmp_path / "data")
    assert folder.parent == tmp_path / "data" and folder.name.startswith("b-") and set(GOOD) <= set(contents(folder))
    assert not contents(tmp_path / "data" / "b") and unpack_once(archive, tmp_path / "data") == folder
    other = make_zip(tmp_path / "c.zip", GOOD)
    (tmp_path / "c").mkdir()
    assert unpack_once(other, tmp_path / "data") == tmp_path / "c"


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_lost_race_is_no_error_when_the_winner_unpacked_the_same(tmp_path, monkeypatch, when):
    from paddle_cxr.data import archive as module

    archive = make_zip(tmp_path / "a.zip", GOOD)

    def winner(marker):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / ".unpacked_from").write_text(marker)

    def run(theirs):
        if when == "before":
            winner(theirs)
            return unpack(archive, tmp_path / "out", marker="ours")
        extract = module._extract
        monkeypatch.setattr(module, "_extract", lambda *rest: (extract(*rest), winner(theirs)))
        try:
            return unpack(archive, tmp_path / "out", marker="ours")
        finally:
            monkeypatch.undo()

    assert run("ours") == tmp_path / "out"
    (tmp_path / "out" / ".unpacked_from").unlink()
    (tmp_path / "out").rmdir()
    with pytest.raises(UserError, match="已存在"):
        run("theirs")
    assert not list(tmp_path.glob(".*unpacking"))


def test_an_archive_that_cannot_be_read(tmp_path):
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(UserError, match="无法读取压缩包 .*folder.zip"):
        unpack_once(tmp_path / "folder.zip")


@pytest.mark.parametrize("name", ["a/C:/evil", "a/film.png:hidden"])
def test_colons_anywhere_in_a_path(tmp_path, name):
    refused(make_zip(tmp_path / "a.zip", {**GOOD, name: b"x"}), tmp_path / "out", "冒号")


def test_a_file_name_that_is_too_long(tmp_path):
    refused(make_zip(tmp_path / "a.zip", {"x" * 300 + ".png": b"x"}), tmp_path / "out", "文件名太长")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
                                  tarfile.GNUTYPE_LONGLINK])
@pytest.mark.parametrize("first", [True, False])
def test_a_tar_header_that_would_fill_the_memory(tmp_path, kind, first):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as out:
        if not first:
            info = tarfile.TarInfo("a.png")
            info.size = 1
            out.addfile(info, io.BytesIO(b"x"))
        info = tarfile.TarInfo("header")
        info.type, info.size = kind, (1 << 20) + 1
        out.addfile(info, io.BytesIO(b"y" * info.size))
    refused(tmp_path / "a.tar.gz", tmp_path / "out", "文件头有 1048577 字节")


def test_long_names_in_tars_are_still_read(tmp_path):
    name = "/".join(["folder" * 20] * 5) + "/胸片.png"
    for number, form in enumerate((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)):
        with tarfile.open(tmp_path / f"{number}.tar", "w", format=form) as out:
            info = tarfile.TarInfo(name)
            info.size = 1
            out.addfile(info, io.BytesIO(b"x"))
        assert contents(unpack(tmp_path / f"{number}.tar", tmp_path / f"out{number}")) == {name: b"x"}


def test_a_name_that_zipfile_has_already_read_as_unicode_is_kept():
    info = zipfile.ZipInfo("新冠/胸片.png")  # as newer versions of Python set it from the Unicode path extra field
    assert not info.flag_bits and _zip_name(info) == "新冠/胸片.png"


def test_kill_leaves_no_half_folder_under_the_final_name(tmp_path):
    archive = make_zip(tmp_path / "a.zip", {f"{n}.png": os.urandom(20_000) for n in range(1500)})
    code = "import sys; from paddle_cxr.data.archive import unpack; unpack(sys.argv[1], sys.argv[2])"
    child = subprocess.Popen([sys.executable, "-c", code, archive, tmp_path / "out"],
                             cwd=Path(__file__).resolve().parents[2])
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".out.*/*")) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    if (tmp_path / "out").exists():  # it was faster than the signal: then it must be complete
        assert len(contents(tmp_path / "out")) == 1500
    else:
        assert list(tmp_path.glob(".out.*.unpacking"))
        assert len(contents(unpack(archive, tmp_path / "out"))) == 1500
