"""Words per second from a word list to a committed cache, compared with open_clip's tokenizer and encode_text.

    python -m bench.encode_text [WORDS.txt]

ViT-B/16 text tower with untrained weights (speed does not depend on them), in each precision that the hardware
supports. The usual way: a loop over batches of 64 in fp32, all 77 positions, features kept in memory. The two take
turns; medians of three runs. Then time and peak memory for lists of three lengths, each in a process of its own.
"""

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import open_clip
import torch

from bench.operations import operations
from models.device import choose_device, choose_precision, product_rate
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from pipeline.towers.prefix_tree import PrefixTree, distinct_prefixes
from pipeline.weights import build_model
from sources.signs import signs
from sources.words import Reading, words

MODEL, WEIGHTS = "ViT-B-16-quickgelu", "untrained:0"
USUAL, RUNS = 256, 3  # words per run of the usual way
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


def main() -> None:
    """Measure and print."""
    labels = [label for label, _ in collect(words(sys.argv[1], Reading()) if len(sys.argv) > 1 else signs())]
    device = choose_device("auto")
    best = choose_precision("auto", device)
    encoders = {precision: Encoder(MODEL, WEIGHTS, precision=precision) for precision in {best: 0, "fp32": 0}}
    model, tokenizer = build_model(MODEL, WEIGHTS).to(device), open_clip.get_tokenizer(MODEL)
    ratios: dict[str, list[float]] = {precision: [] for precision in encoders}
    rates, usual, busy = {precision: list(r) for precision, r in ratios.items()}, [], []
    size = 0
    for _ in range(RUNS):
        usual.append(_usual(model, tokenizer, labels, device))
        for precision, encoder in encoders.items():
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                done = embed_text(Path(folder), encoder, collect(labels), "words", lambda text: None)
                rates[precision].append(len(labels) / (time.perf_counter() - began))
            ratios[precision].append(rates[precision][-1] / usual[-1])
            size = done.bytes // done.new_memories
            busy += [done.busy] if precision == best else []
    ids = [encoders[best].prompt.ids(label) for label in labels]
    P = len(encoders[best].prompt.prefix)
    before = encoders[best].text.evaluated
    encoders[best].text_states(ids)
    evaluated = encoders[best].text.evaluated - before
    print("lengths ...", file=sys.stderr)
    result = {
        "bench": "encode_text",
        "words": len(labels),
        "words_per_second": {p: round(statistics.median(r), 1) for p, r in rates.items()},
        "usual_words_per_second": round(statistics.median(usual), 1),
        "ratios": {p: round(statistics.median(r), 1) for p, r in ratios.items()},
        "ratio": round(statistics.median(ratios[best]), 1),
        "goal": GOALS[best],
        "busy": statistics.median(busy),
        "rows_a_word": round(sum(len(i) - P for i in ids) / len(ids), 3),
        "positions_a_word": round(evaluated / len(ids), 3),
        "distinct_prefixes_a_word": round(distinct_prefixes(ids, P) / len(ids), 3),
        "share_of_product_rate": {p: round(_share(e, rates[p], evaluated / len(ids)), 3) for p, e in encoders.items()},
        "lengths": _lengths(labels),
        "bytes_a_word": size,
        "released_bytes_a_word": 78 * 512 * 2,
        "device": device.type,
        "precision": best,
    }
    print(json.dumps(result))


def _usual(model: torch.nn.Module, tokenizer: object, labels: list[str], device: torch.device) -> float:
    """Words per second of the usual way, on words spread evenly over the list."""
    chosen = [f"a photo of a '{label}'" for label in labels[:: max(1, len(labels) // USUAL)][:USUAL]]
    began = time.perf_counter()
    with torch.inference_mode():
        kept = [model.encode_text(tokenizer(chosen[n : n + 64]).to(device)) for n in range(0, len(chosen), 64)]
    if device.type == "cuda":
        torch.cuda.synchronize()
    return sum(map(len, kept)) / (time.perf_counter() - began)


def _share(encoder: Encoder, rates: list[float], positions: float) -> float:
    """The fraction of the machine's matmul rate that is used on the whole way from file to cache."""
    batch = next(PrefixTree([encoder.prompt.ids(f"word{n}") for n in range(500)], 5).batches(2048))
    tensors = [torch.from_numpy(a).to(encoder.device) for a in batch[:3]]
    each = operations(lambda: encoder.text.replicas.first(*tensors)) / batch.tokens.size
    return statistics.median(rates) * positions * each / product_rate(encoder.device, encoder.dtype)


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
