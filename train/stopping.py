"""SIGTERM and SIGINT ask a run to stop: it ends its step, writes a checkpoint and leaves."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cache.errors import DptrError


class Stopped(DptrError):  # noqa: N818 (nothing went wrong)
    """The run was asked to stop, and did."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number  # as shells say it


@dataclass
class Request:
    """The number of the signal that asked, 0 while none did."""

    signal: int = 0


@contextmanager
def stopping() -> Iterator[Request]:
    """A request that the first SIGTERM or SIGINT makes; a second one ends the process as ever."""
    request = Request()
    before: dict[int, Any] = {}

    def ask(number: int, frame: Any) -> None:
        request.signal = number
        for each, handler in before.items():
            signal.signal(each, handler)

    if threading.current_thread() is threading.main_thread():  # others may not
        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
