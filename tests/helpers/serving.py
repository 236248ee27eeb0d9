"""The page of `dptr serve`, served from a thread of this process."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from socket import create_server
from threading import Thread

import uvicorn

from train.reading.reading_page import reading_app

HOST = "127.0.0.1"


@contextmanager
def serving(read, **more) -> Iterator[int]:
    """The port on which the page is served; `read` reads what is sent."""
    with create_server((HOST, 0)) as listening:
        app = reading_app("numbers <&>", read, [HOST, "localhost"], **more)
        server = uvicorn.Server(uvicorn.Config(app, ws="none", lifespan="off", log_level="critical"))
        thread = Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def asked(port, method="POST", path="/read", body=None, headers=None):
    """Status, headers, and the body: as JSON, if it is."""
    connection = HTTPConnection(HOST, port, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        data = answer.read()
        is_json = answer.headers.get("Content-Type") == "application/json"
        return answer.status, answer.headers, json.loads(data) if is_json else data.decode()
    finally:
        connection.close()
