"""A real server on this machine for tests: answers by a function, keeps what it was asked, and can misbehave."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

KEY = "sk-very-secret-0123456789"  # has to show up nowhere


class Handler(http.server.BaseHTTPRequestHandler):
    """Hands a POST to ``server.respond(handler, body, nth)``; ``nth`` counts those with the same name."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: the second would wait 40 ms

    def do_GET(self) -> None:
        self.answer(*self.server.models)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.stopping.is_set():  # a connection that was kept open
            return self.drop()
        with self.server.lock:
            self.server.asked.append((self.path, body, self.headers.get("Authorization")))
            name = self.server.name(body)
            self.server.turns[name] += 1
            nth = self.server.turns[name]
            self.server.flying += 1
            self.server.most = max(self.server.most, self.server.flying)
        try:
            self.server.respond(self, body, nth)
        finally:
            with self.server.lock:
                self.server.flying -= 1

    def answer(self, status: int, value: Any, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(body)

    def drop(self) -> None:
        """Hang up without a word."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def half(self) -> None:
        """Hang up in the middle of an answer."""
        self.send_response(200)
        self.send_header("Content-Length", "500")
        self.end_headers()
        self.wfile.write(b'{"data": [')
        self.close_connection = True

    def endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        while not self.server.stopping.is_set():
            self.wfile.write(b" " * 100_000)

    def log_message(self, *arguments: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """Listens on a free port from its making until :meth:`stop`; ``name`` gives what a request is counted by.

    A ``handler`` with a ``do_POST`` of its own needs neither ``respond`` nor ``name``.
    """

    request_queue_size = 128
    daemon_threads = True

    def __init__(self, respond: Callable[[Handler, dict, int], None] | None = None,
                 name: Callable[[dict], Any] | None = None, handler: type[Handler] = Handler) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.respond, self.name = respond, name
        self.root = f"http://127.0.0.1:{self.server_port}"
        self.models: tuple[int, Any] = 200, {"data": []}
        self.asked: list[tuple[str, dict, str | None]] = []
        self.turns: Counter = Counter()
        self.flying = self.most = 0
        self.lock, self.stopping = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hung up is what some tests are about

    def stop(self) -> None:
        if not self.stopping.is_set():
            self.stopping.set()
            self.shutdown()
            self.server_close()
            self._thread.join()
