"""Words to cached memories: `dptr embed-text SOURCE... --corpus NAME`.

Labels are tokenised; prompts whose memory is not yet in the space are encoded in the order of their first appearance,
a shard's worth at a time, and committed; then the labels are committed to the corpus. A run that was stopped leaves
whole shards, and the same command continues behind them with the same shards as if it had not been stopped.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cache.errors import DptrError
from cache.lock import writing
from cache.memories import Memories, as_keys, key_of
from cache.shard import SHARD_BYTES
from pipeline.encoder import Encoder
from pipeline.labels import Labels
from pipeline.stage import MARGIN, Say, check_room, encoder_space, say_encoder, size

CORPUS_LABELS = 1 << 18  # labels in one corpus shard, at most


@dataclass(frozen=True)
class TextSummary:
    """What `embed_text` did."""

    space: str
    corpus: str
    read: int  # lines of the sources
    labels: int  # different labels among them
    new_labels: int  # of which were not in the corpus before
    new_memories: int  # encoded now
    known_memories: int  # found in the cache
    dropped: dict[str, int]  # lines lost, by reason
    altered: int  # lines kept, but changed by folding to ASCII
    bytes: int  # written for memories
    seconds: float  # of encoding and writing


def embed_text(cache: Path, encoder: Encoder, labels: Labels, corpus_name: str, say: Say) -> TextSummary:
    """Make sure that every label's memory is in the encoder's space and every label in the corpus.

    Raises DptrError when nothing usable came in, when the disk is too small, when another process is writing the
    space, or when a write fails; committed shards stay.
    """
    if not labels.counts:
        raise DptrError(f"no usable word in the sources ({labels.report()}): nothing was written.")
    dropped = Counter(labels.dropped)
    prompts = _tokenise(encoder, labels, dropped)  # label -> (key, token ids)
    if not prompts:
        raise DptrError(f"every prompt is longer than the encoder's {encoder.context} positions: nothing was written.")
    unique = {key: ids for key, ids in prompts.values()}
    space = encoder_space(cache, encoder, _bytes(encoder, unique.values()), say)
    with writing(space.folder):
        corpus = space.corpus(corpus_name)
        memories = space.memories()
        missing = memories.find(as_keys(list(unique))) < 0
        new = [(key, ids) for (key, ids), absent in zip(unique.items(), missing, strict=True) if absent]
        planned = _bytes(encoder, (ids for _, ids in new))
        free = check_room(cache, planned + MARGIN if new else 0)
        say_encoder(encoder, space, say)
        say(labels.report())
        say(
            f"{len(unique) - len(new):,} of {len(unique):,} memories already cached; {len(new):,} to encode, "
            f"{size(planned)}; {size(free)} free on the disk"
        )
        before, began = memories.bytes, time.perf_counter()
        _embed(encoder, memories, new)
        seconds = time.perf_counter() - began
        already = set(corpus.labels())
        fresh = [label for label in prompts if label not in already]
        for start in range(0, len(fresh), CORPUS_LABELS):
            part = fresh[start : start + CORPUS_LABELS]
            corpus.add(part, as_keys([prompts[n][0] for n in part]), [labels.counts[n] for n in part])
    return TextSummary(
        space=space.name,
        corpus=corpus_name,
        read=labels.read,
        labels=len(prompts),
        new_labels=len(fresh),
        new_memories=len(new),
        known_memories=len(unique) - len(new),
        dropped=dict(dropped),
        altered=labels.altered,
        bytes=memories.bytes - before,
        seconds=round(seconds, 3),
    )


def _bytes(encoder: Encoder, prompts: Iterable[list[int]]) -> int:
    """What the states of these prompts take on the disk."""
    return sum(encoder.rows(ids) for ids in prompts) * encoder.width * 2


def _tokenise(encoder: Encoder, labels: Labels, dropped: Counter[str]) -> dict[str, tuple[bytes, list[int]]]:
    prompts = {}
    for label, count in tqdm(labels.counts.items(), "tokenise", unit="word", delay=2, leave=False):
        ids = encoder.prompt.ids(label)
        if len(ids) > encoder.context:
            dropped["with a prompt longer than the encoder's context"] += count
            continue
        if encoder.layout == "compact":
            encoder.prompt.check(label, ids)
        prompts[label] = key_of(ids), ids
    return prompts


def _embed(encoder: Encoder, memories: Memories, new: list[tuple[bytes, list[int]]]) -> None:
    with tqdm(total=len(new), desc="encode", unit="word", delay=2) as progress:
        for shard in _shards(encoder, new):
            keys, ids = [key for key, _ in shard], [ids for _, ids in shard]
            # encoded in pieces only so that the progress moves; their borders depend on the shard alone
            pieces = [ids[n : n + 1024] for n in range(0, len(ids), 1024)]
            states = []
            for piece in pieces:
                states.append(encoder.text_states(piece))
                progress.update(len(piece))
            lengths = np.array([encoder.rows(i) for i in ids])
            memories.add(as_keys(keys), np.concatenate(states), lengths)


def _shards(encoder: Encoder, prompts: Iterable[tuple[bytes, list[int]]]) -> Iterator[list[tuple[bytes, list[int]]]]:
    shard, filled = [], 0
    for key, ids in prompts:
        shard.append((key, ids))
        filled += encoder.rows(ids) * encoder.width * 2
        if filled >= SHARD_BYTES:
            yield shard
            shard, filled = [], 0
    if shard:
        yield shard
