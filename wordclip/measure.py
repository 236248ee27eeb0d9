"""How often a picture finds its word among 1,000, and a word its picture; and how far the two spaces lie apart."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.prompt import Prompt
from wordclip.batches import plain
from wordclip.crops import Crops
from wordclip.model import image_features, text_features

CHOICE = 1000
SEEN = (0, 1, 10, 50, 200)  # words are grouped by how often their rarest token was seen: lower end of each class


@dataclass
class Found:
    """One entry for each picture, in order."""

    word: list[bool]  # its own word is the nearest of CHOICE
    any_case: list[bool]  # the nearest is its own word, ignoring case
    picture: list[bool]  # nearest to its word, of at most CHOICE pictures, is one of that word

    def shares(self) -> dict[str, float]:
        return {name: sum(rows) / max(1, len(rows)) for name, rows in vars(self).items()}


@torch.inference_mode()
def picture_features(model: Any, pictures: NDArray[np.uint8], preprocess: Any) -> Tensor:
    """Unit features (N, E) in fp32 on the CPU of pictures (N, 32, 128, 3), N at least 1."""
    found = []
    for start in range(0, len(pictures), 256):
        part = torch.from_numpy(pictures[start : start + 256]).to(model.logit_scale.device)
        found.append(image_features(model, plain(part, preprocess.mean, preprocess.std))[1].cpu())
    return torch.cat(found)


@torch.inference_mode()
def word_features(model: Any, words: Iterable[str], prompt: Prompt) -> dict[str, Tensor]:
    """A unit feature (E,) in fp32 on the CPU for each distinct word."""
    different = list(dict.fromkeys(words))
    ids = [prompt.ids(word) for word in different]
    parts = [text_features(model, ids[n : n + 256]).cpu() for n in range(0, len(ids), 256)]
    return dict(zip(different, torch.cat(parts), strict=True))


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


def token_views(prompt: Prompt, parts: Iterable[tuple[Sequence[str], float]]) -> NDArray[np.float64]:
    """Expected number of times each token id was seen; `parts` are words, and how often each of them was."""
    views = np.zeros(prompt.tokens.size)
    for words, times in parts:
        for word in words:
            for token in set(prompt.tokens.ids(word)[1:-1]):
                views[token] += times
    return views


def measure(
    model: Any, preprocess: Any, prompt: Prompt, crops: Crops, fillers: Sequence[str], views: NDArray[np.float64]
) -> dict[str, Any]:
    """The figures of one set, as shares of 1; `by_rarest_token` has (pictures, share found) for each class."""
    texts = word_features(model, [*crops.labels, *fillers], prompt)
    images = picture_features(model, crops.pictures, preprocess)
    found = find(images, crops.labels, fillers, texts)
    rarest = np.array([min(views[t] for t in prompt.tokens.ids(label)[1:-1]) for label in crops.labels])
    right, place = np.array(found.word), np.digitize(rarest, SEEN) - 1
    classes = {low: right[place == n] for n, low in enumerate(SEEN)}
    return {
        "pictures": len(crops),
        **found.shares(),
        "by_rarest_token": {low: (len(rows), float(rows.mean())) for low, rows in classes.items() if len(rows)},
        **gap(images, torch.stack([texts[label] for label in crops.labels])),
    }
