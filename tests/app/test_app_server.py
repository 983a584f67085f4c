"""The page over HTTP: what it answers, what it refuses, and that it asks no other computer for anything."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

import pytest
from recipes import ROOT

pytest.importorskip("gradio", reason='the page needs Gradio: pip install -e ".[app]"')

import httpx  # noqa: E402
from PIL import Image  # noqa: E402
from serving import free_port, page  # noqa: E402
from test_app_parts import StillClassifier, StillFinder  # noqa: E402

from paddle_cxr.app.folder import private_folder, remove_left_over, remove_older  # noqa: E402
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


    words = httpx.post(f"{address}/{API}/call/recheck", json={"data": ["x" * (300 << 10)]}, **HTTP)
    assert words.status_code == 413  # as large as a film, and no upload


@pytest.mark.parametrize(("headers", "status"), [
    ({"Host": "evil.example"}, 403), ({"Host": "["}, 403), ({"Host": ""}, 403),
    ({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403), ({"Host": "localhost:1"}, 200), ({}, 200)])
def test_no_other_site_can_use_the_page(address, headers, status):
    """A name of its own that leads to this computer (DNS rebinding), or a form that sends here."""
    answer = httpx.post(f"{address}/{API}/upload", files={"files": ("x.png", b"x")}, headers=headers, **HTTP)
    assert answer.status_code == status


def test_behind_a_proxy_or_for_others_any_name_is_answered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with page({}, "Server.root_path=/proxy") as address:
        assert httpx.get(address, headers={"Host": "school.example"}, **HTTP).status_code == 200


def test_nothing_is_fetched_from_an_address(address, monkeypatch):
    import http.server

    from gradio import processing_utils

    asked = []

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(processing_utils, "PUBLIC_HOSTNAME_WHITELIST", ["127.0.0.1", "localhost"])  # as if public
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{elsewhere.server_port}/film.png"
        assert User(address).ask("classify", [file_of(url, "film.png"), "zh"]) is None
        elsewhere.shutdown()
    assert not asked
    redirect = httpx.get(f"{address}/{API}/file=http://evil.example/x", follow_redirects=False, **HTTP)
    assert redirect.status_code == 403


def test_those_who_wait_for_a_model_do_not_stop_the_page(tmp_path):
    class Slow(StillClassifier):
        def __call__(self, image):
            go.wait(60)
            return super().__call__(image)

    go, answers, film = threading.Event(), [], write_phantom("normal", 5, tmp_path)
    with page({"Classify": Slow()}) as address:
        users = [threading.Thread(target=lambda: answers.append(User(address).classify(film))) for _ in range(60)]
        for user in users:
            user.start()
        try:
            for _ in range(20):
                assert httpx.get(address, **HTTP).status_code == 200
        finally:
            go.set()
        for user in users:
            user.join()
    assert len(answers) == 60 and all(answer is not None for answer in answers)


def test_an_upload_that_breaks_off_is_deleted_with_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with page({}) as address:
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as line:
            line.sendall(f"POST /{API}/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n"
                         "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\nContent-Disposition: form-data; "
                         'name="files"; filename="film.png"\r\n\r\n'.encode() + bytes(2_000_000))
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not any(path.is_file() and path.stat().st_size > 1_000_000
                                                      for path in temporary.rglob("*")):
            time.sleep(0.05)
        (folder,) = temporary.iterdir()
        assert any(path.stat().st_size > 1_000_000 for path in folder.rglob("*") if path.is_file())
    assert not list(temporary.iterdir())


def test_folders_of_killed_pages_are_deleted_and_those_of_open_ones_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with private_folder() as mine:
        left = tmp_path / "paddle_cxr_app_left"
        (left / "uploads").mkdir(parents=True)
        (left / "uploads/film.png").write_bytes(b"x")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        remove_left_over()
        assert mine.is_dir() and not left.exists()
    assert not mine.exists()


def test_what_is_old_is_deleted_while_the_page_is_open(tmp_path):
    old, new = tmp_path / "a/b/old.png", tmp_path / "a/new.png"
    old.parent.mkdir(parents=True)
    for file in (old, new):
        file.write_bytes(b"x")
    for path in (old, old.parent):
        os.utime(path, (time.time() - 4000,) * 2)
    remove_older(tmp_path, 3600)
    assert sorted(path.name for path in tmp_path.rglob("*")) in (["a", "b", "new.png"], ["a", "new.png"])


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
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_tool_starts_and_stops_and_leaves_no_upload(tmp_path, ending):
    port, temporary = free_port(), tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, str(ROOT / "tools/app.py"), "-c", str(ROOT / "configs/app.yaml"), "-o",
               f"Server.port={port}"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True,
                          env=os.environ | {"TMPDIR": str(temporary)}) as process:
        said = []
        for line in process.stdout:
            said.append(line)
            if "请用浏览器打开" in line:
                break
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                User(f"http://127.0.0.1:{port}").send("film.png", b"x")
                break
            except OSError:
                time.sleep(0.1)
        assert list(temporary.rglob("film.png"))
        process.send_signal(ending)
        try:
            process.wait(60)
        finally:
            process.kill()
    assert not list(temporary.glob("paddle_cxr_app_*"))
    text = "".join(said)
    assert NOTICE in text and f"127.0.0.1:{port}" in text and say("drawn", "zh")
    assert "python tools/train.py -c configs/resnet18_cpu.yaml" in text
