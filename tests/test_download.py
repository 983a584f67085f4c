"""Downloads against a real server on this machine that misbehaves on demand."""

import hashlib
import http.server
import multiprocessing
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from paddle_cxr.download import fetch, resolve_pretrained
from paddle_cxr.errors import UserError

CONTENT = np.random.default_rng(0).bytes(3_000_000)
CHECKSUM = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT under any name; the name's first word says how it misbehaves."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        word = self.path.strip("/").split("-")[0].split(".")[0]
        log = self.server.log
        log.append((word, self.headers.get("Range")))
        nth = sum(entry[0] == word for entry in log)
        if word == "absent" or (word == "busy" and nth <= 2):
            self.send_response(404 if word == "absent" else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int((self.headers.get("Range") or "bytes=0-")[6:].rstrip("-"))
        if word == "norange":
            start = 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if word == "cut" and nth <= 3:  # the first three connections break after a good quarter of the file
            body = body[:800_000]
        if word == "dead":
            body = body[:1_000_000] if nth == 1 else b""
        if word == "slow":
            time.sleep(0.5)
        self.wfile.write(body)
        if word in ("cut", "dead"):
            self.close_connection = True

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.log = []
    running.url = f"http://127.0.0.1:{running.server_port}"
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PADDLE_CXR_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path / "cache"


def visible(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def test_a_file_is_fetched_once(server, tmp_path):
    for checksum in (CHECKSUM, "md5:" + hashlib.md5(CONTENT).hexdigest(), CHECKSUM.upper().replace("SHA", "sha")):
        path = fetch(f"{server.url}/good.bin?x=1", checksum, tmp_path / "new" / "folder")
        assert path == tmp_path / "new" / "folder" / "good.bin" and path.read_bytes() == CONTENT
    assert len(server.log) == 1
    assert visible(path.parent) == ["good.bin"]


def test_a_line_that_breaks_is_taken_up_where_it_broke(server, tmp_path):
    assert fetch(f"{server.url}/cut.bin", CHECKSUM, tmp_path).read_bytes() == CONTENT
    starts = [int((entry[1] or "bytes=0-")[6:-1]) for entry in server.log]
    assert len(starts) == 4 and min(np.diff(starts)) > 700_000  # libraries differ in what they keep of a broken read


def test_a_part_of_an_earlier_run_is_used(server, tmp_path):
    (tmp_path / "good.bin.part").write_bytes(CONTENT[:2_345_678])
    assert fetch(f"{server.url}/good.bin", CHECKSUM, tmp_path).read_bytes() == CONTENT
    assert server.log == [("good", "bytes=2345678-")]


def test_a_complete_part_is_used(server, tmp_path):
    (tmp_path / "good.bin.part").write_bytes(CONTENT)
    assert fetch(f"{server.url}/good.bin", CHECKSUM, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("stale", [b"another version" * 9, b"x" * 3_500_000])
def test_a_part_of_another_file_is_thrown_away(server, tmp_path, stale):
    (tmp_path / "good.bin.part").write_bytes(stale)
    assert fetch(f"{server.url}/good.bin", CHECKSUM, tmp_path).read_bytes() == CONTENT


def test_a_server_without_ranges(server, tmp_path):
    (tmp_path / "norange.bin.part").write_bytes(CONTENT[:1000])
    assert fetch(f"{server.url}/norange.bin", CHECKSUM, tmp_path).read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(server, tmp_path):
    assert fetch(f"{server.url}/busy.bin", CHECKSUM, tmp_path).read_bytes() == CONTENT
    assert len(server.log) == 3


def test_a_server_that_dies_keeps_the_part(server, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(UserError, match="续传") as caught:
        fetch(f"{server.url}/dead.bin", CHECKSUM, tmp_path)
    assert "\n" not in str(caught.value)
    assert visible(tmp_path) == ["dead.bin.part"]
    assert (tmp_path / "dead.bin.part").stat().st_size > 900_000


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(UserError, match="校验和不符") as caught:
        fetch(f"{server.url}/good.bin", "sha256:" + "0" * 64, tmp_path)
    assert CHECKSUM[7:] in str(caught.value)
    assert visible(tmp_path) == []


def test_a_file_put_there_by_hand_is_checked(server, tmp_path):
    (tmp_path / "good.bin").write_bytes(b"a login page")
    with pytest.raises(UserError, match="删除"):
        fetch(f"{server.url}/good.bin", CHECKSUM, tmp_path)
    (tmp_path / "good.bin").write_bytes(CONTENT)
    assert fetch(f"{server.url}/good.bin", CHECKSUM, tmp_path).read_bytes() == CONTENT
    assert server.log == []


def test_not_found_says_what_to_do(server, tmp_path):
    with pytest.raises(UserError, match="404") as caught:
        fetch(f"{server.url}/absent.bin", CHECKSUM, tmp_path)
    assert str(tmp_path / "absent.bin") in str(caught.value) and "浏览器" in str(caught.value)


def test_no_network_fails_within_ten_seconds(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        start = time.monotonic()
        with pytest.raises(UserError, match="网络") as caught:
            fetch(f"http://127.0.0.1:{closed.getsockname()[1]}/x.bin", CHECKSUM, tmp_path)
        assert time.monotonic() - start < 10
    assert str(tmp_path / "x.bin") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line(server, tmp_path):
    (tmp_path / "good.bin.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match="无法写入.*PADDLE_CXR_CACHE"):
        fetch(f"{server.url}/good.bin", CHECKSUM, tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="无法写入"):
        fetch(f"{server.url}/good.bin", CHECKSUM, tmp_path / "file" / "folder")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://h/x", "good.bin", ""])
def test_only_http(url, tmp_path):
    with pytest.raises(UserError, match="http"):
        fetch(url, CHECKSUM, tmp_path)


@pytest.mark.parametrize("checksum", ["", "abc", "sha256:12", "md5:" + "g" * 32, "crc:" + "0" * 64, "0" * 64])
def test_bad_checksums_are_explained(checksum, tmp_path):
    with pytest.raises(UserError, match="sha256:"):
        fetch("http://127.0.0.1:9/x", checksum, tmp_path)


@pytest.mark.parametrize("path", ["/..", "/../../good", "/a/..%2F..%2Fgood", "/%2e%2e", "/", "/.bashrc", "/a b%00c"])
def test_a_url_cannot_choose_the_folder(server, tmp_path, path):
    folder = tmp_path / "in" / "here"
    found = fetch(server.url + path, CHECKSUM, folder)
    assert found.parent == folder and found.is_file() and not found.name.startswith(".")


def _fetch_in_process(url, folder):
    fetch(url, CHECKSUM, folder)


def test_processes_share_one_download(server, tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_fetch_in_process, args=(f"{server.url}/slow.bin", tmp_path)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (tmp_path / "slow.bin").read_bytes() == CONTENT and len(server.log) == 1


# --- what Arch.pretrained means ---------------------------------------------------------------------------------

def test_pretrained_none_path_and_url(server, tmp_path, cache):
    assert resolve_pretrained(False, "ResNet50") is None and resolve_pretrained(None, "ResNet50") is None
    (tmp_path / "w.safetensors").write_text("")
    assert resolve_pretrained(str(tmp_path / "w.safetensors"), "ResNet50") == tmp_path / "w.safetensors"
    path = resolve_pretrained({"url": f"{server.url}/good.bin", "checksum": CHECKSUM}, "ResNet50")
    assert path == cache / "weights" / "good.bin" and path.read_bytes() == CONTENT


def test_pretrained_true_means_what_paddle_publishes(cache):
    from paddle.vision.models.resnet import model_urls

    from paddle_cxr.download import PUBLISHED, PUBLISHED_MD5

    for depth in (18, 34, 50, 101, 152):
        name = f"ResNet{depth}"
        assert (PUBLISHED.format(name.lower()), PUBLISHED_MD5[name]) == tuple(model_urls[f"resnet{depth}"])
    place = cache / "weights" / "resnet18.pdparams"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"not those weights")
    with pytest.raises(UserError, match="校验和不符"):
        resolve_pretrained(True, "ResNet18")


@pytest.mark.parametrize(("value", "word"), [
    (True, "UNet"), ("no/such/file", "找不到"), ("https://host/w.pdparams", "checksum"),
    ({"url": "https://h/x"}, "checksum"), ({"url": 1, "checksum": 2}, "checksum"),
    ({"url": "u", "checksum": "c", "x": 1}, "checksum")])
def test_bad_pretrained_values_name_the_key(value, word):
    with pytest.raises(UserError, match=word) as caught:
        resolve_pretrained(value, "UNet")
    assert "Arch.pretrained" in str(caught.value)
