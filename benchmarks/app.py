"""The web page under load: p95 of classify with Grad-CAM, against the same forward and CAM without the page.

    python benchmarks/app.py --folder output/resnet18_cpu

Users in parallel, each sending the next image when the last is answered.  With the page: upload the file, ask, wait for
the answer and fetch its two pictures, over HTTP, from this process.  Without: threads of one process that call the same
classifier on the same files through a queue of one thread, and keep the pictures in memory; one image after another, as
a program without a page would, and for comparison with requests that wait taken together, as the page does.  All take
turns, each in a process of its own; the ratios are taken within a turn.  The clients of the page use the same cores,
which counts against it; what they cost is printed.

Then files that are no images are uploaded: each must be answered with a message, and the page must work afterwards.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout that is not installed

import numpy as np  # noqa: E402
from machine import load, print_load  # noqa: E402
from malformed_uploads import malformed  # noqa: E402

GOAL = 1.5
ALONE, TOGETHER = "alone", "together"
START_SECONDS = 120
API = "gradio_api"
BOUNDARY = "----a-boundary-that-no-file-holds"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="output/resnet18_cpu", help="训练好的分类器")
    parser.add_argument("--users", type=int, default=8, help="几个用户同时用")
    parser.add_argument("--requests", type=int, default=50, help="每人几次")
    parser.add_argument("--malformed", type=int, default=100, help="上传几个坏文件")
    parser.add_argument("--repeats", type=int, default=3, help="轮流运行几遍，取中位数")
    parser.add_argument("--worker", choices=(ALONE, TOGETHER), help=argparse.SUPPRESS)
    parser.add_argument("--files", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        reference(arguments)
        return
    if not (Path(arguments.folder) / "config.yaml").is_file():
        sys.exit(f"找不到 {arguments.folder}；先运行 python tools/train.py -c configs/resnet18_cpu.yaml")
    before = load()
    with tempfile.TemporaryDirectory() as temporary:
        files = phantoms(Path(temporary))
        ratios = [turn(arguments, Path(temporary), files) for _ in range(arguments.repeats)]
    alone, together = (statistics.median(each) for each in zip(*ratios, strict=True))
    print(f"p95 之比（有网页 / 没有网页、逐张算），{len(ratios)} 遍的中位数：{alone:.2f}（目标 ≤ {GOAL}）；"
          f"没有网页的程序也一起算时：{together:.2f}")
    if arguments.malformed:
        print(broken_files(arguments))
    print_load(before)


def turn(arguments: argparse.Namespace, folder: Path, files: list[Path]) -> tuple[float, float]:
    """Once without the page, once so with waiting requests together, once with the page.

    Returns:
        The page's p95 latency divided by that of either.
    """
    alone, together = (without_page(arguments, folder, way) for way in (ALONE, TOGETHER))
    with page(arguments.folder) as address:
        began = time.process_time()
        paged = in_parallel(arguments, lambda user: User(address).classify, files)
        clients = (time.process_time() - began) / (len(paged) + arguments.users)
    for name, times in (("没有网页，逐张算", alone), ("没有网页，一起算", together), ("有网页", paged)):
        print(f"{name}：{len(times)} 次，p50 {np.percentile(times, 50) * 1000:.0f} 毫秒，"
              f"p95 {np.percentile(times, 95) * 1000:.0f} 毫秒")
    print(f"客户端自己每次用 CPU {clients * 1000:.1f} 毫秒")
    return tuple(float(np.percentile(paged, 95) / np.percentile(times, 95)) for times in (alone, together))


def without_page(arguments: argparse.Namespace, folder: Path, way: str) -> list[float]:
    """The seconds of every request, from :func:`reference` in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--worker", way, "--files", str(folder), "--folder",
                           arguments.folder, "--users", str(arguments.users), "--requests", str(arguments.requests)],
                          capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def reference(arguments: argparse.Namespace) -> None:
    """The same work without HTTP and Gradio; prints the seconds of every request."""
    from paddle_cxr.app.classify import Classifier
    from paddle_cxr.app.images import overlay, read_upload, show
    from paddle_cxr.app.worker import Worker

    model, worker = Classifier(arguments.folder), Worker("classify", arguments.users, 600)

    def classify(file: Path) -> None:
        image = read_upload(str(file), 20)
        result = worker(model, image) if arguments.worker == ALONE else worker.together(model.many, image)
        show(result.seen)
        overlay(result.seen, result.heat)

    print(json.dumps(in_parallel(arguments, lambda user: classify, sorted(Path(arguments.files).glob("*.png")))))


def in_parallel(arguments: argparse.Namespace, user: Callable[[int], Callable[[Path], object]], files: list[Path]
                ) -> list[float]:
    """Seconds of every request; one request a user to warm up is not counted."""
    times: list[list[float]] = [[] for _ in range(arguments.users)]
    faults: list[Exception] = []
    start = threading.Barrier(arguments.users)

    def work(number: int) -> None:
        try:
            ask = user(number)
            ask(files[number % len(files)])
            start.wait()
            for i in range(arguments.requests):
                began = time.perf_counter()
                ask(files[(number + i) % len(files)])
                times[number].append(time.perf_counter() - began)
        except Exception as error:
            faults.append(error)
            start.abort()

    threads = [threading.Thread(target=work, args=[number]) for number in range(arguments.users)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return [one for each in times for one in each]


class User:
    """One user's browser, as far as HTTP goes: one connection, kept open.

    The standard library's client: it takes the same two cores as the page, and a comfortable one took a tenth of them.
    """

    def __init__(self, address: str) -> None:
        self._http = http.client.HTTPConnection(address.removeprefix("http://"), timeout=300)

    def opens(self) -> bool:
        """Whether there is a page."""
        return self._request("GET", "/")[0] == 200

    def classify(self, file: Path) -> list:
        """Upload, classify and fetch both pictures; the page's answer."""
        status, uploaded = self._upload(file.name, file.read_bytes())
        if status != 200:
            raise RuntimeError(f"HTTP {status}：{uploaded[:200]}")
        answer = self.ask("classify", [file_of(json.loads(uploaded)[0], file.name), "zh"])
        if not answer or answer[2] is None:
            raise RuntimeError(f"没有结果：{answer}")
        for picture in answer[:2]:
            self.picture(picture)
        return answer

    def picture(self, answer: dict) -> bytes:
        """A picture of an answer, as the browser fetches it."""
        status, content = self._request("GET", f"/{API}/file={urllib.parse.quote(answer['path'])}")
        if status != 200:
            raise RuntimeError(f"HTTP {status}：没有图")
        return content

    def send(self, name: str, content: bytes) -> str:
        """Upload a file that is no image and classify it; what the user is told, or empty."""
        status, told = self._upload(name, content)
        if status != 200:
            return f"HTTP {status} {told[:200].decode('utf-8', 'replace')}" if 400 <= status < 500 else ""
        answer = self.ask("classify", [file_of(json.loads(told)[0], name), "zh"])
        return str(answer[-1]) if answer and answer[-1] else ""

    def ask(self, name: str, data: list) -> list | None:
        """The outputs of a click that goes past Gradio's queue; None where the page says only that it failed."""
        status, answered = self._request("POST", f"/{API}/run/{name}", json.dumps({"data": data}).encode(),
                                         "application/json")
        if status == 500:
            return None
        if status != 200:
            raise RuntimeError(f"HTTP {status}：{answered[:200]}")
        return json.loads(answered)["data"]

    def _upload(self, name: str, content: bytes) -> tuple[int, bytes]:
        quoted = name.replace('"', "%22")
        head = (f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{quoted}"\r\n'
                "Content-Type: application/octet-stream\r\n\r\n")
        return self._request("POST", f"/{API}/upload", head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode(),
                             f"multipart/form-data; boundary={BOUNDARY}")

    def _request(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, bytes]:
        """Status and whole content of an answer."""
        try:
            self._http.request(method, path, body, {"Content-Type": kind} if kind else {})
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all of it was sent: the answer says why
        answer = self._http.getresponse()
        return answer.status, answer.read()


def file_of(path: str, name: str) -> dict:
    """An uploaded file, as the page's clicks take it."""
    return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}


def broken_files(arguments: argparse.Namespace) -> str:
    """Upload what is no image; then the page must still classify."""
    with page(arguments.folder) as address, tempfile.TemporaryDirectory() as temporary:
        user = User(address)
        told = [user.send(*one) for one in malformed(arguments.malformed)]
        user.classify(phantoms(Path(temporary))[0])
    return f"坏文件：{len(told)} 个，{sum(bool(one) for one in told)} 个得到了说明；之后网页照常"


def phantoms(folder: Path) -> list[Path]:
    """Phantoms as PNG files."""
    from paddle_cxr.app.images import PHANTOMS, write_phantom

    return [write_phantom(kind, seed, folder) for seed, kind in enumerate(PHANTOMS)]


@contextmanager
def page(folder: str) -> Iterator[str]:
    """The page as a user starts it, with the classifier alone; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    overrides = [f"Server.port={port}", f"Classify.folder={folder}", "Find=null", "Write=null", "Draw=null"]
    command = [sys.executable, str(ROOT / "tools/app.py"), "-c", str(ROOT / "configs/app.yaml"),
               *(part for one in overrides for part in ("-o", one))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(address, process)
            yield address
            if process.poll() is not None:
                sys.exit("网页停了")
        finally:
            process.terminate()


def wait_for(address: str, process: subprocess.Popen) -> None:
    """Until the page answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if User(address).opens():
                return
        except OSError:
            time.sleep(0.2)
    sys.exit("网页没有打开")


if __name__ == "__main__":
    main()
