"""Crops per second of fine-tuning, from encoded pictures to updated weights, and how long training waits for them.

    python -m bench.finetune_step

The released ViT at 32 x 128, FMU and decoder, all trained, with full augmentation, batch 256; then the same with a
space's own image tower, frozen and cached. Crops are drawn and kept in memory as JPEG. The memory's width is that of
ViT-B/16 (untrained weights).
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.machine import about
from bench.material import drawn_crops, some_words
from bench.steady import steady
from cache.space import open_space
from models.device import choose_device
from pipeline.convert import space_tower
from pipeline.embed_crops import embed_crops
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from train.data.crop_batches import CachedTokens
from train.finetune import Material, finetune
from train.finetune_options import FinetuneOptions
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions

MODEL, WEIGHTS = "ViT-B-16-quickgelu", "untrained:0"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print: a line for each of the two."""
    parser = argparse.ArgumentParser("bench.finetune_step")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--count", type=int, default=6000, help="crops")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--depth", type=int, default=1, help="of the decoder")
    parser.add_argument("--workers", type=int, help="(default: as dptr finetune chooses)")
    parser.add_argument("--size", default="32x128", help="of the pictures")
    parser.add_argument("--model", nargs=2, default=(MODEL, WEIGHTS), help="name and weights")
    asked = parser.parse_args(arguments)
    device, labels = choose_device(asked.device), some_words(None, asked.count)
    with tempfile.TemporaryDirectory() as name:
        cache, init = Path(name) / "cache", Path(name) / "init"
        encoder = Encoder(*asked.model, device=asked.device)
        embed_text(cache, encoder, collect(labels[:512]), "words", lambda text: None)
        del encoder
        pretrain(
            PretrainOptions(
                ["words"], init, cache=cache, depth=asked.depth, batch=64, steps=2, eval_every=2, eval_words=1,
                device=asked.device,
            ),
            lambda text: None,
        )  # fmt: skip
        crops = drawn_crops(labels)
        for encoder_kind, freeze in (("vit", False), ("clip", True)):
            options = FinetuneOptions(
                init, ["drawn"], ["drawn"], Path(name) / encoder_kind, batch=asked.batch, steps=asked.steps,
                eval_every=asked.steps, eval_words=64, encoder=encoder_kind, freeze=freeze, workers=asked.workers,
                image_size=asked.size, device=asked.device,
            )  # fmt: skip
            material = Material([[crops]], [crops])
            if freeze:
                space = open_space(cache)
                tower = space_tower(space, options.size)
                pictures = ((str(n), crops.picture(n)) for n in range(len(crops)))
                bank = embed_crops(space, tower, device, pictures, len(crops), lambda text: None)
                material = Material([[crops]], [crops], space, tower, CachedTokens(bank))
            done = finetune(options, material, lambda text: None)
            log = steady(options.out)
            log["crops_per_second"] = log.pop("words_per_second")
            line = {**about("finetune_step"), "encoder": encoder_kind, "frozen": freeze, "batch": asked.batch}
            print(json.dumps({**line, **log, "crops": done.crops, "device": device.type}), flush=True)


if __name__ == "__main__":
    main()
