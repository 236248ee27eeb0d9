"""How often a picture finds its word among 1,000, and a word its picture; and how far the two spaces lie apart."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pipeline.prompt import Prompt
from pipeline.shipped.word_vit import QUERIES
from pipeline.tokenizer import Characters
from wordclip.crops import Crops
from wordclip.model import Heads, look
from wordclip.pool import plain

CHOICE = 1000


@dataclass
class Found:
    """One entry for each picture, in order."""

    word: list[bool]  # its own word is the nearest of CHOICE
    any_case: list[bool]  # the nearest is its own word, ignoring case
    picture: list[bool]  # nearest to its word, of at most CHOICE pictures, is one of that word

    def shares(self) -> dict[str, float]:
        return {name: sum(rows) / max(1, len(rows)) for name, rows in vars(self).items()}


@torch.inference_mode()
def picture_features(model: Any, pictures: NDArray[np.uint8], preprocess: Any) -> tuple[Tensor, Tensor]:
    """Unit pooled features (N, E) and rows (N, QUERIES, E) in fp32 on the CPU of pictures (N, 32, 128, 3), N > 0."""
    pooled, rows = [], []
    for start in range(0, len(pictures), 256):
        part = torch.from_numpy(pictures[start : start + 256]).to(model.logit_scale.device)
        seen = look(model, plain(part, preprocess.mean, preprocess.std))
        pooled.append(F.normalize(seen.pooled, dim=-1).cpu())
        rows.append(seen.rows.cpu())
    return torch.cat(pooled), torch.cat(rows)


@torch.inference_mode()
def word_features(model: Any, words: Iterable[str], prompt: Prompt) -> dict[str, Tensor]:
    """A unit feature (E,) in fp32 on the CPU for each distinct word."""
    different = list(dict.fromkeys(words))
    parts = [_padded([prompt.ids(word) for word in different[n : n + 256]]) for n in range(0, len(different), 256)]
    device = model.logit_scale.device
    found = [model.encode_text(part.to(device), normalize=True).cpu() for part in parts]
    return dict(zip(different, torch.cat(found), strict=True))


def _padded(ids: Sequence[Sequence[int]], positions: int = 77) -> Tensor:
    return torch.tensor([[*i, *[0] * (positions - len(i))] for i in ids])


@torch.inference_mode()
def read_rows(heads: Heads, rows: Tensor, tokens: Characters) -> list[str]:
    """What the head reads in the rows (N, QUERIES, E) of each picture."""
    names = {number: character for character, number in tokens.number.items()}
    best = heads.spelled(rows.to(heads.letters.weight.device)).argmax(-1).tolist()
    return ["".join(names.get(n, "\ufffd") for n in (row[: row.index(0)] if 0 in row else row)) for row in best]


@torch.inference_mode()
def word_rows(model: Any, prompt: Prompt, rows: Tensor, labels: Sequence[str]) -> float:
    """Mean cosine between pictures' rows (N, QUERIES, E) and the projected text rows of the same letters."""
    tower, P = model, len(prompt.prefix)
    cosines = []
    for start in range(0, len(labels), 256):
        ids = [prompt.ids(label) for label in labels[start : start + 256]]
        tokens = _padded(ids).to(model.logit_scale.device)
        x = tower.token_embedding(tokens) + tower.positional_embedding
        x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask)) @ tower.text_projection
        for n, some in enumerate(ids):
            texts = x[n, P : len(some)][:QUERIES].cpu()
            cosines.append(F.cosine_similarity(rows[start + n, : len(texts)], texts, dim=-1).mean())
    return float(torch.stack(cosines).mean())


def find(images: Tensor, labels: Sequence[str], fillers: Sequence[str], texts: dict[str, Tensor]) -> Found:
    """Each picture against CHOICE distinct words (all labels, then `fillers`), and each word against the pictures.

    Pictures are taken in groups of CHOICE.
    """
    found = Found([], [], [])
    for start in range(0, len(labels), CHOICE):
        some, group = labels[start : start + CHOICE], images[start : start + CHOICE]
        choice = list(dict.fromkeys([*some, *fillers]))[:CHOICE]
        words = torch.stack([texts[word] for word in choice])
        nearest = [choice[n] for n in (group @ words.T).argmax(1).tolist()]
        found.word += [word == label for word, label in zip(nearest, some, strict=True)]
        found.any_case += [word.casefold() == label.casefold() for word, label in zip(nearest, some, strict=True)]
        back = (torch.stack([texts[label] for label in some]) @ group.T).argmax(1).tolist()
        found.picture += [some[n] == label for n, label in zip(back, some, strict=True)]
    return found


def gap(images: Tensor, texts: Tensor) -> dict[str, float]:
    """Distance between the means of the unit features, and the mean cosine of true and of shuffled pairs."""
    order = random.Random(0).sample(range(len(texts)), len(texts))
    return {
        "distance_of_means": float((images.mean(0) - texts.mean(0)).norm()),
        "cosine_of_pairs": float((images * texts).sum(1).mean()),
        "cosine_of_others": float((images * texts[order]).sum(1).mean()),
    }


def measure(model: Any, preprocess: Any, prompt: Prompt, crops: Crops, fillers: Sequence[str]) -> dict[str, Any]:
    """The figures of one set, as shares of 1."""
    texts = word_features(model, [*crops.labels, *fillers], prompt)
    pooled, rows = picture_features(model, crops.pictures, preprocess)
    return {
        "pictures": len(crops),
        **find(pooled, crops.labels, fillers, texts).shares(),
        **gap(pooled, torch.stack([texts[label] for label in crops.labels])),
        "cosine_of_rows": word_rows(model, prompt, rows, crops.labels),
    }
