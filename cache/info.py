"""What is in a cache, for people and for programs: `dptr cache info`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from cache.collection import Collection
from cache.errors import WrongUse
from cache.space import Space, spaces


def describe(cache: Path) -> dict[str, Any]:
    """Spaces, corpora, banks and word images, with counts, bytes and fingerprints. WrongUse if there is no cache."""
    found = spaces(cache)
    if not found:
        raise WrongUse(f"there is no cache in {cache}: make one with dptr embed-text, or name another --cache.")
    return {"cache": str(cache), "spaces": [_space(space) for space in found]}


def show(found: dict[str, Any]) -> str:
    """`describe` as text."""
    lines = []
    for space in found["spaces"]:
        fingerprint = space["fingerprint"]
        lines.append(f"space {space['name']}")
        trained = "UNTRAINED weights" if fingerprint["untrained_seed"] is not None else "weights"
        lines.append(f"  {'encoder':10}{fingerprint['model']}, {trained} '{fingerprint['pretrained']}'")
        lines.append(f"  {'prompt':10}{fingerprint['prompt']}")
        values = f"{fingerprint['layout']} layout, computed in {fingerprint['compute']}, stored {fingerprint['stored']}"
        lines.append(f"  {'values':10}{values}, format {fingerprint['format']}")
        lines.append(f"  {'identity':10}{space['digest']}")
        lines.append(f"  {'':10}{'name':24}{'rows':>12}{'shards':>8}{'bytes':>18}")
        for kind in ("memories", "corpora", "banks", "crops"):
            for part in space[kind]:
                label = {"corpora": "corpus", "banks": "bank"}.get(kind, kind)
                row = f"{part['name']:24}{part['rows']:>12,}{part['shards']:>8,}{part['bytes']:>18,}"
                skipped = f"  ({part['skipped']:,} skipped)" if part.get("skipped") else ""
                lines.append(f"  {label:10}{row}{skipped}")
        lines.append("")
    return "\n".join(lines).rstrip()


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
