"""A way to an MLflow server on which things happen: `with FaultyProxy(uri) as proxy` answers at `proxy.uri`.

In: a server's address and `fault`, a function of a request (method and path) that names what happens to it, or answers
None. Out: the server's answers, or not; `proxy.requests` lists what was asked.

    before   500, and the server hears nothing of it        cut     the connection ends, and the server hears nothing
    after    500, and the server has done it                lost    the connection ends, and the server has done it
    hang     no answer until the proxy is closed            late    as `cut`, and the server does it a moment later
"""

import http.client
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

FAULTS = ("before", "after", "cut", "lost")
LATE_S = 1.0

Fault = Callable[[str, str], str | None]


class FaultyProxy:
    def __init__(self, uri: str, fault: Fault = lambda method, path: None):
        self.fault = fault
        self.requests: list[tuple[str, str]] = []
        self.closed = threading.Event()
        self.upstream = urlsplit(uri).netloc
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "FaultyProxy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(proxy: FaultyProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = urlsplit(self.path).path
            proxy.requests.append((self.command, path))
            fault = proxy.fault(self.command, path)
            if fault == "hang":
                proxy.closed.wait()
            if fault == "late":
                threading.Timer(LATE_S, self._forward, [body]).start()
            done = self._forward(body) if fault in (None, "after", "lost") else None
            if fault in ("cut", "lost", "hang", "late"):
                self.close_connection = True
                return
            status, kind, content = done if done and fault is None else (500, "text/plain", b"by chance")
            with suppress(OSError):  # whoever asked may have given up
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def _forward(self, body: bytes) -> tuple[int, str, bytes]:
            with closing(http.client.HTTPConnection(proxy.upstream, timeout=60)) as server:
                headers = {key: value for key, value in self.headers.items() if key.lower() != "connection"}
                try:
                    server.request(self.command, self.path, body, headers)
                    answer = server.getresponse()
                    return answer.status, answer.getheader("Content-Type", ""), answer.read()
                except OSError as error:
                    return 502, "text/plain", str(error).encode()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 - these names are http.server's

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
