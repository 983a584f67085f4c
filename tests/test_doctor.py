"""The doctor: every check says what is so and what to do, a broken Paddle is a finding, and nothing is touched."""

from __future__ import annotations

import ast
import json
import os
import runpy
import shutil
import subprocess
import sys
import textwrap
import types
import venv
from importlib import invalidate_caches
from pathlib import Path

import pytest
from recipes import ROOT

from paddle_cxr import cpu
from paddle_cxr.doctor import data_sets, font, machine, packages, paddle_build, probing, requirements, run, speed
from paddle_cxr.doctor.line import BAD, GOOD, NOTE, Line
from paddle_cxr.doctor.probing import Told
from paddle_cxr.plots.style import FONT_FILE

CPU_FACTS = {"version": "3.3.1", "seconds": 1.3, "cuda": None, "gpus": [], "gflops": 180.0, "gflops_core": 95.0,
             "cpu_learns": True}


def only(lines) -> Line:
    (line,) = lines
    return line


def distribution(folder: Path, name: str, version: str, *requires: str) -> Path:
    """What pip leaves of a package, without the package."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {one}" for one in requires)]
    (info / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return info


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A folder of packages that is looked into first."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    invalidate_caches()
    return folder


# --- what setup.py asks for -----------------------------------------------------------------------------------------

def test_requirements_are_those_that_setup_would_use(monkeypatch):
    asked = {}
    fake = types.SimpleNamespace(setup=lambda **keywords: asked.update(keywords), find_packages=lambda **_: [])
    monkeypatch.setitem(sys.modules, "setuptools", fake)
    runpy.run_path(str(ROOT / "setup.py"))
    assert requirements.declared() == {"": asked["install_requires"], **asked["extras_require"]}


def test_every_extra_says_what_it_is_for():
    extras = {extra for extra, lines in requirements.declared().items() if extra and lines}
    assert set(packages.USES) == extras - {"cpu", "gpu"}


def test_requirements_of_an_installed_package_without_its_setup(site, tmp_path):
    distribution(site, "paddle_cxr", "0.1.0", "numpy>=1.26", 'pydicom>=3; extra == "dicom"')
    assert requirements.declared(tmp_path / "setup.py") == {"": ["numpy>=1.26"], "dicom": ["pydicom>=3"]}
    (tmp_path / "setup.py").write_text("setup(install_requires=read('requirements.txt'))", encoding="utf-8")
    assert "" in requirements.declared(tmp_path / "setup.py")


def test_unmet_requirements(site):
    distribution(site, "films", "1.2", "ribs>=2", 'hearts; extra == "all"', 'lungs; python_version < "3"')
    distribution(site, "ribs", "1.9")
    assert requirements.unmet(["films>=1", 'wings; sys_platform == "amiga"']) == []
    wrong = requirements.unmet(["films>=2", "Bones_x"])
    assert list(map(str, wrong)) == ["films 1.2（需要 >=2）", "Bones_x（没有安装）"]
    assert [one.name for one in requirements.unmet(["films"], deep=True)] == ["ribs"]
    assert {one.name for one in requirements.unmet(["films[all]"], deep=True)} == {"ribs", "hearts"}


def test_requirements_that_go_round_in_a_circle_end(site):
    distribution(site, "egg", "1", "hen")
    distribution(site, "hen", "1", "egg")
    assert requirements.unmet(["egg"], deep=True) == []


@pytest.mark.parametrize(("name", "same"), [("huggingface_hub", "huggingface-hub"), ("A.b__c", "a-b-c")])
def test_names_are_compared_in_one_spelling(name, same):
    assert requirements.same_name(name) == same


# --- Paddle ---------------------------------------------------------------------------------------------------------

def broken_paddle(folder: Path, body: str) -> None:
    (folder / "paddle").mkdir()
    (folder / "paddle/__init__.py").write_text(textwrap.dedent(body), encoding="utf-8")


@pytest.mark.parametrize(("body", "said"), [
    ("raise ImportError('libcudart.so.11.0: cannot open shared object file')", "libcudart"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
    ("import sys; sys.exit(7)", "7"),
    ("raise KeyError('中文')", "中文"),
])
def test_however_paddle_breaks_the_reason_is_told(tmp_path, monkeypatch, body, said):
    broken_paddle(tmp_path, body)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told = probing.ask(60)
    assert "version" not in told.facts and said in told.failure and not told.late
    assert only(line for line in paddle_build.check(told) if "导入失败" in line.text).state == BAD


def test_a_paddle_that_does_not_come_back_is_left(tmp_path, monkeypatch):
    broken_paddle(tmp_path, "import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told = probing.ask(1)
    assert told.late and told.seconds < 30
    assert "再运行一次" in paddle_lines(told)["Paddle"].advice


def test_the_real_paddle_is_good():
    told = probing.ask(300)
    assert told.failure is None and told.facts["cpu_learns"] is True and told.facts["gflops"] > 0
    lines = paddle_lines(told)
    assert lines["Paddle"].state in (GOOD, NOTE) and lines["Paddle 计算"].state == GOOD


def test_a_file_called_paddle_in_the_current_folder_is_not_taken_for_paddle(tmp_path, monkeypatch):
    (tmp_path / "paddle.py").write_text("raise SystemError('mine')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert "mine" not in str(probing.ask(1).failure)


def paddle_lines(told: Told) -> dict[str, Line]:
    return {line.check: line for line in paddle_build.check(told)}


@pytest.mark.parametrize(("version", "state", "said"), [
    ("3.3.1", GOOD, ""), ("3.0.0", GOOD, ""), ("3.2.0.post126", GOOD, ""), ("2.6.2", NOTE, "2.6 能用"),
    ("2.6.1.post117", BAD, "太旧"), ("2.4.0", BAD, "太旧"), ("3.4.0", NOTE, "比试过的版本"), ("0.0.0", BAD, "太旧")])
def test_versions_of_paddle(version, state, said):
    line = paddle_lines(Told({**CPU_FACTS, "version": version}))["Paddle"]
    assert line.state == state and said in line.advice and version in line.text


@pytest.mark.parametrize(("failure", "said"), [
    ("ModuleNotFoundError: No module named 'paddle'", '".[cpu]"'),
    ("ImportError: numpy.core.multiarray failed to import", "NumPy 太新"),
    ("ImportError: /lib/libc.so.6: version `GLIBC_2.29' not found", "系统库"),
    ("ImportError: libcudnn.so.8: cannot open shared object file", "CUDA"),
    ("进程被信号 SIGILL 终止", "AVX"),
    ("ModuleNotFoundError: No module named 'decorator'", "依赖"),
    ("进程被信号 SIGKILL 终止", "内存"),
    ("SomethingElse: x", "卸载"),
])
def test_a_failed_import_has_a_way_out(failure, said):
    line = paddle_lines(Told(failure=failure))["Paddle"]
    assert line.state == BAD and said in line.advice


def test_two_builds_at_once_are_told(site):
    distribution(site, "paddlepaddle-gpu", "3.2.0")
    distribution(site, "paddlepaddle", "3.2.0")
    first = next(iter(paddle_build.check(Told(CPU_FACTS))))
    assert first.state == NOTE and "互相覆盖" in first.text


def test_a_second_numpy_is_told_with_both_places(site):
    distribution(site, "numpy", "0.9")
    line = only(line for line in paddle_build.check(Told(CPU_FACTS)) if line.check == "numpy")
    assert line.state == NOTE and str(site) in line.text


@pytest.mark.parametrize(("facts", "has_gpu", "state", "said"), [
    ({"cuda": "12.6", "gpus": [{"name": "V100", "gib": 16.0}]}, True, GOOD, "V100（16.0 GiB）"),
    ({"cuda": "12.6", "gpus": [{"name": "T4", "gib": 4.0}]}, True, NOTE, "T4"),
    ({"cuda": "12.6", "gpus": []}, False, NOTE, "看不到 GPU"),
    ({}, True, NOTE, "CPU 版"),
    ({}, False, GOOD, "没有"),
])
def test_the_gpu(monkeypatch, facts, has_gpu, state, said):
    monkeypatch.setattr(paddle_build, "has_gpu", lambda: has_gpu)
    line = paddle_lines(Told({**CPU_FACTS, **facts}))["GPU"]
    assert line.state == state and said in line.text


@pytest.mark.parametrize(("told", "state"), [
    (Told(CPU_FACTS), GOOD), (Told(CPU_FACTS, failure="进程被信号 SIGSEGV 终止"), BAD),
    (Told(CPU_FACTS, late=True), NOTE), (Told({**CPU_FACTS, "cpu_learns": False}), BAD)])
def test_a_paddle_that_loads_must_also_compute(told, state):
    assert paddle_lines(told)["Paddle 计算"].state == state


def test_nothing_is_said_of_a_gpu_that_could_not_be_asked():
    lines = paddle_lines(Told({"version": "3.2.0", "seconds": 4.0}, failure="OSError: CUDA error(35)"))
    assert lines["Paddle 计算"].state == BAD and "GPU" not in lines


# --- speed ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("gflops", "core", "state", "said"), [
    (180.0, 95.0, GOOD, ""), (40.0, 95.0, NOTE, "正忙"), (20.0, 11.0, NOTE, "处理器慢")])
def test_speed(monkeypatch, gflops, core, state, said):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(speed, "available_cores", lambda: 2)
    monkeypatch.setattr(speed, "is_amd", lambda: False)
    line = only(speed.check(Told({**CPU_FACTS, "gflops": gflops, "gflops_core": core}), lambda _: None))
    assert line.state == state and said in line.advice


@pytest.mark.parametrize(("setting", "without", "state", "said"), [
    ("5", 36.0, GOOD, "2.6 倍"), ("5", 94.0, NOTE, "没有看出作用"), ("5", None, GOOD, "没有比较"),
    ("4", 36.0, NOTE, "用户设置")])
def test_the_slow_path_on_amd(monkeypatch, setting, without, state, said):
    monkeypatch.setenv(speed.VARIABLE, setting)
    monkeypatch.setattr(speed, "is_amd", lambda: True)
    again = None if without is None else Told({"gflops_core": without})
    line = list(speed.check(Told(CPU_FACTS), lambda name: again if name == speed.VARIABLE else None))[1]
    assert line.state == state and said in line.text


def test_no_speed_without_paddle():
    assert list(speed.check(Told(failure="x"), lambda _: None)) == []


def test_amd_is_read_from_the_system(tmp_path):
    (tmp_path / "cpuinfo").write_text("vendor_id : AuthenticAMD\n")
    assert speed.is_amd(tmp_path / "cpuinfo") and not speed.is_amd(tmp_path / "none")


def test_the_product_can_be_measured_without_a_variable(tmp_path, monkeypatch):
    """The package sets the variable again when it is imported: it must be gone when Paddle reads it."""
    broken_paddle(tmp_path, f"import os; raise ImportError('set' if '{speed.VARIABLE}' in os.environ else 'unset')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv(speed.VARIABLE, "5")
    assert "unset" in probing.ask(60, speed.VARIABLE).failure
    assert "unset" not in probing.ask(60).failure


# --- the machine ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("usable", "state", "said"), [(2, GOOD, "2 核"), (1, NOTE, "限制为 1 核")])
def test_cores(monkeypatch, usable, state, said):
    monkeypatch.setattr(cpu, "available_cores", lambda: usable)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    line = machine.cores()
    assert line.state == state and said in line.text


@pytest.mark.parametrize(("threads", "ours", "state"), [("2", "", GOOD), ("9", "", NOTE), ("1", "", NOTE),
                                                        ("1", "OMP_NUM_THREADS", GOOD)])
def test_threads(monkeypatch, threads, ours, state):
    monkeypatch.setattr(cpu, "available_cores", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setenv("PADDLE_CXR_ENV", ours)
    assert only(machine.threads()).state == state


def test_a_flag_that_crashes_training_is_told(monkeypatch):
    monkeypatch.setenv("FLAGS_use_mkldnn", "1")
    assert "unset FLAGS_use_mkldnn" in list(machine.threads())[1].advice


@pytest.mark.parametrize(("free", "state"), [(1.0, BAD), (3.0, NOTE), (12.0, GOOD), (None, NOTE)])
def test_memory(monkeypatch, free, state):
    monkeypatch.setattr(machine, "_free_memory", lambda: None if free is None else int(free * machine.GIB))
    assert machine.memory().state == state


def test_the_limit_of_a_container_is_read(tmp_path):
    assert machine._limit(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    assert machine._limit(tmp_path) is None
    for name, text in (("memory.max", "1000\n"), ("memory.current", "800\n"),
                       ("memory.stat", "anon 1\ninactive_file 500\n")):
        (tmp_path / name).write_text(text)
    assert machine._limit(tmp_path) == (1000, 300)


@pytest.mark.parametrize(("free", "state"), [(0.1, BAD), (1.0, NOTE), (50.0, GOOD)])
def test_disk(monkeypatch, tmp_path, free, state):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=int(free * machine.GIB)))
    assert next(iter(machine.disks(tmp_path))).state == state


def test_a_folder_that_cannot_be_written_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda *_: False)
    lines = [line for line in machine.disks(tmp_path) if "不能写" in line.text]
    assert {line.state for line in lines} == {BAD, NOTE} and len(lines) == 4


@pytest.mark.parametrize("name", ["output", "cache"])
def test_what_stands_where_a_folder_should_be_is_told(tmp_path, name):
    """Looked past, it would be found out by the first training."""
    (tmp_path / name).write_text("")
    line = only(line for line in machine.disks(tmp_path) if str(tmp_path) in line.text)
    assert line.state == BAD and "是文件" in line.text and line.advice
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(tmp_path / "gone")
    line = only(line for line in machine.disks(tmp_path) if str(tmp_path) in line.text)
    assert line.state == BAD and f"它指的 {tmp_path / 'gone'} 不在" in line.text and line.advice
    (tmp_path / "gone").mkdir()
    assert not [line for line in machine.disks(tmp_path) if str(tmp_path) in line.text]


@pytest.mark.parametrize(("gib", "gpu", "state"), [(0.0625, True, NOTE), (0.0625, False, GOOD), (8, True, GOOD)])
def test_shared_memory(monkeypatch, gib, gpu, state):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: types.SimpleNamespace(total=int(gib * machine.GIB)))
    monkeypatch.setattr(machine, "has_gpu", lambda: gpu)
    assert only(machine.shared_memory()).state == state


@pytest.mark.parametrize(("says", "state", "text"), [
    ("echo 'Tesla V100, 16160, 15000, 550.54'", GOOD, "14.6 GiB 可用，共 15.8 GiB"),
    ("echo 'Tesla V100, 16160, 1000, 550.54'", NOTE, "1.0 GiB 可用"),
    ("echo 'GB10, [N/A], [N/A], 580'", NOTE, "没有说出显存"),
    ("echo 'NVIDIA-SMI has failed'; exit 9", NOTE, "has failed"),
])
def test_memory_of_the_gpu(monkeypatch, tmp_path, says, state, text):
    nvidia_smi(tmp_path, monkeypatch, says)
    line = only(machine.graphics_memory())
    assert line.state == state and text in line.text


def nvidia_smi(folder: Path, monkeypatch, says: str) -> None:
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{says}\n")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_a_card_that_is_only_named_counts(monkeypatch, tmp_path):
    """Windows and WSL2 have no /dev/nvidia0: the doctor told its memory, and then that there is none."""
    nvidia_smi(tmp_path, monkeypatch, "echo asked >> \"$0.log\"; echo 'RTX 4060, 8188, 7900, 560.94'")
    assert only(machine.graphics_memory()).state == GOOD and machine.has_gpu()
    line = paddle_lines(Told(CPU_FACTS))["GPU"]
    assert line.state == NOTE and "Paddle 是 CPU 版" in line.text
    assert (tmp_path / "nvidia-smi.log").read_text() == "asked\n"


@pytest.mark.parametrize("says", ["echo 'No devices were found'", "echo 'NVIDIA-SMI has failed, so'; exit 9"])
def test_a_program_that_names_no_card_is_no_card(monkeypatch, tmp_path, says):
    if any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("this machine has one")
    nvidia_smi(tmp_path, monkeypatch, says)
    assert not machine.has_gpu()


# --- packages, font -------------------------------------------------------------------------------------------------

def test_python(monkeypatch):
    assert packages.python().state in (GOOD, NOTE)
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    assert packages.python().state == NOTE
    monkeypatch.setattr(packages.struct, "calcsize", lambda _: 4)
    assert packages.python().state == BAD


def test_required_packages(site, monkeypatch):
    assert packages.required().state == GOOD
    distribution(site, "pillow", "9.5.0")
    line = packages.required()
    assert line.state == NOTE and "pillow 9.5.0（需要 >=10）" in line.text
    monkeypatch.setattr(packages, "declared", lambda: {"": ["not-there-at-all"]})
    assert packages.required().state == BAD


def test_optional_packages(site, monkeypatch):
    monkeypatch.setattr(packages, "declared", lambda: {
        "": [], "cpu": ["paddlepaddle"], "dicom": ["not-there"], "nlp": ["words==3", "numpy<1"], "new": ["films"]})
    distribution(site, "words", "3")
    distribution(site, "films", "1")
    lines = {line.check: line for line in packages.optional()}
    assert set(lines) == {"可选 dicom", "可选 nlp", "可选 new"}
    assert lines["可选 dicom"].state == GOOD and '".[dicom]"' in lines["可选 dicom"].text
    assert lines["可选 nlp"].state == NOTE and "需要 <1" in lines["可选 nlp"].text
    assert lines["可选 new"].state == GOOD


def test_the_font(monkeypatch, tmp_path):
    assert font.check().state == GOOD and font.FONT_FILE == FONT_FILE
    monkeypatch.setattr(font, "SAMPLE", "胸\U0001fac1")
    assert font.check().state == BAD
    (tmp_path / "cut.otf").write_bytes(font.FONT_FILE.read_bytes()[:100])
    monkeypatch.setattr(font, "FONT_FILE", tmp_path / "cut.otf")
    assert font.check().state == BAD
    monkeypatch.setattr(font, "FONT_FILE", tmp_path / "none.otf")
    assert font.check().state == BAD


# --- data sets ------------------------------------------------------------------------------------------------------

@pytest.fixture
def project(tmp_path) -> Path:
    """Three recipes, one data set that is there, one empty folder, one absent, one that nobody names."""
    for name, text in {"a": "{name: ImageFolder, root: data/there}", "b": "{name: CheXpert, root: data/empty}",
                       "c": "{name: ImageFolder, root: data/there}", "d": "{name: Nobody, root: data/x}"}.items():
        file = tmp_path / f"configs/{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"DataLoader:\n  Source: {text}\n"
                        "fallback:\n  DataLoader: {Source: {name: ImageFolder, root: data/fallback}}\n")
    (tmp_path / "configs/e.yaml").write_text("Data: [{source: {name: IuXrayPairs, root: data/absent}}]\n")
    (tmp_path / "configs/broken.yaml").write_text("a: b: c\n")
    (tmp_path / "data/there/COVID").mkdir(parents=True)
    (tmp_path / "data/empty").mkdir()
    (tmp_path / "data/other.zip").touch()
    return tmp_path


def test_data_sets_found_and_not(project):
    found = {line.text: line for line in data_sets.check(project)}
    texts = list(found)
    assert texts[0] == "data/there：在，a.yaml、c.yaml 会用它"
    assert texts[1] == "data/empty：数据文件夹 data/empty 是空的" and found[texts[1]].state == NOTE
    assert "data/absent" in texts[2] and found[texts[2]].state == GOOD and "data/fallback" not in texts[2]
    assert "other.zip" in texts[3] and "root=data/other.zip" in found[texts[3]].advice


def test_a_recipe_may_name_the_whole_data_folder(project):
    (project / "configs/whole.yaml").write_text("Source: {name: ImageFolder, root: data/}\n")
    assert any("other.zip" in line.text for line in data_sets.check(project))


def test_a_data_set_that_may_not_be_read_hides_no_other(project, monkeypatch):
    listdir = os.listdir

    def refuse(path="."):  # chmod does not stop root
        if Path(path).name == "there":
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    texts = [line.text for line in data_sets.check(project)]
    assert "data/empty：数据文件夹 data/empty 是空的" in texts
    assert any(text.startswith("data/there：无法读取文件夹 data/there（Permission denied）") for text in texts)


def test_the_recipes_of_the_project_name_data_sets():
    places = data_sets.named_by_recipes(ROOT / "configs")
    assert {"data/chest3", "data/CheXpert-v1.0-small", "data/mimic-cxr-jpg"} <= set(places)
    assert "resnet50.yaml" in places["data/chest3"].recipes


# --- as a whole -----------------------------------------------------------------------------------------------------

def test_a_check_that_fails_itself_does_not_stop_the_others():
    def bad():
        yield Line("x", GOOD, "first")
        raise ValueError("oops")

    lines = list(run._guarded("x", bad))
    assert [line.state for line in lines] == [GOOD, NOTE] and "oops" in lines[1].text


def test_a_machine_that_can_start_no_other_process_is_told_the_rest(monkeypatch, tmp_path):
    def none_left(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(probing.subprocess, "Popen", none_left)
    lines = list(run.examine(tmp_path))
    paddle = only(line for line in lines if line.check == "Paddle")
    assert paddle.state == BAD and "Cannot allocate memory" in paddle.text and "内存" in paddle.advice
    assert lines.index(paddle) < next(number for number, line in enumerate(lines) if line.check.startswith("可选"))


def test_a_line_says_its_state_first_and_the_advice_under_it():
    assert str(Line("内存", GOOD, "16 GiB")) == "[好]   内存：16 GiB"
    assert str(Line("内存", NOTE, "2 GiB", "关掉别的程序")) == "[注意] 内存：2 GiB\n       → 关掉别的程序"


def test_a_broken_paddle_is_a_line_and_no_traceback(tmp_path, tool):
    broken_paddle(tmp_path, "raise ImportError('libpaddle.so: undefined symbol')")
    done = tool("doctor", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1 and done.stderr == "" and "Traceback" not in done.stdout
    assert "[坏]   Paddle" in done.stdout and "undefined symbol" in done.stdout and "先按“坏”的各行" in done.stdout


def test_it_says_everything_writes_json_and_leaves_the_rest_alone(tmp_path, tool):
    """Nothing is written but the JSON, no connection is opened, and everything that needs a line has one."""
    guard = tmp_path / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(textwrap.dedent(f"""
        import socket
        def refuse(self, address):
            open({str(tmp_path / "connected")!r}, "a").write(repr(address))
            raise OSError("no network in this test")
        socket.socket.connect = socket.socket.connect_ex = refuse
    """), encoding="utf-8")
    home = tmp_path / "home"
    home.mkdir()
    done = tool("doctor", "--json", "report.json", cwd=tmp_path,
                env={"PYTHONPATH": str(guard), "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode in (0, 1), done.stderr
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["guard", "home", "report.json"]
    assert [file for file in home.rglob("*") if file.is_file()] == []  # Paddle makes its empty cache folder
    assert not (tmp_path / "connected").exists()
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert {line["check"] for line in report["lines"]} >= {
        "Python", "必需的包", "Paddle", "处理器", "线程", "内存", "磁盘", "中文字体", "数据集", "可选 dicom"}
    assert all(line["state"] in (GOOD, NOTE, BAD) for line in report["lines"])
    assert all(line["advice"] for line in report["lines"] if line["state"] != GOOD)
    assert report["counts"][BAD] == done.returncode == 0, done.stdout
    assert report["seconds"] < 60  # 20 on a machine that is not busy with other tests


def test_a_python_with_nothing_installed_is_told_what_to_do(tmp_path):
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(tmp_path / "bare/bin/python"), str(ROOT / "tools/doctor.py")], env=environment,
                          capture_output=True, text=True, timeout=240)
    assert done.returncode == 1 and done.stderr == "" and "Traceback" not in done.stdout
    for said in ("[坏]   必需的包", "[坏]   Paddle：没有安装", '".[cpu]"', "[好]   磁盘"):
        assert said in done.stdout, done.stdout


def test_what_an_encoding_lacks_is_escaped(tmp_path):
    """GBK, of a Chinese Windows, has Chinese and stays, but not all that is printed."""
    broken_paddle(tmp_path, "raise ImportError('x')")
    done = subprocess.run([sys.executable, str(ROOT / "tools/doctor.py"), "--json", "片³.json"], cwd=tmp_path,
                          env=os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONIOENCODING": "gbk"},
                          capture_output=True, text=True, encoding="gbk", timeout=240)
    assert done.returncode == 1 and done.stderr == "" and r"写到 片\xb3.json" in done.stdout


def test_names_that_are_not_utf8_are_told_and_written(tmp_path, project_copy):
    """They came out of an archive packed elsewhere; neither the terminal nor the JSON takes them as they are."""
    try:
        os.mkdir(os.fsencode(project_copy / "data") + b"/\xb2\xe2")
    except OSError:
        pytest.skip("this file system has only UTF-8 names")
    broken_paddle(tmp_path, "raise ImportError('x')")
    done = subprocess.run([sys.executable, str(project_copy / "tools/doctor.py"), "--json", str(tmp_path / "r.json")],
                          env=os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONIOENCODING": "utf-8"},
                          capture_output=True, text=True, encoding="utf-8", timeout=240)
    assert done.returncode == 1 and done.stderr == "" and r"\udcb2\udce2" in done.stdout
    lines = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["lines"]
    assert any("\udcb2" in line["text"] for line in lines)


@pytest.fixture
def project_copy(tmp_path) -> Path:
    """A checkout of one's own, to put something under its ``data/``."""
    for name in ("paddle_cxr", "tools", "configs"):
        shutil.copytree(ROOT / name, tmp_path / "copy" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.py", tmp_path / "copy")
    (tmp_path / "copy/data").mkdir()
    return tmp_path / "copy"


def test_json_where_nothing_can_be_written(tmp_path, tool):
    broken_paddle(tmp_path, "raise ImportError('x')")
    done = tool("doctor", "--json", "/proc/report.json", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 2 and done.stderr.startswith("错误：无法写入 /proc/report.json")


def test_a_python_that_is_too_old_is_told_so():
    """It can read the file so far, and gets no further."""
    source = (ROOT / "tools/doctor.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 7))
    code = "import sys, runpy; sys.version_info = (3, 8, 18); runpy.run_path(sys.argv[1], run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code, str(ROOT / "tools/doctor.py")], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("[坏] Python：3.8.18，本项目需要 3.10 以上")


def test_the_faq_quotes_what_is_really_said(monkeypatch):
    faq = (ROOT / "docs/faq.md").read_text(encoding="utf-8")
    monkeypatch.setattr(cpu, "available_cores", lambda: 2)
    monkeypatch.setattr(speed, "available_cores", lambda: 2)
    monkeypatch.setattr(speed, "is_amd", lambda: True)
    monkeypatch.setattr(paddle_build, "installed_version", {}.get)
    lines = [*paddle_build.check(Told(failure="ModuleNotFoundError: No module named 'paddle'"))]
    monkeypatch.setattr(paddle_build, "installed_version", {"paddlepaddle": "2.6.2"}.get)
    lines += paddle_build.check(Told(failure="ImportError: numpy.core.multiarray failed to import"))
    monkeypatch.setattr(paddle_build, "installed_version", {"paddlepaddle": "3.3.1"}.get)
    lines += paddle_build.check(Told(late=True, seconds=15.0))
    for name, value in {"OMP_NUM_THREADS": "1", "KMP_BLOCKTIME": "0", "MKL_DEBUG_CPU_TYPE": "5"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PADDLE_CXR_ENV", "KMP_BLOCKTIME")
    lines += machine.threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    told = Told({**CPU_FACTS, "gflops": 41.0, "gflops_core": 95.0})
    lines += speed.check(told, lambda _: Told({"gflops_core": 37.0}))
    assert len(lines) == 6
    for line in lines:
        assert str(line) in faq, line
