"""Who makes the shards: workers that somebody starts, or those that an engine starts (on_ray.py, on_slurm.py)."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from cache.errors import DptrError
from cache.space import Space

TIMES = 3  # how often each worker may die without any shard being made meanwhile


class Crew(Protocol):
    """Starts workers on machines, and others in the place of those that died."""

    def at(self, space: Space) -> AbstractContextManager[object]:
        """Workers for this space, until the end. DptrError if none can be started."""

    def tend(self, made: int) -> None:
        """Called every second or so, with the number of shards made. DptrError if workers die again and again."""


class Volunteers:
    """Workers that somebody else starts and ends."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def at(self, space: Space) -> AbstractContextManager[object]:
        """As in Crew."""
        self._say(f"waiting for workers: on each machine, start dptr worker --cache {space.folder.parent}")
        return nullcontext()

    def tend(self, made: int) -> None:
        """As in Crew."""


class Losses:
    """Tells workers that die now and then from those that cannot live."""

    def __init__(self) -> None:
        self._made = self._lost = 0

    def count(self, lost: int, made: int, workers: int, why: str) -> None:
        """So many were `lost` of so many `workers`. DptrError, saying `why`, if no shard has been made for long."""
        if made > self._made:
            self._made, self._lost = made, 0
        self._lost += lost
        if lost and self._lost > TIMES * workers:
            raise DptrError(
                f"workers end as soon as they are started ({why}): see why, and run this again to continue."
            )
