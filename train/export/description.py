"""model.json: all that is needed to rebuild, feed and understand an exported model without this project."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cache import __version__
from cache.files import write_whole
from models.charset import EOS
from models.recogniser import FMU, Recogniser
from train.run import Saved

ATTENTION = (
    "Attention has heads of equal consecutive parts of the width, scores scaled by 1 / sqrt(width of a head), softmax, "
    "and an output projection. GELU is the exact one, every projection has a bias, vectors multiply weights as x W^T."
)
ENCODER = (
    "encoder: the picture passes encoder.stem.N (convolutions, GELU between two); its grid becomes tokens row by row; "
    "class_token, where there is one, is put before them; positions are added; then pre_norm, where there is one; "
    "each block adds attention_out(attention) of norm_attention, whose queries_keys_values gives queries, keys and "
    "values in this order, then feed_out(GELU(feed_in)) of norm_feed (quick_gelu: x sigmoid(1.702 x) for GELU); norm "
    "and, where there is one, project end it."
)
BRIDGE = (
    "adapt, where there is one, is a projection of each token. fmu, where there is one: x = queries; x += attention(x "
    "over the tokens: attention.query, attention.keys_and_values, attention.out), x += feed.3(GELU(feed.0(norm(x)))); "
    "x is the memory. Without fmu the tokens are the memory."
)


def description(source: Saved) -> dict[str, Any]:
    """model.json: all that is needed to rebuild, feed and understand the model without this project."""
    decoder, recogniser = source.decoder, source.model if isinstance(source.model, Recogniser) else None
    charset, longest = decoder.charset, decoder.config.max_length
    shape = recogniser.config.to_dict() if recogniser else {"decoder": decoder.config.to_dict()}
    fmu_heads = recogniser.fmu.attention.heads if recogniser and isinstance(recogniser.fmu, FMU) else 0
    return {
        "kind": source.kind,
        "made_by": f"dptr {__version__}",
        "run": {"name": source.run.resolve().name, "step": source.step, "scores": source.scores},
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
        "decoding": "turned as its EXIF orientation says; what is transparent lies over white; grey of 16 bits is "
        "divided by 257 and rounded",
        "size": {"height": height, "width": width},
        "resize": "stretched to exactly this size whatever its shape, bicubic with antialiasing, as Pillow does",
        "channels": "RGB",
        "layout": "(B, 3, height, width)",
        "values": "(byte / 255 - mean) / std, for each channel",
        "mean": list(vision.mean),
        "std": list(vision.std),
    }


def write_json(path: Path, fields: dict[str, Any]) -> None:
    """Write indented JSON; characters as they are, in UTF-8."""
    write_whole(path, (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode())
