"""One writer per space; a lock dies with its process."""

import signal
import subprocess
import sys

import pytest

from cache.errors import DptrError
from cache.lock import writing

HOLD = "import sys, time; from pathlib import Path; from cache.lock import writing\n"
HOLD += "with writing(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


def test_second_writer_is_told_who_the_first_is(tmp_path):
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(DptrError, match=f"is being written by process {first.pid} on "), writing(tmp_path):
            pass
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    with writing(tmp_path):  # the dead process holds nothing
        pass
