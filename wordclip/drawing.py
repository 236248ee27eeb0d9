"""Draws pictures in processes of their own, chunk by chunk, into files that training takes as they come."""

import multiprocessing
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.tokenizer import Characters
from sources.cleaning import MAX_LENGTH
from sources.drawn.fonts import Font
from sources.drawn.render import Picture, render
from sources.drawn.words import WordSampler

CHUNK = 1000  # words drawn from one seed, so that the pictures do not depend on the number of processes


@dataclass
class Chunk:
    """Pictures and what they say. N is MAX_LENGTH."""

    pictures: NDArray[np.uint8]  # (B, 32, 128, 3)
    letters: NDArray[np.int16]  # (B, N) token ids of each label's characters, then 0
    lengths: NDArray[np.int16]  # (B,)
    centres: NDArray[np.float32]  # (B, N) of each letter, from 0 at the left edge to 1; NaN where unknown

    @classmethod
    def of(
        cls,
        pictures: NDArray[np.uint8],
        labels: Sequence[str],
        tokens: Characters,
        centres: Sequence[Sequence[float]] | None = None,
    ) -> "Chunk":
        """Every label has at most MAX_LENGTH characters, all of them in the tokenizer's table."""
        letters = np.zeros((len(labels), MAX_LENGTH), np.int16)
        places = np.full((len(labels), MAX_LENGTH), np.nan, np.float32)
        for row, label in enumerate(labels):
            letters[row, : len(label)] = [tokens.number[c] for c in label]
            if centres is not None:
                places[row, : len(label)] = centres[row]
        return cls(pictures, letters, np.array([len(label) for label in labels], np.int16), places)


class Artist:
    """What drawing takes: words, fonts, photographs to put behind words, and a seed."""

    def __init__(
        self,
        sampler: WordSampler,
        tokens: Characters,
        fonts: Sequence[Font],
        grounds: Sequence[Picture],
        seed: int,
        folder: Path,
    ) -> None:
        """Chunks go to `folder`, which is made if need be."""
        self.sampler, self.tokens, self.fonts, self.grounds, self.seed = sampler, tokens, fonts, grounds, seed
        self.folder, self._workers = folder, list[multiprocessing.context.ForkProcess]()
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def drawing(self) -> bool:
        """Whether any process draws."""
        return any(worker.is_alive() for worker in self._workers)

    def draw(self, number: int) -> None:
        """Writes one chunk of CHUNK pictures; its name appears when all of it is there. Nothing if it is there."""
        path = self.folder / f"{number:06}.npz"
        if path.exists():
            return
        rng = random.Random(f"{self.seed} {number}")
        words = [self.sampler.draw(rng) for _ in range(CHUNK)]
        drawn = [render(word, self.fonts, self.grounds, rng) for word in words]
        chunk = Chunk.of(np.stack([d.picture for d in drawn]), words, self.tokens, [d.centres for d in drawn])
        with open(path.with_suffix(".part"), "wb") as file:
            np.savez(file, **vars(chunk))
        path.with_suffix(".part").rename(path)

    def read(self, number: int) -> Chunk | None:
        """A chunk, or None if it is not there yet."""
        path = self.folder / f"{number:06}.npz"
        if not path.exists():
            return None
        with np.load(path) as arrays:
            return Chunk(**arrays)

    @contextmanager
    def at_work(self, chunks: int, processes: int | None = None) -> Iterator[None]:
        """Draws `chunks` chunks in the background, in so many processes (all cores but one); stops them at the end."""
        processes = processes or max(1, (os.cpu_count() or 2) - 1)
        context = multiprocessing.get_context("fork")
        self._workers = [
            context.Process(target=self._work, args=(n, chunks, processes), daemon=True) for n in range(processes)
        ]
        for worker in self._workers:
            worker.start()
        try:
            yield
        finally:
            for worker in self._workers:
                worker.terminate()
            for worker in self._workers:
                worker.join()

    def _work(self, first: int, chunks: int, step: int) -> None:
        for chunk in range(first, chunks, step):
            self.draw(chunk)
