"""The recipes in runs/ are commands that dptr has, with options that it takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from cli import app

ROOT = Path(__file__).parents[1]
NOTED = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["NOTED"], "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
"""


def typed(recipe: str, folder: Path, **environment: str) -> list[list[str]]:
    """The lines of dptr that a recipe would run, each as its arguments."""
    (folder / "dptr").write_text(NOTED)
    (folder / "dptr").chmod(0o755)
    around = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "NOTED": str(folder / "noted"), **environment}
    subprocess.run(["bash", ROOT / "runs" / recipe, "out"], env=around, check=True, cwd=folder)
    return [json.loads(line) for line in (folder / "noted").read_text().splitlines()]


@pytest.mark.parametrize("more", [{}, {"PHOTOS": "photos", "FONTS": "fonts"}], ids=["bare", "everything"])
def test_the_reader_is_made_by_commands_that_are_there(tmp_path, more):
    lines = typed("reader.sh", tmp_path, WORDS="a.txt b.txt", CROPS="c d", VAL="v w", **more)
    names = [name for name, *_ in lines]
    assert names == ["embed-text", "pretrain", "finetune", "finetune", "export", "evaluate", "evaluate"]
    commands = get_command(app).commands
    for name, *arguments in lines:
        commands[name].make_context(name, list(arguments))
    assert lines[0][1:3] == ["a.txt", "b.txt"]
    finetune = lines[3]
    assert finetune.count("--train") == finetune.count("--weight") == 3
    assert ("--fonts" in finetune) == ("--behind" in finetune) == bool(more)
    with pytest.raises(Exception, match="No such option"):
        commands["finetune"].make_context("finetune", [*finetune[1:], "--no-such-option"])
