"""What the embedding stages share: the encoder's space in the cache, and the plan shown before work starts."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from cache.errors import DptrError
from cache.files import make_folder
from cache.lock import writing as lock
from cache.space import Space, complete_space, spaces
from models.device import PRECISIONS, rates_said
from pipeline.encoder import Encoder
from pipeline.selftest import constants

Say = Callable[[str], None]  # shows the user a line
T = TypeVar("T")
MARGIN = 64 << 20  # bytes of disk left free beyond what is planned


def at_its_space(cache: Path, encoder: Encoder, say: Say) -> Encoder:
    """An encoder whose precision was left open, at that of the space which the cache holds for it, if it holds one.

    So a second machine goes on in the first one's space, although it might be faster in another precision.
    """
    rates = rates_said(encoder.device)
    held = {space.digest: space.name for space in spaces(cache)}
    for found in (encoder, *(encoder.at(precision) for precision in PRECISIONS if precision != "auto")):
        if name := held.get(found.fingerprint.digest):
            if found.precision != encoder.precision:
                say(f"going on in {name}, in {found.precision}, though {encoder.precision} is faster here: {rates}")
            return found
    say(f"computing in {encoder.precision}: this machine multiplies at {rates}")
    return encoder


@contextmanager
def writing_space(cache: Path, encoder: Encoder, needed: int, say: Say) -> Iterator[Space]:
    """Yields this encoder's space, locked and complete. A new space is created, and how it differs from others is said.

    DptrError, and nothing created, if there is no room for a new space of `needed` bytes.
    """
    fingerprint = encoder.fingerprint
    others = spaces(cache)
    same = [space.folder for space in others if space.digest == fingerprint.digest]
    folder = same[0] if same else cache / fingerprint.folder
    if not same:
        for space in others:
            differing = "; ".join(fingerprint.differences(space.fingerprint)[:4])
            say(f"a new space beside {space.name}, which differs (this encoder / that space): {differing}")
        check_room(cache, needed + MARGIN)
        make_folder(folder)
    with lock(folder):
        yield complete_space(folder, fingerprint, lambda: constants(encoder))


def say_encoder(encoder: Encoder, space: Space, say: Say) -> None:
    """Name the space and the machine, and say so when the weights were never trained."""
    several = f", {len(encoder.devices)} devices" * (len(encoder.devices) > 1)
    say(f"space {space.name} ({encoder.device.type}, {encoder.precision}{several})")
    if not encoder.causal:
        say("tokens of this text tower look ahead, so each prompt is computed in full: this takes much longer")
    seed = encoder.fingerprint.untrained_seed
    if seed is not None:
        say(f"the encoder's weights are UNTRAINED (seed {seed}): good for trying the pipeline, not for results")


def check_room(cache: Path, needed: int) -> int:
    """Free bytes on the cache's disk; DptrError if they are fewer than needed."""
    folder = next(p for p in [cache, *cache.absolute().parents] if p.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DptrError(
            f"{cache} needs {size(needed)} and its disk has {size(free)} free: make room or choose another --cache. "
            "Nothing was written."
        )
    return free


def size(count: float) -> str:
    """Bytes in readable form: 1.2 GB.

    >>> size(1_234_567_890)
    '1.2 GB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
