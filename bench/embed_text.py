"""Words a second from a word list to a committed cache, against open_clip's tokenizer and encode_text in a loop.

    python -m bench.embed_text [WORDS.txt]

ViT-B/16 text tower with untrained weights (speed does not depend on them), this machine's best precision. The usual
way: batches of 64 in fp32, all 77 positions, features kept in memory. Medians of three runs, both sides in turn.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import open_clip
import torch

from demo import signs
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from pipeline.weights import build_model
from sources.words import Reading, words

MODEL, WEIGHTS = "ViT-B-16-quickgelu", "untrained:0"
OURS, USUAL, RUNS = 4096, 256, 3  # words a run on each side


def every(labels: list[str], count: int) -> list[str]:
    """`count` labels spread evenly over the list."""
    return labels[:: max(1, len(labels) // count)][:count]


def main() -> None:
    """Measure and print."""
    source = words(sys.argv[1], Reading()) if len(sys.argv) > 1 else signs()
    labels = [label for label, _ in collect(source)]
    encoder = Encoder(MODEL, WEIGHTS)
    model, tokenizer = build_model(MODEL, WEIGHTS).to(encoder.device), open_clip.get_tokenizer(MODEL)
    ours, usual, size = [], [], 0
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as folder:
            chosen = every(labels, OURS)
            began = time.perf_counter()
            done = embed_text(Path(folder), encoder, collect(chosen), "words", lambda text: None)
            ours.append(len(chosen) / (time.perf_counter() - began))
            size = done.bytes // done.new_memories
        chosen = [f"a photo of a '{label}'" for label in every(labels, USUAL)]
        began = time.perf_counter()
        with torch.inference_mode():
            kept = [
                model.encode_text(tokenizer(chosen[n : n + 64]).to(encoder.device)) for n in range(0, len(chosen), 64)
            ]
        if encoder.device.type == "cuda":
            torch.cuda.synchronize()
        usual.append(sum(map(len, kept)) / (time.perf_counter() - began))
    result = {
        "bench": "embed_text",
        "words_per_second": round(statistics.median(ours), 1),
        "usual_words_per_second": round(statistics.median(usual), 1),
        "ratio": round(statistics.median(a / b for a, b in zip(ours, usual, strict=True)), 2),
        "goal": 8,
        "bytes_a_word": size,
        "released_bytes_a_word": 78 * 512 * 2,
        "device": encoder.device.type,
        "precision": encoder.precision,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
