"""Crops read per second, compared with decoding by the same weights without cached keys and values.

    python -m bench.read RUN LMDB

For a fine-tuned run: decoding alone, from memories made beforehand, and whole reading with image encoder and FMU, at
batch 1 and 64. For a decoder of the released size (6 layers, width 512, 26 memory rows; random weights) and words of 7
letters: decoding alone. The other side decodes as PARSeq's code does: at each step, all characters so far go through
the layers and the memory is projected again; finished rows continue until the last one ends; and the refinement covers
every position. Both read the same texts. The two take turns; medians of five runs. `ratio` is that of the run's
decoding at batch 64.
"""

import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from bench.machine import about
from models.charset import EOS
from models.decoders.parseq import Config, Decoder, only_parseq
from models.device import choose_device
from models.image_encoder import stretched
from sources.labelled import labelled
from sources.pictures import decode
from train.run import load_recogniser

RUNS, CROPS = 5, 256
Side = Callable[[Tensor], object]


def plain(decoder: Decoder, memory: Tensor) -> Tensor:
    """Ids (B, max_length + 1), decoded without keeping anything from step to step."""
    B, S, device = len(memory), decoder.config.max_length + 1, memory.device
    ids = torch.full((B, S), EOS, device=device)
    inputs = torch.full((B, 1), decoder.charset.bos, device=device)
    for step in range(S):
        query = decoder.positions[step : step + 1].expand(B, 1, -1, -1)
        causal = torch.ones(step + 1, step + 1, dtype=torch.bool, device=device).tril()
        ids[:, step] = _logits(decoder, query, inputs, memory, torch.cat([causal[-1:], causal]))[:, 0].argmax(-1)
        inputs = torch.cat([inputs, ids[:, step : step + 1]], 1)
        if (ids[:, : step + 1] == EOS).any(-1).all():
            break
    inputs = torch.cat([torch.full_like(ids[:, :1], decoder.charset.bos), ids[:, :-1]], 1)
    cloze = ~torch.ones(S, S, dtype=torch.bool, device=device).triu(1).tril(1)
    causal = torch.ones(S, S, dtype=torch.bool, device=device).tril()
    readable = (inputs != EOS).cumprod(-1).bool()[:, None, None]
    query = decoder.positions[:S].expand(B, 1, -1, -1)
    found = _logits(decoder, query, inputs, memory, torch.cat([cloze, causal])[None, None] & readable).argmax(-1)
    return found.masked_fill((found == EOS).cumsum(-1) > 0, EOS)


def _logits(decoder: Decoder, query: Tensor, inputs: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
    embedded = decoder.embedding(inputs) * math.sqrt(decoder.config.width)
    content = torch.cat([embedded[:, :1], embedded[:, 1:] + decoder.positions[: inputs.shape[1] - 1]], 1)[:, None]
    mask = mask.expand(len(inputs), 1, *mask.shape[-2:])
    for layer in decoder.layers:
        source = layer.cross_attention.keys_values(memory)
        query, content, _ = layer(query, content, source, mask, None, last=layer is decoder.layers[-1])
    return decoder.head(decoder.norm(query))[:, 0]


def rates(ours: Side, theirs: Side, whole: Tensor, batch: int) -> list[float]:
    """[crops per second of ours, of theirs, ratio]: medians of runs that take turns."""
    pairs = []
    for _ in range(RUNS):
        seconds = []
        for side in (ours, theirs):
            began = time.perf_counter()
            for part in whole.split(batch):
                side(part)
            if whole.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        pairs.append([len(whole) / s for s in seconds])
    medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
    return [*(round(m, 1) for m in medians), round(statistics.median(a / b for a, b in pairs), 2)]


def measured(name: str, ours: Side, theirs: Side, whole: Tensor, batch: int) -> dict[str, float]:
    """The `rates`, named."""
    return dict(zip((name, f"{name}_plain", f"{name}_ratio"), rates(ours, theirs, whole, batch), strict=True))


def compare(decoder: Decoder, memory: Tensor, name: str) -> dict[str, float]:
    """Decoding alone, at batch 1 and 64."""
    assert decoder.charset.decode(decoder.read(memory, None)[0]) == decoder.charset.decode(plain(decoder, memory))
    figures = {}
    for batch, count in ((1, 32), (64, len(memory))):
        sides = (lambda m: decoder.read(m, None), lambda m: plain(decoder, m))
        figures |= measured(f"{name}_batch_{batch}", *sides, memory[:count], batch)
    return figures


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    device = choose_device("auto")
    recogniser, _, _ = load_recogniser(Path(sys.argv[1]))
    recogniser.to(device)
    (one,) = labelled(sys.argv[2])
    size = recogniser.config.vision.image_size
    pictures = torch.stack([stretched(decode(one.picture(n)), size) for n in range(min(CROPS, len(one)))]).to(device)
    decoder = only_parseq(recogniser.decoder, "this comparison", "give a run of one")
    memory = torch.cat([recogniser.memory(part) for part in pictures.split(64)])

    def whole(part: Tensor) -> Tensor:
        return plain(decoder, recogniser.memory(part))

    figures = compare(decoder, memory, "decode")
    for batch, count in ((1, 32), (64, len(pictures))):
        figures |= measured(f"read_batch_{batch}", recogniser.read, whole, pictures[:count], batch)
    torch.manual_seed(0)
    released = Decoder(Config(max_length=7)).to(device).eval()
    figures |= compare(released, torch.randn(64, 26, 512, device=device), "released_size")
    print(json.dumps({**about("read"), **figures, "ratio": figures["decode_batch_64_ratio"], "goal": 5}))


if __name__ == "__main__":
    main()
