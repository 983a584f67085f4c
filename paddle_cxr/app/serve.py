"""The server: Gradio's page behind the guard, where it listens, and how it ends."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from paddle_cxr.app.guard import Guard
from paddle_cxr.app.schema import AppRecipe, ServerSection
from paddle_cxr.app.tabs import Tab
from paddle_cxr.errors import UserError

_MB = 1 << 20
_GRACE = 3  # seconds for the answers under way when the page is closed


def make_app(recipe: AppRecipe, tabs: dict[str, Tab], folder: Path) -> Any:
    """The ASGI application; call it within :func:`~paddle_cxr.app.folder.private_folder`.

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
    _fetch_nothing()
    return Guard(app, server)


def _fetch_nothing() -> None:
    """A click may name an address in place of an upload, and Gradio would fetch it, however large: it may not."""
    import gradio as gr
    from gradio import processing_utils

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise gr.Error("no file is fetched from other computers", print_exception=False)

    async def refuse_later(*_: Any, **__: Any) -> NoReturn:
        refuse()

    processing_utils.async_ssrf_protected_download = refuse_later
    processing_utils.ssrf_protected_download = processing_utils.save_url_to_cache = refuse


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
    """Answer requests until Ctrl-C, ``kill`` or the end of the terminal; what is to be cleaned up then, is."""
    import uvicorn

    with _ending():
        uvicorn.run(app, host=server.host, port=server.port, log_level="warning", timeout_keep_alive=30,
                    timeout_graceful_shutdown=_GRACE)


@contextmanager
def _ending() -> Iterator[None]:
    """The signals that would end the process at once raise instead, so that no upload is left behind."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    def end_as_killed(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGTERM)  # uvicorn closes the page at this one, and raises it again for ``end``

    handlers = {"SIGTERM": end, "SIGHUP": end_as_killed}  # Windows has no SIGHUP
    before = {name: signal.signal(getattr(signal, name), handler) for name, handler in handlers.items()
              if hasattr(signal, name)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
