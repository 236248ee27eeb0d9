"""`dptr serve` as a person starts and ends it."""

import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from socket import create_server

import pytest

from commands.serve import _is_local
from tests.helpers.commands import DPTR, run
from tests.helpers.pictures import picture
from tests.helpers.serving import HOST, asked

DATA = Path(__file__).parents[1] / "data" / "before-the-move"
FINE = DATA / "fine"


def no_picture_can_be_written():
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # torch tries whether there is a folder for temporary files


def test_it_reads_until_ctrl_c_and_writes_nothing():
    command = [*DPTR, "serve", "--reader", str(FINE), "--port", "0", "--device", "cpu"]
    around = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # Python would cut its own .pyc at that size, and keep them
    limited = {"preexec_fn": no_picture_can_be_written, "env": around}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **limited) as process:
        try:
            line = process.stderr.readline()
            (port,) = re.findall(rf"^{FINE} reads what you drop on http://127\.0\.0\.1:(\d+) \(Ctrl-C ends it\)$", line)
            status, _, found = asked(int(port), body=(DATA / "crops" / "10.png").read_bytes())
            assert (status, found["text"]) == (200, "10")
            assert asked(int(port), body=picture(1, (1000, 1000)))[0] == 200  # 3 MB
            assert str(FINE) in asked(int(port), "GET", "/")[2]
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""


def test_what_keeps_it_from_starting_is_said_in_a_sentence(monkeypatch):
    with create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        for arguments, message in (
            (["--reader", FINE, "--port", port], f"cannot listen on 127.0.0.1, port {port} (Address already in use)"),
            (["--reader", FINE, "--host", "no.such.host.invalid"], "(there is no such host)"),
            (["--reader", "none"], "there is no run in none"),
            (["--reader", DATA / "pre-ctc"], "is a pre-trained run"),
            (["--reader", FINE, "--device", "gpu"], "there is no device 'gpu'"),
            (["--port", "70000"], "65535"),
        ):
            wrong = run("serve", *arguments)
            assert (wrong.returncode, wrong.stdout) == (2, "")
            assert message in wrong.stderr
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    wrong = run("serve", "--reader", FINE)
    assert wrong.returncode == 2
    assert "dptr serve needs uvicorn: pip install 'dptr[serve]'" in wrong.stderr


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False),
     ("192.168.1.2", False), ("my.machine", False)],
)  # fmt: skip
def test_what_only_this_machine_reaches(host, local):
    assert _is_local(host) == local
