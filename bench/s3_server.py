"""An S3 server on this machine, moto's, that is as far away and as unreliable as one wishes.

    python -m bench.s3_server LATENCY WRONG RATE

prints its address and serves until its input ends. Each answer comes after LATENCY seconds, and all together over
a line of RATE bytes per second (0: as fast as it goes). One in 1 / WRONG is wrong,
in turn: 503 Slow Down, a body that is cut off, a body with a flipped bit (the last two of ranged reads only).
`GET /sent` says what was sent so far, as JSON.
"""

import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

WRONGS = ("busy", "cut", "flipped")
BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class Far:
    """The application behind a network."""

    def __init__(self, app: Callable[..., Iterable[bytes]], latency: float, wrong: float, rate: float) -> None:
        self._app, self._latency, self._every = app, latency, round(1 / wrong) if wrong else 0
        self._numbers, self.sent = count(1), Counter[str]()
        self._rate, self._free, self._lock = rate, 0.0, threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """WSGI."""
        if environ["PATH_INFO"] == "/sent":
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(self.sent).encode()]
        time.sleep(self._latency)
        ranged = environ["REQUEST_METHOD"] == "GET" and "HTTP_RANGE" in environ
        wrong, number = "", next(self._numbers)
        if self._every and number % self._every == 0:
            wrong = WRONGS[number // self._every % len(WRONGS)] if ranged else "busy"
            self.sent[wrong] += 1
        self.sent["requests"] += 1
        if wrong == "busy":
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Slow Down", [("Content-Type", "text/xml"), ("Content-Length", str(len(BUSY)))])
            return [BUSY]
        body = b"".join(self._app(environ, start_response))
        if wrong == "flipped":
            place = random.randrange(len(body))
            body = body[:place] + bytes([body[place] ^ 1 << random.randrange(8)]) + body[place + 1 :]
        if wrong == "cut":
            body = body[: len(body) // 2]
        if ranged:
            self.sent["bytes"] += len(body)
        self._wait(len(body))
        return [body]

    def _wait(self, size: int) -> None:
        """Until the line has carried so many bytes after those before them."""
        if self._rate:
            with self._lock:
                self._free = max(self._free, time.monotonic()) + size / self._rate
                left = self._free - time.monotonic()
            time.sleep(max(0.0, left))


class _Silent(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *what: Any) -> None:
        """Nothing."""


def serve(latency: float, wrong: float, rate: float = 0) -> tuple[BaseWSGIServer, Far]:
    """A server in threads of this process, on a free port. To be shut down."""
    far = Far(DomainDispatcherApplication(create_backend_app), latency, wrong, rate)
    server = make_server("127.0.0.1", 0, far, threaded=True, request_handler=_Silent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, far


if __name__ == "__main__":
    found, _ = serve(*map(float, sys.argv[1:]))
    print(f"http://127.0.0.1:{found.server_port}", flush=True)
    sys.stdin.read()
