"""Shards built and written in the background while the caller carries on."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from cache.collection import Collection
from cache.shard import Image
from pipeline.stage import T


@contextmanager
def committing(collection: Collection) -> Iterator[Callable[..., None]]:
    """Yields `commit(make, *arguments)`, which builds a shard with `make` and commits it in the background.

    One thread builds the next shard while another writes the last, so the caller is at most two ahead. Shards are
    committed in order. Once one fails, none is committed after it, and one of the next calls or the end of the block
    raises its error. `then`, if given, is called once the shard is committed.
    """
    pending: deque[Future[None]] = deque()

    def write(image: Future[Image], before: Future[None] | None, then: Callable[[], None] | None) -> None:
        if before:
            before.result()
        collection.commit(image.result())
        if then:
            then()

    def commit(make: Callable[..., Image], *arguments: Any, then: Callable[[], None] | None = None) -> None:
        if len(pending) == 2:
            pending.popleft().result()
        before = pending[-1] if pending else None
        pending.append(writing.submit(write, making.submit(make, *arguments), before, then))

    with ThreadPoolExecutor(1) as making, ThreadPoolExecutor(1) as writing:
        yield commit
        while pending:
            pending.popleft().result()


def shards(items: Iterable[T], size: Callable[[T], int], limit: int) -> Iterator[list[T]]:
    """Items in order, in lists of at most `limit` bytes as `size` counts them; a larger item gets its own list."""
    shard: list[T] = []
    filled = 0
    for item in items:
        more = size(item)
        if shard and filled + more > limit:
            yield shard
            shard, filled = [], 0
        shard.append(item)
        filled += more
    if shard:
        yield shard
