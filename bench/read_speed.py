"""Milliseconds to read one word image of 32 x 128 on one core, as a program does that reads one after the other.

    python -m bench.read_speed [RUN...]

The image towers are wordclip's and wordclip2's, behind them a Feature Merge Unit as `dptr finetune` makes it and one
layer of ctc, nrtr or parseq with random weights that write seven letters. Towers of wordclip's form that are narrower
and have fewer layers show what size is fast enough; behind them is ctc alone. Each is read by torch, by its ONNX export
and by that in int8; beside them is PP-OCR's small recogniser, if `rapidocr` is installed (it brings the model, and is
needed for nothing else: pip install rapidocr, or pip install --target DIR rapidocr and PYTHONPATH=DIR). Its picture is
the same; `prepared` leaves out resizing and normalising, which the others do within the model (normalising) or need not
(the picture has their size). All take turns, so that a busy machine slows all alike; medians of all rounds.
"""

import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import onnxruntime
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from bench import rapid
from bench.machine import about
from models.decoders import configure
from models.image_encoder import ImageEncoder, stretched
from models.recogniser import QUERIES, Recogniser, RecogniserConfig
from pipeline.convert import convert as convert_tower
from pipeline.encoder import Encoder
from train.export.onnx import convert
from train.export.onnx.compare import Session
from train.export.onnx.int8 import quantise
from train.run import load_recogniser
from train.shipped import folder_of, shipped_reader

ROUNDS, LETTERS, GOAL = 60, 7, 3
TOWERS, KINDS, FORMS = ("wordclip", "wordclip2"), ("ctc", "nrtr", "parseq"), ("fp32", "int8")
NARROW = ((128, 2), (96, 2), (64, 2))  # widths and layers of smaller towers
Side = Callable[[], object]


def shipped(tower: str) -> ImageEncoder:
    """An image tower that ships with dptr."""
    return convert_tower(Encoder(tower, "shipped", precision="fp32", device="cpu"))


def narrow(tower: ImageEncoder, width: int, layers: int) -> ImageEncoder:
    """A tower of the same form with other sizes, random weights, and its own width as that of its tokens."""
    shape, scale = tower.config, width / tower.config.width
    stem = tuple(replace(one, width=int(one.width * scale)) for one in shape.stem)
    sizes = {"stem": stem, "layers": layers, "heads": width // 32, "feed": 4 * width, "out": None}
    return ImageEncoder(replace(shape, **sizes))


def recogniser(tower: ImageEncoder, kind: str, queries: int) -> Recogniser:
    """A tower, an FMU if there are queries, and a one-layer decoder that writes LETTERS letters."""
    width = tower.config.tokens_width
    torch.manual_seed(0)
    config = configure(kind, memory_width=width, width=width, depth=1, heads=max(1, width // 64))
    made = Recogniser(RecogniserConfig(tower.config, config, queries)).eval().requires_grad_(False)
    made.encoder.load_state_dict(tower.state_dict())
    decoder = made.decoder
    nn.init.normal_(decoder.head.weight, std=0.2)
    if kind != "ctc":  # one feature says that the text ends
        decoder.head.weight[0] = 0
        decoder.head.weight[0, 0], decoder.head.bias[0] = 5, -30
        decoder.positions[LETTERS, 0] = 200
    return made


def recognisers(runs: list[Path]) -> Iterator[tuple[str, Recogniser]]:
    """All that are timed, by name."""
    for run in runs:
        yield run.name, load_recogniser(run)[0].eval().requires_grad_(False)
    for name in TOWERS:
        tower = shipped(name)
        for kind in KINDS:
            yield f"{name} {kind}", recogniser(tower, kind, QUERIES)
    tower = shipped(TOWERS[0])
    for width, layers in NARROW:
        yield f"{width} x {layers} ctc", recogniser(narrow(tower, width, layers), "ctc", 0)


def sides(picture: torch.Tensor, folder: Path, runs: list[Path]) -> dict[str, Side]:
    """What is timed: the reading of one picture (3, 32, 128) uint8, by name."""
    made: dict[str, Side] = {}
    for name, model in recognisers(runs):
        paths = [folder / f"{name} {form}.onnx" for form in FORMS]
        convert(model, paths[0], {"characters": model.charset.characters})
        quantise(*paths)
        made[f"{name} torch"] = lambda model=model: model.decoder.read(model.memory(picture[None]), None)
        for path in paths:
            session = Session(path, threads=1)
            made[path.stem] = lambda session=session: session.read(picture[None])
        found = made[f"{name} fp32"]()[0]
        assert torch.equal(made[f"{name} torch"]()[0], found), f"{name} reads otherwise in ONNX"
        assert "ctc" in name or int((found != 0).sum()) == LETTERS
        print(f"{name}: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters", flush=True)
    return made


def other(picture: torch.Tensor) -> dict[str, Side]:
    """PP-OCR's small recogniser; empty, with a sentence, if rapidocr is not installed."""
    reader = rapid.recogniser()
    if reader is None:
        return {}
    crop = picture.permute(1, 2, 0).numpy()
    height, width = reader.rec_image_shape[1:]
    prepared = reader.resize_norm_img(np.ascontiguousarray(crop[..., ::-1]), width / height)[None].astype(np.float32)
    assert rapid.read(reader, crop) == "STATION"
    return {
        "rapidocr": lambda: rapid.read(reader, crop),
        "rapidocr prepared": lambda: reader.session(prepared),
    }


def medians(timed: dict[str, Side], rounds: int = ROUNDS) -> dict[str, float]:
    """Milliseconds of each, in turns."""
    spent: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds):
        for name, side in timed.items():
            began = time.perf_counter()
            side()
            spent[name].append(1e3 * (time.perf_counter() - began))
    return {name: round(statistics.median(times), 2) for name, times in spent.items()}


def word() -> torch.Tensor:
    """A drawn word, (3, 32, 128) uint8."""
    picture = Image.new("RGB", (128, 32), (200, 190, 180))
    ImageDraw.Draw(picture).text((8, 0), "STATION", (30, 30, 60), ImageFont.load_default(26))
    return stretched(picture, (32, 128))


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    runs = sys.argv[1:]
    if "--help" in runs:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    picture = word()
    with tempfile.TemporaryDirectory() as folder:
        timed = {**sides(picture, Path(folder), [shipped_reader(), *map(folder_of, map(Path, runs))]), **other(picture)}
        medians(timed, 5)  # warm
        found = medians(timed)
    for name, milliseconds in found.items():
        print(f"{name:<24}{milliseconds:>8.2f} ms")
    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    reader = min(found[f"reader {form}"] for form in FORMS)
    ratio = round(found["rapidocr"] / reader, 2) if "rapidocr" in found else None
    line = {**about("read_speed"), **versions, "milliseconds": found, "reader": reader, "goal": GOAL}
    print(json.dumps({**line, "ratio": ratio}))


if __name__ == "__main__":
    main()
