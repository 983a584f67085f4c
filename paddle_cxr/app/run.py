"""Opening the page: what ``tools/app.py`` does."""

from __future__ import annotations

import argparse

from paddle_cxr.app.recipe import load
from paddle_cxr.app.serve import LOOPBACK, check_port, make_app, private_folder, serve
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
        address = f"http://{server.host}:{server.port}{server.root_path}"
        print(f"请用浏览器打开 {address}（Ctrl-C 结束）。{NOTICE}", flush=True)
        try:
            serve(app, server)
        finally:
            for tab in tabs.values():
                tab.worker.close()
    return 0
