"""Photographs per second from files to a committed bank, compared with open_clip's preprocessing and encode_image.

    python -m bench.encode_images [FOLDER]

ViT-B/16 image tower with untrained weights (speed does not depend on them), in this machine's fastest precision. The
usual way: a loop over batches of 32 in fp32, decoded by a DataLoader with one worker process per core, pooled features
kept in memory. The two take turns; medians of three runs.
"""

import io
import json
import os
import statistics
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from open_clip.transform import image_transform_v2
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from bench.operations import operations
from models.device import product_rate
from pipeline.embed_images import embed_images
from pipeline.encoder import Encoder
from pipeline.picture_shards import BATCH
from pipeline.weights import build_model
from sources.photos import photos
from sources.signs import photographs

MODEL, WEIGHTS = "ViT-B-16-quickgelu", "untrained:0"
OURS, USUAL, RUNS = 512, 128, 3  # pictures per run


class Pictures(Dataset[Any]):
    """Pictures, decoded as users of open_clip do it."""

    def __init__(self, pictures: list[tuple[str, bytes]], preprocess: Any) -> None:
        self.pictures, self.preprocess = pictures, preprocess

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, n: int) -> Any:
        return self.preprocess(Image.open(io.BytesIO(self.pictures[n][1])).convert("RGB"))


def main() -> None:
    """Measure and print."""
    source = photos(sys.argv[1]) if len(sys.argv) > 1 else iter(photographs() * 40)
    pictures = [(f"{n}-{name}", data) for n, (name, data) in enumerate(islice(source, OURS))]
    encoder = Encoder(MODEL, WEIGHTS)
    device, model = encoder.device, build_model(MODEL, WEIGHTS).to(encoder.device)
    dataset = Pictures(pictures[:USUAL], image_transform_v2(encoder.preprocess_config, is_train=False))
    ours, usual, busy, bank = [], [], [], 0
    for _ in range(RUNS):
        began, kept = time.perf_counter(), []
        with torch.inference_mode():
            for batch in DataLoader(dataset, 32, num_workers=os.cpu_count() or 1):
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
    size = BATCH[device.type]
    pixels = torch.zeros(size, 3, *encoder.preprocess_config.input_size[1:], dtype=torch.uint8, device=device)
    each = operations(lambda: encoder.visual.first(pixels)) / size
    result = {
        "bench": "encode_images",
        "pictures": done.new,
        "pictures_per_second": round(statistics.median(ours), 2),
        "usual_pictures_per_second": round(statistics.median(usual), 2),
        "ratio": round(statistics.median(a / b for a, b in zip(ours, usual, strict=True)), 2),
        "goal": 2,
        "busy": statistics.median(busy),
        "share_of_product_rate": round(statistics.median(ours) * each / product_rate(device, encoder.dtype), 3),
        "share_goal": 0.5,
        "bytes_a_picture": bank,
        "device": device.type,
        "precision": encoder.precision,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
