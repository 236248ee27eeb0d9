"""Commands as a person types them: in this process, where torch is loaded already, or as the installed program."""

import subprocess
import sys
from contextlib import chdir
from functools import cache
from pathlib import Path

import typer.testing
from typer.main import get_command
from typer.testing import CliRunner

from cli import app

DPTR = [str(Path(sys.executable).parent / "dptr")]
typer.testing._get_command = cache(get_command)  # building all commands anew takes longer than most of them
SMALL = ["--model", "tiny", "--pretrained", "untrained:0"]


def run(*arguments, cwd=".") -> subprocess.CompletedProcess:
    """What a process would have ended with. An error that no person is meant to see, and would be a traceback there,
    is raised.
    """
    with chdir(cwd):
        done = CliRunner().invoke(app, [str(a) for a in arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def start(*arguments, program=DPTR, cwd=None) -> subprocess.CompletedProcess:
    """The same in a process of its own, by the installed command or another `program`."""
    return subprocess.run([*program, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False)
