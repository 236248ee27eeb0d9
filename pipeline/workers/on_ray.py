"""Workers as actors of Ray: one for each GPU of the cluster or, if it has none, one for each node.

Nodes may come and go: each second, seats without a living actor get one. Ray sees nothing of the work. An actor runs
`worker.work` as any process would, and finds its tasks in the cache's folder, which every node must see.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cache.errors import DptrError, WrongUse
from cache.space import Space
from pipeline.workers.crew import Losses

Seat = tuple[str, int]  # a node's id, and which of its GPUs


class Worker:
    """What runs on a seat."""

    def run(self, space: str, device: str) -> int:
        """Make shards until no driver lives; returns how many."""
        from pipeline.workers.worker import work  # takes seconds

        folder = Path(space)
        return work(folder.parent, folder.name, lambda text: None, device=device)


class RayCrew:
    """A `Crew` of actors."""

    def __init__(self, address: str | None, say: Callable[[str], None], device: str = "auto") -> None:
        """`address` is of a cluster; None: the one that RAY_ADDRESS names or that runs here, else a new one of this
        machine. WrongUse if Ray is not installed.
        """
        try:
            import ray
        except ImportError as error:
            raise WrongUse("--on ray needs Ray: pip install 'dptr[ray]'.") from error
        self._ray, self._address, self._say, self._device = ray, address, say, device
        self._actors: dict[Seat, tuple[Any, Any]] = {}  # each with what its `run` will return
        self._losses = Losses()
        self._space = ""

    @contextmanager
    def at(self, space: Space) -> Iterator[None]:
        """As in Crew."""
        try:
            self._ray.init(self._address, log_to_driver=False, logging_level="ERROR", ignore_reinit_error=True)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise DptrError(f"Ray cannot be reached: {_first_line(error)}") from error
        self._space = str(space.folder.absolute())
        try:
            self.tend(0)
            self._say(f"{len(self._actors):,} workers on Ray")
            yield
        finally:
            for actor, _ in self._actors.values():
                self._ray.kill(actor)
            self._actors.clear()
            self._ray.shutdown()

    def tend(self, made: int) -> None:
        """As in Crew."""
        seats, lost, why = self._seats(), 0, ""
        for seat, (_, running) in list(self._actors.items()):
            if self._ray.wait([running], timeout=0)[0]:
                del self._actors[seat]
                try:
                    self._ray.get(running)
                except Exception as error:  # whatever a worker may raise, and Ray itself
                    lost, why = lost + 1, _first_line(error)
        self._losses.count(lost, made, max(1, len(seats)), why)
        for seat in seats.keys() - self._actors.keys():
            self._actors[seat] = self._started(seat, seats[seat])

    def _seats(self) -> dict[Seat, dict[str, float]]:
        """Where there should be an actor, and what it takes of the node."""
        nodes = {node["NodeID"]: node["Resources"] for node in self._ray.nodes() if node["Alive"]}
        if any(has.get("GPU") for has in nodes.values()):  # shards of CPUs would have other bytes
            return {(node, n): {"num_gpus": 1} for node, has in nodes.items() for n in range(int(has.get("GPU", 0)))}
        return {(node, 0): {"num_cpus": has["CPU"]} for node, has in nodes.items() if has.get("CPU")}

    def _started(self, seat: Seat, takes: dict[str, float]) -> tuple[Any, Any]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(seat[0], soft=False)
        actor = self._ray.remote(Worker).options(scheduling_strategy=there, **takes).remote()
        return actor, actor.run.remote(self._space, self._device)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
