"""Opening the page: what ``tools/app.py`` does."""

from __future__ import annotations

import argparse

from paddle_cxr.app.folder import private_folder
from paddle_cxr.app.guard import LOOPBACK
from paddle_cxr.app.recipe import load
from paddle_cxr.app.schema import ServerSection
from paddle_cxr.app.serve import check_port, make_app, serve
from paddle_cxr.app.tabs import open_tabs
from paddle_cxr.app.texts import NOTICE
from paddle_cxr.config import explained


def run(arguments: argparse.Namespace) -> int:
    """Open the models, then the page; returns when it is closed (Ctrl-C)."""
    loaded = load(arguments.config, arguments.override)
    recipe, server = loaded.recipe, loaded.recipe.Server
    with explained(loaded.origins):
        check_port(server)
    from paddle_cxr.quiet import import_paddle

    import_paddle()
    tabs = open_tabs(recipe)
    for tab in tabs.values():
        print(f"{tab.name}：{'可用' if tab.opened else tab.why}"
              f"{f'；先运行 {tab.make}' if not tab.opened and tab.make else ''}")
    with private_folder() as folder:
        app = make_app(recipe, tabs, folder)
        if server.host not in LOOPBACK:
            print(f"!! 网页开在 {server.host} 上：同一网络里的人都能打开，没有密码。不要上传患者的图像")
        print(f"请用浏览器打开 {_address(server)}（Ctrl-C 结束）。{NOTICE}", flush=True)
        try:
            serve(app, server)
        finally:
            for tab in tabs.values():
                tab.worker.close()
    return 0


def _address(server: ServerSection) -> str:
    """As it is typed on this computer, also where the page is on all its addresses or on one of version 6."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{server.port}{server.root_path}"
