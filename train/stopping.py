"""SIGTERM and SIGINT ask a run to stop: it finishes its step, writes a checkpoint and exits."""

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
        self.exit_code = 128 + number  # as shells report it


@dataclass
class Request:
    """The signal that asked the run to stop, 0 if none has."""

    signal: int = 0
    waiting: bool = False  # whether it may be interrupted, by InterruptedError

    @contextmanager
    def interrupting(self, now: bool) -> Iterator[None]:
        """If `now`, a signal in here, or one that came before, raises InterruptedError instead of waiting."""
        self.waiting = now
        try:
            if now and self.signal:
                raise InterruptedError
            yield
        finally:
            self.waiting = False


@contextmanager
def stopping() -> Iterator[Request]:
    """Yield a request that the first SIGTERM or SIGINT sets; a second one ends the process as usual."""
    request = Request()
    before: dict[int, Any] = {}

    def ask(number: int, frame: Any) -> None:
        request.signal = number
        for each, handler in before.items():
            signal.signal(each, handler)
        if request.waiting:
            raise InterruptedError

    if threading.current_thread() is threading.main_thread():  # other threads may not set handlers
        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
