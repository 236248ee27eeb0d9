"""Shards that are made and written while their caller goes on."""

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
    """A function that makes a shard (it is given what makes it) and commits it, while its caller goes on.

    One thread makes the next shard while another writes the last, so the caller is at most two ahead. Shards are
    committed in order, none after one that failed; the error comes with one of the next calls, or at the end.
    """
    pending: deque[Future[None]] = deque()

    def write(image: Future[Image], before: Future[None] | None) -> None:
        if before:
            before.result()
        collection.commit(image.result())

    def commit(make: Callable[..., Image], *arguments: Any) -> None:
        if len(pending) == 2:
            pending.popleft().result()
        before = pending[-1] if pending else None
        pending.append(writing.submit(write, making.submit(make, *arguments), before))

    with ThreadPoolExecutor(1) as making, ThreadPoolExecutor(1) as writing:
        yield commit
        while pending:
            pending.popleft().result()


def shards(items: Iterable[T], size: Callable[[T], int], limit: int) -> Iterator[list[T]]:
    """Items in their order, in lists of at most `limit` bytes (a larger item alone); `size` is what an item takes."""
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
