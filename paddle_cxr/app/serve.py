"""The server: where it listens, what it refuses, and that a browser asks no other computer for anything."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paddle_cxr.app.schema import AppRecipe, ServerSection
from paddle_cxr.app.tabs import Tab
from paddle_cxr.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_MB = 1 << 20
_ROOM = 1 << 20  # bytes of a request beside the file
# Gradio's page asks for a script of another site; with this the browser asks nobody but this server.
_POLICY = ("default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
           "style-src 'self' 'unsafe-inline'; "
           "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob: "
           "data:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'")
_HEADERS = [(b"content-security-policy", _POLICY.encode()), (b"referrer-policy", b"no-referrer"),
            (b"x-content-type-options", b"nosniff")]


class Guard:
    """ASGI middleware: refuses requests that are too large, and adds the headers above to every answer."""

    def __init__(self, app: Callable[..., Awaitable[None]], most_bytes: int) -> None:
        self._app, self._most = app, most_bytes

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = self._refusal(dict(scope["headers"]))
        if status:
            await send({"type": "http.response.start", "status": status,
                        "headers": [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]})
            await send({"type": "http.response.body", "body": "请求太大 (request too large)".encode()})
            return

        async def with_headers(message: dict) -> None:
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        await self._app(scope, receive, with_headers)

    def _refusal(self, headers: dict[bytes, bytes]) -> int | None:
        """HTTP status, or None to go on."""
        if b"chunked" in headers.get(b"transfer-encoding", b"").lower():
            return 411  # how large it is must be known before it is taken
        length = headers.get(b"content-length", b"0")
        return 413 if not length.isdigit() or int(length) > self._most else None


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for uploads and answers, which only this user can read; deleted at the end.

    Gradio reads its place from the environment.  It also must not report to its makers that it was started.
    """
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
    folder = Path(tempfile.mkdtemp(prefix="paddle_cxr_app_")).resolve()
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_app(recipe: AppRecipe, tabs: dict[str, Tab], folder: Path) -> Any:
    """The ASGI application; call it within :func:`private_folder`.

    Raises:
        UserError: Gradio is not installed, or does not work here.
    """
    from paddle_cxr.quiet import importing

    with importing("网页要用 Gradio", '请安装：python -m pip install -e ".[app]"'):
        import gradio as gr
        from fastapi import FastAPI
        from fastapi.responses import FileResponse
    from paddle_cxr.app.handlers import Handlers
    from paddle_cxr.app.page import FONT_ROUTE, Page, accepted, look
    from paddle_cxr.plots.style import FONT_FILE

    server = recipe.Server
    page = Page(recipe, Handlers(tabs, folder, server.max_upload_mb))
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.get(FONT_ROUTE)(lambda: FileResponse(FONT_FILE, media_type="font/otf"))
    # Files are sent to browsers from the private folder only: not from the project, not from the home folder.
    closed = [str(one) for one in (Path.cwd(), Path.home()) if not folder.is_relative_to(one)]
    options = accepted(gr.mount_gradio_app, allowed_paths=[], blocked_paths=closed,
                       max_file_size=server.max_upload_mb * _MB, show_error=False, ssr_mode=False, pwa=False,
                       show_api=False, enable_monitoring=False, root_path=server.root_path or None,
                       server_name=server.host, server_port=server.port, footer_links=[],
                       **look(server.root_path))
    gr.mount_gradio_app(app, page.blocks, path="/", **options)
    # Gradio checks which files a click may name only where it started the server itself: without this, a click could
    # name any file of the machine, and have it copied to where browsers may fetch it.
    page.blocks.has_launched = True
    return Guard(app, server.max_upload_mb * _MB + _ROOM)


def check_port(server: ServerSection) -> None:
    """Complain now, in one line, about an address that cannot be had; raises :class:`UserError`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"Server.port：不能在 {server.host}:{server.port} 上打开网页（{reason}）；"
                        "请换一个端口，如 -o Server.port=7861，或改 Server.host") from None


def serve(app: Any, server: ServerSection) -> None:
    """Answer requests until Ctrl-C."""
    import uvicorn

    uvicorn.run(app, host=server.host, port=server.port, log_level="warning", timeout_keep_alive=30)
