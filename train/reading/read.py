"""Reads picture files with a fine-tuned recogniser: `dptr read [RUN] PICTURE...`.

Imports little, so that the first word comes soon, and decodes pictures in threads: worker processes would take longer
to start than a folder of words takes to read.
"""

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import torch
from torch import Tensor

from cache.errors import WrongUse
from models.decoders import confidence
from models.device import choose_device
from models.image_encoder import ImageEncoder, VisionConfig
from models.recogniser import Recogniser
from sources.ahead import mapped_ahead
from sources.missing import NoPicture
from sources.photos import photo_count, photos
from sources.pictures import decode
from train.ranks import ALONE, Ranks, in_turn
from train.run import load_recogniser, zero_label_recogniser

BATCH = 64
AHEAD = 2 * BATCH  # pictures decoded ahead of the model
THREADS = min(8, os.cpu_count() or 1)
UNSURE = 0.5  # words with a lower confidence are marked


@dataclass(frozen=True)
class PictureReading:
    """The text read from a picture and its confidence, 0 to 1; or the problem that kept it from being read.

    `characters` has the probability of each character of the text. The confidence is their product, times the
    probability that the text ends there.
    """

    image: str
    text: str | None
    confidence: float | None
    problem: str | None
    characters: list[float] | None = None

    @property
    def unsure(self) -> bool:
        """Whether the text is rather wrong than right, as the reader sees it."""
        return self.confidence is not None and self.confidence < UNSURE


def read(
    run: Path,
    images: Sequence[str],
    device: str = "auto",
    on_result: Callable[[PictureReading], None] | None = None,
    tower: ImageEncoder | None = None,
    ranks: Ranks = ALONE,
) -> list[PictureReading]:
    """Read pictures with a run's best checkpoint, in fp32; `images` as `pictures` takes them.

    A run that is only pre-trained reads through `tower`, the image tower of its space.

    `on_result` is called with each reading as it comes, in the order of the list. Several ranks each read their share
    and return all; the first calls `on_result`, when all are read. A picture that cannot be read gives a reading with a
    problem. Raises WrongUse for an image, device or run that does not exist and for a run that was not
    fine-tuned, DptrError for a damaged run.
    """
    target = choose_device(device)
    named = (one for n, one in enumerate(pictures(images)) if n // BATCH % ranks.size == ranks.rank)
    recogniser = (zero_label_recogniser(run, tower) if tower else load_recogniser(run))[0].to(target)
    made = _prepared(named, recogniser.config.vision)
    read: list[list[PictureReading]] = []  # by batch
    while batch := list(islice(made, BATCH)):
        good = [pixels for _, pixels in batch if isinstance(pixels, Tensor)]
        found = _found(recogniser, torch.stack(good).to(target)) if good else iter(())
        read.append([])
        for name, pixels in batch:
            if isinstance(pixels, str):
                reading = PictureReading(name, None, None, pixels)
            else:
                text, sure, each = next(found)
                reading = PictureReading(name, text, sure, None, each)
            read[-1].append(reading)
            if on_result and ranks.size == 1:
                on_result(reading)
    readings = in_turn(ranks.each(read))
    if on_result and ranks.size > 1 and ranks.first:
        for reading in readings:
            on_result(reading)
    return readings


def _found(recogniser: Recogniser, pixels: Tensor) -> Iterator[tuple[str, float, list[float]]]:
    """The text of each picture, its confidence, and the probability of each of its characters."""
    texts, shares = recogniser.read_characters(pixels)
    for text, sure, each in zip(texts, confidence(shares).tolist(), shares.tolist(), strict=True):
        yield text, sure, each[: len(text)]


def pictures(images: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """(path, encoded bytes) of every picture named by files, folders and patterns, in the order given.

    A folder, a tar or an LMDB gives all its pictures as `sources.photos` lists them. A pattern such as `'*.png'` or
    `'**/*.png'` that the shell has not expanded gives all its matches, sorted. Raises WrongUse, before any picture is
    read, for a path that does not exist, a pattern that matches nothing, or a folder without pictures.
    """
    found = []
    for image in images:
        matches = [image] if os.path.lexists(image) else sorted(glob.glob(image, recursive=True))
        if "**" in image:  # it matches folders too, and whatever is in them
            matches = [path for path in matches if not os.path.isdir(path)]
        if not matches and glob.has_magic(image):
            raise WrongUse(f"no file matches the pattern {image}: check it and the folder it starts from.")
        if missing := [path for path in matches or [image] if not (os.path.isfile(path) or os.path.isdir(path))]:
            raise WrongUse(f"there is no file or folder {missing[0]}: check the path.")
        if all(os.path.isdir(path) and photo_count(path) == 0 for path in matches):
            raise WrongUse(f"there are no pictures in {image}: name a folder that holds some, or the files.")
        found += matches
    if not found:
        raise WrongUse("there is nothing to read: name a picture, a folder or a pattern.")
    return chain.from_iterable(map(_given, found))


def _given(source: str) -> Iterator[tuple[str, bytes]]:
    """The pictures of one source with their paths; at least one for a file; NoPicture if permission is denied."""
    none = os.path.isfile(source)
    try:
        for name, data in photos(source):
            none = False
            itself = os.path.isfile(source) and os.path.basename(source) == name
            yield source if itself else os.path.join(source, name), data
    except PermissionError:
        yield source, NoPicture("it may not be read")
        return
    if none:  # an archive without pictures, or a file of zeros, which passes for one: report it either way
        yield source, b"no picture"


def _prepared(named: Iterator[tuple[str, bytes]], vision: VisionConfig) -> Iterator[tuple[str, Tensor | str]]:
    """Each path with the picture's pixels (3, H, W) uint8, or why there are none; prepared ahead by threads."""

    def make(one: tuple[str, bytes]) -> tuple[str, Tensor | str]:
        name, data = one
        try:
            return name, vision.pixels(decode(data))
        except ValueError as error:
            return name, str(error)

    return mapped_ahead(make, named, THREADS, AHEAD)
