"""What perturbing costs: each kind as a share of a training step, and ORP beside the released draw.

    python -m bench.perturb [--device cuda] [--batch 64]

A step is PARSeq with six layers, width 512 and six permutations: loss, gradients and AdamW, eager. Memories have 10
rows, as a compact word of five characters has; the released ones have 78. The bank has 197 tokens a photograph, as
ViT-B/16 gives, and random values. The released draw copies whole photographs on the CPU with numpy, takes their tokens
in another copy and moves them to the device. Medians. The last line on stdout has all figures; `worst` is that of the
dearest kind but `mix`, which is a product with 2,048 rows rather than a draw.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.machine import about
from cache.bank import Bank
from cache.fingerprint import Fingerprint
from models.decoders import configure, make
from models.device import autocast, choose_device, choose_precision, differentiable_attention
from train.perturb import perturbation
from train.perturb.material import Material

KINDS = [
    "orp(10%)", "gaussian(10%)", "scaled(10%)", "shift", "collapse(10%)", "moments", "covariance", "matched(10%)",
    "stretch(0.3)", "drop(10%)", "swap(10%)", "trail(33)", "learned", "mix",
]  # fmt: skip
WIDTH, TOKENS, PHOTOGRAPHS = 512, 197, 256
GOALS = {"cpu": 2.0, "cuda": 1.0}  # per cent of a step


def seconds(call: Callable[[], Any], device: torch.device, least: float = 0.5) -> float:
    """The median time of a call, over at least three calls and `least` seconds: of the processor's time on a CPU, so
    that other programs do not count.
    """
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    found: list[float] = []
    call()
    while len(found) < 3 or sum(found) < least:
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = clock()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(clock() - began)
    return statistics.median(found)


def training_step(device: torch.device, precision: str, memory: Tensor, mask: Tensor | None) -> Callable[[], None]:
    """A whole step on this memory."""
    shape = configure("parseq", depth=6, dropout=0.1, width=WIDTH, heads=8, memory_width=WIDTH)
    decoder = make(shape).to(device).train()
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-5, fused=True)
    targets = decoder.charset.encode([f"{n:05}" for n in range(len(memory))]).to(device)

    def step() -> None:
        with differentiable_attention(device), autocast(device, precision):
            loss = decoder.loss(memory, mask, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def released(bank: np.ndarray[Any, Any], memory: Tensor) -> Tensor:
    """As released: photographs drawn and copied on the CPU, then tokens of them in another copy."""
    pictures = bank[np.random.randint(len(bank), size=len(memory))]
    places = np.random.permutation(bank.shape[1])[: memory.shape[1]]
    return memory + 0.1 * torch.from_numpy(pictures[:, places]).to(memory.device)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("bench.perturb")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, help="words per step")
    asked = parser.parse_args()
    device = choose_device(asked.device)
    precision = choose_precision("auto", device)
    batch = asked.batch or (64 if device.type == "cpu" else 384)
    torch.manual_seed(0)
    memory, rows = torch.randn(batch, 10, WIDTH, device=device), torch.randn(20_000, WIDTH, device=device)
    mask = torch.arange(10, device=device) < torch.randint(6, 11, (batch, 1), device=device)
    mask[0] = True
    step = seconds(training_step(device, precision, memory, mask), device, 1.0)
    result: dict[str, Any] = {**about("perturb"), "device": device.type, "precision": precision, "batch": batch}
    result["step_ms"] = round(1e3 * step, 2)
    shares, ready = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        features = np.random.default_rng(0).standard_normal((PHOTOGRAPHS, TOKENS, WIDTH), np.float32)
        bank = Bank(Path(folder), Fingerprint("bench", "none", {}, "", 0, False, "", "", "shared", {}, "fp32"))
        keys = np.array([f"{n:016}" for n in range(PHOTOGRAPHS)], "S16")
        bank.add([f"{n}.jpg" for n in range(PHOTOGRAPHS)], keys, features.astype(np.float16), "")
        for text in KINDS:
            found = perturbation(text, "bench")
            began = time.perf_counter()
            found.prepare(Material(rows, Bank(Path(folder), bank.fingerprint)))
            ready[text] = round(time.perf_counter() - began, 2)
            shares[text] = round(100 * seconds(lambda found=found: found(memory, mask), device) / step, 3)
            if text.startswith("orp"):
                long = torch.randn(batch, 78, WIDTH, device=device)
                times = {
                    "released_78_rows": seconds(lambda long=long: released(features, long), device),
                    "released_10_rows": seconds(lambda: released(features, memory), device),
                    "ours_78_rows": seconds(lambda found=found, long=long: found(long, None), device),
                    "ours_10_rows": seconds(lambda found=found: found(memory, mask), device),
                }
                result["orp_ms"] = {name: round(1e3 * value, 3) for name, value in times.items()}
                result["orp_times_faster"] = round(times["released_78_rows"] / times["ours_10_rows"], 1)
    worst = max(share for text, share in shares.items() if text != "mix")
    goals = {"percent_of_step": GOALS[device.type], "orp_times_faster": 20}
    print(json.dumps({**result, "percent_of_step": shares, "prepare_seconds": ready, "worst": worst, "goal": goals}))


if __name__ == "__main__":
    main()
