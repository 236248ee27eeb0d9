"""JSON that knows whether it is still what was written: each object carries the CRC-32 of its other fields.

The check is `zlib.crc32` over the fields' JSON as Python writes it (UTF-8, in their order, `", "` and `": "` between).
"""

import json
import zlib
from typing import Any


def seal(fields: dict[str, Any], indent: int | None = None) -> str:
    """The fields and their `crc32` as JSON."""
    return json.dumps({**fields, "crc32": _check(fields)}, indent=indent)


def unseal(text: str | bytes) -> dict[str, Any]:
    """Inverse of `seal`. ValueError if the text is no JSON object or not what was sealed."""
    fields = json.loads(text)
    if not isinstance(fields, dict) or fields.pop("crc32", None) != _check(fields):
        raise ValueError("it is not what was written: its check does not agree")
    return fields


def _check(fields: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(fields).encode())
