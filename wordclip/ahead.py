"""Draws pictures ahead of training into one array, which can then be read in any order."""

import multiprocessing
import os
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sources.photos import photos
from sources.pictures import decode
from wordclip.fonts import Font
from wordclip.render import HEIGHT, WIDTH, Picture, render
from wordclip.words import WordSampler

CHUNK = 1000  # words drawn from one seed, so that the pictures do not depend on the number of processes


def photographs(sources: Sequence[str], shortest: int = 96) -> list[Picture]:
    """Photographs (H, W, 3) uint8, shorter side `shortest` pixels; those that cannot be decoded are left out."""
    found = []
    for source in sources:
        for _, data in photos(source):
            try:
                picture = decode(data)
            except ValueError:
                continue
            scale = shortest / min(picture.size)
            found.append(np.asarray(picture.resize((round(picture.width * scale), round(picture.height * scale)))))
    return found


def draw_ahead(
    folder: Path, count: int, sampler: WordSampler, fonts: Sequence[Font], grounds: Sequence[Picture], seed: int
) -> None:
    """Writes pictures.npy (count, 32, 128, 3) uint8 and words.txt, one word per line, on all cores."""
    global _work
    folder.mkdir(parents=True, exist_ok=True)
    count = -(-count // CHUNK) * CHUNK
    pictures = np.lib.format.open_memmap(folder / "pictures.npy", "w+", np.uint8, (count, HEIGHT, WIDTH, 3))
    _work = (pictures, sampler, fonts, grounds, seed)
    with (
        multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool,
        open(folder / "words.txt.part", "w", encoding="utf-8") as words,
        tqdm(total=count, unit="picture", desc="drawing") as bar,
    ):
        for drawn in pool.imap(_draw_chunk, range(count // CHUNK)):
            words.writelines(word + "\n" for word in drawn)
            bar.update(CHUNK)
    pictures.flush()
    (folder / "words.txt.part").rename(folder / "words.txt")  # its presence means that everything is there


def drawn_ahead(folder: Path) -> tuple[NDArray[np.uint8], list[str]]:
    """What `draw_ahead` wrote."""
    words = (folder / "words.txt").read_text("utf-8").split("\n")[:-1]
    return np.load(folder / "pictures.npy", mmap_mode="r"), words


_work: tuple[NDArray[np.uint8], WordSampler, Sequence[Font], Sequence[Picture], int]


def _draw_chunk(chunk: int) -> list[str]:
    pictures, sampler, fonts, grounds, seed = _work
    rng = random.Random(f"{seed} {chunk}")
    words = [sampler.draw(rng) for _ in range(CHUNK)]
    for n, word in enumerate(words):
        pictures[chunk * CHUNK + n] = render(word, fonts, grounds, rng)
    return words
