"""A whole run of ``tools/synthesize.py`` against a chat endpoint that does everything wrong now and then."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from synthesis import loopback

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-not-to-be-seen-anywhere"


class Handler(loopback.Handler):
    """Writes what it is asked, mostly; what goes wrong is drawn by a digest of the request and its turn."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.stopping.is_set():  # a connection that was kept open
            return self.drop()
        asked = json.loads(body)["messages"][1]["content"]
        with self.server.lock:
            self.server.turns[body] += 1
            turn = self.server.turns[body]
            self.server.requests += 1
        draw = random.Random(hashlib.sha256(body + bytes([turn % 256])).digest())
        trouble = draw.random()
        groups = {name: re.findall(r"^- (.+)$", part, re.MULTILINE) for name, part in re.findall(
            r"^(PRESENT|ABSENT|ANATOMY)[^\n]*\n(.*?)(?=^\S*[A-Z]{5}|\n\n|\Z)", asked, re.MULTILINE | re.DOTALL)}
        groups = {name: [term for term in terms if term.lower() not in ("none", "(none)")]
                  for name, terms in groups.items()}
        section = "impression" if '{"impression"' in asked else "findings"
        if trouble < 0.04:
            time.sleep(draw.random() * 0.5)
        elif trouble < 0.07:
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        elif trouble < 0.10:
            return self.answer(429, {"error": {"message": "slow down"}}, Retry_After="0.05")
        elif trouble < 0.13:
            return self.answer(500, b"<html>oh</html>")
        elif trouble < 0.16:
            return self.chat(json.dumps({section: "There is"})[:-3])
        elif trouble < 0.20:
            groups["PRESENT"] = [*groups.get("PRESENT", []), f"lesion{draw.randrange(60)}"]
        elif trouble < 0.24:
            groups = {name: terms[:-1] for name, terms in groups.items()}
        if "hopeless" in asked:
            return self.chat("I am sorry, I cannot do that.")
        text = " ".join([*(f"There is {term}." for term in groups.get("PRESENT", [])),
                         *(f"There is no {term}." for term in groups.get("ABSENT", [])),
                         *(f"The {term} was looked at." for term in groups.get("ANATOMY", []))])
        answer = json.dumps({section: text})
        self.chat(f"Sure!\n```json\n{answer}\n```\nAnything else?" if 0.24 <= trouble < 0.3 else answer)

    def chat(self, content):
        self.answer(200, {"choices": [{"message": {"content": content}, "finish_reason": "stop"}],
                          "usage": {"prompt_tokens": 200, "completion_tokens": 50}})

    def handle(self):
        try:
            super().handle()
        except OSError:  # the client was killed
            self.close_connection = True


def start() -> loopback.Server:
    made = loopback.Server(handler=Handler)
    made.requests = 0
    return made


@pytest.fixture
def server():
    made = start()
    yield made
    made.stop()


def records(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def write_recipe(tmp_path, server, reports):
    rows = ["name,type,id"]
    for kind, name in (("abnormality", "opacity{}"), ("disease", "lesion{}"), ("anatomy", "place{}")):
        rows += [f"{name.format(i)},{kind},{name.format(i)}" for i in range(60)]
        rows += [f"{name.format(i)},non-{kind},{name.format(i)}" for i in range(60) if kind != "anatomy"]
    rows += ["hopeless,disease,hopeless"]
    (tmp_path / "vocabulary.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    recipe = {"Global": {"output_dir": str(tmp_path / "out"), "reports": reports, "seed": 1, "chunk": 50, "rounds": 1},
              "Vocabulary": {"file": str(tmp_path / "vocabulary.csv")},
              "Sampler": {"name": "BalancedSampler", "k": 6, "m": 2, "cap": "auto"},
              "Writer": {"name": "ChatWriter", "url": f"http://127.0.0.1:{server.server_port}/v1", "model": "m",
                         "prompts": str(ROOT / "configs/synthesis/prompts/en"), "key_variable": "TEST_LLM_KEY",
                         "concurrency": 16, "price": [1.0, 2.0]},
              "NER": {"name": "DictionaryNER"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return [sys.executable, str(ROOT / "tools/synthesize.py"), "-c", str(tmp_path / "recipe.yaml")]


def check_accounts(tmp_path, reports):
    """Every report is accepted or rejected, once, and the rejected ones say why."""
    accepted, rejected = (records(tmp_path / "out" / name) for name in ("reports.jsonl", "rejected.jsonl"))
    assert sorted(one["id"] for one in accepted + rejected) == [f"r{number:07d}" for number in range(reports)]
    assert all(one["reason"] for one in rejected)
    for one in accepted:
        names = {entity["id"] for entity in one["entities"]}
        assert set(re.findall(r"(?:opacity|lesion|place)\d+", one["findings"])) == names
        assert "hopeless" not in names
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["accepted"] == len(accepted) and metrics["rejected"] == len(rejected)
    tokens = metrics["tokens"]
    assert metrics["cost"] == pytest.approx((tokens["prompt"] + 2 * tokens["completion"]) / 1e6)
    assert not any(KEY.encode() in file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file())
    return accepted, rejected


def test_forty_reports_are_accounted_for(server, tmp_path):
    command = write_recipe(tmp_path, server, 40)
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TEST_LLM_KEY": KEY})
    assert done.returncode == 0, done.stderr
    accepted, _ = check_accounts(tmp_path, 40)
    assert len(accepted) >= 30 and any(one["attempts"] > 2 for one in accepted)
    assert KEY not in done.stdout + done.stderr


@pytest.mark.slow
def test_two_thousand_reports_and_three_kills(server, tmp_path):
    command = write_recipe(tmp_path, server, 2000)
    environment = os.environ | {"TEST_LLM_KEY": KEY}
    for kills in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        deadline = time.monotonic() + 300
        while len(records_so_far(tmp_path)) < 400 * (kills + 1) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    accepted, rejected = check_accounts(tmp_path, 2000)
    print(f"accepted {len(accepted)}, rejected {len(rejected)}, requests {server.requests}")
    assert len(accepted) >= 1900


def records_so_far(tmp_path):
    file = tmp_path / "out/reports.jsonl"
    return file.read_bytes().splitlines() if file.exists() else []


@pytest.mark.parametrize(("change", "said"), [
    ("Writer.url=http://127.0.0.1:9/v1", "127.0.0.1:9"), ("Writer.key_variable=NO_SUCH_KEY", "NO_SUCH_KEY"),
    ("NER={name: RaTENER, folder: nowhere}", "nowhere"), ("Writer.prompts=nowhere", "nowhere")])
def test_what_cannot_work_is_one_line(server, tmp_path, change, said):
    command = write_recipe(tmp_path, server, 10)
    done = subprocess.run([*command, "-o", change], capture_output=True, text=True,
                          env=os.environ | {"TEST_LLM_KEY": KEY})
    assert done.returncode == 2 and done.stderr.startswith("错误：") and said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_finished_run_needs_no_server(server, tmp_path):
    command = write_recipe(tmp_path, server, 10)
    environment = os.environ | {"TEST_LLM_KEY": KEY}
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    server.shutdown()
    server.server_close()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    check_accounts(tmp_path, 10)


def test_a_server_that_dies_and_comes_back_elsewhere(server, tmp_path):
    """What was written stays; the same recipe with another URL and fewer requests at once goes on."""
    command = write_recipe(tmp_path, server, 120)
    environment = os.environ | {"TEST_LLM_KEY": KEY}
    process = subprocess.Popen([*command, "-o", "Global.chunk=20", "-o", "Writer.retries=1"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 60
    while len(records_so_far(tmp_path)) < 20 and time.monotonic() < deadline:
        time.sleep(0.02)
    server.stop()
    said, errors = process.communicate(timeout=120)
    written = len(records(tmp_path / "out/reports.jsonl")) + len(records(tmp_path / "out/rejected.jsonl"))
    assert process.returncode == 2 and "Writer.url" in errors and len(errors.splitlines()) == 1, errors
    assert f"写好的 {written} 份都已保存" in said and written >= 20
    moved = start()
    try:
        done = subprocess.run([*command, "-o", f"Writer.url=http://127.0.0.1:{moved.server_port}/v1",
                               "-o", "Writer.concurrency=4", "-o", "Writer.retries=5"],
                              capture_output=True, text=True, env=environment)
    finally:
        moved.stop()
    assert done.returncode == 0, done.stderr
    check_accounts(tmp_path, 120)
    assert not list(tmp_path.glob("out-*"))


def test_changed_prompts_leave_the_old_results_aside(server, tmp_path):
    prompts = shutil.copytree(ROOT / "configs/synthesis/prompts/en", tmp_path / "prompts")
    command = [*write_recipe(tmp_path, server, 10), "-o", f"Writer.prompts={prompts}"]
    environment = os.environ | {"TEST_LLM_KEY": KEY}
    for _ in range(2):
        assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    assert not list(tmp_path.glob("out-*"))
    with open(prompts / "system.txt", "a", encoding="utf-8") as file:
        file.write("Be brief.\n")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "prompts（内容变了）" in done.stdout, done.stderr
    hashes = {one["prompts_hash"] for file in tmp_path.glob("out-*/reports.jsonl") for one in records(file)}
    assert len(hashes) == 1 and hashes.isdisjoint(one["prompts_hash"] for one in check_accounts(tmp_path, 10)[0])


@pytest.mark.parametrize("change", [f"Writer.key_variable={KEY}", f"Writer.url=http://{KEY}@127.0.0.1:9/v1"])
def test_a_key_in_the_recipe_is_neither_written_nor_said(server, tmp_path, change):
    done = subprocess.run([*write_recipe(tmp_path, server, 10), "-o", change], capture_output=True, text=True)
    assert done.returncode == 2 and KEY not in done.stdout + done.stderr, done.stderr
    assert not (tmp_path / "out/config.yaml").exists()
