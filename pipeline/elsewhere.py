"""What a stage asks for when its shards are to be made by other processes; `pipeline.workers` does it."""

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from cache.collection import Collection
from cache.shard import Image
from cache.space import Space

Arrays = Mapping[str, NDArray[Any]]  # by name: what a shard is made from
Build = Callable[[], Image]  # the rest of it, once all is computed


class Elsewhere(Protocol):
    """Has shards made by other processes."""

    def __call__(
        self, space: Space, collection: Collection, work: Mapping[str, Any], tasks: Iterator[Arrays]
    ) -> Generator[int, None, None]:
        """Commits to `collection` a shard for each of `tasks`, in order, and then yields the number of its rows.

        `work` names what makes them, and its settings (see `pipeline.workers.worker.maker`). The space's lock must be
        held. DptrError if it cannot be done; committed shards stay.
        """
