"""Words per second of pre-training, from the cache to updated weights, compared with the released step.

    python -m bench.pretrain_step [WORDS.txt]

ViT-B/16 (untrained weights: speed does not depend on them), width 512, six permutations, perturbation, batch 64 on a
CPU and 384 on a GPU, depth 1 and 6. Ours is `dptr pretrain` in this machine's fastest precision, on a GPU in each way
of --execution. The other side is bench/released_step.py in fp32 (with autocast on a GPU), once with CLIP in the step
and once without. All see the same words and take turns; medians of three runs. `utilisation` is the share of the
machine's product rate that ours reaches: near 1, only fewer operations could make it faster. A line for each depth is
printed whenever one more of its figures is known; the last one counts.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.machine import about
from bench.material import some_photographs, some_words
from bench.released_step import ReleasedStep
from bench.steady import steady
from cache.space import open_space
from models.device import autocast, choose_device, choose_precision
from pipeline.embed_images import embed_images
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from pipeline.weights import build_model
from train.pretrain import pretrain
from train.pretrain_options import EXECUTIONS, PretrainOptions

MODEL, WEIGHTS = "ViT-B-16-quickgelu", "untrained:0"
WORDS = {"cpu": 4096, "cuda": 60_000}
BATCH = {"cpu": 64, "cuda": 384}
STEPS = {"cpu": {1: 40, 6: 10}, "cuda": {1: 800, 6: 400}}  # of ours per run, by depth
GOALS = {"cpu": {1: 20, 6: 10}, "cuda": {1: 5, 6: 5}}


def released(step: ReleasedStep, labels: list[str], batch: int, precision: str, with_clip: bool) -> float:
    """Words per second of a step, after one to warm up; without CLIP, memories are made before the clock starts."""
    device = step.positions.device
    optimizer = torch.optim.AdamW(step.parameters(), lr=1e-5)
    seconds = []
    for n in range(2 if device.type == "cpu" else 8):
        some = labels[n * batch : (n + 1) * batch]
        memory = None if with_clip else step.memory(some)
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        with autocast(device, precision):
            loss = step.loss(some, step.memory(some) if memory is None else memory)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(step.parameters(), 20)
        optimizer.step()
        loss.item()
        seconds.append((time.perf_counter() - began) / len(some))
    return 1 / statistics.median(seconds[len(seconds) // 2 :])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("bench.pretrain_step")
    parser.add_argument("words", nargs="?")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--count", type=int, help="words to train on")
    parser.add_argument("--batch", type=int, help="words per step")
    parser.add_argument("--steps", type=int, help="of ours per run")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 6])
    parser.add_argument("--executions", nargs="+", choices=EXECUTIONS, help="(default: all that the device has)")
    parser.add_argument("--model", nargs=2, default=(MODEL, WEIGHTS), help="name and weights")
    asked = parser.parse_args(arguments)
    device = choose_device(asked.device)
    kind, precision = device.type, choose_precision(asked.precision, device)
    batch = asked.batch or BATCH[kind]
    labels = some_words(asked.words, asked.count or WORDS[kind])
    executions = asked.executions or (EXECUTIONS if kind == "cuda" else ["eager"])
    rates: dict[int, dict[str, list[float]]] = {depth: defaultdict(list) for depth in asked.depths}
    more: dict[int, dict[str, float]] = {depth: {} for depth in asked.depths}

    def show(depth: int) -> None:
        figures = {**about("pretrain_step"), "depth": depth, "batch": batch, **_figures(rates[depth], more[depth])}
        goal = GOALS[kind].get(depth)
        print(json.dumps({**figures, "goal": goal, "device": kind, "precision": precision}), flush=True)

    clip = build_model(*asked.model).to(device)
    with tempfile.TemporaryDirectory() as name:
        cache = Path(name) / "cache"
        encoder = Encoder(*asked.model, device=asked.device)
        embed_text(cache, encoder, collect(labels), "words", lambda text: None)
        embed_images(cache, encoder, some_photographs(None, 14), None, "photos", lambda text: None)
        del encoder
        bank = torch.from_numpy(open_space(cache).bank("photos").features().copy())
        for run in range(asked.runs):
            for depth in asked.depths:
                step = ReleasedStep(clip, asked.model[0], bank, depth, bank.shape[-1]).to(device).train()
                for side, with_clip in (("released", True), ("released_without_clip", False)):
                    how = precision if kind == "cuda" else "fp32"
                    rates[depth][side].append(released(step, labels, batch, how, with_clip))
                show(depth)
            for execution in executions:
                for depth in asked.depths:
                    steps = asked.steps or STEPS[kind].get(depth, 10)
                    options = PretrainOptions(
                        ["words"], Path(name) / f"{depth}-{execution}-{run}", cache=cache, bank="photos", depth=depth,
                        batch=batch, steps=steps, eval_every=steps, eval_words=1, execution=execution,
                        device=asked.device, precision=precision,
                    )  # fmt: skip
                    try:
                        done = pretrain(options, lambda text: None)
                    except Exception as error:  # the other ways are worth measuring all the same
                        if execution == "eager":
                            raise
                        print(f"{execution} at depth {depth}: {type(error).__name__}: {error}", file=sys.stderr)
                        continue
                    log = steady(options.out)
                    rate = log["words_per_second"] if kind == "cuda" else done.words_per_second
                    rates[depth][execution].append(rate)
                    more[depth] |= {
                        f"{name}_{execution}": log[name] for name in ("waiting", "utilisation") if name in log
                    }
                    show(depth)


def _figures(rates: dict[str, list[float]], more: dict[str, float]) -> dict[str, float | str]:
    """Medians of each side's words per second, and how often as fast our best side is as the released step."""
    found: dict[str, float | str] = {side: round(statistics.median(r), 2) for side, r in rates.items()} | more
    ours = [side for side in EXECUTIONS if rates.get(side)]
    if ours:
        best = max(ours, key=lambda side: statistics.median(rates[side]))
        found["fastest"] = best
        for name, other in (("ratio", "released"), ("ratio_without_clip", "released_without_clip")):
            found[name] = round(statistics.median(a / b for a, b in zip(rates[best], rates[other], strict=False)), 1)
    return found


if __name__ == "__main__":
    main()
