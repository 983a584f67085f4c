"""Any server that speaks OpenAI's chat protocol: vLLM, FastDeploy, LMDeploy, ERNIE (Qianfan), OpenAI.

They all serve ``POST {url}/chat/completions`` (https://platform.openai.com/docs/api-reference/chat/create).  One kind
of request needs no vendor's library: httpx, which Paddle brings along, sends it, and tenacity tries it again.

What can go wrong is of three kinds.  The server is busy or a line breaks (:class:`Passing`): tried again with growing
pauses.  The server refuses this one request (:class:`Refused`).  Nothing can work at all (nobody listens, wrong key,
wrong model, not one answer for a long while): UserError, so that a run ends instead of giving up report after report.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import math
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import TYPE_CHECKING, Any, TypeVar

from paddle_cxr.errors import UserError
from paddle_cxr.synthesis.connection import check_url, failure_in_words, open_client, origin, read_key

if TYPE_CHECKING:
    import httpx

Task = TypeVar("Task")
Result = TypeVar("Result")

MAX_BODY = 1 << 20  # bytes of one answer in text; a report has a few thousand
MAX_HOLD = 60.0  # seconds that a server's Retry-After may keep us waiting
CHECK_TIMEOUT = CONNECT_TIMEOUT = 10.0  # seconds
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between tries: doubled each time, and drawn at random up to that
LONGEST_QUOTE = 200  # characters of a server's own words in an error
PATIENCE = 50  # different requests, one after the other and each tried to the end, until a silent server is given up


class Passing(Exception):
    """Might have succeeded on another try; ``said`` are the server's own words, which differ from time to time."""

    def __init__(self, message: str, said: str = "") -> None:
        super().__init__(message)
        self.said = said


class Unreachable(Passing):
    """Nobody listens there, or the name is unknown."""


class Refused(Exception):
    """The server will not answer this request, however often it is asked.

    Attributes:
        status: of HTTP; 0 where it was our doing.
        elsewhere: it points to another server.
    """

    def __init__(self, message: str, status: int = 0, elsewhere: bool = False) -> None:
        super().__init__(message)
        self.status, self.elsewhere = status, elsewhere


class Endpoint:
    """A server and how it is asked; all methods may be called from several threads.

    Args:
        url: the API's base, e.g. ``http://127.0.0.1:8000/v1``.
        key_variable: the environment variable with the API key, or None for a server that wants none.
        connections: open at once at most.
        requests_per_minute: at most so many are sent, retries included; None: no limit.
        timeout: seconds for one answer.
        retries: how often a request is sent again after a passing failure.
        path: of the component in the recipe, for errors.
        max_body: bytes of one answer at most.

    Attributes:
        url: without its end.
        sent: requests, retries included.

    Raises:
        UserError: no such URL, no key in the environment, or a proxy there that cannot be used.
    """

    def __init__(self, url: str, key_variable: str | None, connections: int, requests_per_minute: float | None,
                 timeout: float, retries: int, path: str, max_body: int = MAX_BODY) -> None:
        self.url, local = check_url(url, path)
        self.sent = 0
        self._max_body = max_body
        self._path, self._timeout, self._retries, self._key_variable = path, timeout, retries, key_variable
        self._key = read_key(key_variable, path)
        self._pace = _Pace(60 / requests_per_minute if requests_per_minute else 0)
        self._counting = threading.Lock()
        self._failed: set[int] = set()  # requests that were not answered, by their content
        self._failed_in_a_row = 0  # different ones since the last answer
        # Compressed answers could unfold to any size.
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        # A proxy in the environment cannot know what this machine means by 127.0.0.1.
        self._client = open_client(headers, not local, connections, path)

    def check(self) -> None:
        """Fail at the start, in one line: does anyone listen, is the key let in?

        The list of models is what servers answer at no cost.  One that has no such list, or a bad moment, passes.
        """
        try:
            self._exchange("GET", "/models", min(self._timeout, CHECK_TIMEOUT))
        except Unreachable as error:
            raise self._nobody_there(error) from None
        except Refused as error:
            if error.status in (401, 403) or error.elsewhere:
                raise self._hopeless(error) from None
        except Passing:
            pass

    def chat(self, payload: Mapping[str, Any], stop: threading.Event) -> dict[str, Any]:
        """:meth:`post` ``payload`` to ``/chat/completions``."""
        return self.post("/chat/completions", payload, stop, ("choices",))

    def post(self, path: str, payload: Mapping[str, Any], stop: threading.Event, answer: Sequence[str]
             ) -> dict[str, Any]:
        """Send ``payload`` to ``path`` until the server answers: the JSON object that came back.

        Args:
            path: is put after the URL.
            payload: see the protocol.
            stop: once set, by this method or another thread, nothing is waited for and nothing more is sent.
            answer: names of which one at least must be in the object and not be empty.

        Raises:
            Passing: the tries are used up.
            Refused: this request is not answered.
            UserError: no request would be, or none was for a long while.
        """
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

        def ask() -> dict[str, Any]:
            self._pace.wait(stop)
            if stop.is_set():
                raise Refused("已停止（stopped）")
            with self._counting:
                self.sent += 1
            value = self._exchange("POST", path, self._timeout, payload)
            if not any(value.get(name) for name in answer):  # some gateways say "too many requests" with HTTP 200
                raise Passing(f"回答里没有 {'、'.join(answer)}（empty answer）", self._quote(_dumped(value)))
            return value

        retrying = Retrying(retry=retry_if_exception_type(Passing), stop=stop_after_attempt(self._retries + 1),
                            wait=wait_random_exponential(FIRST_PAUSE, LONGEST_PAUSE), sleep=stop.wait, reraise=True)
        try:
            value = retrying(ask)
        except Unreachable as error:
            stop.set()
            raise self._nobody_there(error) from None
        except (Passing, Refused) as error:
            hopeless = isinstance(error, Refused) and error.status in (401, 402, 403, 404)
            if stop.is_set() or not (hopeless or self._out_of_patience(payload)):
                raise
            stop.set()
            raise (self._hopeless(error) if hopeless else self._no_answers(error)) from None
        with self._counting:
            self._failed_in_a_row = 0
        return value

    def _out_of_patience(self, payload: Mapping[str, Any]) -> bool:
        """Count a failure.  The same request once more, with another seed, says nothing new about the server."""
        content = hash(json.dumps({name: value for name, value in payload.items() if name != "seed"}, sort_keys=True))
        with self._counting:
            self._failed_in_a_row += content not in self._failed
            self._failed.add(content)
            return self._failed_in_a_row >= PATIENCE

    def without_key(self, text: str) -> str:
        """``text`` without the key, which servers quote.  A placeholder such as ``EMPTY`` is no secret but a word."""
        return text.replace(self._key, "***") if len(self._key) >= 8 else text

    def _quote(self, text: str) -> str:
        """The beginning of a server's own words, on one line and without the key."""
        return self.without_key(" ".join(text.split()))[:LONGEST_QUOTE]

    def _exchange(self, method: str, path: str, timeout: float, payload: Mapping[str, Any] | None = None
                  ) -> dict[str, Any]:
        """One HTTP request: the JSON object that came back; raises Passing or Refused."""
        import httpx

        limits = httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT), pool=None)
        deadline = time.monotonic() + timeout
        try:
            with self._client.stream(method, self.url + path, json=payload, timeout=limits) as response:
                body = _read_body(response, deadline, self._max_body)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise Unreachable(failure_in_words(error)) from None
        except httpx.TimeoutException:
            raise Passing(f"超时（timeout，{timeout:g} 秒）") from None
        except httpx.HTTPError as error:
            raise Passing(f"连接中断（{type(error).__name__}）") from None
        status = response.status_code
        if status == 200:
            return _json_object(body)
        said = self._quote(_words_of(body))
        if status in (408, 409, 425, 429) or status >= 500:
            self._pace.hold(_seconds(response.headers.get("Retry-After")))
            raise Passing(f"HTTP {status}", said)
        if response.has_redirect_location:  # never followed: the key would go to whoever is named there
            target = response.headers["Location"]
            raise Refused(f"HTTP {status}，重定向（redirect）到 {self._quote(target)}", status,
                          elsewhere=origin(target) not in ("", origin(self.url)))
        raise Refused(f"HTTP {status}" + (f"：{said}" if said else ""), status)

    def _nobody_there(self, error: Exception) -> UserError:
        return UserError(f"{self._path}.url：连不上 {self.url}（{error}）；"
                         "请确认服务已启动、地址和端口正确，或检查网络与代理（proxy）")

    def _no_answers(self, error: Passing | Refused) -> UserError:
        said = getattr(error, "said", "")
        return UserError(f"{self._path}.url：{self.url} 连续 {PATIENCE} 个请求都没有得到回答，最后一次是 {error}"
                         + (f"：{said}" if said else "") + f"；限速（429）时请设 {self._path}.requests_per_minute，"
                         "否则请查看服务端；之后重新运行同一条命令就接着写")

    def _hopeless(self, error: Refused) -> UserError:
        if error.elsewhere:
            return UserError(f"{self._path}.url：{self.url} 不在这里回答（{error}）；密钥不会跟着转到别处，"
                             "请核对后把 url 改成新的地址")
        if error.status == 402:
            return UserError(f"{self._path}.url：{self.url} 余额不足（{error}）；充值后再运行")
        if error.status == 404:
            return UserError(f"{self._path}.url 或 {self._path}.model：{self.url} 没有这个地址或模型（{error}）；"
                             "url 通常以 /v1 结尾，模型名以服务端为准")
        source = f"环境变量 {self._key_variable} 中的密钥" if self._key else "key_variable（现在是 null，没有发送密钥）"
        return UserError(f"{self._path}.key_variable：{self.url} 拒绝访问（{error}）；请检查{source}")


def in_threads(work: Callable[[Task], Result], tasks: Sequence[Task], threads: int) -> list[Result]:
    """``work(task)`` for each task, in order; the first exception is raised at once.

    Threads rather than asyncio: a notebook already runs an event loop of its own.  Daemons rather than an executor's:
    after Ctrl-C those would keep the program until the last answer has come, which takes minutes.
    """
    left: queue.SimpleQueue[tuple[Task, Future[Result]]] = queue.SimpleQueue()
    futures: list[Future[Result]] = [Future() for _ in tasks]
    for pair in zip(tasks, futures, strict=True):
        left.put(pair)

    def run() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                task, future = left.get_nowait()
                try:
                    future.set_result(work(task))
                except BaseException as error:
                    future.set_exception(error)

    for _ in range(min(threads, len(tasks))):
        threading.Thread(target=run, daemon=True).start()
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    for future in done:
        future.result()
    return [future.result() for future in futures]


def first_choice(value: Mapping[str, Any]) -> tuple[Any, Any]:
    """What the model wrote in a chat's answer and why it stopped; None where the server left it out."""
    with contextlib.suppress(KeyError, IndexError, TypeError, AttributeError):
        choice = value["choices"][0]
        return choice["message"]["content"], choice.get("finish_reason")
    return None, None


def check_ranges(component: str, **ranges: tuple[float | None, float, float]) -> None:
    """Raise UserError for the first argument of ``component`` whose (value, least, most) is out of range.

    None stands for "not given"; what is not a number (NaN) is out of any range.
    """
    for name, (value, least, most) in ranges.items():
        if value is not None and not least <= value <= most:
            raise UserError(f"{component}.{name}：应在 {least:g} 与 {most:g} 之间，现在是 {value}")


class _Pace:
    """When the next request may be sent, for all threads together: evenly spaced, so that any minute has its number."""

    def __init__(self, interval: float) -> None:
        self._interval, self._next, self._lock = interval, 0.0, threading.Lock()

    def wait(self, stop: threading.Event) -> None:
        """Take the next slot and wait for it, or until ``stop``."""
        with self._lock:
            slot = max(self._next, time.monotonic())
            self._next = slot + self._interval
        stop.wait(max(0.0, slot - time.monotonic()))

    def hold(self, seconds: float) -> None:
        """Give no slot for so long: what a server tells one request it means for all."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


def _read_body(response: httpx.Response, deadline: float, limit: int) -> bytes:
    """The body of a streamed response, which may neither be endless nor come for ever in drops."""
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > limit:
            raise Refused(f"回答过大（超过 {limit >> 20} MiB）")
        if time.monotonic() > deadline:
            raise Passing("超时（timeout），回答来得太慢")
    return bytes(body)


def _json_object(body: bytes) -> dict[str, Any]:
    """The server's envelope; a cut one may come whole on the next try."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Passing("服务端的回答不是完整的 JSON（truncated or invalid JSON）")
    return value


def _dumped(value: Mapping[str, Any]) -> str:
    """JSON for people; an empty string for what is nested too deeply to be written."""
    with contextlib.suppress(RecursionError):
        return json.dumps(value, ensure_ascii=False)
    return ""


def _words_of(body: bytes) -> str:
    """What a server says about a request it refused: ``error.message``, or the page."""
    text: Any = body.decode("utf-8", "replace")
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        text = json.loads(body)["error"]["message"]
    return str(text)


def _seconds(retry_after: str | None) -> float:
    """``Retry-After``: seconds or a date (RFC 9110, section 10.2.3); 0 for nothing of use, ``MAX_HOLD`` at most."""
    try:
        seconds = float(retry_after or 0)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return 0.0 if math.isnan(seconds) else min(max(seconds, 0.0), MAX_HOLD)
