"""Words per second of pre-training, from the cache to updated weights, compared with the released step.

    python -m bench.pretrain_step [WORDS.txt]

ViT-B/16 (untrained weights: speed does not depend on them), width 512, six permutations, perturbation, batch 64 on a
CPU and 384 on a GPU, depth 1 and 6. Ours is `dptr pretrain` in this machine's fastest precision. The other side is
bench/released_step.py in fp32 (with autocast on a GPU), once with CLIP in the step and once without. Both see the same
words and take turns; medians of three runs.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from bench.released_step import ReleasedStep
from cache.space import open_space
from models.device import autocast, choose_device, choose_precision
from pipeline.embed_images import embed_images
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from pipeline.weights import build_model
from sources.signs import photographs, signs
from sources.words import Reading, words
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions

MODEL, WEIGHTS = "ViT-B-16-quickgelu", "untrained:0"
WORDS, RUNS = 4096, 3
STEPS = {1: 40, 6: 10}  # of ours per run, by depth
GOALS = {"cpu": {1: 20, 6: 10}, "cuda": {1: 5, 6: 5}}


def released(step: ReleasedStep, labels: list[str], batch: int, precision: str, with_clip: bool) -> float:
    """Words per second of a step, after one to warm up; without CLIP, memories are made before the clock starts."""
    device = step.positions.device
    optimizer = torch.optim.AdamW(step.parameters(), lr=1e-5)
    for n in range(2):
        some = labels[n * batch : (n + 1) * batch]
        memory = None if with_clip else step.memory(some)
        began = time.perf_counter()
        with autocast(device, precision):
            loss = step.loss(some, step.memory(some) if memory is None else memory)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(step.parameters(), 20)
        optimizer.step()
        loss.item()
        seconds = time.perf_counter() - began
    return batch / seconds


def main() -> None:
    """Measure and print."""
    device = choose_device("auto")
    precision, batch = choose_precision("auto", device), 64 if device.type == "cpu" else 384
    labels = [label for label, _ in collect(words(sys.argv[1], Reading()) if len(sys.argv) > 1 else signs())]
    labels = labels[:: max(1, len(labels) // WORDS)][:WORDS]
    clip, figures = build_model(MODEL, WEIGHTS).to(device), {}
    with tempfile.TemporaryDirectory() as name:
        cache = Path(name) / "cache"
        encoder = Encoder(MODEL, WEIGHTS)
        embed_text(cache, encoder, collect(labels), "words", lambda text: None)
        embed_images(cache, encoder, photographs(), None, "photos", lambda text: None)
        del encoder
        bank = torch.from_numpy(open_space(cache).bank("photos").features().copy())
        for depth in (1, 6):
            step = ReleasedStep(clip, MODEL, bank, depth).to(device).train()
            rates: list[tuple[float, float, float]] = []
            for run in range(RUNS):
                options = PretrainOptions(
                    ["words"], Path(name) / f"{depth}-{run}", cache=cache, bank="photos", depth=depth, batch=batch,
                    steps=STEPS[depth] * (1 if device.type == "cpu" else 20), eval_words=1,
                )  # fmt: skip
                ours = pretrain(options, lambda text: None).words_per_second
                theirs = [
                    released(step, labels, batch, precision if device.type == "cuda" else "fp32", with_clip)
                    for with_clip in (True, False)
                ]
                rates.append((ours, *theirs))
            columns = list(zip(*rates, strict=True))
            names = "words_per_second", "released", "released_without_clip"
            figures[depth] = {n: round(statistics.median(column), 2) for n, column in zip(names, columns, strict=True)}
            for n, other in zip(("ratio", "ratio_without_clip"), (1, 2), strict=True):
                figures[depth][n] = round(statistics.median(rate[0] / rate[other] for rate in rates), 1)
            figures[depth]["goal"] = GOALS[device.type][depth]
    result = {"bench": "pretrain_step", "depths": figures, "batch": batch, "ratio": figures[6]["ratio"]}
    print(json.dumps({**result, "goal": figures[6]["goal"], "device": device.type, "precision": precision}))


if __name__ == "__main__":
    main()
