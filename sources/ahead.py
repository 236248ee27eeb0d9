"""Makes things in a thread before they are asked for."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Generator[Item, None, None], depth: int = 2) -> Generator[Item, None, None]:
    """The same items, none of them None, made by a thread up to `depth` before they are asked for.

    An error comes out where its item would. When this is closed, or ends, so is `items`, and the thread is gone.
    """
    pool = ThreadPoolExecutor(1)  # one thread, so items are made one after another
    try:
        coming = deque(pool.submit(next, items, None) for _ in range(depth))
        while (item := coming.popleft().result()) is not None:
            coming.append(pool.submit(next, items, None))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
        items.close()
