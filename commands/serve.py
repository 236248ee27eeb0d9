"""`dptr serve`: a page in the browser on which pictures are read."""

import os
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from socket import AF_INET, AF_INET6, create_server, socket
from typing import Annotated

import typer

from cache.errors import WrongUse
from commands.console import Device, say

AT_ONCE = 16  # connections; more are turned away


def serve(
    reader: Annotated[
        Path | None, typer.Option(help="Run, exported folder, or name of a shipped reader (default: the shipped one).")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any that is free.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; others than the default open it to a network.")] = (
        "127.0.0.1"
    ),
    device: Device = "auto",
) -> None:
    """Read pictures on a page in the browser: drop some, and see their text, how sure it is, and where it looked."""
    try:
        import uvicorn

        from train.reading.reading_page import read_for_page, reading_app
    except ImportError as error:
        raise WrongUse(f"dptr serve needs {error.name}: pip install 'dptr[serve]'.") from error
    from models.device import choose_device
    from train.run import load_recogniser
    from train.shipped import shipped_reader

    run = reader or shipped_reader()
    recogniser = load_recogniser(run)[0].to(choose_device(device))
    title = str(reader) if reader else run.name
    with _listening(host, port) as listening:
        local = _is_local(host)
        app = reading_app(
            title, partial(read_for_page, recogniser), ["localhost", "127.0.0.1", "::1"] if local else ["*"]
        )
        config = uvicorn.Config(app, ws="none", lifespan="off", log_level="warning", limit_concurrency=AT_ONCE)
        shown = f"[{host}]" if ":" in host else host
        say(f"{title} reads what you drop on http://{shown}:{listening.getsockname()[1]} (Ctrl-C ends it)")
        if not local:
            say("everybody who reaches this machine can use it: leave out --host to keep it to yourself")
        with suppress(KeyboardInterrupt):  # it has ended by then
            uvicorn.Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket:
    """A socket that listens. WrongUse if the system refuses."""
    try:
        return create_server((host, port), family=AF_INET6 if ":" in host else AF_INET)
    except OSError as error:  # with a negative number, the name of the host is unknown
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else "there is no such host"
        raise WrongUse(f"cannot listen on {host}, port {port} ({why}): choose another --port or --host.") from error


def _is_local(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return False
