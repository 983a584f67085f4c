"""Any server that speaks OpenAI's chat protocol: vLLM, FastDeploy, LMDeploy, ERNIE (Qianfan), OpenAI.

They all serve ``POST {url}/chat/completions`` (https://platform.openai.com/docs/api-reference/chat/create).  One kind
of request needs no vendor's library: httpx, which Paddle brings along, sends it, and tenacity tries it again.

What can go wrong is of three kinds.  The server is busy or a line breaks (:class:`Passing`): tried again with growing
pauses.  The server refuses this one request (:class:`Refused`).  Nothing can work at all (nobody listens, wrong key,
wrong model): UserError.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import math
import os
import re
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from paddle_cxr.errors import UserError

if TYPE_CHECKING:
    import httpx

MAX_BODY = 1 << 20  # bytes of one answer; a report has a few thousand
MAX_HOLD = 60.0  # seconds that a server's Retry-After may keep us waiting
CHECK_TIMEOUT = CONNECT_TIMEOUT = 10.0  # seconds
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between tries: doubled each time, and drawn at random up to that
LONGEST_QUOTE = 200  # characters of a server's own words in an error


class Passing(Exception):
    """Might have succeeded on another try."""


class Unreachable(Passing):
    """Nobody listens there, or the name is unknown."""


class Refused(Exception):
    """The server will not answer this request, however often it is asked; ``status`` is 0 where it was our doing."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Endpoint:
    """A chat endpoint; all methods may be called from several threads.

    Args:
        url: the API's base, e.g. ``http://127.0.0.1:8000/v1``.
        key_variable: the environment variable with the API key, or None for a server that wants none.
        connections: open at once at most.
        requests_per_minute: at most so many are sent, retries included; None: no limit.
        timeout: seconds for one answer.
        retries: how often a request is sent again after a passing failure.
        path: of the component in the recipe, for errors.

    Attributes:
        url: without its end.
        sent: chat requests, retries included.

    Raises:
        UserError: an argument out of range, or no key in the environment.
    """

    def __init__(self, url: str, key_variable: str | None, connections: int, requests_per_minute: float | None,
                 timeout: float, retries: int, path: str) -> None:
        import httpx

        self.url, local = _check_url(url, path)
        self.sent = 0
        self._path, self._timeout, self._retries, self._key_variable = path, timeout, retries, key_variable
        self._key = _key_from_environment(key_variable, path)
        self._pace = _Pace(60 / requests_per_minute if requests_per_minute else 0)
        self._counting = threading.Lock()
        # Compressed answers could unfold to any size.
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        # A proxy in the environment cannot know what this machine means by 127.0.0.1.
        self._client = httpx.Client(headers=headers, trust_env=not local,
                                    limits=httpx.Limits(max_connections=connections))

    def check(self) -> None:
        """Fail at the start, in one line: does anyone listen, is the key let in?

        The list of models is what servers answer at no cost.  One that has no such list, or a bad moment, passes.
        """
        try:
            self._exchange("GET", "/models", min(self._timeout, CHECK_TIMEOUT))
        except Unreachable as error:
            raise self._nobody_there(error) from None
        except Refused as error:
            if error.status in (401, 403):
                raise self._hopeless(error) from None
        except Passing:
            pass

    def chat(self, payload: Mapping[str, Any], stop: threading.Event) -> dict[str, Any]:
        """Send ``payload`` to ``/chat/completions`` until the server answers: the JSON object that came back.

        Args:
            payload: see the protocol.
            stop: once set, by this method or another thread, nothing is waited for and nothing more is sent.

        Raises:
            Passing: the tries are used up.
            Refused: this request is not answered.
            UserError: no request would be.
        """
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

        def ask() -> dict[str, Any]:
            self._pace.wait(stop)
            if stop.is_set():
                raise Refused("已停止（stopped）")
            with self._counting:
                self.sent += 1
            return self._exchange("POST", "/chat/completions", self._timeout, payload)

        retrying = Retrying(retry=retry_if_exception_type(Passing), stop=stop_after_attempt(self._retries + 1),
                            wait=wait_random_exponential(FIRST_PAUSE, LONGEST_PAUSE), sleep=stop.wait, reraise=True)
        try:
            return retrying(ask)
        except Unreachable as error:
            stop.set()
            raise self._nobody_there(error) from None
        except Refused as error:
            if error.status not in (401, 402, 403, 404):
                raise
            stop.set()
            raise self._hopeless(error) from None

    def without_key(self, text: str) -> str:
        """``text`` without the key, which servers quote.  A placeholder such as ``EMPTY`` is no secret but a word."""
        return text.replace(self._key, "***") if len(self._key) >= 8 else text

    def _exchange(self, method: str, path: str, timeout: float, payload: Mapping[str, Any] | None = None
                  ) -> dict[str, Any]:
        """One HTTP request: the JSON object that came back; raises Passing or Refused."""
        import httpx

        limits = httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT), pool=None)
        try:
            with self._client.stream(method, self.url + path, json=payload, timeout=limits) as response:
                body = _read_body(response, time.monotonic() + timeout)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise Unreachable(_reason(error)) from None
        except httpx.TimeoutException:
            raise Passing(f"超时（timeout，{timeout:g} 秒）") from None
        except httpx.HTTPError as error:
            raise Passing(f"连接中断（{type(error).__name__}）") from None
        status = response.status_code
        if status == 200:
            return _json_object(body)
        if status in (408, 409, 425, 429) or status >= 500:
            self._pace.hold(_seconds(response.headers.get("Retry-After")))
            raise Passing(f"HTTP {status}")
        said = self.without_key(_words_of(body))[:LONGEST_QUOTE]
        raise Refused(f"HTTP {status}" + (f"：{said}" if said else ""), status)

    def _nobody_there(self, error: Exception) -> UserError:
        return UserError(f"{self._path}.url：连不上 {self.url}（{error}）；"
                         "请确认服务已启动、地址和端口正确，或检查网络与代理（proxy）")

    def _hopeless(self, error: Refused) -> UserError:
        if error.status == 402:
            return UserError(f"{self._path}.url：{self.url} 余额不足（{error}）；充值后再运行")
        if error.status == 404:
            return UserError(f"{self._path}.url 或 {self._path}.model：{self.url} 没有这个地址或模型（{error}）；"
                             "url 通常以 /v1 结尾，模型名以服务端为准")
        source = f"环境变量 {self._key_variable} 中的密钥" if self._key else "key_variable（现在是 null，没有发送密钥）"
        return UserError(f"{self._path}.key_variable：{self.url} 拒绝访问（{error}）；请检查{source}")


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


def _check_url(url: str, path: str) -> tuple[str, bool]:
    """The base URL without its end, and whether it means this machine."""
    import httpx

    try:
        parsed = httpx.URL(url.strip())
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.userinfo or parsed.query or parsed.fragment:  # not quoted: it may hold a key
        raise UserError(f"{path}.url：网址里不要写用户名、密码或 ? 参数；密钥放进环境变量，并在 key_variable 写变量名")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UserError(f"{path}.url：应为 http:// 或 https:// 开头的网址（例如 http://127.0.0.1:8000/v1），"
                        f"现在是 {url!r}")
    local = parsed.host in ("localhost", "::1") or parsed.host.startswith("127.")
    return str(parsed).rstrip("/").removesuffix("/chat/completions"), local


def _key_from_environment(variable: str | None, path: str) -> str:
    if variable is None:
        return ""
    if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", variable):  # not quoted: it may be the key itself
        raise UserError(f"{path}.key_variable：应为环境变量的名字（大写字母、数字、下划线，例如 OPENAI_API_KEY），"
                        "不是密钥本身")
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"{path}.key_variable：环境变量 {variable} 没有设置；请先 export {variable}=密钥，"
                        "服务不需要密钥时写 key_variable: null")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"{path}.key_variable：环境变量 {variable} 中的密钥含有不可用的字符；请重新复制密钥")
    return key


def _read_body(response: httpx.Response, deadline: float) -> bytes:
    """The body of a streamed response, which may neither be endless nor come for ever in drops."""
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > MAX_BODY:
            raise Refused(f"回答过大（超过 {MAX_BODY >> 20} MiB）")
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


def _words_of(body: bytes) -> str:
    """What a server says about a request it refused: ``error.message``, or the page."""
    text: Any = body.decode("utf-8", "replace")
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        text = json.loads(body)["error"]["message"]
    return " ".join(str(text).split())


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


def _reason(error: Exception) -> str:
    """Why no connection came about, in a few words."""
    text = str(error).lower()
    for sign, reason in (("refused", "连接被拒绝"), ("name or service", "域名解析失败"), ("resolution", "域名解析失败"),
                         ("getaddrinfo", "域名解析失败"), ("timed out", "连接超时"), ("unreachable", "网络不可达"),
                         ("certificate", "证书错误 SSL"), ("ssl", "证书错误 SSL")):
        if sign in text:
            return reason
    return type(error).__name__
