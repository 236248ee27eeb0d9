"""Compares what onnxruntime reads with what the run reads, on random pictures."""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cache.errors import DptrError
from models.recogniser import Recogniser

BATCHES = (1, 3, 3, 1)  # sizes of the batches to compare
TIE = 1e-3  # another program may rank logits differently if they are closer than this
TOLERANCE = 1e-3  # for probabilities


def compare(recogniser: Recogniser, path: Path) -> tuple[float, int]:
    """The largest difference of probabilities, and how many pictures were compared; pictures with a tie are left out.

    Raises DptrError if ids or probabilities differ on any of the others.
    """
    session, generator = Session(path), torch.Generator().manual_seed(0)
    largest, compared = 0.0, 0
    for B in BATCHES:
        pictures = random_pictures(recogniser, B, generator)
        ids, shares = session.read(pictures)
        expected_ids, expected = recogniser.decoder.read(recogniser.memory(pictures), None)
        sure = ~torch.tensor([_tied(recogniser, one) for one in pictures])
        compared += int(sure.sum())
        largest = max([largest, *(shares - expected)[sure].abs().amax(-1).tolist()])
        if not torch.equal(ids[sure], expected_ids[sure]) or not largest < TOLERANCE:
            raise DptrError(
                f"{path.name} was not kept: onnxruntime {session.version} does not read random pictures as the run "
                f"does (probabilities differ by {largest:.2g}): install the versions listed in constraints.txt."
            )
    return largest, compared


def random_pictures(recogniser: Recogniser, count: int, generator: torch.Generator) -> Tensor:
    """Noise (count, 3, H, W) uint8 of the recogniser's size."""
    size = (count, 3, *recogniser.config.vision.image_size)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)


class Session:
    """A written file in onnxruntime."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        """`threads`: 0 is as many as there are cores."""
        runtime: Any = import_module("onnxruntime")  # which is not installed everywhere
        options = runtime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, threads
        self.session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.version = runtime.__version__

    def read(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, H, W) uint8 to ids and probabilities (B, S)."""
        ids, shares = self.session.run(None, {"pictures": pictures.numpy()})
        return torch.from_numpy(ids), torch.from_numpy(shares)


@torch.inference_mode()
def _tied(recogniser: Recogniser, picture: Tensor) -> bool:
    """Whether two ids were almost equally probable anywhere in the reading of a picture (3, H, W)."""
    gaps: list[float] = []

    def look(module: Any, inputs: Any, logits: Tensor) -> None:
        best = logits.topk(min(2, logits.shape[-1])).values
        gaps.append(float((best[..., 0] - best[..., -1]).min()))

    handle = recogniser.decoder.head.register_forward_hook(look)
    try:
        recogniser.decoder.read(recogniser.memory(picture[None]), None)
    finally:
        handle.remove()
    return min(gaps) < TIE
