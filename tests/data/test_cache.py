"""Decoding once: the same pictures from disk, memory and files; never stale, never half-written, broken files named."""

import collections
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddle_cxr.data import decode
from paddle_cxr.data.cache import DecodedCache
from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.data.records import ClassInfo, Record, Source
from paddle_cxr.errors import UserError

PREPROCESS = Preprocess((1, 16, 20))
CLASSES = [ClassInfo("A", "甲", "A")]


@pytest.fixture
def source(tmp_path):
    return write_pictures(tmp_path / "data", 7)


def write_pictures(root, count):
    root.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (30 + i, 25), dtype=np.uint8)).save(root / f"{i}.png")
    return Source("小 数据/1", root, CLASSES, [Record(f"{i}.png", 0) for i in range(count)])


def pictures(source):
    return np.stack([PREPROCESS.geometry(source.read(i)) for i in range(len(source.records))])


def files(folder):
    return sorted(path for path in folder.glob("*.images") if not path.name.startswith("."))


@pytest.fixture
def reads(monkeypatch):
    """How often each picture is read from its file."""
    counter = collections.Counter()
    original = Source.read

    def read(self, index):
        counter[index] += 1
        return original(self, index)

    monkeypatch.setattr(Source, "read", read)
    return counter


def test_all_modes_hold_the_same_pictures(source, tmp_path):
    for mode in ("disk", "disk", "memory", "none"):
        cache = DecodedCache(source, PREPROCESS, mode=mode, folder=tmp_path / "cache")
        assert cache.images.shape == (7, 16, 20) and len(cache.images) == 7 and cache.images.dtype == np.uint8
        assert np.array_equal(np.stack([cache.images[i] for i in range(7)]), pictures(source))
        assert cache.kept.tolist() == list(range(7)) and not cache.skipped and not cache.notices
    assert len(files(tmp_path / "cache")) == 1


def test_colour_pictures_keep_three_channels(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    source = Source("x", tmp_path, CLASSES, [Record("a.png", 0)])
    cache = DecodedCache(source, Preprocess((3, 8, 8), color=True), folder=tmp_path / "cache")
    assert cache.images.shape == (1, 8, 8, 3)


def test_the_second_start_reads_no_picture(source, tmp_path, reads):
    for _ in range(2):
        DecodedCache(source, PREPROCESS, folder=tmp_path / "cache", workers=1)
    assert set(reads.values()) == {1}
    images = DecodedCache(source, PREPROCESS, mode="none").images
    _ = images[3], images[3]
    assert reads[3] == 3


def test_pictures_cannot_be_written_to(source, tmp_path):
    for mode in ("disk", "memory"):
        with pytest.raises(ValueError, match="read-only"):
            DecodedCache(source, PREPROCESS, mode=mode, folder=tmp_path).images[0, 0, 0] = 1


def test_processes_return_what_one_process_returns(tmp_path):
    source = write_pictures(tmp_path / "data", 100)
    (source.root / "41.png").write_bytes(b"no picture")
    told = []
    one, two = (DecodedCache(source, PREPROCESS, mode="memory", on_error="skip", workers=workers,
                             progress=lambda *state: told.append(state)) for workers in (1, 2))
    assert np.array_equal(one.images, two.images) and one.skipped == two.skipped and len(one.kept) == 99
    assert told == [(done, 100) for done in range(1, 101)] * 2


def test_as_many_processes_as_this_process_may_use():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert decode.available_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert decode.available_cores() == len(allowed)


# --- never out of date ----------------------------------------------------------------------------------------------

def test_a_changed_file_is_decoded_anew(tmp_path):
    path = tmp_path / "a.bmp"  # uncompressed: another picture of the same size in bytes, so only the time tells
    source = Source("x", tmp_path, CLASSES, [Record("a.bmp", 0)])
    for turn, level in enumerate((10, 200)):
        Image.fromarray(np.full((9, 9), level, np.uint8)).save(path)
        os.utime(path, ns=(10**18, 10**18 + turn))
        assert (DecodedCache(source, PREPROCESS, folder=tmp_path / "cache").images == level).all()


@pytest.mark.parametrize("other", [Preprocess((1, 20, 16)), Preprocess((1, 16, 20), resize="crop"),
                                   Preprocess((1, 16, 20), equalize="hist")])
def test_another_geometry_is_another_cache(source, tmp_path, other):
    DecodedCache(source, PREPROCESS, folder=tmp_path / "cache")
    cache = DecodedCache(source, other, folder=tmp_path / "cache")
    assert np.array_equal(cache.images[0], other.geometry(source.read(0)))


def test_normalisation_is_not_part_of_the_cache(source, tmp_path, reads):
    for preprocess in (PREPROCESS, Preprocess((3, 16, 20), mean=[0.1], std=[0.9])):
        DecodedCache(source, preprocess, folder=tmp_path / "cache", workers=1)
    assert set(reads.values()) == {1}


def test_a_subset_is_not_taken_for_the_whole(source, tmp_path):
    DecodedCache(source, PREPROCESS, folder=tmp_path / "cache")
    part = Source(source.name, source.root, CLASSES, source.records[3:5])
    assert np.array_equal(DecodedCache(part, PREPROCESS, folder=tmp_path / "cache").images, pictures(part))


def test_another_folder_with_files_of_the_same_size_and_time_is_another_cache(tmp_path):
    for folder, level in (("one", 10), ("two", 200)):
        (tmp_path / folder / "data").mkdir(parents=True)
        file = tmp_path / folder / "data" / "a.bmp"
        Image.fromarray(np.full((9, 9), level, np.uint8)).save(file)
        os.utime(file, ns=(10**18, 10**18))
        source = Source("data", file.parent, CLASSES, [Record("a.bmp", 0)])
        assert (DecodedCache(source, PREPROCESS, folder=tmp_path / "cache").images == level).all()


@pytest.mark.parametrize("damage", [
    lambda content: content[:-1], lambda content: content[:100], lambda content: b"", lambda content: content[5:],
    lambda content: content + b"x", lambda content: content[:-30] + b"\xff" * 14 + content[-16:],
    lambda content: content[:-16] + b"\xff" * 8 + content[-8:],
])
def test_a_damaged_cache_is_noticed_and_made_again(source, tmp_path, damage):
    DecodedCache(source, PREPROCESS, folder=tmp_path / "cache")
    path, = files(tmp_path / "cache")
    path.write_bytes(damage(path.read_bytes()))
    cache = DecodedCache(source, PREPROCESS, folder=tmp_path / "cache")
    assert np.array_equal(cache.images, pictures(source))
    assert len(cache.notices) == 1 and str(path) in cache.notices[0]


# --- broken files ---------------------------------------------------------------------------------------------------

def test_broken_files_are_all_found_and_five_are_named(source):
    for i in range(7):
        (source.root / f"{i}.png").write_bytes(b"no picture")
    for mode in ("disk", "memory"):
        with pytest.raises(UserError, match="7 个") as error:
            DecodedCache(source, PREPROCESS, mode=mode, folder=source.root / "cache")
        assert sum(str(source.root / f"{i}.png") in str(error.value) for i in range(7)) == 5
        assert "\n" not in str(error.value) and "skip" in str(error.value)


@pytest.mark.parametrize("mode", ["disk", "memory", "none"])
def test_skipping_leaves_broken_files_out_and_lists_them(source, tmp_path, mode):
    whole = pictures(source)
    (source.root / "0.png").write_bytes((source.root / "0.png").read_bytes()[:60])
    (source.root / "4.png").unlink()
    for _ in range(2):  # made, then (on disk) found
        cache = DecodedCache(source, PREPROCESS, mode=mode, folder=tmp_path / "cache", on_error="skip")
        assert cache.kept.tolist() == [1, 2, 3, 5, 6] and len(cache.images) == 5
        assert np.array_equal(np.stack([cache.images[i] for i in range(5)]), whole[cache.kept])
        assert ["0.png" in cache.skipped[0], "4.png" in cache.skipped[1]] == [True, True]


def test_a_cache_made_while_skipping_does_not_hide_broken_files(source, tmp_path):
    (source.root / "4.png").write_bytes(b"")
    DecodedCache(source, PREPROCESS, folder=tmp_path / "cache", on_error="skip")
    with pytest.raises(UserError, match="4.png"):
        DecodedCache(source, PREPROCESS, folder=tmp_path / "cache")


def test_a_file_that_could_not_be_read_for_a_while_is_tried_again(source, tmp_path, reads):
    whole, hidden = pictures(source), source.root / "4.png"
    times, content = hidden.stat(), hidden.read_bytes()
    hidden.write_bytes(b"x" * len(content))  # as a share that is away: same size and time, so the same cache
    (source.root / "0.png").write_bytes(b"broken for good")
    os.utime(hidden, ns=(times.st_atime_ns, times.st_mtime_ns))
    for folder in ("cache", "cache"):
        with pytest.raises(UserError, match="2 个不能读取"):
            DecodedCache(source, PREPROCESS, folder=tmp_path / folder, workers=1)
    reads.clear()
    cache = DecodedCache(source, PREPROCESS, folder=tmp_path / "cache", on_error="skip", workers=1)
    assert cache.kept.tolist() == [1, 2, 3, 5, 6] and not cache.notices
    assert set(reads) == {0, 4}  # only the broken ones were read again
    hidden.write_bytes(content)
    os.utime(hidden, ns=(times.st_atime_ns, times.st_mtime_ns))
    cache = DecodedCache(source, PREPROCESS, folder=tmp_path / "cache", on_error="skip", workers=1)
    assert cache.kept.tolist() == [1, 2, 3, 4, 5, 6] and np.array_equal(cache.images, whole[1:])
    assert len(cache.notices) == 1 and "重建" in cache.notices[0] and len(cache.skipped) == 1


@pytest.mark.parametrize("mode", ["disk", "memory", "none"])
def test_nothing_readable_is_an_error_even_when_skipping(source, tmp_path, mode):
    for i in range(7):
        (source.root / f"{i}.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="没有一张"):
        DecodedCache(source, PREPROCESS, mode=mode, folder=tmp_path / "cache", on_error="skip")


def test_reading_on_demand_names_the_broken_file_when_it_is_met(source):
    (source.root / "4.png").write_bytes(b"no picture")
    images = DecodedCache(source, PREPROCESS, mode="none").images
    assert images[3].shape == (16, 20)
    with pytest.raises(UserError, match="4.png"):
        images[4]


# --- a disk that will not take it; being killed -----------------------------------------------------------------------

def test_without_space_the_pictures_stay_in_memory(source, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    cache = DecodedCache(source, PREPROCESS, folder=tmp_path / "cache")
    assert np.array_equal(cache.images, pictures(source))
    assert len(cache.notices) == 1 and "内存" in cache.notices[0] and not files(tmp_path / "cache")


@pytest.mark.parametrize("fill", ["write", "fsync"])
def test_a_disk_that_fills_up_meanwhile_is_survived(source, tmp_path, monkeypatch, fill):
    def full(*_):
        raise OSError(28, "No space left on device")

    if fill == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr("paddle_cxr.data.cache._write_description", full)
    cache = DecodedCache(source, PREPROCESS, folder=tmp_path / "cache")
    assert np.array_equal(cache.images, pictures(source)) and "No space" in cache.notices[0]
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]


def test_a_folder_that_cannot_be_made_is_survived(source, tmp_path):
    (tmp_path / "cache").write_text("a file")
    cache = DecodedCache(source, PREPROCESS, folder=tmp_path / "cache")
    assert np.array_equal(cache.images, pictures(source)) and len(cache.notices) == 1


SLOW = """
import sys, time
from pathlib import Path
import numpy as np
from paddle_cxr.data.cache import DecodedCache
from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.data.records import ClassInfo, Record, Source

class Slow(Source):
    def read(self, index):
        with open(self.root / "reads", "a") as file:
            file.write(f"{index}\\n")
        time.sleep(float(sys.argv[2]))
        return np.full((10, 10), index, np.uint8)

    def fingerprint(self):
        return "the same"

root = Path(sys.argv[1])
source = Slow("slow", root, [ClassInfo("A", "A", "A")], [Record(f"{i}", 0) for i in range(80)])
cache = DecodedCache(source, Preprocess((1, 8, 8)), folder=root / "cache", workers=2)
assert (cache.images == np.arange(80)[:, None, None]).all() and not cache.notices
"""


def start(root, pause):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.Popen([sys.executable, "-c", SLOW, str(root), str(pause)], env=environment)


def test_killed_while_decoding_leaves_nothing_half_done_and_no_process_behind(tmp_path):
    process = start(tmp_path, 0.05)
    deadline = time.monotonic() + 30
    while not (tmp_path / "reads").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.5)
    reads = (tmp_path / "reads").read_text()
    time.sleep(0.3)
    assert (tmp_path / "reads").read_text() == reads  # the decoding processes ended with their parent
    assert reads.count("\n") < 80 and not files(tmp_path / "cache")
    assert start(tmp_path, 0).wait(timeout=60) == 0
    assert len(files(tmp_path / "cache")) == 1 and not list((tmp_path / "cache").glob("*.tmp*"))


def test_ranks_that_start_together_decode_once(tmp_path):
    ranks = [start(tmp_path, 0.005) for _ in range(2)]
    assert [rank.wait(timeout=60) for rank in ranks] == [0, 0]
    assert sorted(map(int, (tmp_path / "reads").read_text().split())) == list(range(80))


def test_a_made_up_source_is_told_apart_by_its_fingerprint(tmp_path):
    class Drawn(Source):
        def __init__(self, level):
            super().__init__("drawn", "drawn", CLASSES, [Record("drawn/0", 0)])
            self.level = level

        def read(self, index):
            return np.full((8, 8), self.level, np.uint8)

        def fingerprint(self):
            return str(self.level)

    for level in (10, 200, 10):
        assert (DecodedCache(Drawn(level), PREPROCESS, folder=tmp_path).images == level).all()


def test_real_radiographs_decode(real_data, tmp_path):
    paths = sorted((real_data / "cxr" / "images").rglob("*.jpg"))[::20]
    source = Source("real", real_data, CLASSES, [Record(path.relative_to(real_data).as_posix(), 0) for path in paths])
    images = DecodedCache(source, Preprocess((1, 64, 64)), folder=tmp_path).images
    assert len(images) == len(paths) and (images.std(axis=(1, 2)) > 10).all()
