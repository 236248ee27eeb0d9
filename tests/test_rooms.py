"""The shape of the project: which room imports which, and how large a file may grow."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = PROJECT["tool"]["importlinter"]["root_packages"]
FILES = sorted(p for room in ROOMS for p in (ROOT / room).rglob("*.py"))


def test_imports_run_one_way():
    """The contracts in pyproject.toml, import by import."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_room_is_installed():
    found = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert sorted(f"{room}*" for room in ROOMS) == sorted(found)


@pytest.mark.parametrize("path", [ROOT / "cli.py", *FILES], ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_readable(path):
    assert len(path.read_text().splitlines()) <= 260


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_is_public_says_what_it_is(path):
    """Every module, class and function without a leading underscore, except those whose name and type say it all."""
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or not tree.body
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}: {node.name}"
