"""The two towers in training, the losses between them, and heads that are thrown away afterwards.

A contrastive loss between pooled features alone learns to read only after a long plateau, and says nothing about single
rows. So a CTC loss reads the picture's columns; the tower's queries are shown, at first, where each letter was drawn;
and each query's token is pulled to the text row of the same letter, while one head reads the letter from both.

Shape letters: B words, N letters of the longest label, Q queries, L text positions, E width of the shared space.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.shipped.word_vit import COLUMNS, QUERIES, ROWS
from wordclip.pool import Batch

SHARPNESS = 20.0  # of the contrast between rows: cosines are multiplied by it
RARE = 0.1  # weight of the rows behind a word's end, which all repeat it


class Heads(nn.Module):
    """Readers of columns (CTC) and of rows; a class is a token id, and 0 is CTC's blank and a word's end."""

    def __init__(self, classes: int, model: Any) -> None:
        """`model` is the open_clip model that they are trained with; only its widths are used."""
        super().__init__()
        width = int(model.visual.trunk.num_features)
        self.columns = nn.Linear(width, classes)
        self.even = nn.Linear(width, classes)
        self.letters = nn.Linear(int(model.text_projection.shape[1]), classes)

    def ctc(self, tokens: Tensor, batch: Batch) -> Tensor:
        """CTC loss per letter of the picture's tokens (B, ROWS * COLUMNS, W). In fp32: CPUs have no other kernel."""
        scores = self.columns(_columns(tokens)).float().log_softmax(-1).transpose(0, 1)
        given = torch.full_like(batch.host_lengths, COLUMNS)
        return F.ctc_loss(scores, batch.letters, given, batch.host_lengths, zero_infinity=True)

    def evenly(self, tokens: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy per column, as if all letters were equally wide: a rough start that CTC finds slowly."""
        columns = torch.arange(COLUMNS, device=tokens.device)
        target = batch.letters.gather(1, columns * batch.lengths[:, None] // COLUMNS)
        return F.cross_entropy(self.even(_columns(tokens)).float().flatten(0, 1), target.flatten())

    def spelled(self, rows: Tensor) -> Tensor:
        """Scores (B, Q, classes) of the letter that each row (B, Q, E) stands for."""
        return torch.as_tensor(self.letters(16 * F.normalize(rows.float(), dim=-1)))

    def spelling(self, rows: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy per letter, the end included, of rows (B, QUERIES, E)."""
        target = F.pad(batch.letters, (0, QUERIES - batch.letters.shape[1]))
        losses = F.cross_entropy(self.spelled(rows).flatten(0, 1), target.flatten(), reduction="none")
        weights = importance(batch.lengths)
        return (losses.view_as(target) * weights).sum() / weights.sum()


def _columns(tokens: Tensor) -> Tensor:
    """(B, COLUMNS, W) of (B, ROWS * COLUMNS, W)."""
    return tokens.unflatten(1, (ROWS, COLUMNS)).mean(1)


def importance(lengths: Tensor) -> Tensor:
    """Weights (B, QUERIES): 1 for a word's letters and its end, RARE for the rows that only repeat the end."""
    places = torch.arange(QUERIES, device=lengths.device)
    return torch.where(places <= lengths[:, None], 1.0, RARE)


@dataclass
class Seen:
    """What the image tower makes of pictures."""

    tokens: Tensor  # (B, ROWS * COLUMNS, W), before the queries
    pooled: Tensor  # (B, E)
    rows: Tensor  # (B, QUERIES, E)
    looks: list[Tensor]  # of each layer of queries, how much each looks at each token: (B, QUERIES, ROWS * COLUMNS)


def look(model: Any, pictures: Tensor, looks: bool = False) -> Seen:
    """The image tower's features of pictures (B, 3, 32, 128); without `looks` that list is empty."""
    trunk = model.visual.trunk
    tokens, weights = trunk.picture_tokens(pictures), list[Tensor]()
    features = model.visual.head(trunk.gathered(tokens, weights if looks else None))
    return Seen(tokens[:, 1:], features[:, 0], features[:, 1:], weights)


def read(model: Any, prefix: Sequence[int], suffix: Sequence[int], letters: Tensor, lengths: Tensor) -> Tensor:
    """The text tower's rows (B, QUERIES, E) of words between `prefix` and `suffix`, all projected.

    Row n is the n-th letter's; then come the suffix and its last row, the end token, again and again.
    """
    B, P, N = len(letters), len(prefix), int(letters.shape[1])
    whole = F.pad(letters, (P, len(suffix)))
    whole[:, :P] = torch.tensor(prefix, device=letters.device)
    ends = torch.tensor(suffix, device=letters.device).expand(B, -1)
    whole = whole.scatter(1, P + lengths[:, None] + torch.arange(len(suffix), device=letters.device), ends)
    L = P + N + len(suffix)
    x = model.token_embedding(whole) + model.positional_embedding[:L]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:L, :L])) @ model.text_projection
    places = torch.arange(QUERIES, device=letters.device).expand(B, -1)
    places = P + torch.minimum(places, lengths[:, None] + len(suffix) - 1)
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))


def prefixes(letters: Tensor, lengths: Tensor) -> Tensor:
    """A number (B, N + 1) for each beginning of each word, the whole word last and from there on; equal if they are."""
    N = letters.shape[1]
    odd = torch.randint(1 << 62, (N,), generator=torch.Generator().manual_seed(0)) * 2 + 1
    numbers = (letters * odd.to(letters.device)).cumsum(1)
    whole = numbers.gather(1, lengths[:, None] - 1)
    places = torch.arange(N + 1, device=letters.device)
    return torch.where(places < lengths[:, None], F.pad(numbers, (0, 1)), whole + 1)


def contrast(images: Tensor, texts: Tensor, same: Tensor, scale: Tensor | float) -> Tensor:
    """InfoNCE both ways between pairs of rows (B, E). Rows with the same number in `same` (B,) are no rivals."""
    with torch.autocast(images.device.type, enabled=False):
        products = scale * F.normalize(images.float(), dim=-1) @ F.normalize(texts.float(), dim=-1).T
    twins = (same[:, None] == same[None]).fill_diagonal_(False)
    products = products.masked_fill(twins, -torch.inf)
    target = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(products, target) + F.cross_entropy(products.T, target)) / 2


def row_contrast(images: Tensor, texts: Tensor, batch: Batch, each: int = 3) -> Tensor:
    """`contrast` between single rows: `each` letters or ends of every word, drawn at random."""
    B = len(images)
    places = (torch.rand(B, each, device=images.device) * (batch.lengths[:, None] + 1)).long()
    words = torch.arange(B, device=images.device)[:, None]
    same = prefixes(batch.letters, batch.lengths).gather(1, places)
    return contrast(images[words, places].flatten(0, 1), texts[words, places].flatten(0, 1), same.flatten(), SHARPNESS)


def alignment(seen: Seen, texts: Tensor, lengths: Tensor) -> Tensor:
    """How far pictures' rows and their pooled features are from the text rows (B, QUERIES, E), the last of which is the
    pooled one: 1 - cosine, and the squared difference of the norms' logs.

    It pulls the pictures' side alone: both would meet where all rows are alike.
    """
    images = torch.cat([seen.pooled[:, None], seen.rows], 1).float()
    texts = torch.cat([texts[:, -1:], texts], 1).float().detach()
    weights = F.pad(importance(lengths), (1, 0), value=1.0)
    apart = 1 - F.cosine_similarity(images, texts, dim=-1)
    longer = images.norm(dim=-1).clamp_min(1e-3).log() - texts.norm(dim=-1).clamp_min(1e-3).log()
    return ((apart + longer.square()) * weights).sum() / weights.sum()


def pointing(looks: Sequence[Tensor], batch: Batch) -> Tensor:
    """How badly the queries look at the columns where their letters were drawn: cross-entropy per letter."""
    columns = (torch.arange(COLUMNS, device=batch.centres.device) + 0.5) / COLUMNS
    N = batch.centres.shape[1]
    width = (0.4 / batch.lengths.clamp_min(1)).clamp_min(0.5 / COLUMNS)[:, None, None]
    known = ~batch.centres.isnan()
    centres = batch.centres.nan_to_num().clamp(0, 1)
    target = torch.softmax(-0.5 * ((columns - centres[..., None]) / width).square(), -1)
    losses = [-(target * _over_columns(weights)[:, :N].clamp_min(1e-6).log()).sum(-1) * known for weights in looks]
    return torch.stack(losses).sum() / (len(looks) * known.sum().clamp_min(1))


def _over_columns(weights: Tensor) -> Tensor:
    """(B, Q, COLUMNS) of (B, Q, ROWS * COLUMNS)."""
    return weights.unflatten(-1, (ROWS, COLUMNS)).sum(-2)
