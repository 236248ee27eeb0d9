"""One writer per space; a lock dies with its process."""

import errno
import signal
import subprocess
import sys

import pytest

import cache.lock
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


def test_command_that_is_not_utf8_is_no_obstacle(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dptr", "w\udcff.txt"])
    with writing(tmp_path), pytest.raises(DptrError, match=r"dptr w\\udcff\.txt\)"), writing(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks_is_said(tmp_path, monkeypatch, number):
    """As over NFS without its lock service."""

    def refused(*_):
        raise OSError(number, "refused")

    monkeypatch.setattr(cache.lock.fcntl, "flock", refused)
    with pytest.raises(DptrError, match=r"cannot lock files.*choose a --cache on a local disk"), writing(tmp_path):
        pass


def test_system_without_locks_is_said(tmp_path):
    code = "import sys; sys.modules['fcntl'] = None; from pathlib import Path; from cache.lock import writing\n"
    code += "with writing(Path(sys.argv[1])): pass"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith("use Linux or macOS.")
