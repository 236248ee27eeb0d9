"""Pictures with their labels on the training device, and batches drawn from them.

Drawn pictures come in as they are finished, so a GPU trains while fifteen cores draw, and no picture is copied twice.

Shape letters: B pictures, N letters of the longest label.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cache.errors import DptrError
from pipeline.tokenizer import Characters
from sources.cleaning import MAX_LENGTH
from sources.drawn.render import HEIGHT, WIDTH
from wordclip.crops import Crops
from wordclip.drawing import CHUNK, Artist, Chunk


@dataclass
class Batch:
    """What one step trains on."""

    pictures: Tensor  # (B, 32, 128, 3) uint8, the last `real` of them real crops
    real: int
    letters: Tensor  # (B, N) int64, token ids of each label's characters, then 0
    lengths: Tensor  # (B,) int64
    centres: Tensor  # (B, N) of each letter, from 0 at the left edge to 1; NaN where unknown
    host_lengths: Tensor  # `lengths` on the CPU, for what is computed there: a step never waits for the GPU


class Pool:
    """So many pictures at most, on one device; the first `filled` of them are there."""

    def __init__(self, capacity: int, device: torch.device) -> None:
        self.filled = 0
        self.pictures = torch.empty(capacity, HEIGHT, WIDTH, 3, dtype=torch.uint8, device=device)
        self.letters = torch.zeros(capacity, MAX_LENGTH, dtype=torch.int16, device=device)
        self.lengths = torch.zeros(capacity, dtype=torch.int16)  # on the CPU
        self.centres = torch.full((capacity, MAX_LENGTH), torch.nan, device=device)

    @classmethod
    def of(cls, crops: Crops, tokens: Characters, device: torch.device) -> "Pool":
        """All crops whose label has 1 to MAX_LENGTH characters, each of them in the tokenizer's table."""
        fits = [1 <= len(label) <= MAX_LENGTH and all(c in tokens.number for c in label) for label in crops.labels]
        crops = crops.where(fits)
        pool = cls(len(crops), device)
        pool.add(Chunk.of(crops.pictures, crops.labels, tokens))
        return pool

    def add(self, chunk: Chunk) -> None:
        """Puts pictures behind those that are there."""
        new = slice(self.filled, self.filled + len(chunk.lengths))
        for name, values in vars(chunk).items():
            getattr(self, name)[new] = torch.from_numpy(values)
        self.filled = new.stop  # last: a batch drawn meanwhile sees the rows before it

    @contextmanager
    def follow(self, artist: Artist, chunks: int) -> Iterator[None]:
        """Takes an artist's chunks as they are drawn, in a thread; returns once the first is there.

        DptrError if none comes, because the processes that draw have ended.
        """
        stopped, failed = threading.Event(), []

        def take() -> None:
            try:
                for chunk in range(chunks):
                    while (drawn := artist.read(chunk)) is None:
                        if stopped.wait(0.2):
                            return
                    self.add(drawn)
                    if stopped.is_set():
                        return
            except Exception as error:  # raised again by the thread that trains
                failed.append(error)

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        try:
            while self.filled < CHUNK and not failed:
                alive = artist.drawing  # asked first: what was drawn last may have come just before its process ended
                time.sleep(0.05)
                if not alive and artist.read(0) is None:
                    raise DptrError(f"no picture could be drawn into {artist.folder}: what was printed above says why.")
            yield
        finally:
            stopped.set()
            thread.join()
        if failed:
            raise failed[0]

    def rows(self, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pictures, letters, lengths (on the CPU) and centres of `count` rows drawn at random."""
        rows = torch.randint(self.filled, (count,))
        there = rows.to(self.pictures.device)
        return self.pictures[there], self.letters[there].long(), self.lengths[rows].long(), self.centres[there]


def batch_of(drawn: Pool, real: Pool, size: int, share: float) -> Batch:
    """A batch of `size` pictures, `share` of them real crops, if there are any. Drawn by torch's global generator."""
    crops = round(share * size) if real.filled else 0
    parts = [drawn.rows(size - crops), *([real.rows(crops)] if crops else [])]
    pictures, letters, lengths, centres = (torch.cat(column) for column in zip(*parts, strict=True))
    longest, there = int(lengths.max()), lengths.to(pictures.device)
    return Batch(pictures, crops, letters[:, :longest], there, centres[:, :longest], lengths)


def augmented(pictures: Tensor, real: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised float pictures (B, 3, 32, 128): all with changed colours, the last `real` also moved and turned."""
    x = pictures.permute(0, 3, 1, 2).float() / 255
    if real:
        x = torch.cat([x[:-real], _moved(x[-real:])])
    B = len(x)
    upside = torch.rand(B, 1, 1, 1, device=x.device) < 0.1
    x = torch.where(upside, 1 - x, x)
    gain = 1 + 0.2 * torch.randn(B, 3, 1, 1, device=x.device)
    shift = 0.1 * torch.randn(B, 3, 1, 1, device=x.device)
    x = ((x - 0.5) * gain + 0.5 + shift).clamp(0, 1)
    return _normalised(x, mean, std)


def plain(pictures: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised float pictures (B, 3, 32, 128) from uint8 ones (B, 32, 128, 3), otherwise unchanged."""
    return _normalised(pictures.permute(0, 3, 1, 2).float() / 255, mean, std)


def _normalised(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    return (x - x.new_tensor(mean).view(3, 1, 1)) / x.new_tensor(std).view(3, 1, 1)


def _moved(x: Tensor) -> Tensor:
    """Slightly scaled, shifted, slanted and turned."""
    B = len(x)
    noise = torch.randn(B, 6, device=x.device)
    across = torch.stack([1 + 0.05 * noise[:, 0], 0.03 * noise[:, 1], 0.03 * noise[:, 2]], 1)
    down = torch.stack([0.10 * noise[:, 3], 1 + 0.10 * noise[:, 4], 0.08 * noise[:, 5]], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)
