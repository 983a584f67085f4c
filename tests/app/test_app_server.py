"""The page over HTTP: what it answers, what it refuses, and that it asks no other computer for anything."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from recipes import ROOT

pytest.importorskip("gradio", reason='the page needs Gradio: pip install -e ".[app]"')

import httpx  # noqa: E402
from PIL import Image  # noqa: E402
from serving import free_port, page  # noqa: E402
from test_app_parts import StillClassifier, StillFinder  # noqa: E402

from paddle_cxr.app.images import write_phantom  # noqa: E402
from paddle_cxr.app.texts import NOTICE, say  # noqa: E402

sys.path.insert(0, str(ROOT / "benchmarks"))
from app import API, User, file_of  # noqa: E402
from malformed_uploads import malformed  # noqa: E402

HTTP = {"trust_env": False, "timeout": 60}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    models = {"Classify": StillClassifier(), "Find": StillFinder()}
    with page(models, "Draw.Generator={name: PhantomGenerator, size: 64}") as found:
        yield found


def test_the_page_opens_and_asks_no_other_computer(address):
    answer = httpx.get(address, **HTTP)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert not re.search(r"https?:|\*", policy) and "default-src 'self'" in policy
    config = httpx.get(f"{address}/config", **HTTP).json()
    assert NOTICE in str(config)
    assert not config.get("analytics_enabled") and config.get("space_id") is None
    styles = httpx.get(f"{address}/theme.css", **HTTP).text
    assert "fonts.googleapis" not in styles and "fonts.googleapis" not in str(config.get("stylesheets"))


def test_a_film_is_classified(address, tmp_path):
    seen, cam, shares, message = User(address).classify(write_phantom("covid", 1, tmp_path))
    assert shares["label"] == "新冠肺炎" and "热图" in message
    for answer in (seen, cam):
        with Image.open(io.BytesIO(User(address).picture(answer))) as picture:
            assert picture.format == "JPEG" and picture.size == (448, 448)


def test_malformed_uploads_are_answered(address, tmp_path):
    user = User(address)
    for name, content in malformed(30):
        assert user.send(name, content), name
    assert user.classify(write_phantom("normal", 1, tmp_path))


def test_parallel_users_each_get_their_answer(address, tmp_path):
    film, answers = write_phantom("normal", 2, tmp_path), []
    users = [threading.Thread(target=lambda: answers.append(User(address).classify(film))) for _ in range(12)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert len(answers) == 12


@pytest.mark.parametrize("path", ["/etc/passwd", str(ROOT / "setup.py"), "../../etc/passwd"])
def test_files_of_the_machine_are_not_given_away(address, path):
    for route in (f"/{API}/file=", "/file=", f"/{API}/file/"):
        assert httpx.get(f"{address}{route}{path}", **HTTP).status_code in (403, 404)
    answer = User(address).ask("classify", [file_of(path, "x.png"), "zh"])
    assert answer is None or "已经不在" in answer[-1]


def test_what_is_too_large_is_refused(address):
    upload = httpx.post(f"{address}/{API}/upload", files={"files": ("x.png", bytes(22 << 20))}, **HTTP)
    assert upload.status_code == 413
    streamed = httpx.post(f"{address}/{API}/upload", content=iter([b"x"]), **HTTP)
    assert streamed.status_code == 411


def test_values_that_the_page_never_sends_do_not_stop_it(address, tmp_path):
    user = User(address)
    for data in ([None, "zh"], [None, "xx"], [None, None], ["text", "zh"], [{"path": None}, "zh"], [], [[], {}]):
        response = httpx.post(f"{address}/{API}/call/classify", json={"data": data}, **HTTP)
        assert response.status_code < 600
    assert user.classify(write_phantom("normal", 3, tmp_path))


def test_a_tab_without_a_model_explains_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with page({}) as address:
        config = httpx.get(f"{address}/config", **HTTP).text
    assert "configs/resnet18_cpu.yaml" in config and "configs/gloria_phantom.yaml" in config


def test_a_port_in_use_is_told_in_one_line(address, tool, tmp_path):
    port = address.rpartition(":")[2]
    done = tool("app", "-c", ROOT / "configs/app.yaml", "-o", f"Server.port={port}", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("错误：Server.port：") and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_tool_starts_and_stops(tmp_path):
    port = free_port()
    command = [sys.executable, str(ROOT / "tools/app.py"), "-c", str(ROOT / "configs/app.yaml"), "-o",
               f"Server.port={port}"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        said = []
        for line in process.stdout:
            said.append(line)
            if "请用浏览器打开" in line:
                break
        process.terminate()
    text = "".join(said)
    assert NOTICE in text and f"127.0.0.1:{port}" in text and say("drawn", "zh")
    assert "python tools/train.py -c configs/resnet18_cpu.yaml" in text
