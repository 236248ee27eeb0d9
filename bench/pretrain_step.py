"""Words a second of a training step, all permutations at once, against one permutation after another.

    python -m bench.pretrain_step

Random memories of 13 rows of width 512, words of median length, batch 64, six permutations, depth 1 and 6. The other
side is this project's decoder called once a permutation, as PARSeq's training step does it: the memory's keys and
values are projected six times and labels are padded to 27 ids, as in the released code. Medians of three, in turn.
"""

import json
import statistics
import time

import torch
from torch import Tensor

from demo import signs
from machine import autocast, choose_device, choose_precision
from train.charset import EOS
from train.decoder import Decoder, DecoderConfig
from train.permutations import draw_permutations

BATCH, ROWS, RUNS = 64, 13, 3


def one_by_one(decoder: Decoder, memory: Tensor, targets: Tensor) -> Tensor:
    """The released way: (B, 27) targets, permutation by permutation, weighted by their tokens."""
    pad = decoder.charset.pad
    padded = torch.nn.functional.pad(targets, (0, 27 - targets.shape[1]), value=pad)
    total, tokens = torch.zeros((), device=memory.device), 0
    for n, order in enumerate(draw_permutations(25, 6).to(memory.device)):
        wanted = padded if n < 2 else torch.where(padded == EOS, pad, padded)
        count = int((wanted[:, 1:] != pad).sum())
        total = total + count * decoder.loss(memory, None, wanted, order[None])
        tokens += count
    return total / tokens


def at_once(decoder: Decoder, memory: Tensor, targets: Tensor) -> Tensor:
    """Our way: all permutations in one tensor, padded to the longest of the batch."""
    return decoder.loss(memory, None, targets, draw_permutations(targets.shape[1] - 2, 6).to(memory.device))


def rate(step, decoder: Decoder, labels: list[str], device: torch.device, precision: str) -> float:
    """Words a second over two batches, forward, backward and AdamW."""
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-5, fused=True)
    memory = torch.randn(BATCH, ROWS, 512, device=device)
    times = []
    for start in (0, 0, BATCH):
        began = time.perf_counter()
        targets = decoder.charset.encode(labels[start : start + BATCH]).to(device)
        with autocast(device, precision):
            loss = step(decoder, memory, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        times.append(time.perf_counter() - began)
    return 2 * BATCH / sum(times[1:])


def main() -> None:
    """Measure and print."""
    device = choose_device("auto")
    precision = choose_precision("auto", device)
    if device.type == "cpu":
        torch.backends.cuda.enable_flash_sdp(False)
    labels = sorted(signs(), key=len)
    labels = labels[len(labels) // 2 :][: 2 * BATCH]  # of median length
    figures = {}
    for depth in (1, 6):
        decoder = Decoder(DecoderConfig(depth=depth)).to(device).train()
        pairs = [[rate(s, decoder, labels, device, precision) for s in (at_once, one_by_one)] for _ in range(RUNS)]
        figures[f"words_per_second_depth_{depth}"] = round(statistics.median(p[0] for p in pairs), 1)
        figures[f"ratio_depth_{depth}"] = round(statistics.median(a / b for a, b in pairs), 2)
    ratio = figures["ratio_depth_6"]
    result = {"bench": "pretrain_step", **figures, "ratio": ratio, "goal": 1.5}
    print(json.dumps({**result, "device": device.type, "precision": precision}))


if __name__ == "__main__":
    main()
