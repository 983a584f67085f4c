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

from paddle_cxr.data.archive import archive_stem, is_archive, unpack, unpack_once
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


def test_unpack_once_reuses_and_notices_another_archive(tmp_path):
    archive = make_zip(tmp_path / "a.zip", GOOD)
    assert unpack_once(archive) == unpack_once(archive) == tmp_path / "a"
    make_zip(archive, {**GOOD, "c": b"c"})
    with pytest.raises(UserError, match="另一个压缩包"):
        unpack_once(archive)
    (tmp_path / "b").mkdir()  # unpacked by hand: used as it is
    assert unpack_once(make_zip(tmp_path / "b.zip", GOOD)) == tmp_path / "b"


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
