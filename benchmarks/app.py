"""The web page under load: p95 of classify with Grad-CAM, against the same forward and CAM without the page.

    python benchmarks/app.py --folder output/resnet18_cpu

Users in parallel, each sending the next image when the last is answered.  With the page: upload the file, ask, wait for
the answer, over HTTP, from this process.  Without: threads of one process that call the same classifier on the same
files, through the same queue of one thread a model.  Both take turns, each in a process of its own; the ratio is taken
within a turn.  The clients of the page use the same cores, which counts against it.

Then files that are no images are uploaded: each must be answered with a message, and the page must work afterwards.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout that is not installed

import httpx  # noqa: E402
import numpy as np  # noqa: E402
from machine import load, print_load  # noqa: E402
from malformed_uploads import malformed  # noqa: E402

GOAL = 1.5
START_SECONDS = 120
API = "gradio_api"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="output/resnet18_cpu", help="训练好的分类器")
    parser.add_argument("--users", type=int, default=8, help="几个用户同时用")
    parser.add_argument("--requests", type=int, default=50, help="每人几次")
    parser.add_argument("--malformed", type=int, default=100, help="上传几个坏文件")
    parser.add_argument("--repeats", type=int, default=3, help="轮流运行几遍，取中位数")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
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
    print(f"p95 之比（有网页 / 没有网页），{len(ratios)} 遍的中位数：{statistics.median(ratios):.2f}（目标 ≤ {GOAL}）")
    if arguments.malformed:
        print(broken_files(arguments))
    print_load(before)


def turn(arguments: argparse.Namespace, folder: Path, files: list[Path]) -> float:
    """Once without the page, once with it; the ratio of the p95 latencies."""
    done = subprocess.run([sys.executable, __file__, "--worker", str(folder), "--folder", arguments.folder, "--users",
                           str(arguments.users), "--requests", str(arguments.requests)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    alone = json.loads(done.stdout.splitlines()[-1])
    with page(arguments.folder) as address:
        paged = in_parallel(arguments, lambda user: User(address).classify, files)
    for name, times in (("没有网页", alone), ("有网页", paged)):
        print(f"{name}：{len(times)} 次，p50 {np.percentile(times, 50) * 1000:.0f} 毫秒，"
              f"p95 {np.percentile(times, 95) * 1000:.0f} 毫秒")
    return float(np.percentile(paged, 95) / np.percentile(alone, 95))


def reference(arguments: argparse.Namespace) -> None:
    """The same work without HTTP and Gradio; prints the seconds of every request."""
    from paddle_cxr.app.classify import Classifier
    from paddle_cxr.app.images import overlay, read_upload, show
    from paddle_cxr.app.worker import Worker

    model, worker = Classifier(arguments.folder), Worker("classify", arguments.users, 600)

    def classify(file: Path) -> None:
        result = worker(model, read_upload(str(file), 20))
        show(result.seen)
        overlay(result.seen, result.heat)

    print(json.dumps(in_parallel(arguments, lambda user: classify, sorted(Path(arguments.worker).glob("*.png")))))


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
    """One user's browser, as far as HTTP goes."""

    def __init__(self, address: str) -> None:
        self._http = httpx.Client(base_url=address, timeout=300, trust_env=False)

    def classify(self, file: Path) -> list:
        """Upload and classify; the page's answer."""
        uploaded = self._http.post(f"/{API}/upload", files={"files": (file.name, file.read_bytes())})
        uploaded.raise_for_status()
        answer = self.ask("classify", [file_of(uploaded.json()[0], file.name), "zh"])
        if not answer or answer[2] is None:
            raise RuntimeError(f"没有结果：{answer}")
        return answer

    def send(self, name: str, content: bytes) -> str:
        """Upload a file that is no image and classify it; what the user is told, or empty."""
        uploaded = self._http.post(f"/{API}/upload", files={"files": (name, content)})
        if uploaded.status_code != 200:
            return f"HTTP {uploaded.status_code} {uploaded.text[:200]}" if 400 <= uploaded.status_code < 500 else ""
        answer = self.ask("classify", [file_of(uploaded.json()[0], name), "zh"])
        return str(answer[-1]) if answer and answer[-1] else ""

    def ask(self, name: str, data: list) -> list | None:
        """The outputs of a click; None where the page says only that it failed."""
        joined = self._http.post(f"/{API}/call/{name}", json={"data": data})
        joined.raise_for_status()
        event = ""
        with self._http.stream("GET", f"/{API}/call/{name}/{joined.json()['event_id']}") as answer:
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    event = line[7:]
                elif line.startswith("data: ") and event in ("complete", "error"):
                    return json.loads(line[6:]) if event == "complete" else None
        return None


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
            if httpx.get(address, trust_env=False, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    sys.exit("网页没有打开")


if __name__ == "__main__":
    main()
