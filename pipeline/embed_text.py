"""Encodes words into cached memories: `dptr embed-text SOURCE... --corpus NAME`.

Labels are tokenised. Prompts whose memory is not yet in the space are encoded in order of first appearance and
committed a shard at a time; then the labels are committed to the corpus. A run that is stopped leaves whole shards, and
what it has computed of the next. The same command goes on from there and writes the same shards as a run that was never
stopped. Memory holds a shard or
two and the table of the space's keys, however long the source is.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from cache.corpus import Corpus
from cache.errors import DptrError
from cache.keys import as_keys
from cache.memories import Memories
from cache.shard import SHARD_BYTES, Image
from cache.space import Space
from pipeline.commit import committing, shards
from pipeline.elsewhere import Arrays, Build, Elsewhere
from pipeline.encoder import Encoder
from pipeline.labels import Labels, telling
from pipeline.prompt_table import Prompts
from pipeline.stage import MARGIN, Say, check_room, say_encoder, size, writing_space
from pipeline.unfinished import Unfinished
from sources.ahead import ahead

CORPUS_BYTES = 8 << 20  # of one corpus shard: some 200,000 labels


@dataclass(frozen=True)
class TextSummary:
    """What `embed_text` did."""

    space: str
    corpus: str
    read: int  # lines of the sources
    labels: int  # distinct labels among them
    new_labels: int  # those that are new to the corpus
    removed_labels: int  # of the corpus, because it was replaced
    new_memories: int  # encoded now
    known_memories: int  # found in the cache
    dropped: dict[str, int]  # lines lost, by reason
    altered: int  # lines kept, but changed by folding to ASCII
    bytes: int  # of memories written
    seconds: float  # spent on encoding and writing
    busy: float  # share of the whole time, from tokenising to the corpus, in which the encoder was computing


@telling()
def embed_text(
    cache: Path,
    encoder: Encoder,
    labels: Labels,
    corpus_name: str,
    say: Say,
    replace: bool = False,
    elsewhere: Elsewhere | None = None,
) -> TextSummary:
    """Make sure that every label's memory is in the encoder's space and every label in the corpus.

    With `replace` the corpus becomes these labels, in one step for readers. Memories of others stay in the space.
    `elsewhere` has the prompts encoded by other processes, to the same bytes.

    Raises DptrError when the sources hold no usable word, when the disk is too small, when another process is writing
    the space, or when a write fails; committed shards stay.
    """
    if not len(labels):
        raise DptrError(f"no usable word in the sources ({labels.report()}): nothing was written.")
    started, computed = time.perf_counter(), encoder.text.replicas.busy
    prompts = Prompts(labels, encoder)
    if not len(prompts):
        raise DptrError(f"every prompt is longer than the encoder's {encoder.context} positions: nothing was written.")
    with writing_space(cache, encoder, prompts.bytes, say) as space:
        corpus, memories = space.corpus(corpus_name), space.memories
        new, planned = prompts.missing_size(memories)
        free = check_room(cache, planned + MARGIN if new else 0)
        say_encoder(encoder, space, say)
        say(labels.report())
        say(
            f"{len(prompts) - new:,} of {len(prompts):,} memories already cached; {new:,} to encode, "
            f"{size(planned)}; {size(free)} free on the disk"
        )
        before, began = memories.bytes, time.perf_counter()
        if elsewhere:
            _embed_elsewhere(elsewhere, space, prompts, new)
        else:
            _embed(encoder, memories, prompts, new)
        seconds = time.perf_counter() - began
        had, held = corpus.rows, prompts.hold(corpus)
        images = _corpus_shards(corpus, prompts.pointers(held=replace))
        if replace:
            corpus.become(images)
        else:
            for image in images:
                corpus.commit(image)
    return TextSummary(
        space=space.name,
        corpus=corpus_name,
        read=labels.read,
        labels=prompts.labels,
        new_labels=prompts.labels - held,
        removed_labels=had - held if replace else 0,
        new_memories=new,
        known_memories=len(prompts) - new,
        dropped=dict(labels.dropped + prompts.dropped),
        altered=labels.altered,
        bytes=memories.bytes - before,
        seconds=round(seconds, 3),
        busy=round((encoder.text.replicas.busy - computed) / (time.perf_counter() - started), 3),
    )


def _corpus_shards(corpus: Corpus, pointers: Iterator[tuple[str, bytes, int]]) -> Iterator[Image]:
    for part in shards(pointers, lambda pointer: len(pointer[0]) + 32, CORPUS_BYTES):
        names, keys, counts = zip(*part, strict=True)
        yield corpus.shard_of(names, as_keys(keys), counts)


def _missing_tasks(prompts: Prompts, memories: Memories) -> Iterator[Arrays]:
    """A `text_task` for each shard that is to be made."""
    return map(text_task, shards(prompts.missing(memories), lambda prompt: prompts.size(prompt[1]), SHARD_BYTES))


def _embed(encoder: Encoder, memories: Memories, prompts: Prompts, count: int) -> None:
    unfinished = Unfinished(memories.folder)
    with (
        tqdm(total=count, desc="encode", unit="word", delay=2) as progress,
        closing(ahead(_missing_tasks(prompts, memories), 1)) as coming,
        committing(memories) as commit,
    ):
        for task in coming:
            build = text_shard(encoder, memories, task, progress.update, unfinished)
            commit(build, then=unfinished.committed())
    unfinished.forget()


def _embed_elsewhere(elsewhere: Elsewhere, space: Space, prompts: Prompts, count: int) -> None:
    tasks = _missing_tasks(prompts, space.memories)
    with tqdm(total=count, desc="encode", unit="word", delay=2) as progress:
        for rows in elsewhere(space, space.memories, {"shards": "text"}, tasks):
            progress.update(rows)
    Unfinished(space.memories.folder).forget()


def text_task(shard: Sequence[tuple[bytes, bytes]]) -> Arrays:
    """What a shard of memories is made from, of the (key, packed token ids) of its prompts: `keys` (n,) S16; `ids`, all
    token ids end to end, int32; and their `lengths` (n,) int32.
    """
    keys, ids = zip(*shard, strict=True)
    lengths = np.fromiter(map(len, ids), np.int32, len(ids)) // 4
    return {"keys": as_keys(keys), "ids": np.frombuffer(b"".join(ids), "<i4"), "lengths": lengths}


def text_shard(
    encoder: Encoder,
    memories: Memories,
    task: Arrays,
    done: Callable[[int], object] = lambda prompts: None,
    unfinished: Unfinished | None = None,
) -> Build:
    """Encodes a `text_task`, see `Encoder.text_states`; what is returned builds the shard."""
    ends = np.cumsum(task["lengths"]).tolist()
    prompts: list[Any] = [task["ids"][a:b] for a, b in pairwise([0, *ends])]  # views are made faster than lists
    states = encoder.text_states(prompts, done, unfinished)
    return lambda: memories.shard_of(task["keys"], states, np.array([encoder.rows(prompt) for prompt in prompts]))
