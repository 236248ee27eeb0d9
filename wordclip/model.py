"""The two towers in training, and heads that teach them to read and are thrown away afterwards.

The contrastive loss only has to tell a word from 127 others, for which its first letters are enough; alone, it learns
to read only after a long plateau. So a CTC loss reads the picture's columns, and one spelling head, shared by pictures
and texts, has to predict every letter from a word's pooled feature: both towers must encode its spelling alike.
"""

from collections.abc import Sequence
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.shipped.word_vit import COLUMNS, ROWS

SPELLED = 20  # letters of a word that the spelling head predicts


class Heads(nn.Module):
    """CTC over columns, and spelling from pooled features; class 0 is CTC's blank and the end of a spelling."""

    def __init__(self, characters: Sequence[str], model: Any) -> None:
        """`model` is the open_clip model that they are trained with; only its widths are used."""
        super().__init__()
        tower_width, width = int(model.visual.trunk.num_features), int(model.text_projection.shape[1])
        self.number = {character: n for n, character in enumerate(characters, 1)}
        self.columns = nn.Linear(tower_width, len(characters) + 1)
        self.even = nn.Linear(tower_width, len(characters) + 1)
        self.places = nn.Linear(width, SPELLED * 64)
        self.letters = nn.Linear(64, len(characters) + 1)

    def numbers(self, words: Sequence[str]) -> list[list[int]]:
        """Class numbers of each word's characters; a character without a class gets the last one."""
        return [[self.number.get(c, len(self.number)) for c in word] for word in words]

    def ctc(self, tokens: Tensor, numbers: list[list[int]]) -> Tensor:
        """CTC loss per letter of image tokens (B, ROWS * COLUMNS, W). In fp32: CPUs have no other kernel."""
        scores = self.columns(_columns(tokens)).float().log_softmax(-1).transpose(0, 1)
        flat = torch.tensor([n for word in numbers for n in word])
        lengths = torch.tensor([len(word) for word in numbers])
        given = torch.full((len(numbers),), COLUMNS)
        return F.ctc_loss(scores, flat.to(scores.device), given, lengths, zero_infinity=True)

    def evenly(self, tokens: Tensor, numbers: list[list[int]]) -> Tensor:
        """Cross-entropy per column, as if all letters were equally wide: a rough start that CTC finds slowly."""
        target = torch.tensor([[word[at * len(word) // COLUMNS] for at in range(COLUMNS)] for word in numbers])
        scores = self.even(_columns(tokens)).float().flatten(0, 1)
        return F.cross_entropy(scores, target.flatten().to(scores.device))

    def spelling(self, features: Tensor, numbers: list[list[int]]) -> Tensor:
        """Cross-entropy per letter, the end included, predicted from unit features (B, E)."""
        target = torch.full((len(numbers), SPELLED), -100)
        for row, word in enumerate(numbers):
            told = [*word, 0][:SPELLED]
            target[row, : len(told)] = torch.tensor(told)
        scores = self.letters(F.gelu(self.places(features * 16).unflatten(-1, (SPELLED, 64))))
        return F.cross_entropy(scores.float().flatten(0, 1), target.flatten().to(scores.device))


def _columns(tokens: Tensor) -> Tensor:
    """(B, COLUMNS, W) of (B, ROWS * COLUMNS, W)."""
    return tokens.unflatten(1, (ROWS, COLUMNS)).mean(1)


def image_features(model: Any, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """(tokens without the class token (B, T, W), unit features (B, E)) of pictures (B, 3, 32, 128)."""
    tokens = model.visual.trunk.forward_features(pictures)
    return tokens[:, 1:], F.normalize(model.visual.head(tokens[:, 0]).float(), dim=-1)


def text_features(model: Any, ids: Sequence[Sequence[int]], chunks: int = 3) -> Tensor:
    """Unit features (B, E) of prompts, in fp32. Nothing after the end token is computed: attention is causal."""
    order = sorted(range(len(ids)), key=lambda n: len(ids[n]))
    size = -(-len(ids) // chunks)
    found, device = [], model.logit_scale.device
    for start in range(0, len(ids), size):
        some = [ids[n] for n in order[start : start + size]]
        L = len(some[-1])
        tokens = torch.tensor([[*i, *[0] * (L - len(i))] for i in some], device=device)
        x = model.token_embedding(tokens) + model.positional_embedding[:L]
        x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:L, :L]))
        ends = torch.tensor([len(i) - 1 for i in some], device=device)
        found.append(x[torch.arange(len(some), device=device), ends] @ model.text_projection)
    back = torch.empty(len(ids), dtype=torch.long)
    back[order] = torch.arange(len(ids))
    return F.normalize(torch.cat(found).float()[back.to(device)], dim=-1)


contrast = open_clip.loss.ClipLoss()  # (image features, text features, scale): every word against all others
