"""Words per second from a word list to a committed cache, compared with open_clip's tokenizer and encode_text.

    python -m bench.encode_text [WORDS.txt]

ViT-B/16 text tower with untrained weights (speed does not depend on them), in each precision that the hardware
supports. The usual way: a loop over batches of 64 in fp32 (on a GPU, of 512 with autocast), all 77 positions, features
kept in memory. The two take turns; medians of three runs. Then, unless --brief, time and peak memory for lists of three
lengths, each in a process of its own.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import open_clip
import torch

from bench.machine import about
from bench.material import some_words
from bench.operations import operations
from models.device import autocast, choose_device, choose_precision, product_rate
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from pipeline.towers.prefix_tree import PrefixTree, distinct_prefixes
from pipeline.weights import build_model

MODEL, WEIGHTS = "ViT-B-16-quickgelu", "untrained:0"
USUAL = {"cpu": (256, 64), "cuda": (8192, 512)}  # words per run of the usual way, and per batch
LENGTHS = 10_000, 100_000, 300_000
GOALS = {"bf16": 40, "fp32": 15}
EMBED = """
import sys
from pathlib import Path
from bench.peak import peak
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
encoder, labels = Encoder(sys.argv[3], sys.argv[4]), collect(open(sys.argv[1]).read().split())
done = embed_text(Path(sys.argv[2]), encoder, labels, "words", lambda text: None)
print(done.seconds, peak())
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("bench.encode_text")
    parser.add_argument("words", nargs="?")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", help="only this one (default: fp32, and the best of this hardware)")
    parser.add_argument("--count", type=int, help="words (default: all of the list)")
    parser.add_argument("--usual", type=int, help="words per run of the usual way")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--model", nargs=2, default=(MODEL, WEIGHTS), help="name and weights")
    parser.add_argument("--brief", action="store_true", help="leave out the lists of three lengths")
    asked = parser.parse_args(arguments)
    labels = some_words(asked.words, asked.count)
    device = choose_device(asked.device)
    best = choose_precision(asked.precision or "auto", device)
    precisions = [best] if asked.precision else list(dict.fromkeys([best, "fp32"]))
    encoders = {p: Encoder(*asked.model, precision=p, device=str(device)) for p in precisions}
    model, tokenizer = build_model(*asked.model).to(device), open_clip.get_tokenizer(asked.model[0])
    if device.type == "cuda":  # what is set up only once is no part of a rate
        _usual(model, tokenizer, labels[:512], device, best, 512)
        for encoder in encoders.values():
            encoder.text_states([encoder.prompt.ids(label) for label in labels[:5000]])
    ratios: dict[str, list[float]] = {precision: [] for precision in encoders}
    rates, usual, busy = {precision: list(r) for precision, r in ratios.items()}, [], []
    size = 0
    for _ in range(asked.runs):
        usual.append(_usual(model, tokenizer, labels, device, best, asked.usual or USUAL[device.type][0]))
        for precision, encoder in encoders.items():
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                done = embed_text(Path(folder), encoder, collect(labels), "words", lambda text: None)
                rates[precision].append(len(labels) / (time.perf_counter() - began))
            ratios[precision].append(rates[precision][-1] / usual[-1])
            size = done.bytes // done.new_memories
            busy += [done.busy] if precision == best else []
    some = labels[:20_000]
    ids = [encoders[best].prompt.ids(label) for label in some]
    P = len(encoders[best].prompt.prefix)
    before = encoders[best].text.evaluated
    began = time.perf_counter()
    encoders[best].text_states(ids)
    alone = len(ids) / (time.perf_counter() - began)
    evaluated = encoders[best].text.evaluated - before
    result = {
        **about("encode_text"),
        "words": len(labels),
        "words_per_second": {p: round(statistics.median(r), 1) for p, r in rates.items()},
        "encoder_alone": round(alone, 1),
        "usual_words_per_second": round(statistics.median(usual), 1),
        "ratios": {p: round(statistics.median(r), 1) for p, r in ratios.items()},
        "ratio": round(statistics.median(ratios[best]), 1),
        "goal": GOALS[best] if device.type == "cpu" else None,
        "busy": statistics.median(busy),
        "rows_a_word": round(sum(len(i) - P for i in ids) / len(ids), 3),
        "positions_a_word": round(evaluated / len(ids), 3),
        "distinct_prefixes_a_word": round(distinct_prefixes(ids, P) / len(ids), 3),
        "share_of_product_rate": {p: round(_share(e, rates[p], evaluated / len(ids)), 3) for p, e in encoders.items()},
        "bytes_a_word": size,
        "released_bytes_a_word": 78 * 512 * 2,
        "device": device.type,
        "precision": best,
    }
    if not asked.brief:
        print("lengths ...", file=sys.stderr)
        result["lengths"] = _lengths(labels)
    print(json.dumps(result))


def _usual(
    model: torch.nn.Module, tokenizer: object, labels: list[str], device: torch.device, precision: str, count: int
) -> float:
    """Words per second of the usual way, on `count` words spread evenly over the list."""
    chosen = [f"a photo of a '{label}'" for label in labels[:: max(1, len(labels) // count)][:count]]
    size = USUAL[device.type][1]
    began = time.perf_counter()
    with torch.inference_mode(), autocast(device, precision if device.type == "cuda" else "fp32"):
        kept = [model.encode_text(tokenizer(chosen[n : n + size]).to(device)) for n in range(0, len(chosen), size)]
    if device.type == "cuda":
        torch.cuda.synchronize()
    return sum(map(len, kept)) / (time.perf_counter() - began)


def _share(encoder: Encoder, rates: list[float], positions: float) -> float:
    """The fraction of the machine's matmul rate that is used on the whole way from file to cache."""
    P = len(encoder.prompt.prefix)
    batch = next(PrefixTree([encoder.prompt.ids(f"word{n}") for n in range(500)], P).batches(2048))
    tensors = [torch.from_numpy(a).to(encoder.device) for a in batch[:3]]
    each = operations(lambda: encoder.text.replicas.first(*tensors)) / batch.tokens.size
    return statistics.median(rates) * positions * each / product_rate(encoder.device, encoder.dtype, 0.2)


def _lengths(labels: list[str]) -> dict[int, dict[str, float]]:
    """Seconds of encoding and peak memory for lists of different lengths: the words, and pairs of them."""
    pairs = ("".join(pair) for pair in product(labels[:: max(1, len(labels) // 700)], repeat=2))
    many = sorted({*labels, *(pair for pair in pairs if len(pair) <= 25)})
    random.Random(0).shuffle(many)
    found = {}
    for length in LENGTHS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "words.txt"
            path.write_text("\n".join(many[:length]))
            command = [sys.executable, "-c", EMBED, str(path), folder, MODEL, WEIGHTS]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            seconds, peak = map(float, done.stdout.split()[-2:])
            count = min(length, len(many))
            found[count] = {"seconds": round(seconds, 1), "peak_megabytes": round(peak / 1e6)}
    return found


if __name__ == "__main__":
    main()
