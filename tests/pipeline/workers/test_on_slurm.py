"""What Slurm is asked for. That a real one does it was tried by hand, see docs/log.md."""

import os
import subprocess

import pytest

from cache.errors import DptrError, WrongUse
from cache.space import open_space
from pipeline.workers import on_slurm
from pipeline.workers.on_slurm import SlurmCrew

SBATCH = '#!/bin/sh\necho "sbatch $*" >> {log}\ncat {folder}/refuses >&2 && exit 1\necho 7\n'
SQUEUE = "#!/bin/sh\ncat {folder}/running\n"
SCANCEL = '#!/bin/sh\necho "scancel $*" >> {log}\n'


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder with programs of its names; `running` lists the elements in the queue, `log` what was asked."""
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("scancel", SCANCEL)):
        (tmp_path / name).write_text(text.format(folder=tmp_path, log=tmp_path / "log"))
        (tmp_path / name).chmod(0o755)
    (tmp_path / "running").write_text("")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(on_slurm, "LOOK", 0.0)
    return tmp_path


@pytest.fixture
def space(cache, tmp_path):
    """One to work for, with a place for the script."""
    one = open_space(cache)
    one.folder = tmp_path / "a space"
    (one.folder / "job").mkdir(parents=True)
    return one


def test_elements_that_are_missing_are_submitted_again(slurm, space, say):
    crew = SlurmCrew(3, ["--gpus=1", "--comment=two words"], say)
    with crew.at(space):
        (slurm / "running").write_text("0\n2\n")
        crew.tend(0)
        (slurm / "running").write_text("0\n1\n2\n")
        crew.tend(0)
    script = space.folder / "job" / "worker.slurm"
    asked = [f"sbatch --parsable --gpus=1 --comment=two words --array {n} {script}" for n in ("0,1,2", "1")]
    assert (slurm / "log").read_text().splitlines() == [*asked, f"scancel --name dptr-{space.digest[:8]}"]
    assert any(f"job 7 submitted to Slurm, 3 workers: {script}" in line for line in say.lines)
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert f"-m cli worker --cache {slurm} --space 'a space' --device auto" in script.read_text()


def test_a_refusal_is_one_sentence(slurm, space, say, monkeypatch):
    (slurm / "refuses").write_text("sbatch: error: invalid partition specified: a100\n")
    with (
        pytest.raises(DptrError, match="sbatch failed: sbatch: error: invalid partition specified: a100"),
        SlurmCrew(1, [], say).at(space),
    ):
        pass
    monkeypatch.setenv("PATH", str(slurm / "job"))
    with (
        pytest.raises(WrongUse, match="--on slurm needs squeue, which is not on this machine"),
        SlurmCrew(1, [], say).at(space),
    ):
        pass


def test_elements_that_end_at_once_are_not_submitted_for_ever(slurm, space, say):
    crew = SlurmCrew(2, [], say)
    with crew.at(space):
        for _ in range(3):
            crew.tend(0)
        with pytest.raises(DptrError, match="workers end as soon as they are started .*their logs are in"):
            crew.tend(0)
