"""Work on Ray is the work done here: same results, same errors, whatever is killed meanwhile.

The slow tests start a cluster of two nodes on this machine, each with its own processes and object store.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from synthesis.ray_tasks import prepare, work

from paddle_cxr.data.phantom import CLASSES, draw_image
from paddle_cxr.data.spoil import SPOILINGS
from paddle_cxr.errors import UserError
from paddle_cxr.processes import in_order
from paddle_cxr.synthesis import engines, ray_engine
from paddle_cxr.synthesis.encoders import RadDino
from paddle_cxr.synthesis.engines import EngineKeys, engine_named, workers_for
from paddle_cxr.synthesis.quality.bank import probe_of, write_bank

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def short(monkeypatch):
    """A folder for Ray's sockets, whose paths may not be long, and the way to this test's modules; ends Ray."""
    if importlib.util.find_spec("ray") is None:  # not imported before the engine has told it to be quiet
        pytest.skip("needs .[ray]")
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    monkeypatch.setenv("RAY_TMPDIR", folder)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # of this test's Ray alone, so that none is looked for or left at home
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield folder
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(short):
    """Two nodes with two processors each, and little room for results; the second can be killed."""
    ray_engine._import_ray()
    from ray.cluster_utils import Cluster

    room = {"num_cpus": 2, "object_store_memory": 100_000_000}
    made = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **room})
    made.second = made.add_node(**room)
    made.wait_for_nodes()
    yield made
    sys.modules["ray"].shutdown()
    made.shutdown()


def kill(node):
    """As if its plug were pulled: the workers' parent is gone, and they end by themselves."""
    for processes in node.all_processes.values():
        for one in processes:
            one.process.kill()


def recipe(tmp_path, **settings):
    file = tmp_path / "recipe.yaml"
    base = {"Global": {"output_dir": "out", "reports": 60, "seed": 3, "chunk": 10, "workers": 2} | settings,
            "_base_": str(ROOT / "configs/synthesis/reports.yaml")}
    file.write_text(yaml.safe_dump(base), encoding="utf-8")
    return file


def command(file, out, *overrides):
    parts = [part for one in (f"Global.output_dir={out}", *overrides) for part in ("-o", one)]
    return [sys.executable, str(ROOT / "tools/synthesize.py"), "-c", str(file), *parts]


def reports(folder):
    file = folder / "reports.jsonl"
    return file.read_bytes() if file.exists() else b""


def processes_of(folder):
    """What Ray left running: its processes name their session's folder."""
    found = subprocess.run(["pgrep", "-f", f"{folder}/"], capture_output=True, text=True).stdout.split()
    return {int(pid) for pid in found}


def test_reports_are_the_same_to_the_byte(short, tmp_path, capfd):
    from argparse import Namespace

    from paddle_cxr.synthesis.run import synthesize

    file = recipe(tmp_path)
    for engine in ("local", "ray"):
        synthesize(Namespace(config=file, debug=False, override=[
            f"Global.output_dir={tmp_path / engine}", f"Global.engine={engine}"]))
    assert reports(tmp_path / "ray") == reports(tmp_path / "local") != b""
    assert not (tmp_path / "ray/rejected.jsonl").exists()
    assert "ray" not in capfd.readouterr().err.lower()  # quiet


def test_a_ray_that_is_not_installed_is_said_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r'engine: ray 需要 Ray.*pip install -e "\.\[ray\]"'):
        list(engine_named("ray")(work, range(3), 1, prepare))


def test_tasks_are_handed_over_in_windows_when_they_are_large(monkeypatch):
    monkeypatch.setattr(ray_engine, "WINDOW", 10_000)
    windows = list(ray_engine._windows((bytes(1000) for _ in range(30)), 1))
    assert list(map(len, windows)) == [10, 10, 10]
    assert list(map(len, ray_engine._windows((bytes(1000) for _ in range(30)), 5))) == [20, 10]  # 4 a worker at least
    assert list(map(len, ray_engine._windows(range(500), 2))) == [500]
    assert not list(ray_engine._windows([], 2))


@pytest.mark.parametrize(("engine", "gpus", "wanted", "many", "workers"), [
    ("local", 0, "auto", True, 8), ("local", 0, "auto", False, 1), ("local", 0, 3, True, 3), ("local", 0, 3, False, 1),
    ("ray", 0, "auto", True, "auto"), ("ray", 0, "auto", False, 1), ("ray", 0, 3, False, 3),
    ("ray", 1, "auto", False, "auto"), ("ray", 0.5, "auto", False, "auto")])
def test_how_many_processes(monkeypatch, engine, gpus, wanted, many, workers):
    monkeypatch.setattr(engines, "available_cores", lambda: 16)
    assert workers_for(EngineKeys(engine=engine, ray_num_gpus=gpus), wanted, many, ranks=2) == workers


@pytest.mark.slow
@pytest.mark.parametrize(("trouble", "kind", "said"), [
    ("prepare", UserError, "^模型文件夹坏了"), ("user", UserError, "^第 5 个坏了（broken）$"),
    ("bug", LookupError, "a bug")])
def test_errors_come_through_as_themselves(short, trouble, kind, said):
    with pytest.raises(kind, match=said) as error:
        list(engine_named("ray")(work, range(9), 2, prepare, (trouble,)))
    if kind is LookupError:  # where it was raised
        assert "in work" in str(error.value.__cause__)


@pytest.mark.slow
@pytest.mark.parametrize(("options", "said"), [
    ({"ray_address": "127.0.0.1:9"}, "Global.ray_address：连不上 Ray（127.0.0.1:9"),
    ({"ray_address": "ray://somewhere"}, "Global.ray_address：连不上 Ray（ray://somewhere"),
    ({"ray_num_gpus": 1000}, "没有一个节点放得下一个工作进程（CPU 1、GPU 1000）")])
def test_a_cluster_that_is_not_there_or_too_small_is_said_in_one_line(short, options, said):
    with pytest.raises(UserError) as error:
        list(engine_named("ray", **options)(work, range(9), 2, prepare))
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.slow
def test_pictures_in_windows_are_as_here_and_end_early_cleanly(short, monkeypatch):
    monkeypatch.setattr(ray_engine, "WINDOW", 4_000_000)
    tasks = [bytes(1_000_000 + i) for i in range(20)]
    wanted = list(in_order(work, tasks, 1, prepare, ("pictures",)))
    assert list(engine_named("ray")(work, iter(tasks), 2, prepare, ("pictures",))) == wanted
    with contextlib.closing(engine_named("ray")(work, iter(tasks), 2, prepare, ("pictures",))) as results:
        assert next(results) == wanted[0]
    assert not processes_of(short)


@pytest.mark.slow
def test_killed_it_leaves_no_process_and_goes_on(short, tmp_path):
    file = recipe(tmp_path, reports=4000)
    subprocess.run(command(file, tmp_path / "local"), check=True, capture_output=True)
    line = command(file, tmp_path / "out", "Global.engine=ray")
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: reports(tmp_path / "out").count(b"\n") >= 50, process)
    process.kill()
    process.wait()
    assert 50 <= reports(tmp_path / "out").count(b"\n") < 4000
    wait_for(lambda: not processes_of(short))
    subprocess.run(line, check=True, capture_output=True, timeout=120)
    assert reports(tmp_path / "out") == reports(tmp_path / "local")
    assert not processes_of(short)


@pytest.mark.slow
def test_ctrl_c_is_one_line(short, tmp_path):
    file = recipe(tmp_path, reports=20000)
    process = subprocess.Popen(command(file, tmp_path / "out", "Global.engine=ray"), stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: reports(tmp_path / "out"), process)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors == "已中断（Ctrl-C）\n"
    wait_for(lambda: not processes_of(short))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4], ids=["room left", "full"])
def test_a_lost_node_changes_nothing(cluster, tmp_path, workers):
    """With four workers the node that is left cannot take those of the lost one."""
    file = recipe(tmp_path, reports=600, chunk=3)
    subprocess.run(command(file, tmp_path / "local"), check=True, capture_output=True)
    process = subprocess.Popen(command(file, tmp_path / "ray", "Global.engine=ray", f"Global.workers={workers}",
                                       f"Global.ray_address={cluster.address}"), stdout=subprocess.DEVNULL)
    wait_for(lambda: reports(tmp_path / "ray"), process)
    kill(cluster.second)
    assert 0 < reports(tmp_path / "ray").count(b"\n") < 600
    assert process.wait(timeout=200) == 0
    assert reports(tmp_path / "ray") == reports(tmp_path / "local")


@pytest.mark.slow
def test_a_lost_node_with_results_that_do_not_fit_changes_nothing(cluster):
    """The results wait in an object store that is full, behind one that was lost with its node."""
    done = []
    for one in engine_named("ray", cluster.address)(work, (bytes(i) for i in range(300)), 4, prepare, ("pictures",)):
        done.append(one)
        if len(done) == 20:
            kill(cluster.second)
    assert done == [(i, bytes(1_000_000)) for i in range(300)]


ENCODER = ROOT / "tests/fixtures/dinov2/other"  # RAD-DINO, very small and with weights of no meaning


def finish(line, wait=True):
    """Run a tool; or start it."""
    if wait:
        subprocess.run(line, check=True, capture_output=True, cwd=ROOT)
        return None
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, cwd=ROOT)


@pytest.mark.slow
def test_a_lost_node_leaves_200_pairs_as_they_would_be(cluster, tmp_path):
    """Images drawn, judged and compared on two nodes, one of which is lost while drawing."""
    films = [draw_image(CLASSES[index], seed=5, index=index, size=128) for index in range(3)]
    encoder = RadDino(str(ENCODER))
    write_bank(tmp_path / "bank", encoder.encode(films), encoder.title, ["a", "b", "c"], True, probe_of(encoder))

    def line(out, *overrides):
        options = (f"Global.output_dir={tmp_path / out}", "Global.pairs=200", "Global.attempts=2", "Global.chunk=4",
                   "Generator.size=128", "Global.stages=[reports, draw, judge, similarity]",
                   f"Similarity={{encoder: {{name: RadDino, folder: {ENCODER}}}, bank: {tmp_path / 'bank'}, "
                   "threshold: 0.995}", *overrides)
        return [sys.executable, str(ROOT / "tools/synthesize.py"), "-c", str(ROOT / "configs/synthesis/pairs.yaml"),
                *(part for one in options for part in ("-o", one))]

    def drawn():
        return len(list((tmp_path / "ray").glob("images/**/*.png")))

    finish(line("local", "Global.workers=1"))
    metrics = json.loads((tmp_path / "local/metrics.json").read_text("utf-8"))
    assert metrics["waterfall"]["pairs"] > 150 and metrics["reasons"]["similarity"] > 20
    process = finish(line("ray", "Global.engine=ray", "Global.workers=4", f"Global.ray_address={cluster.address}"),
                     wait=False)
    wait_for(lambda: drawn() >= 8, process, seconds=240)
    kill(cluster.second)
    assert drawn() < 200
    assert process.wait(timeout=500) == 0
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


def contents(folder):
    """What a run came to, with its images."""
    files = [folder / "pairs.jsonl", folder / "rejected.jsonl", folder / "metrics.json",
             *sorted(folder.glob("images/**/*.png"))]
    assert len(files) > 200
    return {file.relative_to(folder): file.read_bytes() for file in files}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["judge", "features"])
def test_a_lost_node_decides_about_a_data_set_as_before(cluster, tmp_path, stage):
    """``tools/analyze.py quality``: the second node is lost while images are judged, or while features are made."""
    rng = np.random.default_rng(0)
    for index in range(240):
        film = draw_image(CLASSES[index % len(CLASSES)], seed=1, index=index, size=160)
        spoil = list(SPOILINGS.values())[index % 24] if index % 24 < len(SPOILINGS) else None
        file = tmp_path / f"films/{index:03d}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(film if spoil is None else spoil(film, film[::-1], rng)).save(file)

    def line(out, *overrides):
        options = (f"Global.output_dir={tmp_path / out}", f"Images.path={tmp_path / 'films'}", "Global.chunk=4",
                   "Global.stages=[judge, similarity]", "Rules.drop=any", "Rules.known_bad=any",
                   f"Similarity={{encoder: {{name: RadDino, folder: {ENCODER}}}, threshold: 0.995}}", *overrides)
        return [sys.executable, str(ROOT / "tools/analyze.py"), "quality",
                "-c", str(ROOT / "configs/synthesis/quality.yaml"),
                *(part for one in options for part in ("-o", one))]

    def done():
        name = {"judge": "*.jsonl", "features": "*.bin"}[stage]
        return any(file.stat().st_size for file in (tmp_path / "ray").glob(f"parts/*/{name}"))

    finish(line("local", "Global.workers=1"))
    process = finish(line("ray", "Global.engine=ray", "Global.workers=4", f"Global.ray_address={cluster.address}"),
                     wait=False)
    wait_for(done, process, seconds=240)
    kill(cluster.second)
    assert not (tmp_path / "ray/keep.csv").exists()
    assert process.wait(timeout=500) == 0
    names = ("keep.csv", "drop.csv", "quality.md", "bank/images.csv", "bank/features.npy", "waterfall.png")
    for name in names:
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes(), name
    dropped = (tmp_path / "local/drop.csv").read_text("utf-8")
    assert "similarity" in dropped.partition("\n")[2] and "judge" in dropped


@pytest.mark.slow
def test_a_cluster_is_reached_from_outside(short, tmp_path):
    """``ray://``: the program that writes is no part of the cluster."""
    pytest.importorskip("grpc")
    ray_engine._import_ray()
    from ray.cluster_utils import Cluster

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False,
                                                            "ray_client_server_port": port})
    try:
        cluster.wait_for_nodes()
        file = recipe(tmp_path)
        subprocess.run(command(file, tmp_path / "local"), check=True, capture_output=True)
        done = subprocess.run(command(file, tmp_path / "ray", "Global.engine=ray",
                                      f"Global.ray_address=ray://127.0.0.1:{port}"),
                              capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        assert reports(tmp_path / "ray") == reports(tmp_path / "local") != b""
    finally:
        cluster.shutdown()


def wait_for(condition, process=None, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, "ended too early"
        assert time.monotonic() < deadline, "too slow"
        time.sleep(0.05)
