"""The kit for GPUs works before it meets one: every part runs with tiny sizes, and none can hold up the others."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import gpu
from bench.gpu_table import table
from bench.machine import processor
from tests.helpers.forks import Forked


def test_a_rehearsal_runs_every_part(tmp_path, capsys):
    out = tmp_path / "gpu.json"
    done = Forked.module(tmp_path / "run", "bench.gpu", "--tiny", "--out", out).wait()
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads(out.read_text())["parts"]
    assert list(parts) == [part.name for part in gpu.PARTS]
    assert all(part["lines"] for part in parts.values())
    figures = [line for part in parts.values() for line in part["lines"] if line["bench"] != "gpu_tests"]
    assert {line["processor"] for line in figures} == {processor()}
    for what in ("words, from list", "photographs", "depth 1, eager", "streamed", "batch 4, clip, frozen"):
        assert what in done.stdout
    assert gpu.main(["--table", str(out)]) == 0
    assert capsys.readouterr().out in done.stdout


PART = """
import json, os, subprocess, sys, time

def main(arguments):
    print(json.dumps({"bench": "part", "argument": arguments}), flush=True)
    if arguments == ["hangs"]:
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(json.dumps({"sleeper": sleeper.pid}), flush=True)
        time.sleep(600)
    if arguments[0] == "looks":
        print(json.dumps({"seen": json.load(open(arguments[1]))}), flush=True)
        time.sleep(600)
    if arguments == ["fails"]:
        raise ValueError("no such card")
    if arguments == ["leaves"]:
        print("one last word", file=sys.stderr)
        sys.exit(3)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    (tmp_path / "bench_part.py").write_text(PART)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(gpu.Part, "module", "bench_part")
    return lambda argument, limit=20.0: gpu._run(gpu.Part("part", limit), [argument], limit, fresh=False)


def test_what_a_part_prints_is_its_result(run):
    assert run("works")["lines"] == [{"bench": "part", "argument": ["works"]}]
    assert "error" not in run("works")


def test_a_part_that_fails_leaves_its_reason(run):
    assert run("fails")["error"].endswith("ValueError: no such card")
    assert run("leaves")["error"] == "one last word"
    assert run("leaves")["lines"]


def test_a_part_that_hangs_is_killed_with_what_it_started(run):
    began = time.monotonic()
    result = run("hangs", limit=3.0)
    assert time.monotonic() - began < 20
    assert result["error"].startswith("took more than 3 s")
    sleeper = Path("/proc", str(result["lines"][1]["sleeper"]))
    for _ in range(100):
        if not sleeper.exists() or (sleeper / "stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError(f"process {sleeper.name} outlived its part, seen from {os.getpid()}")


def test_what_is_done_is_in_the_file_while_later_parts_run(run, tmp_path, monkeypatch):
    """Also after the last one has exceeded its limit. The second, which fails, is in it too."""
    out = tmp_path / "gpu.json"
    parts = [("one", "works", 20.0), ("two", "leaves", 20.0), ("three", f"looks {out}", 2.0)]
    monkeypatch.setattr(gpu, "PARTS", [gpu.Part(name, limit, given) for name, given, limit in parts])
    monkeypatch.setattr(gpu, "_prepare", lambda parts: None)
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # which main sets
    assert gpu.main(["--out", str(out)]) == 2
    found = json.loads(out.read_text())["parts"]
    assert found["one"]["lines"] == [{"bench": "part", "argument": ["works"]}]
    assert found["two"]["error"] == "one last word"
    assert found["three"]["error"].startswith("took more than 2 s")
    assert found["three"]["lines"][1]["seen"]["parts"] == {name: found[name] for name in ("one", "two")}


@pytest.mark.parametrize("error", ["took more than its time", "initialization error"])  # a part is started twice then
def test_parts_that_all_take_their_limits_end_within_eight_minutes(tmp_path, monkeypatch, error):
    clock = [1000.0]

    def spent(part, arguments, limit, fresh):
        clock[0] += max(0.0, limit)
        return {"seconds": limit, "lines": [], "error": error}

    monkeypatch.setattr(gpu, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(gpu, "_run", spent)
    monkeypatch.setattr(gpu, "_prepare", lambda parts: None)
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # which main sets
    assert gpu.main(["--out", str(tmp_path / "gpu.json")]) == len(gpu.PARTS)
    assert clock[0] - 1000 < 480
    assert list(json.loads((tmp_path / "gpu.json").read_text())["parts"]) == [part.name for part in gpu.PARTS]


def test_the_table_says_what_failed():
    lines = [{"card": "NVIDIA X", "bf16_tflops": 700.0, "torch": "2.11.0"}]
    step = {"bench": "pretrain_step", "depth": 1, "released": 100.0, "eager": 450.0, "graphs": 900.0}
    parts = {
        "gpu_machine": {"lines": lines},
        "pretrain_step": {"lines": [step], "error": "took more than 110 s; the last it said: \ncompiling"},
        "stream_step": {"error": "no time was left"},
    }
    text = table({"parts": parts, "seconds": 200.0})
    assert text.startswith("NVIDIA X, 700 TFLOP/s in bf16, torch 2.11.0, 200 s in all.")
    assert "| training step, depth 1, graphs | 900 words a second | 9.0x the released step, 100 |" in text
    assert text.endswith("- `pretrain_step`: compiling\n- `stream_step`: no time was left")
