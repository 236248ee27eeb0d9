"""How much a photograph looks as if it had text in it, in the encoder's own judgement: `embed-images --max-text-score`.

Words in a photograph are another word's letters: noise made of them teaches a decoder the wrong thing.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from cache.errors import WrongUse
from pipeline.encoder import Encoder
from pipeline.tokenizer import Characters

WITH = [
    "a photo of text", "a photo of a sign with words on it", "a photo of a shop with its name on the front",
    "a photo of a page of a book", "a photo of a poster with writing on it", "a photo of a label with text",
    "a photo of a number plate", "a screenshot of text",
]  # fmt: skip
WITHOUT = [
    "a photo of a landscape", "a photo of an animal", "a photo of a person", "a photo of food", "a photo of a plant",
    "a photo of a building", "a photo of a room", "a photo of an object",
]  # fmt: skip


class TextScore:
    """Scores photographs from 0 to 1: CLIP's zero-shot probability (arXiv 2103.00020) of the captions in WITH."""

    def __init__(self, encoder: Encoder) -> None:
        """WrongUse if the encoder does not know captions."""
        tokens = encoder.prompt.tokens
        if isinstance(tokens, Characters):
            raise WrongUse(
                f"{encoder.fingerprint.model} knows words and no captions, so it cannot tell which photographs have "
                "text in them: leave out --max-text-score, or use a --model that was trained on captions."
            )
        model: Any = encoder.model
        ids = torch.full((len(WITH) + len(WITHOUT), encoder.context), tokens.pad)
        for row, caption in zip(ids, [*WITH, *WITHOUT], strict=True):
            found = torch.tensor(tokens.ids(caption))
            row[: len(found)] = found
        with torch.no_grad():
            self._captions = model.encode_text(ids, normalize=True)
            self._scale = model.logit_scale.exp()

    def __call__(self, tokens: NDArray[np.float16]) -> NDArray[np.float32]:
        """The scores (n,) of photographs, from all their tokens (n, T, E), class token first."""
        pictures = F.normalize(torch.from_numpy(tokens[:, 0]).float(), dim=-1)
        with torch.no_grad():
            shares = (self._scale * pictures @ self._captions.T).softmax(-1)
        return np.asarray(shares[:, : len(WITH)].sum(-1).numpy())
