"""The commands of the README and the docs do what they say, typed as by a new user."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.commands import run
from tests.helpers.pictures import drawn, picture

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "wordclip" / "README.md"]
SIGNS = [*range(10, 15), *range(20, 23)]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with nothing but three photographs and some word images."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "photos").mkdir()
    for n in range(3):
        (folder / "photos" / f"{n}.png").write_bytes(picture(n, (300, 200)))
    (folder / "signs").mkdir()
    for n in SIGNS:
        (folder / "signs" / f"{n}.png").write_bytes(drawn(str(n)))
    (folder / "signs" / "labels.tsv").write_text("".join(f"{n}.png\t{n}\n" for n in SIGNS))
    return folder


def typed(line, folder):
    """A line in a shell; but commands that would import torch once more run in this process."""
    command, *arguments = shlex.split(line)
    if command == "dptr" and arguments[0] != "cache":
        return run(*arguments, cwd=folder)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True)


def test_readmes_lines_run(work, monkeypatch):
    monkeypatch.setattr("train.export.onnx.int8.RANDOM", 8)
    readme = (ROOT / "README.md").read_text()
    script = "".join(re.findall(r"<!-- tested -->\n```sh\n(.*?)```", readme, re.S))
    assert script.count("dptr ") == 13
    printed = ""
    for line in script.splitlines():
        done = typed(line, work)
        assert done.returncode == 0, (line, done.stderr)
        printed += done.stdout
    assert "corpus 'numbers': 500 labels added" in printed
    assert "bank 'photos': 3 pictures added" in printed
    assert "held-out words of numbers" in printed
    assert "run runs/reader: 4 steps" in printed
    assert "misread words: runs/reader/errors.html" in printed
    assert re.search(r"^signs/10\.png\t.*\t[01]\.\d+\t\??$", printed, re.M)
    for name in (
        "exported/model.safetensors",
        "exported-openocr/openocr.pth",
        "exported-onnx/model.onnx",
        "exported-onnx/model.int8.onnx",
        "looked.png",
    ):
        assert (work / name).stat().st_size > 1000
    # and docs/cache-format.md reads that cache with h5py alone
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "cache-format.md").read_text(), re.S)
    assert len([line for line in example.splitlines() if line]) == 10
    done = subprocess.run([sys.executable, "-c", example], cwd=work, capture_output=True, text=True, check=True)
    assert done.stdout == "1 (3, 256)\n"


def test_readmes_table_of_commands_is_complete():
    from typer.main import get_command

    from cli import app

    commands = get_command(app).commands
    names = set(commands) - {"cache"} | {f"cache {name}" for name in commands["cache"].commands}
    listed = set(re.findall(r"^\| `dptr ((?:cache )?[a-z-]+)", (ROOT / "README.md").read_text(), re.M))
    assert listed == names


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


@pytest.mark.parametrize("path", DOCS, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_the_docs_point_at_is_there(path):
    """Links with their headings, modules that commands run, and files of this repository named with their room."""
    text = path.read_text()
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", text):
        found = path.parent / target if target else path
        assert found.exists(), target
        headings = re.findall(r"^#+ (.*)$", found.read_text(), re.M) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings], anchor
    rooms = "|".join(p.name for p in ROOT.iterdir() if (p / "__init__.py").exists())
    for name in re.findall(rf"`((?:{rooms}|docs)/[\w/.-]+\.\w+)`", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"python -m ([\w.]+)", text) + re.findall(r"`(bench\.\w+)`", text):
        found = ROOT / name.replace(".", "/")
        assert found.with_suffix(".py").exists() or (found / "__main__.py").exists(), name


def test_no_address_in_the_constraints():
    lines = (ROOT / "constraints.txt").read_text().split()
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!-]+", line) for line in lines)


def test_help_of_make_lists_the_targets():
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.findall(r"^make (\w+)", done.stdout, re.M) == [
        "help",
        "install",
        "demo",
        "test",
        "lint",
        "bench",
        "gpu",
        "faults",
        "clean",
    ]
