"""Makes things in a thread before they are asked for."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

Item = TypeVar("Item")


def ahead(items: Iterator[Item], depth: int = 2) -> Generator[Item, None, None]:
    """The same items, made by a thread up to `depth` before they are asked for.

    An error comes out where its item would. When this is closed, or ends, so is `items` if it is a generator, and the
    thread is gone.
    """
    pool, end = ThreadPoolExecutor(1), object()  # one thread, so items are made one after another
    try:
        coming = deque(pool.submit(next, items, end) for _ in range(depth))
        while (item := coming.popleft().result()) is not end:
            coming.append(pool.submit(next, items, end))
            yield cast(Item, item)
    finally:
        pool.shutdown(cancel_futures=True)
        if isinstance(items, Generator):
            items.close()
