"""Weights as 8-bit integers: onnxruntime's dynamic quantisation, and what it costs in accuracy."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.recogniser import Recogniser
from sources.labelled import Labelled
from train.data.crop_batches import WORKERS
from train.data.crops import usable
from train.export.onnx.compare import Session, random_pictures
from train.reading.batched import load_in_order
from train.reading.score import score

LIMIT = 2_000  # labelled pictures that both files read, evenly spaced
RANDOM = 64  # pictures, if none are labelled
WEIGHTS = ["MatMul", "Gemm"]  # what is quantised


def quantise(path: Path, to: Path) -> None:
    """Write the model again, with the weights of products as int8 and their inputs quantised as they come.

    Weights have a scale for each column and 7 bits, because sums of two products of 8 bits overflow on processors
    without VNNI. The convolutions stay: onnxruntime's for integers are slower.
    """
    quantization: Any = import_module("onnxruntime.quantization")  # which is not installed everywhere

    more = {"EnableSubgraph": True, "MatMulConstBOnly": True}  # what is within the loop, and weights alone
    quantization.quantize_dynamic(
        path,
        to,
        WEIGHTS,
        per_channel=True,
        reduce_range=True,
        weight_type=quantization.QuantType.QInt8,
        extra_options=more,
    )


def loss(recogniser: Recogniser, path: Path, small: Path, sets: Sequence[Labelled], blank: bool) -> dict[str, Any]:
    """What both files read: word accuracies on labelled sets or, without one, how many random readings are equal.

    Raises DptrError if no picture of the sets can be read.
    """
    both = Session(path), Session(small)
    if not sets:
        pictures = random_pictures(recogniser, RANDOM, torch.Generator().manual_seed(0))
        whole, eight = (_texts(recogniser, session, pictures) for session in both)
        return {"random_pictures": RANDOM, "equal": sum(a == b for a, b in zip(whole, eight, strict=True))}
    crops = usable(sets, recogniser.charset, recogniser.config.decoder.max_length, strict=False, blank=blank)
    crops = crops.evenly(LIMIT)
    labels: list[str] = []
    texts: tuple[list[str], list[str]] = [], []
    for batch in load_in_order(crops, recogniser.config.vision, WORKERS):
        labels += batch.labels
        for session, found in zip(both, texts, strict=True):
            found += _texts(recogniser, session, batch.pictures)
    before, after = (round(score(labels, found).word_accuracy, 4) for found in texts)
    equal = sum(a == b for a, b in zip(*texts, strict=True))
    return {"sets": [one.name for one in sets], "words": len(labels), "fp32": before, "int8": after, "equal": equal}


def _texts(recogniser: Recogniser, session: Session, pictures: Tensor) -> list[str]:
    return list(recogniser.charset.decode(session.read(pictures)[0])) if len(pictures) else []
