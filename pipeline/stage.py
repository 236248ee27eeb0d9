"""What both embedding stages share: the encoder's space in the cache, the plan that is shown before work starts, and
shards that are committed while the next is computed.
"""

import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from cache.collection import Collection
from cache.errors import DptrError
from cache.files import make_folder
from cache.lock import writing as lock
from cache.shard import Image
from cache.space import Space, complete_space, spaces
from pipeline.encoder import Encoder
from pipeline.selftest import constants

Say = Callable[[str], None]  # shows a line to a person
T = TypeVar("T")

MARGIN = 64 << 20  # bytes of disk left free beyond what is planned


@contextmanager
def writing_space(cache: Path, encoder: Encoder, needed: int, say: Say) -> Iterator[Space]:
    """The space of this encoder, locked and complete, made if it is the first time; says how it differs from others.

    DptrError, and nothing made, if a new space has no room for `needed` bytes.
    """
    fingerprint = encoder.fingerprint
    others = spaces(cache)
    same = [space.folder for space in others if space.digest == fingerprint.digest]
    folder = same[0] if same else cache / fingerprint.folder
    if not same:
        for space in others:
            differing = "; ".join(fingerprint.differences(space.fingerprint)[:4])
            say(f"a new space beside {space.name}, because they differ (this encoder / that space): {differing}")
        check_room(cache, needed + MARGIN)
        make_folder(folder)
    with lock(folder):
        yield complete_space(folder, fingerprint, lambda: constants(encoder))


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


def ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items; while one is used a thread makes the next."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as making:
        coming: Future[Any] = making.submit(next, iterator, end)
        while (item := coming.result()) is not end:
            coming = making.submit(next, iterator, end)
            yield item


def say_encoder(encoder: Encoder, space: Space, say: Say) -> None:
    """Name the space and the machine, and say so when the weights were never trained."""
    several = f", {len(encoder.devices)} devices" * (len(encoder.devices) > 1)
    say(f"space {space.name} ({encoder.device.type}, {encoder.precision}{several})")
    if not encoder.causal:
        say("tokens of this text tower look ahead, so each prompt is computed whole: expect it to take much longer")
    seed = encoder.fingerprint.untrained_seed
    if seed is not None:
        say(f"the encoder's weights are UNTRAINED (seed {seed}): good for trying the pipeline, not for results")


def check_room(cache: Path, needed: int) -> int:
    """Free bytes on the cache's disk; DptrError if they are fewer than needed."""
    folder = next(p for p in [cache, *cache.absolute().parents] if p.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DptrError(
            f"{cache} needs {size(needed)} and its disk has {size(free)} free: make room or choose another --cache. "
            "Nothing was written."
        )
    return free


def size(count: float) -> str:
    """Bytes for a person: 1.2 GB.

    >>> size(1_234_567_890)
    '1.2 GB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
