"""Photographs per second from files to a committed bank, compared with open_clip's preprocessing and encode_image.

    python -m bench.encode_images [FOLDER]

ViT-B/16 image tower with untrained weights (speed does not depend on them), in this machine's fastest precision. The
usual way: a loop over batches of 32 in fp32 (on a GPU, of 64 with autocast), decoded by a DataLoader with one worker
process per core, pooled features kept in memory. The two take turns; medians of three runs.
"""

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from open_clip.transform import image_transform_v2
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from bench.machine import about
from bench.material import some_photographs
from bench.operations import operations
from models.device import autocast, product_rate
from pipeline.embed_images import embed_images
from pipeline.encoder import Encoder
from pipeline.picture_shards import BATCH
from pipeline.weights import build_model

MODEL, WEIGHTS = "ViT-B-16-quickgelu", "untrained:0"
USUAL = {"cpu": (128, 32), "cuda": (2048, 64)}  # pictures per run of the usual way, and per batch


class Pictures(Dataset[Any]):
    """Pictures, decoded as users of open_clip do it."""

    def __init__(self, pictures: list[tuple[str, bytes]], preprocess: Any) -> None:
        self.pictures, self.preprocess = pictures, preprocess

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, n: int) -> Any:
        return self.preprocess(Image.open(io.BytesIO(self.pictures[n][1])).convert("RGB"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("bench.encode_images")
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--count", type=int, default=512, help="photographs")
    parser.add_argument("--usual", type=int, help="photographs per run of the usual way")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="of the usual way")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--model", nargs=2, default=(MODEL, WEIGHTS), help="name and weights")
    asked = parser.parse_args(arguments)
    pictures = some_photographs(asked.folder, asked.count)
    encoder = Encoder(*asked.model, precision=asked.precision, device=asked.device)
    device, model = encoder.device, build_model(*asked.model).to(encoder.device)
    count, together = USUAL[device.type]
    dataset = Pictures(pictures[: asked.usual or count], image_transform_v2(encoder.preprocess_config, is_train=False))
    size = BATCH[device.type]
    pixels = torch.zeros(size, 3, *encoder.preprocess_config.input_size[1:], dtype=torch.uint8, device=device)
    each = operations(lambda: encoder.visual.first(pixels)) / size
    ours, usual, busy, bank = [], [], [], 0
    for _ in range(asked.runs):
        began, kept = time.perf_counter(), []
        with torch.inference_mode(), autocast(device, encoder.precision if device.type == "cuda" else "fp32"):
            for batch in DataLoader(dataset, together, num_workers=asked.workers):
                kept.append(model.encode_image(batch.to(device)))
        if device.type == "cuda":
            torch.cuda.synchronize()
        usual.append(sum(map(len, kept)) / (time.perf_counter() - began))
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            done = embed_images(Path(folder), encoder, pictures, len(pictures), "photos", lambda text: None)
            ours.append(done.new / (time.perf_counter() - began))
            busy.append(done.busy)
            bank = done.bytes // done.new
    result = {
        **about("encode_images"),
        "pictures": done.new,
        "pictures_per_second": round(statistics.median(ours), 2),
        "usual_pictures_per_second": round(statistics.median(usual), 2),
        "ratio": round(statistics.median(a / b for a, b in zip(ours, usual, strict=True)), 2),
        "goal": 2,
        "encoder_alone": round(_alone(encoder, pixels), 1),
        "busy": statistics.median(busy),
        "share_of_product_rate": round(statistics.median(ours) * each / product_rate(device, encoder.dtype, 0.2), 3),
        "share_goal": 0.5,
        "bytes_a_picture": bank,
        "device": device.type,
        "precision": encoder.precision,
    }
    print(json.dumps(result))


def _alone(encoder: Encoder, pixels: torch.Tensor, batches: int = 8) -> float:
    """Pictures per second of the tower, from pixels on the device to tokens in main memory."""
    began = time.perf_counter()
    for _ in encoder.encoded((n, pixels.cpu()) for n in range(batches)):
        pass
    return len(pixels) * batches / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
