"""What stands before Gradio: requests it should not see are refused, and every answer gets headers."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from paddle_cxr.app.schema import ServerSection
from paddle_cxr.app.tabs import NAMES

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_MB = 1 << 20
_ROOM = 1 << 20  # bytes of an upload beside the file
_WORDS = 256 << 10  # bytes of any other request: texts and choices
_AWAY = re.compile(r"/file=\s*https?:", re.IGNORECASE)  # Gradio would send the browser to that address
# Gradio's page asks for a script of another site; with this the browser asks nobody but this server.
_POLICY = ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
           "style-src 'self' 'unsafe-inline'; "
           "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob: "
           "data:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'")
_HEADERS = [(b"content-security-policy", _POLICY.encode()), (b"referrer-policy", b"no-referrer"),
            (b"x-content-type-options", b"nosniff")]
_TOO_LARGE = "请求太大 (request too large)"
_ELSEWHERE = ("这个请求来自别的网页，或用了别的域名；经反向代理打开时，请设 Server.root_path 或 Server.host "
              "(the request came from another site)")


class Guard:
    """ASGI middleware.

    - The size of a request must be told, and be no larger than an upload may be (elsewhere than at the upload: than
      texts are).
    - On this computer alone (:data:`LOOPBACK`, no reverse proxy) the host must be this computer, and a form or script
      of another site is not answered: otherwise any site that the reader visits could use the page.
    - There are threads for all who may wait, so that those who wait for a model do not stop the page.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], server: ServerSection) -> None:
        self._app = app
        self._most = server.max_upload_mb * _MB + _ROOM
        self._ours = server.host in LOOPBACK and not server.root_path
        self._threads = server.queue + server.waiting * len(NAMES)

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] == "lifespan":
            from anyio.to_thread import current_default_thread_limiter

            current_default_thread_limiter().total_tokens += self._threads
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope["method"], scope["path"], dict(scope["headers"]))
        if refusal:
            status, said = refusal
            await send({"type": "http.response.start", "status": status,
                        "headers": [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]})
            await send({"type": "http.response.body", "body": said.encode()})
            return

        async def with_headers(message: dict) -> None:
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        await self._app(scope, receive, with_headers)

    def _refusal(self, method: str, path: str, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        """HTTP status and words, or None to go on."""
        host, origin = (headers.get(name, b"").decode("latin-1") for name in (b"host", b"origin"))
        if self._ours and (_name(host) not in LOOPBACK
                           or (method != "GET" and origin and urlsplit(origin).netloc != host)):
            return 403, _ELSEWHERE
        if _AWAY.search(path):
            return 403, _ELSEWHERE
        if b"chunked" in headers.get(b"transfer-encoding", b"").lower():
            return 411, _TOO_LARGE  # how large it is must be known before it is taken
        length = headers.get(b"content-length", b"0")
        most = self._most if path.rstrip("/").endswith("/upload") else _WORDS
        return (413, _TOO_LARGE) if not length.isdigit() or int(length) > most else None


def _name(host: str) -> str:
    """A ``Host`` header without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # a bracket that is not closed
        return ""
