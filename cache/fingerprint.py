"""The identity of an encoder: a hash of everything that decides a feature's value."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from cache.seal import seal, unseal

FORMAT = 2  # of the cache on disk; any other is refused


class OtherFormat(ValueError):  # noqa: N818 (it names what was found)
    """A cache has another format, the only argument."""


@dataclass(frozen=True)
class Fingerprint:
    """What made the features of a space.

    `model` and `pretrained` are for people: weights that moved to another file are the same weights. All other
    fields decide values and are hashed.
    """

    model: str
    pretrained: str
    config: dict[str, Any]  # open_clip's model configuration
    weights: str  # sha256 over names, shapes and values of the state dict in fp32
    untrained_seed: int | None  # None: trained weights
    quick_gelu: bool
    tokenizer: str
    prompt: str  # "a photo of a '{label}'"
    layout: str  # "compact", "shared" or "full"
    preprocess: dict[str, Any]  # open_clip's image preprocessing
    compute: str  # "fp32" or "bf16"
    stored: str = "float16"
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """sha256 over all fields except the two names, in hexadecimal."""
        values = {name: value for name, value in asdict(self).items() if name not in ("model", "pretrained")}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def folder(self) -> str:
        """The space's folder: readable names, then the first 8 digits of the digest."""
        pretrained = self.pretrained.replace("\\", "/").rsplit("/", 1)[-1]
        return f"{_slug(self.model)}.{_slug(pretrained)}.{self.digest[:8]}"

    def differences(self, other: "Fingerprint") -> list[str]:
        """One line for each hashed field that differs: `field: own value / other's value`."""
        mine, theirs = _flat(asdict(self)), _flat(asdict(other))
        names = [n for n in {**mine, **theirs} if n not in ("model", "pretrained")]
        return [f"{n}: {mine.get(n)} / {theirs.get(n)}" for n in names if mine.get(n) != theirs.get(n)]

    def to_json(self) -> bytes:
        """The text of space.json, which every shard of the space holds too."""
        return self._json

    @cached_property
    def _json(self) -> bytes:
        return (seal({**asdict(self), "digest": self.digest}, indent=2) + "\n").encode()

    @classmethod
    def from_json(cls, text: str | bytes) -> "Fingerprint":
        """Inverse of `to_json`. OtherFormat for another format, ValueError or TypeError if it is not a fingerprint."""
        fields = json.loads(text)
        found = fields.get("format") if isinstance(fields, dict) else None
        if isinstance(found, int) and found != FORMAT:
            raise OtherFormat(found)
        fields = unseal(text)
        digest = fields.pop("digest", None)
        fingerprint = cls(**fields)
        if fingerprint.digest != digest:
            raise ValueError("the recorded digest does not match the fields")
        return fingerprint


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "x"


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
