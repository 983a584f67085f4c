"""Image–report pairs while everything fails: killed ranks, a full disk, a server that goes away."""

import base64
import io
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from synthesis.loopback import Server
from synthesis.pairs_parts import Pairs, final_files, picture, records, reports

from paddle_cxr.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
TOOL = [sys.executable, str(ROOT / "tools/synthesize.py")]
LAUNCH = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2"]


def phantoms(folder: Path, count: int, size: int) -> Pairs:
    return Pairs(folder, count, Generator={"name": "PhantomGenerator", "size": size}, Judge={"name": "MeasuredJudge"})


def arguments(pairs: Pairs, out: str, *overrides: str) -> list[str]:
    given = [f"Global.output_dir={pairs.folder / out}", "Global.chunk=3", "Global.workers=1", *overrides]
    return ["-c", str(pairs.recipe), *(part for one in given for part in ("-o", one))]


def finish(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def rows(folder: Path) -> int:
    """Finished rows so far, of all stages and shards."""
    return sum(file.read_bytes().count(b"\n") for file in folder.glob("shards/*/*.jsonl"))


def wait_for_rows(folder: Path, count: int, running: list[subprocess.Popen]) -> None:
    deadline = time.monotonic() + 300
    while rows(folder) < count:
        assert time.monotonic() < deadline and all(one.poll() is None for one in running)
        time.sleep(0.01)


def check(pairs: Pairs, count: int, figures: bool = False) -> None:
    """Every pair is there once, and everything is what an uninterrupted run leaves."""
    accepted, rejected = pairs.records()
    ids = sorted(pair["id"] for pair in accepted + rejected)
    assert ids == [f"r{number:07d}" for number in range(count)] and len(accepted) > count // 2
    assert final_files(pairs.folder / "out", figures) == final_files(pairs.folder / "whole", figures)
    assert not [file for file in (pairs.folder / "out/images").rglob("*") if ".tmp" in file.name]


# ---------------------------------------------------------------- kill -9

@contextmanager
def ranks(command: list[str], folder: Path, size: int) -> Iterator[list[subprocess.Popen]]:
    """Processes as a launcher starts them, killed at the end."""
    started = [subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                env=os.environ | {"PADDLE_TRAINER_ID": str(rank), "PADDLE_TRAINERS_NUM": str(size)})
               for rank in range(size)]
    try:
        yield started
    finally:
        for one in started:
            one.kill()
            one.wait()


def test_two_killed_ranks_go_on_as_one(tmp_path):
    pairs = phantoms(tmp_path, 16, 224)
    pairs("Global.chunk=16", out="whole")
    with ranks([*TOOL, *arguments(pairs, "out")], tmp_path, 2) as running:
        wait_for_rows(tmp_path / "out", 6, running)
    assert not (tmp_path / "out/pairs.jsonl").exists()
    pairs("Global.chunk=3")
    check(pairs, 16)


def descendants(pid: int) -> list[int]:
    """Processes started by ``pid``, directly or not."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError:
            pass  # it has just ended
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


@pytest.mark.slow
def test_two_hundred_pairs_on_two_ranks_killed_several_times(tmp_path):
    pairs = phantoms(tmp_path, 200, 224)
    finish([*TOOL, *arguments(pairs, "whole")], tmp_path)
    command = [*LAUNCH, "--log_dir", str(tmp_path / "log"), *TOOL[1:], *arguments(pairs, "out")]
    for kills in range(4):
        launcher = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_rows(tmp_path / "out", 80 * (kills + 1), [launcher])
        for pid in [launcher.pid, *descendants(launcher.pid)]:
            os.kill(pid, signal.SIGKILL)
        launcher.wait()
    assert not (tmp_path / "out/pairs.jsonl").exists()
    finish(command, tmp_path)
    check(pairs, 200, figures=True)
    drawn = [(row["pair"], row["attempt"]) for file in (tmp_path / "out").glob("shards/*/drawn.jsonl")
             for row in records(file)]
    assert len(drawn) == len(set(drawn)) == pairs.metrics()["drawings"]


def test_a_second_program_is_refused(tmp_path):
    pairs = phantoms(tmp_path, 40, 224)
    with ranks([*TOOL, *arguments(pairs, "out")], tmp_path, 1) as running:
        wait_for_rows(tmp_path / "out", 3, running)
        for other in ((), ("Global.shards=2",)):
            with pytest.raises(UserError, match="另一个程序正在写"):
                pairs(*other)


# ---------------------------------------------------------------- a full disk

@pytest.mark.parametrize("what", ["rows", "images"])
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, what):
    pairs = phantoms(tmp_path, 12, 32 if what == "rows" else 96)
    pairs(out="whole")
    images = sorted(file.stat().st_size for file in (tmp_path / "whole/images").rglob("*.png"))
    drawn = (tmp_path / "whole/shards/0-of-1/drawn.jsonl").stat().st_size
    size = images[-1] - 1 if what == "images" else drawn - 100
    assert what == "images" or images[-1] < size
    done = subprocess.run([*TOOL, *arguments(pairs, "out")], cwd=tmp_path, capture_output=True, text=True,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert "无法写入" in line and "磁盘空间" in line and (".png" if what == "images" else ".jsonl") in line
    for file in (tmp_path / "out").glob("shards/*/*.jsonl"):
        assert all(json.loads(text) for text in file.read_text(encoding="utf-8").splitlines())
    pairs()
    check(pairs, 12)


# ---------------------------------------------------------------- a server that goes away

@pytest.fixture
def server():
    """Draws noise from the seed."""

    def respond(handler, body, nth):
        data = io.BytesIO()
        Image.fromarray(picture(body["seed"])).resize((32, 32), Image.Resampling.NEAREST).save(data, "PNG")
        handler.answer(200, {"image": base64.b64encode(data.getvalue()).decode()})

    made = Server(respond, lambda body: body["seed"])
    yield made
    made.stop()


def test_an_endpoint_that_goes_away_stops_the_run_and_another_goes_on(tmp_path, server, endpoint_environment):
    pairs = Pairs(tmp_path, 24, Generator={"name": "EndpointGenerator", "url": server.root, "protocol": "json",
                                           "size": 32, "retries": 9})
    pairs(out="whole")
    drawn = len(server.asked)
    server.asked = []
    threading.Thread(target=stop_after, args=(server, 10), daemon=True).start()
    with pytest.raises(UserError, match="连不上"):
        pairs("Global.chunk=4")
    assert 0 < rows(tmp_path / "out") < drawn
    again = Server(server.respond, server.name)
    try:
        pairs(f"Generator.url={again.root}")  # a server may move
    finally:
        again.stop()
    outs = [(pair["id"], pair["seed"], pair["attempts"], (tmp_path / out / pair["image"]).read_bytes())
            for out in ("out", "whole") for pair in pairs.records(out)[0]]
    assert len(outs) > 24 and outs[:len(outs) // 2] == outs[len(outs) // 2:]


def stop_after(server: Server, count: int) -> None:
    """Let the server vanish once it has been asked ``count`` times."""
    while len(server.asked) < count:
        time.sleep(0.001)
    server.stop()


def test_a_broken_line_of_the_reports_is_named(tmp_path):
    pairs = Pairs(tmp_path, 2)
    (tmp_path / "reports.jsonl").write_text(reports(2) + '{"id": "cut', encoding="utf-8")
    with pytest.raises(UserError, match=r"reports\.jsonl:3：不是有效的 JSON"):
        pairs()
