"""JSON that can tell whether it has changed: each object carries the CRC-32 of its other fields.

The check is `zlib.crc32` over the fields' JSON as Python writes it (UTF-8, fields in order, `", "` and `": "` between).
"""

import json
import zlib
from typing import Any


def seal(fields: dict[str, Any], indent: int | None = None) -> str:
    """The fields and their `crc32` as JSON."""
    return json.dumps({**fields, "crc32": _check(fields)}, indent=indent)


def unseal(text: str | bytes) -> dict[str, Any]:
    """Inverse of `seal`. ValueError if the text is not a JSON object or has changed."""
    fields = json.loads(text)
    if not isinstance(fields, dict) or fields.pop("crc32", None) != _check(fields):
        raise ValueError("it does not match its checksum")
    return fields


def _check(fields: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(fields).encode())
