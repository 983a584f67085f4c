"""The chat writer against a real server on this machine that misbehaves on demand."""

import collections
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from synthesis import loopback
from synthesis.loopback import KEY

from paddle_cxr.config import explained
from paddle_cxr.errors import UserError
from paddle_cxr.synthesis import endpoint
from paddle_cxr.synthesis.entities import Entity
from paddle_cxr.synthesis.writers.base import Request
from paddle_cxr.synthesis.writers.chat import ChatWriter

pytestmark = pytest.mark.usefixtures("endpoint_environment")
USAGE = {"prompt_tokens": 100, "completion_tokens": 20}


class Handler(loopback.Handler):
    """Misbehaves as the request's entity says: ``MODE`` or ``MODE number``."""

    def do_GET(self):
        self.server.arrived.append(("GET", self.path, time.monotonic()))
        status, value, *location = self.server.models
        self.answer(status, value, **({"Location": location[0]} if location else {}))

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        term = re.search(r"- (.+)", body["messages"][1]["content"])[1]
        with server.lock:
            server.arrived.append((term, self.path, time.monotonic()))
            server.bodies[term] = body
            server.keys.add(self.headers.get("Authorization"))
            nth = sum(entry[0] == term for entry in server.arrived)
            server.flying += 1
            server.most = max(server.most, server.flying)
        try:
            getattr(self, term.split()[0])(term, nth)
        finally:
            with server.lock:
                server.flying -= 1

    def chat(self, content, reason="stop", usage=USAGE, **headers):
        self.answer(200, {"choices": [{"message": {"role": "assistant", "content": content},
                                       "finish_reason": reason}], "usage": usage}, **headers)

    def good(self, term, nth):
        self.chat(json.dumps({"findings": f"There is {term}."}))

    def slow(self, term, nth):
        time.sleep(0.05)
        self.good(term, nth)

    def chatter(self, term, nth):
        self.chat(f'Of course {{doctor}}!\n```json\n{{"findings": "There is\n{term}."}}\n```\nShall I go on?')

    def drops(self, term, nth):
        if nth > 1:
            return self.good(term, nth)
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def halves(self, term, nth):
        if nth > 1:
            return self.good(term, nth)
        self.send_response(200)
        self.send_header("Content-Length", "500")
        self.end_headers()
        self.wfile.write(b'{"choices": [{"mess')
        self.close_connection = True

    def cut(self, term, nth):
        if nth > 1:
            return self.good(term, nth)
        self.answer(200, b'{"choices": [{"message": {"content": "{')

    def busy(self, term, nth):
        if nth > 1:
            return self.good(term, nth)
        self.answer(429, {"error": {"message": "slow down"}}, Retry_After="0.01")

    def waits(self, term, nth):
        if nth > 1:
            return self.good(term, nth)
        self.answer(429, {"error": {"message": "slow down"}}, Retry_After="1")

    def fails(self, term, nth):
        if nth > 2:
            return self.good(term, nth)
        self.answer(500, b"<html>Internal Server Error</html>", Retry_After="soon")

    def limited(self, term, nth):
        self.answer(429, {"error": {"message": "You exceeded your current quota"}})

    def dead(self, term, nth):
        self.answer(503, b"")

    def refuses(self, term, nth):
        self.answer(400, {"error": {"message": f"too long; your key was {KEY}"}})

    def moved(self, term, nth):
        self.answer(307, b"", Location="http://elsewhere.invalid/")

    def unauthorized(self, term, nth):
        self.answer(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}})

    def nowhere(self, term, nth):
        self.answer(404, {"error": {"message": "The model does not exist."}})

    def broke(self, term, nth):
        self.answer(402, {"error": {"message": "Insufficient Balance"}})

    def truncated(self, term, nth):
        self.chat('{"findings": "There is', "length")

    def prose(self, term, nth):
        self.chat(f"There is {term}.")

    def gateway(self, term, nth):
        if nth > 2:
            return self.good(term, nth)
        self.answer(200, {"error_code": 18, "error_msg": "Open api qps request limit reached"})

    def nested(self, term, nth):
        self.answer(200, b'{"a":' * 900 + b"1" + b"}" * 900)

    def null(self, term, nth):
        self.chat(None)

    def filtered(self, term, nth):
        self.chat("", "content_filter")

    def strange(self, term, nth):
        values = [1, {"choices": None}, {"choices": []}, {"choices": ["a"], "usage": 3}, {"error": "no"}]
        self.answer(200, values[(int(term.split()[1]) + nth) % 5])

    def lies(self, term, nth):
        self.chat(json.dumps({"findings": "There is an opacity."}),
                  usage={"prompt_tokens": "many", "completion_tokens": -5, "total": 1e400})

    def tells(self, term, nth):
        self.chat(json.dumps({"findings": f"The key is {KEY}."}))

    def silent(self, term, nth):
        self.server.stopping.wait(5)

    def drips(self, term, nth):
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        while not self.server.stopping.wait(0.05):
            self.wfile.write(b" ")

    def endless(self, term, nth):
        super().endless()


@pytest.fixture
def server():
    running = loopback.Server(handler=Handler)
    running.url = running.root + "/v1"
    running.models = 200, {"data": [{"id": "some-model"}]}
    running.arrived, running.bodies, running.keys = [], {}, set()
    yield running
    running.stop()


@pytest.fixture
def writer(server, root):
    """Make a writer for the server."""

    def make(**arguments) -> ChatWriter:
        return ChatWriter(**{"url": server.url, "model": "some-model", "key_variable": "TEST_API_KEY", "retries": 3,
                             "prompts": str(root / "configs/synthesis/prompts/en"), "timeout": 20.0} | arguments)

    return make


def request(term: str, number: int = 0, section: str = "findings", **more) -> Request:
    return Request(f"r{number}", section, (Entity("thing", "abnormality", term),), seed=number, **more)


def test_every_request_is_accounted_for_in_order(server, writer):
    well = ["good", "slow", "chatter", "drops", "halves", "cut", "busy", "fails", "gateway"]
    badly = {"dead": "HTTP 503", "refuses": "HTTP 400", "moved": "HTTP 307", "truncated": "truncated",
             "prose": "no JSON", "null": "empty", "nested": "empty", "filtered": "content_filter",
             "strange": "empty|JSON"}
    terms = [f"{mode} {number}" for number in range(12) for mode in [*well, *badly]]
    replies = writer(concurrency=16).write([request(term, number) for number, term in enumerate(terms)])
    assert len(replies) == len(terms)
    for term, reply in zip(terms, replies, strict=True):
        mode = term.split()[0]
        if mode in badly:
            assert not reply.text and re.search(badly[mode], reply.error), (term, reply)
        else:
            assert reply.text == f"There is {term}." and not reply.error
            assert (reply.prompt_tokens, reply.completion_tokens) == (100, 20)
    asked = collections.Counter(entry[0].split()[0] for entry in server.arrived)
    assert asked["good"] == asked["refuses"] == asked["truncated"] == 12  # answered: not asked again
    assert asked["drops"] == asked["halves"] == asked["cut"] == asked["busy"] == 24
    assert asked["fails"] == asked["gateway"] == 36 and asked["dead"] == 48


def test_the_request_is_what_the_protocol_wants(server, writer):
    chat = writer(temperature=0.3, max_tokens=77)
    chat.write([request("good 1", 2**40 + 5, feedback="Not mentioned: it.")])
    body = server.bodies["good 1"]
    assert body["model"] == "some-model" and body["seed"] == 5
    assert (body["temperature"], body["max_tokens"]) == (0.3, 77)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert "Not mentioned: it." in body["messages"][1]["content"]
    assert [entry[:2] for entry in server.arrived] == [("GET", "/v1/models"), ("good 1", "/v1/chat/completions")]
    assert (chat.title, len(chat.prompts_hash)) == ("some-model", 64)
    writer(url=server.url + "/chat/completions/").write([request("good 2")])
    assert server.arrived[-1][:2] == ("good 2", "/v1/chat/completions")


def test_tokens_and_costs_are_counted_and_lies_are_not(writer):
    chat = writer(price=(2.0, 10.0))
    chat.write([request("good 1"), request("truncated 1"), request("lies 1")])
    chat.write([request("fails 1")])
    assert (chat.prompt_tokens, chat.completion_tokens, chat.sent) == (300, 60, 6)
    assert chat.cost == pytest.approx(300 * 2e-6 + 60 * 10e-6)
    assert writer().cost is None


def test_the_key_goes_to_the_server_and_nowhere_else(server, writer, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    chat = writer(concurrency=2)
    seen = [repr(chat), repr(vars(chat))]
    seen += map(repr, chat.write([request(f"{mode} 1") for mode in ("good", "refuses", "fails", "tells", "dead")]))
    assert "***" in seen[3] and "***" in seen[5]
    for mode in ("unauthorized", "nowhere"):
        with pytest.raises(UserError) as caught:
            chat.write([request(f"{mode} 1")])
        seen.append(str(caught.value))
    server.models = 403, {"error": {"message": f"{KEY} is not allowed"}}
    with pytest.raises(UserError) as caught:
        writer()
    seen += [str(caught.value), caplog.text, *capfd.readouterr()]
    assert server.keys == {f"Bearer {KEY}"}
    assert not any(KEY in text for text in seen)


def test_a_server_without_key_is_sent_none(server, writer):
    assert writer(key_variable=None).write([request("good 1")])[0].text
    assert server.keys == {None}


@pytest.mark.parametrize("mode, told", [
    ("unauthorized", "TEST_API_KEY"), ("nowhere", "The model does not exist"), ("broke", "Insufficient Balance")])
def test_what_no_request_survives_stops_the_run(server, writer, mode, told):
    terms = [*(f"good {number}" for number in range(5)), mode, *(f"slow {number}" for number in range(500))]
    with pytest.raises(UserError, match=told):
        writer(concurrency=4).write([request(term) for term in terms])
    assert len(server.arrived) < 100


def test_a_wrong_key_is_told_at_the_start(server, writer):
    server.models = 401, {"error": {"message": "no"}}
    with pytest.raises(UserError, match="TEST_API_KEY"):
        writer()


@pytest.mark.parametrize("status", [404, 405, 500, 429])
def test_a_server_without_a_list_of_models_will_do(server, writer, status):
    server.models = status, b""
    assert writer().write([request("good 1")])[0].text


def test_nobody_there_is_told_at_the_start_and_later(server, writer):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match="连不上"):
            writer(url=f"http://127.0.0.1:{free.getsockname()[1]}/v1")
    chat = writer(retries=1)
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match="连不上"):
        chat.write([request(f"good {number}") for number in range(20)])


@pytest.mark.parametrize("mode, told", [("dead", "HTTP 503"), ("refuses", "too long"), ("moved", "elsewhere.invalid"),
                                        ("limited", "exceeded your current quota"), ("nested", "choices")])
def test_a_server_that_answers_nothing_ends_the_run(server, writer, monkeypatch, mode, told):
    """Else a server that is down behind its gateway, or a used-up quota, would have all reports rejected."""
    monkeypatch.setattr(endpoint, "PATIENCE", 20)
    with pytest.raises(UserError, match=f"连续 20 个.*{told}") as caught:
        writer(retries=1, concurrency=4).write([request(f"{mode} {number}") for number in range(500)])
    assert KEY not in str(caught.value)
    assert len(server.arrived) < 60


def test_requests_that_are_refused_again_and_again_do_not_end_a_run(server, writer, monkeypatch):
    """The last of a chunk are those that this server never writes, tried until their attempts are used up."""
    monkeypatch.setattr(endpoint, "PATIENCE", 20)
    chat = writer(retries=0)
    bad = [request(f"refuses {number}", number) for number in range(15)]
    for attempt in range(5):
        replies = chat.write([*bad, *([request("good 1")] if attempt == 0 else [])])
        assert all(reply.error for reply in replies[:15])
    chat.write([request("good 2")])
    for attempt in range(3):
        chat.write([request(f"dead {attempt} {number}") for number in range(9)] + [request(f"good {attempt}")])


def test_a_server_that_is_elsewhere_is_told_at_the_start(server, writer):
    server.models = 301, b"", "https://other.example/v1/models"
    with pytest.raises(UserError, match="https://other.example"):
        writer()
    server.models = 307, b"", server.url + "/models/"  # the same server: some want a slash there
    assert writer().write([request("good 1")])[0].text


def test_ctrl_c_does_not_wait_for_what_was_asked(server, tmp_path, root):
    """A model takes minutes for an answer; nobody waits that long for a program to end."""
    code = f"""
from paddle_cxr.synthesis.entities import Entity
from paddle_cxr.synthesis.writers.base import Request
from paddle_cxr.synthesis.writers.chat import ChatWriter
chat = ChatWriter({server.url!r}, "m", "configs/synthesis/prompts/en", None, timeout=60.0)
chat.write([Request("r", "findings", (Entity("a", "abnormality", f"silent {{i}}"),), seed=i) for i in range(30)])
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while server.flying < 8 and time.monotonic() < deadline:
        time.sleep(0.05)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in said and process.returncode != 0
    assert time.monotonic() - started < 3  # "silent" answers nothing for 5 seconds
    assert server.most == 8


def test_a_server_that_does_not_come_to_an_end_is_left(server, writer):
    replies = writer(timeout=0.3, retries=0, concurrency=3).write(
        [request("silent 1"), request("drips 1"), request("endless 1")])
    assert "timeout" in replies[0].error and "timeout" in replies[1].error
    assert "MiB" in replies[2].error or "timeout" in replies[2].error


def test_retry_after_is_kept(server, writer):
    assert writer().write([request("waits 1")])[0].text
    first, second = [entry[2] for entry in server.arrived if entry[0] == "waits 1"]
    assert second - first >= 0.95


@pytest.mark.parametrize("header, seconds", [("3", 3), ("0.5", 0.5), ("-1", 0), ("1e9", 60), ("nan", 0), ("soon", 0),
                                             ("Wed, 21 Oct 2065 07:28:00 GMT", 60),
                                             ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("", 0), (None, 0)])
def test_retry_after_is_untrusted(header, seconds):
    assert endpoint._seconds(header) == seconds


def test_requests_are_spaced_as_the_limit_wants(server, writer):
    writer(requests_per_minute=1200.0).write([request(f"good {number}") for number in range(8)])
    times = sorted(entry[2] for entry in server.arrived if entry[0] != "GET")
    assert times[-1] - times[0] > 0.2  # 7 pauses of 0.05 s, and a busy machine


def test_several_are_in_flight_and_no_more_than_allowed(server, writer):
    writer(concurrency=3).write([request(f"slow {number}") for number in range(12)])
    assert 1 < server.most <= 3


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_proxy_is_not_asked_for_this_machine(server, writer, monkeypatch, host):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert writer(url=server.url.replace("127.0.0.1", host)).write([request("good 1")])[0].text


@pytest.mark.parametrize("proxy, told", [
    ("socks5://127.0.0.1:9", r"httpx\[socks\]"), ("nothing://user:pa55word@x", "代理"),
    ("http://user:pa55word@127.0.0.1:9", "连不上")])
def test_a_proxy_that_cannot_be_used_is_one_line(writer, monkeypatch, proxy, told):
    monkeypatch.setenv("ALL_PROXY", proxy)
    if "socks" in proxy:
        monkeypatch.setitem(sys.modules, "socksio", None)  # as where it is not installed
    with pytest.raises(UserError, match=told) as caught:
        writer(url="http://far.invalid/v1")
    assert "pa55word" not in str(caught.value)


@pytest.mark.parametrize("arguments, told", [
    ({"concurrency": 0}, "concurrency"), ({"timeout": 0.0}, "timeout"), ({"retries": -1}, "retries"),
    ({"temperature": float("nan")}, "temperature"), ({"requests_per_minute": 0.0}, "requests_per_minute"),
    ({"price": (1.0, -1.0)}, "price"), ({"max_tokens": 0}, "max_tokens"), ({"url": "localhost:8000/v1"}, "http://"),
    ({"url": "ftp://host/v1"}, "http://"), ({"url": "http://"}, "http://"), ({"url": "http://[::1/v1"}, "http://"),
    ({"url": f"http://{KEY}@host/v1"}, "key_variable"), ({"url": f"http://host/v1?key={KEY}"}, "key_variable"),
    ({"key_variable": KEY}, "不是密钥本身"), ({"key_variable": "ABSENT_API_KEY"}, "ABSENT_API_KEY"),
    ({"prompts": "nowhere"}, r"system\.txt")])
def test_wrong_arguments_are_one_line(writer, arguments, told):
    places = {f"Writer.{name}": f"-o Writer.{name}={value}" for name, value in arguments.items()}  # would quote a key
    with pytest.raises(UserError, match=told) as caught, explained(places):
        writer(**arguments)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("key, told", [("  ", "没有设置"), ("sk\n1", "字符"), ("密钥", "字符")])
def test_a_key_that_cannot_be_one(writer, monkeypatch, key, told):
    monkeypatch.setenv("TEST_API_KEY", key)
    with pytest.raises(UserError, match=told):
        writer()
