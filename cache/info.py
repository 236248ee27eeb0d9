"""What is in a cache, for people and for programs: `dptr cache info`."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cache.bank import Bank
from cache.collection import Collection
from cache.errors import WrongUse
from cache.index_file import Facts
from cache.neighbours import Neighbours
from cache.remote import shown
from cache.report import columns, printable
from cache.space import Space, spaces

LABELS = {
    "memories": "memories",
    "corpus": "corpora",
    "bank": "banks",
    "neighbours": "neighbours",
    "crops": "crops",
}  # as printed, and of what


def describe(cache: Path) -> dict[str, Any]:
    """Spaces, corpora, banks and word images, with counts, bytes and fingerprints. WrongUse if there is no cache."""
    found = spaces(cache)
    if not found:
        raise WrongUse(f"there is no cache in {shown(cache)}: make one with dptr embed-text, or name another --cache.")
    return {"cache": shown(cache), "spaces": [_space(space) for space in found]}


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
    for bank in space["banks"]:
        if bank["index"]:
            yield f"  index     {printable(bank['name'])}: {Facts(**bank['index'])}"
    rows = [("", "name", "rows", "shards", "bytes", "")]
    for label, kind in LABELS.items():
        for part in space[kind]:
            rows.append((label, part["name"], *(f"{part[n]:,}" for n in ("rows", "shards", "bytes")), _remark(part)))
    yield from (f"  {line}" for line in columns(rows, left=2))


def _remark(part: dict[str, Any]) -> str:
    if part.get("k"):
        return f"({part['k']} near and far{'' if part['fits'] else ', of other photographs than the bank has now'})"
    return f"({part['skipped']:,} skipped)" if part.get("skipped") else ""


def _space(space: Space) -> dict[str, Any]:
    banks = [space.bank(name) for name in space.banks()]
    crops = [space.crops(size.split("x")) for size in space.crop_sizes()]
    return {
        "name": space.name,
        "digest": space.digest,
        "fingerprint": asdict(space.fingerprint),
        "memories": [_part(space.memories)],
        "corpora": [_part(space.corpus(name)) for name in space.corpora()],
        "banks": [{**_part(bank), "skipped": len(bank.skipped()), "index": _index(bank)} for bank in banks],
        "crops": [{**_part(bank), "skipped": len(bank.skipped())} for bank in crops],
        "neighbours": [_table(space.neighbours(name), space) for name in space.neighbour_tables()],
    }


def _index(bank: Bank) -> dict[str, Any] | None:
    facts = bank.index_facts()
    return asdict(facts) if facts else None


def _table(table: Neighbours, space: Space) -> dict[str, Any]:
    made = table.made_for
    return {**_part(table), "k": made.k if made else 0, "fits": table.fits(space.bank(table.name))}


def _part(part: Collection) -> dict[str, Any]:
    return {"name": part.name, "rows": part.rows, "shards": len(part.entries), "bytes": part.bytes}
