"""Encodes photographs into a bank of image tokens: `dptr embed-images SOURCE... --bank NAME`.

Pictures are read in order, decoded and preprocessed by threads ahead of the encoder, encoded in batches, and committed
a shard at a time; then the FAISS index is written over the whole bank. Decoding and resizing release Python's global
lock, so threads are as fast as processes and need no copies between them.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from tqdm import tqdm

from cache.bank import Bank, picture_key
from cache.errors import DptrError, WrongUse
from cache.index_file import Facts
from cache.keys import key_bytes
from cache.replacement import Unwanted, replace_pictures
from cache.space import Space
from pipeline.elsewhere import Elsewhere
from pipeline.encoder import Encoder
from pipeline.picture_shards import Away, Tally, decoded_alike, embed_into
from pipeline.stage import MARGIN, Say, check_room, say_encoder, size, writing_space
from pipeline.text_score import TextScore


@dataclass(frozen=True)
class ImageSummary:
    """What `embed_images` did."""

    space: str
    bank: str
    read: int
    new: int  # encoded now
    known: int  # already in the bank, or a repeat within the sources
    removed: int  # of the bank, because it was replaced
    skipped: dict[str, str]  # could not be decoded: name to reason
    shape: list[int]  # (T, E) of one picture
    bytes: int  # of features written
    seconds: float
    busy: float  # share of them in which the encoder was computing
    index: Facts
    index_seconds: float  # spent on it, of those
    looked_at: int  # pictures of the bank for which near-duplicates were searched
    alike: list[tuple[str, str]]  # near-duplicates among those: a picture, and its nearest


def embed_images(
    cache: Path,
    encoder: Encoder,
    photos: Iterable[tuple[str, bytes]],
    count: int | None,
    bank_name: str,
    say: Say,
    index: str = "auto",
    max_text_score: float | None = None,
    replace: bool = False,
    elsewhere: Elsewhere | None = None,
) -> ImageSummary:
    """Add every readable picture of `photos` (name, encoded bytes) to the bank and bring its index up to date.

    With `replace` the bank becomes these pictures, in one step for readers; those that it has are not encoded again.

    `count` is how many to expect, None if unknown; `index` is one of `cache.index.KINDS`. Pictures with a higher
    `TextScore` than `max_text_score` are left out. `elsewhere` has the pictures, decoded here, encoded by other
    processes, to the same bytes; it cannot score. Raises WrongUse for a kind of index that the bank is too small for
    and for an encoder that cannot score; DptrError when no picture can be read, when the bank's pictures were decoded
    differently, when the disk is too small, when another process is writing the space, or when a write fails.
    Committed shards stay.
    """
    if elsewhere and max_text_score is not None:
        raise WrongUse("--max-text-score needs the pictures' tokens in this process: leave out --on.")
    T, E = encoder.image_shape()
    tally, unwanted = Tally(), _with_text(encoder, max_text_score) if max_text_score is not None else None
    photos = _from_the_first_readable(iter(photos), encoder, tally)  # before anything is created on disk
    planned = (count or 0) * T * E * 2
    with writing_space(cache, encoder, planned, say) as space:
        bank = space.bank(bank_name)
        # how many of these the bank already holds is known only once they are read
        free = check_room(cache, MARGIN if bank.entries else planned + MARGIN)
        say_encoder(encoder, space, say)
        expected = f"{count:,} pictures, at most {size(planned)}" if count else "an unknown number of pictures"
        say(f"{expected}, {T} x {E} features each; {bank.rows:,} in the bank; {size(free)} free on the disk")
        target, alike = (bank.staged(decoded_alike) if replace else bank), decoded_alike(bank)
        known, names = key_bytes(bank.keys()) if replace and alike else [], dict[bytes, str]()
        photos = _noting(photos, names) if replace else photos
        before, began, computed = target.bytes, time.perf_counter(), encoder.visual.busy
        with tqdm(photos, "encode", count, unit="picture", delay=2) as progress:
            away = _away(elsewhere, space, target) if elsewhere else None
            embed_into(target, encoder, progress, (T, E), tally, unwanted, True, known, away)
        written, removed = target.bytes - before, 0
        if replace:
            removed, left_out = replace_pictures(bank, target, names, alike, unwanted)
            tally.known, tally.skipped = tally.known - len(left_out), tally.skipped | left_out
        if not bank.rows:
            raise _none(tally, "pictures was kept")
        bank.record_skipped(tally.skipped, anew=replace)
        began_index = time.perf_counter()
        facts = bank.write_index(index)
        looked_at, duplicates = bank.near_duplicates()
        table = space.neighbours(bank_name)
        if table.entries and not table.fits(bank):
            say(f"its table of neighbours is of other photographs now: run dptr neighbours CORPUS {bank_name}")
    now = time.perf_counter()
    seconds = now - began
    return ImageSummary(
        space=space.name,
        bank=bank_name,
        read=tally.read,
        new=tally.read - tally.known - len(tally.skipped),
        known=tally.known,
        removed=removed,
        skipped=tally.skipped,
        shape=[T, E],
        bytes=written,
        seconds=round(seconds, 3),
        busy=round((encoder.visual.busy - computed) / seconds, 3),
        index=facts,
        index_seconds=round(now - began_index, 3),
        looked_at=looked_at,
        alike=duplicates,
    )


def _away(elsewhere: Elsewhere, space: Space, target: Bank) -> Away:
    return lambda size, tasks: elsewhere(space, target, {"shards": "pictures", "batch": size}, tasks)


def _noting(photos: Iterable[tuple[str, bytes]], names: dict[bytes, str]) -> Iterator[tuple[str, bytes]]:
    """The same pictures; the first name of each goes to `names`, by its key."""
    for name, data in photos:
        if data:
            names.setdefault(picture_key(data), name)
        yield name, data


def _with_text(encoder: Encoder, most: float) -> Unwanted:
    """Says of pictures whose text score is above `most` what it is."""
    score = TextScore(encoder)
    return lambda tokens: [f"its text score is {s:.3f}, above {most:g}" if s > most else "" for s in score(tokens)]


def _from_the_first_readable(
    photos: Iterator[tuple[str, bytes]], encoder: Encoder, tally: Tally
) -> Iterator[tuple[str, bytes]]:
    """The pictures from the first that can be decoded; those before it go to the tally. DptrError if none can."""
    for name, data in photos:
        try:
            encoder.pixels(data)
        except ValueError as error:
            tally.read += 1
            tally.skipped[name] = str(error)
        else:
            return chain([(name, data)], photos)
    raise _none(tally, "files could be read as a picture")


def _none(tally: Tally, what: str) -> DptrError:
    examples = "; ".join(f"{name}: {reason}" for name, reason in islice(tally.skipped.items(), 3))
    return DptrError(f"none of {tally.read:,} {what} ({examples}): nothing was written.")
