"""All decoders at equal steps: words read from memories, and crops read without any labelled picture, occluded or not.

    python -m bench.decoders --cache CACHE --space SPACE --corpus NAME --data SET... --out DIR [--steps 200]

Each is pre-trained with one layer on the same words, with Gaussian noise of half the rows' norm. Crops go through the
space's image tower as they are, and again with a bar over each: as high as the crop, a fifth as wide, in the crop's
mean colour, at a random place. If stopped, the same command goes on. The last line on stdout has all figures:
accuracies in per cent, of crops over letters and digits with case ignored.
"""

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.machine import about
from cache.space import open_space
from commands.gather import labelled_sets
from models.charset import Charset
from models.decoders import TextDecoder, confidence, names
from models.image_encoder import ImageEncoder
from pipeline.convert import space_tower
from train.data.crops import usable
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions
from train.reading.batched import load_in_order
from train.reading.result import Reading, scored
from train.run import load_run

say = partial(print, file=sys.stderr, flush=True)
BAR, BATCH = 5, 64


def occluded(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, H, W) uint8 with a bar over each, W / 5 wide."""
    width = pictures.shape[3] // BAR
    left = torch.randint(pictures.shape[3] - width + 1, (len(pictures), 1, 1, 1), generator=generator)
    place = torch.arange(pictures.shape[3])
    colour = pictures.float().mean((2, 3), keepdim=True).to(torch.uint8)
    return torch.where((place >= left) & (place < left + width), colour, pictures)


@torch.inference_mode()
def encoded(tower: ImageEncoder, sources: list[str]) -> dict[str, Any]:
    """Labels, and the tower's tokens (N, T, E) of crops as they are (`plain`) and `occluded`."""
    crops = usable(labelled_sets(sources, "test"), Charset(), 25, strict=False)
    generator = torch.Generator().manual_seed(0)
    labels, plain, hidden = list[str](), list[Tensor](), list[Tensor]()
    for batch in load_in_order(crops, tower.config, 0):
        labels += batch.labels
        plain.append(tower(tower.normalised(batch.pictures)))
        hidden.append(tower(tower.normalised(occluded(batch.pictures, generator))))
    return {"labels": labels, "plain": torch.cat(plain), "occluded": torch.cat(hidden)}


def accuracy(decoder: TextDecoder, tokens: Tensor, labels: list[str]) -> float:
    """Word accuracy over letters and digits, case ignored, in per cent."""
    texts, sure = list[str](), list[float]()
    for part in tokens.split(BATCH):
        ids, shares = decoder.read(part, None)
        texts, sure = texts + decoder.charset.decode(ids), sure + confidence(shares).tolist()
    readings = map(Reading, labels, texts, sure, range(len(labels)))
    return round(100 * scored(list(readings)).accuracy_36, 1)


def main() -> None:
    """Train, read and print."""
    parser = argparse.ArgumentParser("bench.decoders")
    for name in ("cache", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("space", "corpus"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--data", nargs="+", required=True, help="labelled crops to read")
    parser.add_argument("--decoders", nargs="+", default=names())
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--words", type=int, default=500, help="held-out words to read")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    kept = asked.out / "tokens.pt"
    if not kept.exists():
        asked.out.mkdir(parents=True, exist_ok=True)
        torch.save(encoded(space_tower(open_space(asked.cache, asked.space), None), asked.data), kept)
    crops, results = torch.load(kept), {}
    for kind in asked.decoders:
        folder = asked.out / f"{kind}-{asked.seed}"
        if not (folder / "bench.json").exists():
            began = time.process_time()
            options = PretrainOptions(
                [asked.corpus], folder, cache=asked.cache, space=asked.space, decoder=kind, depth=1, batch=asked.batch,
                steps=asked.steps, eval_every=asked.steps, eval_words=asked.words, lr=asked.lr, seed=asked.seed,
                perturb="gaussian(50%)", device="cpu", precision="fp32",
            )  # fmt: skip
            scores = pretrain(options, say).scores
            learnt = {
                "train_seconds": round(time.process_time() - began),
                "words": round(100 * scores["accuracy_36"], 1),
            }
            (folder / "bench.json").write_text(json.dumps(learnt))
        found = json.loads((folder / "bench.json").read_text())
        decoder, began = load_run(folder)[0].eval(), time.process_time()
        found |= {name: accuracy(decoder, crops[name], crops["labels"]) for name in ("plain", "occluded")}
        found["read_ms"] = round(500 * (time.process_time() - began) / len(crops["labels"]), 2)  # a crop
        results[kind] = found
        say(f"{kind}: {found}")
    print(json.dumps({**about("decoders"), "steps": asked.steps, "crops": len(crops["labels"]), "decoders": results}))


if __name__ == "__main__":
    main()
