"""The page in a thread of the test's own process, with models that need no weights."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recipes import ROOT

from paddle_cxr.app.folder import private_folder
from paddle_cxr.app.recipe import load
from paddle_cxr.app.serve import make_app
from paddle_cxr.app.tabs import Tab, open_tabs, worker_for


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def page(models: dict[str, Any], *overrides: str) -> Iterator[str]:
    """The address of a page whose tabs are those of the recipe, but for ``models``."""
    import uvicorn

    port = free_port()
    recipe = load(ROOT / "configs/app.yaml", [f"Server.port={port}", *overrides]).recipe
    tabs = open_tabs(recipe) | {name: Tab(name, worker_for(name, recipe.Server), model)
                                for name, model in models.items()}
    with private_folder() as folder:
        server = uvicorn.Server(uvicorn.Config(make_app(recipe, tabs, folder), port=port, log_level="warning"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        deadline = time.monotonic() + 60
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert server.started
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(10)
