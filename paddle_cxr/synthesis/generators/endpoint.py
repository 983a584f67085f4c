"""A generator on the other side of the network: any HTTP service that draws an image for a text."""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from paddle_cxr.errors import UserError
from paddle_cxr.registry import register
from paddle_cxr.synthesis.endpoint import Endpoint, Passing, Refused, check_ranges, in_threads
from paddle_cxr.synthesis.generators.base import Drawn, ImageRequest
from paddle_cxr.synthesis.generators.reading import NoImage, decode_grey
from paddle_cxr.synthesis.writers.answers import one_line

_OWN = ("model", "prompt", "seed", "n", "size", "width", "height", "response_format")


@register("generator")
class EndpointGenerator:
    """Has images drawn by a server, in one of two protocols.

    ``openai``: ``POST {url}/images/generations`` with ``{model, prompt, n: 1, size, response_format: b64_json, seed}``,
    answered by ``{"data": [{"b64_json": …}]}`` (https://platform.openai.com/docs/api-reference/images/create; ``seed``
    is what vLLM, SGLang, LocalAI and the like add to it).

    ``json``: ``POST {url}`` with ``{prompt, seed, width, height}``, answered by ``{"image": …}`` or
    ``{"images": […]}``, base64: a dozen lines in front of any model, and what Stable Diffusion's web interface serves.

    The image must be PNG or JPEG and of the size asked for.  Servers want a seed below 2³¹: they are sent the image's
    modulo 2³¹, and that the same seed gives the same image is theirs to keep.  A request that fails is an image with an
    error; only what would fail every request is raised.

    Args:
        url: the API's base (``openai``) or the very address (``json``).
        model: its name as the server knows it; the ``json`` protocol sends none.
        size: of the square image in pixels, 32–4096.
        protocol: see above.
        options: further keys of every request, as the server names them, for example
            ``{guidance_scale: 4, num_inference_steps: 50}``.
        key_variable: the environment variable with the API key, or null for a server that wants none.
        concurrency: requests in flight at once, 1–256.
        requests_per_minute: at most so many are sent, retries included; null: no limit.
        timeout: seconds for one image.
        retries: how often a request is sent again when the server is busy or the line breaks.

    Attributes:
        title: the model's name, or the address's.

    Raises:
        UserError: an argument out of range, no key, nobody listens at ``url``, or the key is refused there.
    """

    def __init__(self, url: str, model: str | None = None, size: int = 512,
                 protocol: Literal["openai", "json"] = "openai", options: dict[str, Any] | None = None,
                 key_variable: str | None = None, concurrency: int = 4, requests_per_minute: float | None = None,
                 timeout: float = 300.0, retries: int = 5) -> None:
        check_ranges("Generator", size=(size, 32, 4096), concurrency=(concurrency, 1, 256),
                     requests_per_minute=(requests_per_minute, 0.01, 1e6), timeout=(timeout, 0.01, 3600),
                     retries=(retries, 0, 100))
        if (model is None) == (protocol == "openai"):
            raise UserError("Generator.model：" + ("protocol 为 openai 时必须写模型名" if model is None else
                                                  "protocol 为 json 时不发送模型名，请删去"))
        self._size, self._protocol, self._concurrency = size, protocol, concurrency
        self._options = _checked(options or {}) | ({"model": model} if model is not None else {})
        if protocol == "openai":
            url = url.strip().rstrip("/").removesuffix("/images/generations")
        # An uncompressed RGB image in base64, and the envelope.
        limit = 3 * size * size * 4 // 3 + (1 << 20)
        self._endpoint = Endpoint(url, key_variable, concurrency, requests_per_minute, timeout, retries, "Generator",
                                  limit)
        self.title = model or self._endpoint.url
        self._endpoint.check()

    @property
    def sent(self) -> int:
        """Requests sent so far, retries included."""
        return self._endpoint.sent

    def draw(self, requests: Sequence[ImageRequest]) -> list[Drawn]:
        """One image a request, in the same order; a call with many keeps the server busy.

        Raises:
            UserError: the endpoint went away, or refuses the key, the model or the account.
        """
        stop = threading.Event()
        try:
            return in_threads(lambda request: self._draw_one(request, stop), requests, self._concurrency)
        except BaseException:  # Ctrl-C too: nothing more is sent
            stop.set()
            raise

    def _draw_one(self, request: ImageRequest, stop: threading.Event) -> Drawn:
        asked = self._options | {"prompt": request.prompt, "seed": request.seed % 2**31}
        try:
            if self._protocol == "openai":
                asked |= {"n": 1, "size": f"{self._size}x{self._size}", "response_format": "b64_json"}
                value = self._endpoint.post("/images/generations", asked, stop, ("data",))
            else:
                asked |= {"width": self._size, "height": self._size}
                value = self._endpoint.post("", asked, stop, ("image", "images"))
            return Drawn(decode_grey(_image_in(value), self._size, self._size))
        except (Passing, Refused) as error:
            return Drawn(error=one_line(str(error)))
        except NoImage as error:
            return Drawn(error=f"服务端的回答：{error}")


def _image_in(value: Mapping[str, Any]) -> bytes:
    """The bytes of the first image in an answer of either protocol; raises NoImage where there is none."""
    first: Any = value.get("image") or value.get("images") or value.get("data")
    first = first[0] if isinstance(first, list) and first else first
    text = first.get("b64_json") if isinstance(first, dict) else first
    if not isinstance(text, str):
        link = isinstance(first, dict) and "url" in first  # not followed: it could lead anywhere
        raise NoImage("只有图像的网址（url），没有 b64_json" if link else "没有 base64 图像")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise NoImage("不是 base64 编码") from None


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    for name in options:
        if name in _OWN:
            raise UserError(f"Generator.options.{name}：这个键由程序填写，请从 options 中删去")
    try:
        json.dumps(options, allow_nan=False)
    except (TypeError, ValueError):
        raise UserError("Generator.options：应只含 JSON 能写的值（数、文字、true/false、null、列表、映射），"
                        f"现在是 {options!r}") from None
    return options
