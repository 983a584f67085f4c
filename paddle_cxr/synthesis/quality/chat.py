"""A judge on the other side of the network: a multimodal model behind an OpenAI-compatible chat endpoint."""

from __future__ import annotations

import base64
import io
import threading
from collections import Counter
from collections.abc import Sequence

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.registry import register
from paddle_cxr.synthesis.endpoint import Endpoint, Passing, Refused, check_ranges, first_choice, in_threads
from paddle_cxr.synthesis.quality.base import QUESTIONS, Answer, Verdict
from paddle_cxr.synthesis.quality.questions import JudgePrompts, read_yes_no
from paddle_cxr.synthesis.writers.answers import one_line

_MAX_QUOTE = 40  # characters of an answer that could not be read, in the list of reasons


@register("judge")
class ChatJudge:
    """Asks InternVL2, Qwen-VL, ERNIE-VL … the six questions through a chat endpoint.

    One question a request, as the paper asked them: a small model answers one plain question better than a form of
    six, its answer to the first cannot sway the others, and there is only a yes or no to read.  The image comes before
    the question, so that a server with a prefix cache encodes it once for all six.

    A question that gets no plain yes or no after ``attempts``, or whose request fails, has the answer None with the
    reason and is counted in ``errors``; only what would fail every request is raised.

    Args:
        url: the API's base, e.g. ``http://127.0.0.1:8000/v1``.
        model: its name as the server knows it.
        prompts: folder of the prompt files (:mod:`paddle_cxr.synthesis.quality.questions`).
        key_variable: the environment variable with the API key, or null for a server that wants none.
        concurrency: images in flight at once, 1–256; the six questions of an image follow each other.
        requests_per_minute: at most so many are sent, retries included; null: no limit.
        timeout: seconds for one answer.
        retries: how often a request is sent again when the server is busy or the line breaks.
        attempts: how often a question is asked until its answer is a plain yes or no.
        max_tokens: of one answer; a model that reasons needs some hundreds.
        longest_side: pixels; a larger image is made smaller before it is sent, 64–4096.

    Attributes:
        title: the model's name.
        prompts_hash: SHA-256 of the prompt files.
        errors: why questions stayed without an answer → how many.

    Raises:
        UserError: an argument out of range, no key, nobody listens at ``url``, or the key, the model or images as such
            are refused there.
    """

    def __init__(self, url: str, model: str, prompts: str, key_variable: str | None = "OPENAI_API_KEY",
                 concurrency: int = 8, requests_per_minute: float | None = None, timeout: float = 120.0,
                 retries: int = 5, attempts: int = 2, max_tokens: int = 32, longest_side: int = 1024) -> None:
        check_ranges("Judge", concurrency=(concurrency, 1, 256), requests_per_minute=(requests_per_minute, 0.01, 1e6),
                     timeout=(timeout, 0.01, 3600), retries=(retries, 0, 100), attempts=(attempts, 1, 10),
                     max_tokens=(max_tokens, 1, 100_000), longest_side=(longest_side, 64, 4096))
        self.title = model
        self.errors: Counter[str] = Counter()
        self._prompts = JudgePrompts(prompts)
        self.prompts_hash = self._prompts.hash
        self._concurrency, self._attempts, self._longest_side = concurrency, attempts, longest_side
        self._options = {"model": model, "temperature": 0, "max_tokens": max_tokens}
        self._endpoint = Endpoint(url, key_variable, concurrency, requests_per_minute, timeout, retries, "Judge")
        self._endpoint.check()
        self._check_sight()

    @property
    def sent(self) -> int:
        """Requests sent so far, retries included."""
        return self._endpoint.sent

    def judge(self, images: Sequence[np.ndarray]) -> list[Verdict]:
        """A verdict for each image: uint8, ``[H, W]`` or ``[H, W, 3]``, any size; many at once keep the server busy.

        Raises:
            UserError: the endpoint went away, or refuses the key, the model or the account.
        """
        stop = threading.Event()
        try:
            judged = in_threads(lambda image: self._judge_one(image, stop), images, self._concurrency)
        except BaseException:  # Ctrl-C too: nothing more is sent
            stop.set()
            raise
        for _, failures in judged:
            self.errors.update(failures)
        return [verdict for verdict, _ in judged]

    def _judge_one(self, image: np.ndarray, stop: threading.Event) -> tuple[Verdict, list[str]]:
        """The verdict, and for each question without an answer what kind of failure it was."""
        url = _data_url(image, self._longest_side)
        verdict: dict[str, Answer] = {}
        failures: list[str] = []
        for question in QUESTIONS:
            try:
                passed, said = self._ask(question, url, stop)
            except (Passing, Refused) as error:
                verdict[question] = Answer(None, reason=one_line(str(error)))
                failures.append(str(error).partition("：")[0])  # without the server's words, which differ each time
                continue
            verdict[question] = Answer(passed, reason="" if passed else said)
            if passed is None:
                failures.append("答非是否（neither yes nor no）")
        return verdict, failures

    def _ask(self, question: str, url: str, stop: threading.Event) -> tuple[bool | None, str]:
        """Yes, no, or None after all attempts; and what the model said."""
        said = ""
        for attempt in range(self._attempts):
            messages = self._prompts.messages(question, url, again=attempt > 0)
            value = self._endpoint.chat(self._options | {"messages": messages, "seed": attempt}, stop)
            answer, reason = first_choice(value)
            # A cut answer may begin with "Yes" and have gone on with "but".
            stopped = reason if reason in ("length", "content_filter") else ""
            passed = None if stopped else read_yes_no(answer)
            said = f"模型回答 {self._quote(answer)}" + (f"（{stopped}）" if stopped else "")
            if passed is not None:
                return passed, said
        return None, said

    def _quote(self, answer: object) -> str:
        text = one_line(self._endpoint.without_key(answer)) if isinstance(answer, str) else "null"
        return f"“{text[:_MAX_QUOTE]}{'…' if len(text) > _MAX_QUOTE else ''}”"

    def _check_sight(self) -> None:
        """Ask once about a grey square: a model that cannot see refuses it, and would refuse every image of the run."""
        grey = np.full((self._longest_side, self._longest_side), 128, np.uint8)
        messages = self._prompts.messages(QUESTIONS[0], _data_url(grey, self._longest_side), again=False)
        try:
            self._endpoint.chat(self._options | {"messages": messages}, threading.Event())
        except Refused as error:
            raise UserError(f"Judge.model：{self.title} 不接受图像（{error}）；"
                            "请换一个能看图的多模态模型（如 InternVL2、Qwen-VL）") from None
        except Passing:
            pass


def _data_url(image: np.ndarray, longest_side: int) -> str:
    """An image as a PNG in a data URL: unlike JPEG it brings in no artefacts for the model to find."""
    from PIL import Image

    picture = Image.fromarray(image)
    if max(picture.size) > longest_side:
        picture.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
