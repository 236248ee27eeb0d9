"""What both embedding stages share: the encoder's space in the cache, and the plan that is shown before work starts."""

import shutil
from collections.abc import Callable
from pathlib import Path

from cache.errors import DptrError
from cache.space import Space, create_space, spaces
from pipeline.encoder import Encoder

Say = Callable[[str], None]  # shows a line to a person

MARGIN = 64 << 20  # bytes of disk left free beyond what is planned


def encoder_space(cache: Path, encoder: Encoder, needed: int, say: Say) -> Space:
    """The space of this encoder, made if it is the first time; says how it differs from those already there.

    DptrError, and nothing made, if a new space has no room for `needed` bytes.
    """
    fingerprint = encoder.fingerprint
    others = spaces(cache)
    for space in others:
        if space.digest == fingerprint.digest:
            return space
    for space in others:
        differing = "; ".join(fingerprint.differences(space.fingerprint)[:4])
        say(f"a new space beside {space.name}, because they differ (this encoder / that space): {differing}")
    check_room(cache, needed + MARGIN)
    return create_space(cache, fingerprint, encoder.prefix_states(), encoder.text_projection.numpy())


def say_encoder(encoder: Encoder, space: Space, say: Say) -> None:
    """Name the space and the machine, and say so when the weights were never trained."""
    say(f"space {space.name} ({encoder.device.type}, {encoder.precision})")
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
    """Bytes for a person: 1.2 GB.

    >>> size(1_234_567_890)
    '1.2 GB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
