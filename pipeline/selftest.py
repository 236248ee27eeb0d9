"""What each space stores once: the encoder's constants, and a self-test of whether it still computes the same.

The fingerprint covers what the encoder is. The self-test covers what it computes here and now: it notices when another
version of torch, the tokenizer or pillow changes the result. `dptr cache verify --encoder` runs it.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.errors import DptrError, WrongUse
from cache.shard import pack_strings
from cache.space import Space
from pipeline.encoder import Encoder, space_encoder

LABELS = ["street", "Hello", "EXIT", "1984", "$4.99", "12:30", "don't", "a", "Llanfairpwllgwyngyll", "it's-me@home.org"]
AGREE = {"fp32": 0.9999, "bf16": 0.999}  # smallest cosine allowed for a row; stored rows are rounded to float16


def constants(encoder: Encoder) -> dict[str, NDArray[Any]]:
    """`prefix` (P, D), `text_projection` (D, E), `selftest_labels` and `selftest_states` (ΣL, D), the memories of their
    prompts; where the image tower can be used, `selftest_picture` (H, W, 3) uint8 and `selftest_tokens` (T, E).
    """
    found = {
        "prefix": encoder.prefix_states(),
        "text_projection": encoder.text_projection.numpy(),
        **pack_strings("selftest_labels", LABELS),
        "selftest_states": encoder.text_states([encoder.prompt.ids(label) for label in LABELS]),
    }
    picture = _picture()
    try:
        found["selftest_tokens"] = _tokens(encoder, picture)
        found["selftest_picture"] = picture
    except WrongUse:  # text can still be embedded when the image tower cannot give its tokens
        pass
    return found


def check(space: Space, pretrained: str | None = None, device: str = "auto") -> dict[str, float]:
    """The smallest cosine between a row computed now and the stored one: for "text", and for "image" if stored.

    `pretrained` says where to find the weights of the space's encoder now. Raises DptrError if it is no longer the same
    encoder, naming the fields that differ, or if its rows have changed.
    """
    encoder = space_encoder(space, pretrained, device)
    stored = space.constants()
    text, ends = stored["selftest_labels"].tobytes(), stored["selftest_labels_offsets"]
    ids = [encoder.prompt.ids(text[a:b].decode()) for a, b in pairwise(ends)]
    found = {"text": _agreement(stored["selftest_states"], encoder.text_states(ids))}
    if "selftest_picture" in stored:
        found["image"] = _agreement(stored["selftest_tokens"], _tokens(encoder, stored["selftest_picture"]))
    for what, cosine in found.items():
        if cosine < AGREE[space.fingerprint.compute]:
            raise DptrError(
                f"the encoder of {space.name} no longer computes what it did (smallest cosine between its {what} "
                f"features and the stored ones: {cosine:.6f}): go back to the versions of torch, open_clip and pillow "
                "that made the space, or embed again into a new --cache."
            )
    return found


def _tokens(encoder: Encoder, picture: NDArray[np.uint8]) -> NDArray[np.float16]:
    pixels = encoder.preprocess(Image.fromarray(picture))
    return encoder.image_tokens(pixels[None])[0]


def _agreement(stored: NDArray[np.float16], now: NDArray[np.float16]) -> float:
    if stored.shape != now.shape:
        return -1.0
    a, b = stored.astype(np.float64), now.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / np.maximum(norms, 1e-12)).min())


def _picture() -> NDArray[np.uint8]:
    """Ramps and a fine pattern, (150, 210, 3), so that another way of resizing shows."""
    y, x = np.mgrid[:150, :210]
    return np.stack([x, y * 255 // 149, (x * y) % 256], -1).astype(np.uint8)
