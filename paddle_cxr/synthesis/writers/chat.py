"""A writer on the other side of the network: a large language model behind an OpenAI-compatible chat endpoint."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from paddle_cxr.errors import UserError
from paddle_cxr.registry import register
from paddle_cxr.synthesis.endpoint import Endpoint, Passing, Refused, check_ranges, first_choice, in_threads
from paddle_cxr.synthesis.writers.answers import AnswerError, read_answer
from paddle_cxr.synthesis.writers.base import Reply, Request
from paddle_cxr.synthesis.writers.prompts import Prompts


@register("writer")
class ChatWriter:
    """Writes reports through a chat endpoint (:mod:`paddle_cxr.synthesis.endpoint`).

    A request that fails, or whose answer is of no use, is a reply with an error; only what would fail every request
    (nobody listens, wrong key, wrong model) is raised.

    Args:
        url: the API's base, e.g. ``http://127.0.0.1:8000/v1``.
        model: its name as the server knows it.
        prompts: folder of the prompt files (:mod:`paddle_cxr.synthesis.writers.prompts`).
        key_variable: the environment variable with the API key, or null for a server that wants none.  The key itself
            never stands in a recipe, and is cut out of whatever the server says.
        concurrency: requests in flight at once, 1–256.
        requests_per_minute: at most so many are sent, retries included; null: no limit.
        timeout: seconds for one answer.
        retries: how often a request is sent again when the server is busy or the line breaks.
        temperature: 0–2; 0 always takes the likeliest word.
        max_tokens: of one answer.
        price: of one million tokens, ``[in, out]``, in any currency; null: costs are not counted.

    Attributes:
        title: the model's name.
        prompts_hash: SHA-256 of the prompt files.
        prompt_tokens, completion_tokens: what the server counted so far, answers of no use included.

    Raises:
        UserError: an argument out of range, no key, nobody listens at ``url``, or the key is refused there.
    """

    def __init__(self, url: str, model: str, prompts: str, key_variable: str | None = "OPENAI_API_KEY",
                 concurrency: int = 8, requests_per_minute: float | None = None, timeout: float = 120.0,
                 retries: int = 5, temperature: float = 0.7, max_tokens: int = 1024,
                 price: tuple[float, float] | None = None) -> None:
        check_ranges("Writer", concurrency=(concurrency, 1, 256), requests_per_minute=(requests_per_minute, 0.01, 1e6),
                     timeout=(timeout, 0.01, 3600), retries=(retries, 0, 100), temperature=(temperature, 0, 2),
                     max_tokens=(max_tokens, 1, 100_000))
        if price is not None and not all(0 <= one < 1e9 for one in price):
            raise UserError(f"Writer.price：应为每百万 token 的价格 [输入, 输出]，不小于 0，现在是 {list(price)}")
        self.title = model
        self.prompt_tokens = self.completion_tokens = 0
        self._prompts = Prompts(prompts)
        self.prompts_hash = self._prompts.hash
        self._concurrency, self._price = concurrency, price
        self._options = {"model": model, "temperature": temperature, "max_tokens": max_tokens}
        self._endpoint = Endpoint(url, key_variable, concurrency, requests_per_minute, timeout, retries, "Writer")
        self._endpoint.check()

    @property
    def sent(self) -> int:
        """Requests sent so far, retries included."""
        return self._endpoint.sent

    @property
    def cost(self) -> float | None:
        """Of the tokens so far, in the currency of ``price``; None without one."""
        if self._price is None:
            return None
        return (self._price[0] * self.prompt_tokens + self._price[1] * self.completion_tokens) / 1e6

    def write(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply a request, in the same order; a call with many keeps the server busy.

        Raises:
            UserError: the endpoint went away, refuses the key, the model or the account, or has not answered for long.
        """
        stop = threading.Event()
        try:
            replies = in_threads(lambda request: self._write_one(request, stop), requests, self._concurrency)
        except BaseException:  # Ctrl-C too: nothing more is sent
            stop.set()
            raise
        self.prompt_tokens += sum(reply.prompt_tokens for reply in replies)
        self.completion_tokens += sum(reply.completion_tokens for reply in replies)
        return replies

    def _write_one(self, request: Request, stop: threading.Event) -> Reply:
        payload = self._options | {"messages": self._prompts.messages(request), "seed": request.seed % 2**31}
        try:
            value = self._endpoint.chat(payload, stop)
        except (Passing, Refused) as error:
            return Reply(error=str(error))
        reply = Reply(prompt_tokens=_tokens(value, "prompt_tokens"),
                      completion_tokens=_tokens(value, "completion_tokens"))
        answer, reason = first_choice(value)
        if reason == "content_filter":
            return replace(reply, error="被内容审核拦截（content_filter）")
        try:
            text = read_answer(answer, request.section, self._prompts.wants_json(request.section), reason == "length")
        except AnswerError as error:
            return replace(reply, error=str(error))
        return replace(reply, text=self._endpoint.without_key(text))


def _tokens(value: dict[str, Any], name: str) -> int:
    """A number of tokens in ``usage``; 0 for what is no such number."""
    usage = value.get("usage")
    number = usage.get(name) if isinstance(usage, dict) else None
    return number if type(number) is int and 0 <= number < 2**31 else 0
