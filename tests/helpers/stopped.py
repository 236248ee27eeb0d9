"""Training that is told to stop at a certain step."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import train.step
from train.stopping import Stopped


@contextmanager
def stopped_at(number: int, steps: int, signalled: bool = True) -> Iterator[pytest.ExceptionInfo]:
    """Expects what is within to stop at step `number` of `steps`; this process gets a SIGTERM then, if `signalled`.

    It ends within a few seconds of its signal.
    """
    step, sent = train.step.Step.__call__, []

    def asked(self, now, *more):
        if signalled and now == number:
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, now, *more)

    message = f"stopped at step {number} of {steps}: run the same command to continue"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.step.Step, "__call__", asked)
        with pytest.raises(Stopped, match=message) as stopped:
            yield stopped
    assert all(time.monotonic() - then < 8 for then in sent)
