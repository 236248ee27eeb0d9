"""Makes things in threads before they are asked for."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import repeat
from typing import TypeVar, cast

Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(items: Iterator[Item], depth: int = 2) -> Generator[Item, None, None]:
    """The same items, made by one thread up to `depth` items ahead of the caller.

    An error is raised where its item would come. When this ends or is closed, the thread is gone, and `items` is closed
    if it is a generator.
    """
    end = object()
    try:
        with closing(mapped_ahead(lambda _: next(items, end), repeat(None), 1, depth)) as coming:
            for item in coming:
                if item is end:
                    break
                yield cast(Item, item)
    finally:
        if isinstance(items, Generator):
            items.close()


def mapped_ahead(
    make: Callable[[Item], Made], items: Iterable[Item], threads: int, depth: int
) -> Generator[Made, None, None]:
    """The result of `make` for each item, in order, made by threads up to `depth` items ahead of the caller.

    Items are taken in the caller's thread. An error of `make` is raised where its result would come. When this ends or
    is closed, the threads are gone.
    """
    pool = ThreadPoolExecutor(threads)
    try:
        coming: deque[Future[Made]] = deque()
        for item in items:
            coming.append(pool.submit(make, item))
            if len(coming) > depth:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
