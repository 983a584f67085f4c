"""AI Studio, simulated: a Python with the platform's Paddle, its home folder, and what outlives a restart.

The quick tests play a platform with real pip, a stub of Paddle and a folder of wheels instead of an index.  The slow
ones install two real releases of Paddle, prepare a copy of the project on each, and train.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from recipes import ROOT

from paddle_cxr import recipe
from paddle_cxr.aistudio import layout, links, mounted, packages, paddle_there, run
from paddle_cxr.config import read_recipe
from paddle_cxr.doctor.requirements import declared, parsed, same_name
from paddle_cxr.errors import UserError

TOOL = ROOT / "tools/aistudio.py"
LIBRARIES = f"external-libraries/paddle_cxr/python{sys.version_info.major}.{sys.version_info.minor}"


# --- the platform ---------------------------------------------------------------------------------------------------

@pytest.fixture
def nowhere(tmp_path, monkeypatch) -> Path:
    """A machine that has nothing of AI Studio; what a test makes is under the folder."""
    monkeypatch.setattr(layout, "HOME", tmp_path / "home/aistudio")
    monkeypatch.setattr(layout, "JOB", tmp_path / "root/paddlejob/workspace")
    return tmp_path


def test_another_machine_is_told_what_to_do_instead(nowhere):
    with pytest.raises(UserError, match=r"这里不像 AI Studio.*\.\[cpu\].*--home"):
        layout.detect()
    with pytest.raises(UserError, match="--home：没有文件夹"):
        layout.detect(nowhere / "none")


def test_a_notebook_project_is_known_by_its_home(nowhere):
    layout.HOME.mkdir(parents=True)
    here = layout.detect(environment={"WEBIDE_USERID": "7", "PATH": "x"})
    assert here.data == (layout.HOME / "data",) and here.work == layout.HOME / "work"
    assert here.signs == (str(layout.HOME), "环境变量 WEBIDE_USERID")


def test_a_script_task_is_known_by_its_workspace(nowhere):
    layout.JOB.mkdir(parents=True)
    here = layout.detect(environment={})
    assert here.data == (layout.JOB / "train_data/datasets",) and here.work == layout.JOB / "output"


@pytest.mark.parametrize(("place", "fate"), [
    ("work/paddle_cxr", layout.KEPT), ("external-libraries/x", layout.KEPT), ("paddle_cxr", layout.UNSURE),
    ("", layout.UNSURE), ("data", layout.UNSURE), ("data/data123/x", layout.LOST), ("../other", layout.LOST)])
def test_what_a_restart_leaves(tmp_path, place, fate):
    home = tmp_path / "home"
    home.mkdir()
    assert layout.detect(home).keeps(home / place) == fate


@pytest.mark.parametrize(("place", "said"), [
    ("data/data5/fork", "重启后项目就没有了"), ("fork", "加 --link"), ("work/fork", "（会保留）")])
def test_where_the_project_lies_is_told(tmp_path, place, said):
    (tmp_path / place).mkdir(parents=True)
    assert said in "\n".join(run._folders(tmp_path / place, layout.detect(tmp_path)))


# --- data sets ------------------------------------------------------------------------------------------------------

def zipped(file: Path, *names: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return file


CLASSES = ("NORMAL/1.png", "Viral Pneumonia/1.png", "COVID/1.png")


@pytest.mark.parametrize(("names", "source"), [
    (CLASSES, "ImageFolder"),
    ([f"chest3/{name}" for name in CLASSES], "ImageFolder"),
    (["D/COVID/images/1.png", "D/Lung_Opacity/images/1.png", "D/Normal/images/1.png", "D/Viral Pneumonia/images/1.png"],
     "CovidRadiography"),
    (["train/COVID/1.png", "train/NORMAL/1.png"], "ImageFolder"),
    (["stage_2_train_labels.csv", "stage_2_train_images/1.dcm"], "RSNAPneumonia"),
    (["train-rle.csv", "dicom-images-train/a/b/1.dcm"], "SIIMACRPneumothorax"),
    (["Data_Entry_2017.csv", "images/1.png"], "ChestXray14"),
    (["CheXpert-v1.0-small/train.csv", "CheXpert-v1.0-small/valid.csv"], "CheXpert"),
    (["mimic-cxr-2.0.0-metadata.csv.gz", "files/p10/1.jpg"], "MimicCxr"),
    (["train.txt", "test.txt", "train/1.png"], "COVIDxCXR2"),
    (["metadata.csv", "images/1.png"], "CovidChestXray"),
    (["list.csv", "a/1.png"], "ListFile"),
    (["cats/1.png", "dogs/1.png"], None),
])
def test_layouts_are_known_from_names_alone(names, source):
    kind = mounted.known(names)
    assert (kind and kind.source) == source


@pytest.mark.parametrize("kind", [kind for kind in mounted.KINDS if kind.recipe], ids=lambda kind: kind.source)
def test_the_recipe_named_is_made_for_the_layout(kind):
    raw, _ = read_recipe(ROOT / kind.recipe)
    assert raw["DataLoader"]["Source"]["name"] == kind.source
    if kind.source == "ImageFolder":
        for spec in raw["Global"]["classes"]:
            names = {name.lower() for name in (spec["name"], *spec.get("aliases", []))}
            assert any(names & group for group in kind.needs), f"no mark stands for {spec['name']}"


def test_what_is_mounted_is_found(tmp_path):
    data = tmp_path / "data"
    zipped(data / "data1/chest3.zip", *CLASSES)
    (data / "data1/chest3").mkdir()  # unpacked by an earlier run
    for name in CLASSES:
        (data / "data2/chest" / name).parent.mkdir(parents=True)
    (data / "data3").mkdir()
    (data / "data4").mkdir()
    (data / "data4/films.rar").touch()
    (data / "data4/cut.zip").write_bytes(b"PK not a zip")
    with tarfile.open(data / "loose.tar.gz", "w:gz") as archive:
        for name in CLASSES:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    (data / ".hidden").mkdir()
    found = {one.path.relative_to(data).as_posix(): one for one in mounted.find([data, tmp_path / "absent"])}
    assert set(found) == {"data1/chest3.zip", "data2", "data3", "data4/films.rar", "data4/cut.zip", "loose.tar.gz"}
    assert {name for name, one in found.items() if one.kind} == {"data1/chest3.zip", "data2", "loose.tar.gz"}
    assert "打不开" in found["data4/cut.zip"].note and "自己解压" in found["data4/films.rar"].note
    assert found["data3"].note == "空的"


def half_of_a_tar(compression: str) -> bytes:
    """It opens and tells its first names; what comes of the rest is the reader's own kind of error."""
    file, film = io.BytesIO(), np.random.default_rng(0).bytes(100_000)
    with tarfile.open(fileobj=file, mode=f"w:{compression}") as archive:
        for name in CLASSES:
            member = tarfile.TarInfo(name)
            member.size = len(film)
            archive.addfile(member, io.BytesIO(film))
    return file.getvalue()[:len(file.getvalue()) // 2]


@pytest.mark.parametrize(("name", "damage"), [
    ("a.tar.xz", lambda: half_of_a_tar("xz") + b"\xff" * 100_000),  # LZMAError
    ("a.tar.gz", lambda: half_of_a_tar("gz") + b"\xff" * 100_000),  # zlib.error
    ("a.tar.gz", lambda: half_of_a_tar("gz")),  # EOFError
    ("a.zip", lambda: changed_zip("胸片".encode(), b"\xff" * 6)),  # UnicodeDecodeError
    ("a.zip", lambda: changed_zip(b"PK\1\2\x14\3\x14", b"PK\1\2\x14\3\xff")),  # NotImplementedError
])
def test_a_damaged_archive_does_not_hide_the_others(tmp_path, name, damage):
    (tmp_path / "data/data1").mkdir(parents=True)
    (tmp_path / "data/data1" / name).write_bytes(damage())
    zipped(tmp_path / "data/data2/chest3.zip", *CLASSES)
    damaged, whole = mounted.find([tmp_path / "data"])
    assert damaged.kind is None and "打不开（" in damaged.note and "打不开（）" not in damaged.note
    assert whole.kind.source == "ImageFolder"


def changed_zip(old: bytes, new: bytes) -> bytes:
    """A zip with some of its bytes changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("胸片/1.png", b"x")
    assert old in file.getvalue()
    return file.getvalue().replace(old, new)


def test_the_command_told_is_one_that_runs(tmp_path, monkeypatch):
    file = zipped(tmp_path / "data/data1/my films.zip", *CLASSES)
    (found,) = mounted.find([tmp_path / "data"])
    command = mounted.command(found, ROOT)
    assert command == f"python tools/train.py -c configs/resnet50.yaml -o 'DataLoader.Source.root={file}'"
    loaded = recipe.load(ROOT / "configs/resnet50.yaml", [f"DataLoader.Source.root={file}"])
    assert not loaded.notices and loaded.recipe.DataLoader.Source["root"] == str(file)
    assert "root=data/data1/" in mounted.command(found, tmp_path)  # the project is the home folder itself


@pytest.mark.parametrize(("found", "said"), [
    (mounted.Mounted(Path("/d/a.rar"), None, "要先解压"), "要先解压"),
    (mounted.Mounted(Path("/d/a"), None), "不认识它的布局"),
    (mounted.Mounted(Path("/d/a"), mounted.known(["train.txt", "test.txt"])), "docs/data.md"),
])
def test_what_else_is_said_of_a_data_set(found, said):
    assert said in mounted.command(found, ROOT)


# --- links ----------------------------------------------------------------------------------------------------------

def test_outputs_are_linked_into_the_folder_that_is_kept(tmp_path):
    root, here = tmp_path / "project", layout.detect(tmp_path)
    (root / "output").mkdir(parents=True)
    assert [file.name for file in links.link(root, here)] == ["output", "cache"]
    (root / "output/x").touch()
    assert (here.work / "paddle_cxr/output/x").exists()
    assert links.link(root, here) == [] and "不用再链接" in run._linked(root, here)[0]


@pytest.mark.parametrize("place", ["work/paddle_cxr", "work/mine", "external-libraries/fork"])
def test_a_project_in_a_kept_folder_is_not_linked(tmp_path, place):
    """In the place that the guide recommends, the link's target would be the link itself."""
    root, here = tmp_path / place, layout.detect(tmp_path)
    (root / "output").mkdir(parents=True)
    assert links.link(root, here) == [] and "不用再链接" in run._linked(root, here)[0]
    assert not (root / "output").is_symlink() and (root / "output").is_dir() and not (root / "cache").is_symlink()


def test_a_link_to_itself_is_taken_away(tmp_path):
    """Earlier versions made it; nothing could be written there, and Python 3.10 cannot even resolve it."""
    root, here = tmp_path / "work/paddle_cxr", layout.detect(tmp_path)
    root.mkdir(parents=True)
    (root / "output").symlink_to(root / "output")
    assert "output" in "\n".join(run._folders(root, here))
    assert links.link(root, here) == []
    (root / "output").mkdir()


def test_a_link_whose_target_is_gone_is_mended(tmp_path):
    root, here = tmp_path / "project", layout.detect(tmp_path)
    root.mkdir()
    links.link(root, here)
    shutil.rmtree(here.work)
    assert links.link(root, here) == []
    (root / "output/x").touch()
    assert (here.work / "paddle_cxr/output/x").exists() and (root / "cache").is_dir()


def test_an_output_folder_in_use_is_not_touched(tmp_path):
    root = tmp_path / "project"
    (root / "output/old").mkdir(parents=True)
    with pytest.raises(UserError, match="已经在用"):
        links.link(root, layout.detect(tmp_path))
    assert (root / "output/old").is_dir()


# --- packages -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "protected"), [
    ("paddlepaddle", True), ("PaddlePaddle_GPU", True), ("numpy", True), ("nvidia-cublas-cu12", True),
    ("paddlenlp", False), ("pillow", False)])
def test_what_only_the_platform_may_install(name, protected):
    assert packages.is_protected(name) == protected


def test_nothing_protected_is_asked_for():
    extras = [name for name in declared() if name not in ("", "cpu", "gpu")]
    names = {parsed(line).name for line in packages.wanted(extras)}
    assert {"pyyaml", "pydicom"} <= names and not {name for name in names if packages.is_protected(name)}


@pytest.mark.parametrize("extra", ["dicm", "cpu", "gpu"])
def test_an_extra_that_is_not_one(extra):
    with pytest.raises(UserError, match=f"--extras：没有 {extra}.*dicom"):
        packages.wanted([extra])


def test_constraints_pin_what_is_there_unless_it_is_too_old(tmp_path):
    pins = packages.write_constraints(tmp_path / "c.txt", ["pyyaml>=99", "numpy>=99"]).read_text(encoding="utf-8")
    assert f"pillow=={metadata.version('pillow')}\n" in pins and f"numpy=={metadata.version('numpy')}\n" in pins
    assert not re.search(r"^pyyaml==", pins, re.MULTILINE)


def test_constraints_are_such_that_pip_can_keep(tmp_path, monkeypatch):
    """Neither what an interrupted pip has left of another NumPy, nor a version that Debian made up."""
    for folder, name, version in (("~umpy-1.24.4", "numpy", "1.24.4"), ("~one-1.0", "gone", "1.0"),
                                  ("distro_info-0.23ubuntu1", "distro-info", "0.23ubuntu1")):
        info = tmp_path / f"site/{folder}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    here = metadata.version("numpy")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    pins = packages.write_constraints(tmp_path / "c.txt", []).read_text(encoding="utf-8").splitlines()
    assert [pin for pin in pins if re.match("numpy|gone|distro-info", pin)] == [f"numpy=={here}"]


@pytest.mark.parametrize(("builds", "said"), [
    ({}, "没有安装 Paddle"), ({"paddlepaddle-gpu": "2.4.0.post117"}, "2.4.0.post117，本项目要 2.6.2 以上")])
def test_a_platform_without_a_paddle_to_use(monkeypatch, builds, said):
    monkeypatch.setattr(paddle_there, "installed_version", builds.get)
    monkeypatch.setattr(paddle_there.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=said):
        paddle_there.describe()


def test_a_pip_that_is_too_old(monkeypatch, tmp_path):
    monkeypatch.setattr(packages, "installed_version", lambda name: "21.3.1")
    with pytest.raises(UserError, match="pip 21.3.1 太旧"):
        packages.resolve(["x"], tmp_path / "c.txt", tmp_path)


# --- the whole of it, on a platform played by a virtual environment ---------------------------------------------------

def wheel(folder: Path, name: str, version: str, *requires: str, body: str = "") -> None:
    """A package of one module."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}",
             *(f"Requires-Dist: {one}" for one in requires)]
    pack(folder / f"{module}-{version}-py3-none-any.whl", {
        f"{module}.py": body.encode(), f"{info}/METADATA": ("\n".join(lines) + "\n").encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}, info)


def pack(file: Path, contents: dict[str, bytes], info: str) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in (*contents, f"{info}/RECORD")))


def wheel_of_installed(folder: Path, name: str) -> None:
    """A real package of this environment, packed up again."""
    here = metadata.distribution(name)
    contents = {str(file): Path(file.locate()).read_bytes() for file in here.files
                if not str(file).startswith("..") and "__pycache__" not in str(file) and file.name != "RECORD"}
    info = next(file.split("/")[0] for file in contents if file.endswith(".dist-info/METADATA"))
    tag = re.search(r"^Tag: (.+)$", contents[f"{info}/WHEEL"].decode(), re.MULTILINE)[1].strip()
    pack(folder / f"{info.removesuffix('.dist-info')}-{tag}.whl", contents, info)


def with_what_they_need(*names: str) -> set[str]:
    found: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            needs = map(parsed, metadata.requires(name) or [])
            queue += [same_name(one.name) for one in needs if not one.marker or one.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    """Instead of an index: what reads recipes is real, the rest are stubs."""
    folder = tmp_path_factory.mktemp("wheels")
    real = with_what_they_need("pyyaml", "pydantic")
    for name in real:
        wheel_of_installed(folder, name)
    for line in declared()[""]:
        requirement = parsed(line)
        if requirement.name not in (*real, "numpy"):
            version = next((one.version for one in requirement.specifier if one.operator == ">="), "1.0")
            needs = ["flask"] if requirement.name == "visualdl" else []
            wheel(folder, requirement.name, version, *needs)
    wheel(folder, "flask", "3.0")
    wheel(folder, "greedy", "1.0", "numpy>=99")
    wheel(folder, "numpy", "99.0")
    return folder


class Platform:
    """A Python with Paddle, and the home folder."""

    def __init__(self, folder: Path, find_links: Path | None = None) -> None:
        self.home = folder / "home"
        self.find_links = find_links
        for name in ("data", "work"):
            (self.home / name).mkdir(parents=True)
        venv.create(folder / "python", with_pip=False, symlinks=True)
        self.python = folder / "python/bin/python"
        self.site = next((folder / "python").glob("lib/python*/site-packages"))

    def run(self, *command: object, **environment: str) -> subprocess.CompletedProcess:
        mine = {name: value for name, value in os.environ.items()
                if name not in ("PYTHONPATH", "OMP_NUM_THREADS", "PADDLE_CXR_ENV", "PADDLE_CXR_CACHE")}
        if self.find_links:
            mine |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.find_links), "PIP_CONFIG_FILE": os.devnull,
                     "PIP_EXTRA_INDEX_URL": ""}
        return subprocess.run([str(self.python), *map(str, command)], capture_output=True, text=True, timeout=900,
                              cwd=self.home, env=mine | environment)

    def prepare(self, *more: object, tool: Path = TOOL, **environment: str) -> subprocess.CompletedProcess:
        return self.run(tool, "--home", self.home, *more, **environment)

    def restart(self) -> None:
        """All but the home folder is as the platform made it."""
        (self.site / "paddle_cxr_aistudio.pth").unlink()


def play(folder: Path, wheels: Path) -> Platform:
    """Paddle, NumPy and pip; a pillow that will do, a PyYAML that is too old."""
    result = Platform(folder, wheels)
    for name in ("pip", "numpy"):
        here = metadata.distribution(name)
        tops = {file.parts[0] for file in here.files if file.parts[0] != ".." and "__pycache__" not in file.parts[0]}
        for top in tops:
            (result.site / top).symlink_to(Path(str(here.locate_file(top))))
    installed(result.site, "paddlepaddle-gpu", "3.2.0.post126", "paddle")
    installed(result.site, "pillow", "10.4.0", "PIL")
    installed(result.site, "PyYAML", "5.4", "yaml")
    return result


@pytest.fixture
def platform(tmp_path, wheels) -> Platform:
    """One that a test may do to as it likes."""
    return play(tmp_path, wheels)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, wheels) -> Platform:
    """A fork prepared with ``--link``: a data set is mounted, and an older package lies in the kept folder."""
    result = play(tmp_path_factory.mktemp("platform"), wheels)
    zipped(result.home / "data/data77/chest3.zip", *CLASSES)
    libraries = result.home / LIBRARIES
    libraries.mkdir(parents=True)
    installed(libraries, "tenacity", "1.0", "tenacity")
    result.before = state_of(result.site)
    result.fork = copy_of_project(result.home / "paddle_cxr")
    # What a platform may have set for pip would send packages elsewhere, or contradict the target.
    result.said = result.prepare("--link", tool=result.fork / "tools/aistudio.py", PIP_USER="1", PIP_PREFIX="/nowhere",
                                 PIP_REQUIRE_VIRTUALENV="1")
    assert result.said.returncode == 0, result.said.stdout + result.said.stderr
    return result


def installed(site: Path, name: str, version: str, module: str) -> None:
    (site / f"{module}.py").write_text(f"__version__ = {version!r}\n")
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def state_of(site: Path) -> set[tuple[str, int]]:
    return {(entry.name, entry.lstat().st_mtime_ns) for entry in site.iterdir() if entry.name != "__pycache__"}


def test_what_is_missing_is_put_into_the_kept_folder(prepared):
    libraries = prepared.home / LIBRARIES
    put = {re.split(r"-[\d.]+", info.name)[0].lower() for info in libraries.glob("*.dist-info")}
    assert {"pyyaml", "visualdl", "flask", "pydantic", "pydantic_core"} <= put
    assert not {name for name in put if packages.is_protected(name)} and "pillow" not in put
    assert len(list(libraries.glob("tenacity-*.dist-info"))) == 1 and "tenacity 1.0（需要" in prepared.said.stdout
    constraints = (prepared.home / "external-libraries/paddle_cxr/constraints.txt").read_text(encoding="utf-8")
    assert "paddlepaddle-gpu==3.2.0.post126" in constraints and "pyyaml" not in constraints


def test_the_platform_is_left_as_it_was(prepared):
    assert "paddlepaddle-gpu 3.2.0.post126（平台自带，不动它）" in prepared.said.stdout
    after = state_of(prepared.site)
    assert prepared.before <= after and {name for name, _ in after - prepared.before} == {"paddle_cxr_aistudio.pth"}


def test_every_python_finds_the_project_and_the_platforms_paddle(prepared):
    code = ("import os, yaml, paddle, numpy, PIL, paddle_cxr.config as ours; print(yaml.__version__, "
            "paddle.__version__, PIL.__version__, os.environ['PADDLE_CXR_CACHE'], numpy.__file__, ours.__file__)")
    out = prepared.run("-c", code).stdout.split()
    assert out[:3] == [metadata.version("pyyaml"), "3.2.0.post126", "10.4.0"]
    assert out[3] == str(prepared.home / "work/paddle_cxr/downloads")
    assert str(prepared.home) not in out[4] and str(prepared.fork) in out[5]


def test_outputs_and_data_sets_of_a_fork(prepared):
    assert (prepared.fork / "output").resolve() == prepared.home / "work/paddle_cxr/output"
    assert "configs/resnet50.yaml -o DataLoader.Source.root=" in prepared.said.stdout
    assert not (prepared.home / "data/data77/chest3").exists()  # looked at, not unpacked


def test_after_a_restart_nothing_is_installed_again(prepared, tmp_path, monkeypatch):
    prepared.restart()
    assert prepared.run("-c", "import paddle_cxr.config").returncode != 0
    monkeypatch.setattr(prepared, "find_links", tmp_path)  # no index any more: pip would fail
    done = prepared.prepare(tool=prepared.fork / "tools/aistudio.py")
    assert done.returncode == 0 and "没有安装任何东西" in done.stdout, done.stderr
    assert prepared.run("-c", "import paddle_cxr.config, yaml, pydantic").returncode == 0


def fails(done: subprocess.CompletedProcess, *said: str) -> None:
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2 and len(lines) == 1 and lines[0].startswith("错误："), done.stderr
    for text in said:
        assert text in lines[0], lines[0]


def test_an_extra_that_wants_another_numpy_is_refused(platform):
    fork = copy_of_project(platform.home / "work/paddle_cxr")
    setup = (fork / "setup.py").read_text(encoding="utf-8")
    (fork / "setup.py").write_text(setup.replace("extras_require={", 'extras_require={"greedy": ["greedy"],'), "utf-8")
    done = platform.prepare("--extras", "greedy", tool=fork / "tools/aistudio.py")
    fails(done, "不能与平台的版本装在一起", "greedy 1.0 depends on numpy>=99", "少装几个 --extras")
    assert not list((platform.home / LIBRARIES).glob("*")) and not (platform.site / "paddle_cxr_aistudio.pth").exists()


def test_no_network_is_one_line(platform, tmp_path):
    platform.find_links = tmp_path
    fails(platform.prepare(), "pip 失败", "检查网络")


def test_a_platform_without_paddle_is_one_line(platform):
    shutil.rmtree(next(platform.site.glob("paddlepaddle_gpu*")))
    (platform.site / "paddle.py").unlink()
    fails(platform.prepare(), "没有安装 Paddle", "本脚本不安装 Paddle")


def test_a_python_that_is_too_old_is_told_so():
    """It can read the file so far, and gets no further."""
    ast.parse(TOOL.read_text(encoding="utf-8"), feature_version=(3, 7))
    code = "import sys, runpy; sys.version_info = (3, 7, 16); runpy.run_path(sys.argv[1], run_name='__main__')"
    fails(subprocess.run([sys.executable, "-c", code, str(TOOL)], capture_output=True, text=True),
          "Python 是 3.7.16", "3.10 以上")


def test_the_guides_quote_what_is_really_said(nowhere, monkeypatch):
    faq, guide = ((ROOT / f"docs/{name}.md").read_text(encoding="utf-8") for name in ("faq", "aistudio"))
    code = "import sys, runpy; sys.version_info = (3, 7, 16); runpy.run_path(sys.argv[1], run_name='__main__')"
    said = subprocess.run([sys.executable, "-c", code, str(TOOL)], capture_output=True, text=True).stderr.strip()
    assert said in faq.splitlines() and said in guide.splitlines()
    raised = [error_of(layout.detect), error_of(lambda: packages._refuse(CONFLICT)),
              error_of(lambda: packages._refuse("", NOT_FOUND))]
    monkeypatch.setattr(paddle_there.importlib.util, "find_spec", lambda name: None)
    for builds in ({}, {"paddlepaddle-gpu": "2.4.0.post117"}):
        monkeypatch.setattr(paddle_there, "installed_version", builds.get)
        raised.append(error_of(paddle_there.describe))
    for text in raised:
        assert f"错误：{text}" in faq.splitlines(), text


CONFLICT = """
The conflict is caused by:
    greedy 1.0 depends on numpy>=99
    The user requested (constraint) numpy==1.26.4

To fix this you could try to:
"""
NOT_FOUND = """WARNING: Location is ignored
ERROR: Could not find a version that satisfies the requirement ahocorasick_rs>=0.22 (from versions: none)
ERROR: No matching distribution found for ahocorasick_rs>=0.22
"""


def error_of(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)


def copy_of_project(to: Path) -> Path:
    for name in ("paddle_cxr", "tools", "configs"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.py", to / "setup.py")
    return to


# --- real releases of Paddle ------------------------------------------------------------------------------------------

REAL_PLATFORMS = {
    "2.6.2": ["numpy==1.26.4", "setuptools", "wheel", "pydantic==1.10.13"],  # what many images still carry
    "3.2.2": ["pillow==9.5.0", "requests", "matplotlib"],
}


@pytest.fixture(scope="module", params=REAL_PLATFORMS)
def real(request, tmp_path_factory) -> Platform:
    """A platform on a real Paddle; ``PADDLE_CXR_AISTUDIO`` names a folder that keeps them from run to run."""
    kept = os.environ.get("PADDLE_CXR_AISTUDIO")
    base = (Path(kept) if kept else tmp_path_factory.mktemp("platforms")) / f"paddle-{request.param}"
    done = base / "complete"
    if not done.exists():
        shutil.rmtree(base, ignore_errors=True)
        python = sys.executable
        for command in ([python, "-m", "venv", str(base)],
                        [str(base / "bin/python"), "-m", "pip", "install", "-q", f"paddlepaddle=={request.param}",
                         *REAL_PLATFORMS[request.param]]):
            made = subprocess.run(command, capture_output=True, text=True)
            if made.returncode != 0:
                pytest.skip(f"Paddle {request.param} cannot be installed here: {made.stderr.strip()[-200:]}")
        done.touch()
    result = Platform(tmp_path_factory.mktemp(f"paddle{request.param}"))
    site = next(base.glob("lib/python*/site-packages"))
    (result.site / "platform.pth").write_text(f"{site}\n")
    result.version = request.param
    return result


@pytest.mark.slow
def test_a_fork_trains_on_the_platforms_own_paddle(real):
    fork = copy_of_project(real.home / "paddle_cxr")
    done = real.prepare("--link", tool=fork / "tools/aistudio.py")
    assert done.returncode == 0, done.stdout + done.stderr
    real.restart()
    again = real.prepare(tool=fork / "tools/aistudio.py")
    assert again.returncode == 0 and "没有安装任何东西" in again.stdout, again.stdout + again.stderr
    settings = ["Global.epochs=1", "DataLoader.Source.per_class=20", "Global.image_shape=[1,32,32]",
                "Metric.bootstrap=20", f"Global.output_dir={fork}/output/first"]
    trained = real.run(fork / "tools/train.py", "-c", fork / "configs/resnet18_cpu.yaml",
                       *(part for setting in settings for part in ("-o", setting)))
    assert trained.returncode == 0, trained.stdout + trained.stderr
    metrics = json.loads((real.home / "work/paddle_cxr/output/first/metrics.json").read_text(encoding="utf-8"))
    assert real.version in json.dumps(metrics["versions"])
    doctor = real.run(fork / "tools/doctor.py", "--json", real.home / "doctor.json")
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    lines = json.loads((real.home / "doctor.json").read_text(encoding="utf-8"))["lines"]
    assert next(line for line in lines if line["check"] == "Paddle")["facts"]["version"] == real.version
