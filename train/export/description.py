"""model.json: everything needed to rebuild, feed and understand an exported model without this project."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cache import __version__
from cache.files import write_whole
from models.charset import EOS
from models.image_encoder import TALL
from models.recogniser import FMU, Recogniser
from train.exported import kept
from train.run import Saved

ATTENTION = (
    "Attention splits the width into equal consecutive heads, scales scores by 1 / sqrt(width of a head), applies "
    "softmax, and ends with an output projection. GELU is exact, not the tanh approximation; every projection has a "
    "bias; vectors multiply weights as x W^T."
)
ENCODER = (
    "encoder: the picture passes through encoder.stem.N (convolutions, with GELU between them); the grid becomes "
    "tokens row by row; class_token, if present, is put in front; positions are added; pre_norm, if present, is "
    "applied. Each block adds attention_out(attention(norm_attention(x))), where queries_keys_values gives queries, "
    "keys and values in this order, then feed_out(GELU(feed_in(norm_feed(x)))); with quick_gelu, x sigmoid(1.702 x) "
    "replaces GELU. Last come norm and, if present, project."
)
BRIDGE = (
    "adapt, if present, projects each token. fmu, if present: x = queries; x += attention(x over the tokens: "
    "attention.query, attention.keys_and_values, attention.out); x += feed.3(GELU(feed.0(norm(x)))); x is the memory. "
    "Without fmu, the tokens are the memory."
)


def description(source: Saved) -> dict[str, Any]:
    """model.json: everything needed to rebuild, feed and understand the model without this project."""
    decoder, recogniser = source.decoder, source.model if isinstance(source.model, Recogniser) else None
    charset, longest = decoder.charset, decoder.config.max_length
    shape = recogniser.config.to_dict() if recogniser else {"decoder": decoder.config.to_dict()}
    fmu_heads = recogniser.fmu.attention.heads if recogniser and isinstance(recogniser.fmu, FMU) else 0
    return {
        "kind": source.kind,
        "made_by": f"dptr {__version__}",
        "run": {"name": source.run.resolve().name, "step": source.step, "scores": source.scores},
        "training": kept(source.config),
        "space": {
            "name": source.config.space_name,
            "digest": source.config.fingerprint.digest,
            "fingerprint": asdict(source.config.fingerprint),
        },
        "shape": {**shape, "feed": 4 * decoder.config.width, "fmu_heads": fmu_heads, "decoder_norm_epsilon": 1e-5},
        "characters": charset.characters,
        "ids": {
            "EOS": EOS,
            "characters": [1, len(charset.characters)],  # first and last, in the order of the string above
            "BOS": charset.bos,
            "PAD": charset.pad,
            **({"embedding": charset.ids} if hasattr(decoder, "embedding") else {}),
            "head": charset.head,
        },
        "picture": _picture(recogniser) if recogniser else None,
        "memory": None if recogniser else "(B, M, memory_width): the text encoder's token states of the space's prompt",
        "reading": {"longest": longest, "positions": longest + 1, **decoder.reading},
        "architecture": [ATTENTION, *([ENCODER, BRIDGE] if recogniser else []), decoder.architecture],
    }


def _picture(recogniser: Recogniser) -> dict[str, Any]:
    vision = recogniser.config.vision
    height, width = vision.image_size
    return {
        "decoding": "rotated according to its EXIF orientation; transparency is blended onto white; 16-bit grey values "
        "are divided by 257 and rounded",
        "size": {"height": height, "width": width},
        "turned": f"a quarter to the left, if its height is {TALL:g} times its width or more"
        if vision.turn_tall
        else "no",
        "resize": "stretched to exactly this size, whatever its shape; bicubic with antialiasing, as Pillow does it",
        "channels": "RGB",
        "layout": "(B, 3, height, width)",
        "values": "(byte / 255 - mean) / std, for each channel",
        "mean": list(vision.mean),
        "std": list(vision.std),
    }


def write_json(path: Path, fields: dict[str, Any]) -> None:
    """Write indented JSON in UTF-8, with characters unescaped."""
    write_whole(path, (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode())
