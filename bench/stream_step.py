"""Whether streaming memories from disk keeps up with training: how long a one-layer decoder's steps wait for words.

    python -m bench.stream_step

Memories of ViT-B/16 (untrained weights), batch 384, the fastest --execution of the device. The shards are dropped from
the page cache first. Compared with the same run from resident memories, and with the rate of the reader alone.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.machine import about
from bench.material import some_words
from bench.read_cache import drop, epoch
from bench.steady import steady
from cache.space import open_space
from models.charset import Charset
from models.device import choose_device
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from train.data.readers import open_reader
from train.data.word_batches import MemoryLoader
from train.data.words import read_words
from train.pretrain import pretrain
from train.pretrain_options import EXECUTIONS, PretrainOptions

MODEL, WEIGHTS = "ViT-B-16-quickgelu", "untrained:0"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("bench.stream_step")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--count", type=int, default=60_000, help="words")
    parser.add_argument("--batch", type=int, default=384)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--execution", choices=EXECUTIONS, help="(default: eager on a CPU, graphs on a GPU)")
    parser.add_argument("--model", nargs=2, default=(MODEL, WEIGHTS), help="name and weights")
    asked = parser.parse_args(arguments)
    device = choose_device(asked.device)
    execution = asked.execution or ("graphs" if device.type == "cuda" else "eager")
    found: dict[str, float | str] = {**about("stream_step"), "execution": execution, "device": device.type}
    with tempfile.TemporaryDirectory() as name:
        cache = Path(name) / "cache"
        labels = some_words(None, asked.count)
        embed_text(cache, Encoder(*asked.model, device=asked.device), collect(labels), "words", lambda text: None)
        space = open_space(cache)
        found |= {"words": len(labels), "megabytes": round(space.memories.bytes / 1e6)}
        for reader in ("resident", "streamed"):
            options = PretrainOptions(
                ["words"], Path(name) / reader, cache=cache, depth=1, batch=asked.batch, steps=asked.steps,
                eval_every=asked.steps, eval_words=1, execution=execution, reader=reader, device=asked.device,
            )  # fmt: skip
            drop(space.memories.folder)
            pretrain(options, lambda text: None)
            found |= {f"{reader}_{name}": value for name, value in steady(options.out).items()}
        loader = MemoryLoader(space, device)
        words, _ = read_words(space, ["words"], Charset(), 25)
        streamed = open_reader("streamed", loader.reader, words, device)
        epoch(streamed, 0, 0)
        drop(space.memories.folder)
        found["reader_alone_memories_per_second"] = round(epoch(streamed, 1, 0)[0])
    print(json.dumps({**found, "goal_waiting": 0.01}))


if __name__ == "__main__":
    main()
