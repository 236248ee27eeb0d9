"""Workers on a cluster of Ray, of which a node dies: the table is the one that a single process makes."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from cache.space import open_space
from pipeline.neighbours import neighbours
from tests.helpers.forks import Forked
from tests.pipeline.test_embed_text import files
from tests.pipeline.workers import job as jobs

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="Ray is not installed")
def test_a_cluster_makes_the_bytes_of_one_process(cache, tmp_path, monkeypatch, say):
    monkeypatch.setattr("pipeline.neighbours.SHARD", 50)
    for name in ("one", "ray"):
        shutil.copytree(cache, tmp_path / name)
        shutil.rmtree(next((tmp_path / name).glob("*/neighbours")))
    space = open_space(tmp_path / "one")
    neighbours(space, "numbers", "noise", None, say)
    environment = {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    done = Forked(tmp_path / "out", jobs.neighbours_on_ray, tmp_path / "ray", space.name, **environment).wait()
    assert done.returncode == 0, done.stderr
    assert "900" in done.stdout
    assert files(tmp_path / "ray") == files(tmp_path / "one")
