"""What is in a cache, for people and for programs: `dptr cache info`."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cache.collection import Collection
from cache.errors import WrongUse
from cache.report import columns
from cache.space import Space, spaces


def describe(cache: Path) -> dict[str, Any]:
    """Spaces, corpora, banks and word images, with counts, bytes and fingerprints. WrongUse if there is no cache."""
    found = spaces(cache)
    if not found:
        raise WrongUse(f"there is no cache in {cache}: make one with dptr embed-text, or name another --cache.")
    return {"cache": str(cache), "spaces": [_space(space) for space in found]}


def show(found: dict[str, Any]) -> str:
    """`describe` as text."""
    return "\n\n".join("\n".join(_lines(space)) for space in found["spaces"])


def _lines(space: dict[str, Any]) -> Iterator[str]:
    yield f"space {space['name']}"
    made = space["fingerprint"]
    trained = "UNTRAINED weights" if made["untrained_seed"] is not None else "weights"
    yield f"  encoder   {made['model']}, {trained} '{made['pretrained']}'"
    yield f"  prompt    {made['prompt']}"
    values = f"{made['layout']} layout, computed in {made['compute']}, stored {made['stored']}"
    yield f"  values    {values}, format {made['format']}"
    yield f"  identity  {space['digest']}"
    rows = [("", "name", "rows", "shards", "bytes", "")]
    for label, kind in (("memories", "memories"), ("corpus", "corpora"), ("bank", "banks"), ("crops", "crops")):
        for part in space[kind]:
            skipped = f"({part['skipped']:,} skipped)" if part.get("skipped") else ""
            rows.append((label, part["name"], *(f"{part[n]:,}" for n in ("rows", "shards", "bytes")), skipped))
    yield from (f"  {line}" for line in columns(rows, left=2))


def _space(space: Space) -> dict[str, Any]:
    banks = [space.bank(name) for name in space.banks()]
    crops = [space.crops(size.split("x")) for size in space.crop_sizes()]
    return {
        "name": space.name,
        "digest": space.digest,
        "fingerprint": asdict(space.fingerprint),
        "memories": [_part(space.memories)],
        "corpora": [_part(space.corpus(name)) for name in space.corpora()],
        "banks": [{**_part(bank), "skipped": len(bank.skipped())} for bank in banks],
        "crops": [{**_part(bank), "skipped": len(bank.skipped())} for bank in crops],
    }


def _part(part: Collection) -> dict[str, Any]:
    return {"name": part.name, "rows": part.rows, "shards": len(part.entries), "bytes": part.bytes}
