"""`dptr worker`, which makes shards for a command that runs elsewhere; and that command's `--on`."""

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from cache.errors import WrongUse
from commands.console import DEFAULT_CACHE, CacheDir, Device, SpaceName, Weights, finish, say
from train.options import MACHINE

if TYPE_CHECKING:  # loads numpy
    from pipeline.elsewhere import Elsewhere

On = Annotated[
    str | None,
    typer.Option(
        "--on",
        help="Who computes: workers (those started with dptr worker), ray, ray://HOST:PORT, or 'slurm:COUNT OPTIONS "
        "OF SBATCH'; without it, this process.",
        rich_help_panel=MACHINE,
    ),
]


def worker(
    cache: CacheDir = DEFAULT_CACHE,
    space: SpaceName = None,
    device: Device = "auto",
    pretrained: Weights = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds without a command to work for, then it ends.")] = 60,
) -> None:
    """Work for embed-text, embed-images and neighbours with --on, on any machine that sees the cache's folder.

    Start as many as there are GPUs, or one a machine, before or after the command; end them whenever you like.
    """
    from pipeline.workers.worker import work

    made = work(cache, space, say, wait, device, pretrained)
    finish(f"{made:,} shards made", {"shards": made}, False)


def elsewhere(on: str | None, device: str) -> "Elsewhere | None":
    """What `--on` asks for. WrongUse for what is not known."""
    if on is None:
        return None
    from pipeline.workers.crew import Crew, Volunteers
    from pipeline.workers.driver import Driver
    from pipeline.workers.on_ray import RayCrew
    from pipeline.workers.on_slurm import SlurmCrew

    crew: Crew
    engine, _, rest = on.partition(":")
    count, *options = shlex.split(rest) or [""]
    if on == "workers":
        crew = Volunteers(say)
    elif on == "ray" or on.startswith("ray://"):
        crew = RayCrew(on if rest else None, say, device)
    elif engine == "slurm" and count.isdigit() and int(count):
        crew = SlurmCrew(int(count), options, say, device)
    else:
        raise WrongUse(
            f"--on {on} is not known: use workers, ray, ray://HOST:PORT, or 'slurm:COUNT OPTIONS OF SBATCH'."
        )
    return Driver(crew, say)
