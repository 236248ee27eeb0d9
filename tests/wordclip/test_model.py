"""What the model of wordclip gives and its losses, against open_clip and slow references."""

from types import SimpleNamespace

import numpy as np
import torch
from torch.nn import functional as F

from pipeline.shipped.word_vit import COLUMNS, QUERIES
from wordclip.drawing import Chunk
from wordclip.model import (
    RARE,
    Heads,
    alignment,
    contrast,
    look,
    pointing,
    prefixes,
    read,
    row_contrast,
)
from wordclip.pool import Batch
from wordclip.train import frame

WORDS = ["HOTEL", "hotel", "12:30", "a", "Straßenbahn", "hot"]


def batch(words, tokens, centres=None):
    pictures = np.random.default_rng(0).integers(0, 256, (len(words), 32, 128, 3), np.uint8)
    chunk = Chunk.of(pictures, words, tokens, centres)
    letters, lengths = (torch.from_numpy(a).long() for a in (chunk.letters, chunk.lengths))
    return Batch(torch.from_numpy(pictures), 0, letters, lengths, torch.from_numpy(chunk.centres), lengths)


def test_features_are_open_clips(word_encoder, tokens):
    model, prompt = word_encoder.model, word_encoder.prompt
    pictures = torch.randn(3, 3, 32, 128)
    ids = [prompt.ids(word) for word in WORDS]
    whole = torch.tensor([[*i, *[0] * (77 - len(i))] for i in ids])
    some = batch(WORDS, tokens)
    with torch.no_grad():
        seen = look(model, pictures, looks=True)
        assert (seen.pooled - model.encode_image(pictures)).abs().max() < 1e-5
        expected = torch.from_numpy(word_encoder.image_tokens(pictures)).float()
        assert (torch.cat([seen.pooled[:, None], seen.rows], 1) - expected).abs().max() < 1e-2
        rows = read(model, *frame(prompt), some.letters, some.lengths)
        assert (rows[:, -1] - model.encode_text(whole)).abs().max() < 1e-5
        states = model.ln_final(
            model.transformer(model.token_embedding(whole) + model.positional_embedding, model.attn_mask)
        )
        projected = states @ model.text_projection
    for n, word in enumerate(WORDS):  # the letters, the closing quote, and the end for all that is left
        P = len(prompt.prefix)
        assert (rows[n, : len(word) + 2] - projected[n, P : P + len(word) + 2]).abs().max() < 1e-5
        assert (rows[n, len(word) + 1 :] - rows[n, -1]).abs().max() == 0
    assert seen.tokens.shape == (3, 64, 256)
    assert seen.rows.shape == (3, QUERIES, 256)
    for looks in seen.looks:
        assert looks.shape == (3, QUERIES, 64)
        assert (looks.sum(-1) - 1).abs().max() < 1e-5


def test_reading_losses_equal_slow_ones(word_encoder, tokens):
    torch.manual_seed(0)
    heads = Heads(tokens.size, word_encoder.model)
    words = ["abc", "hh", "a" * 25]
    some = batch(words, tokens)
    numbers = [[tokens.number[c] for c in word] for word in words]
    features, rows = torch.randn(3, 64, 256), torch.randn(3, QUERIES, 256)

    columns = (features[:, :32] + features[:, 32:]) / 2  # two rows of 32
    scores = heads.even(columns).log_softmax(-1)
    wanted = [-scores[b, at, word[int(at * len(word) / 32)]] for b, word in enumerate(numbers) for at in range(32)]
    assert torch.isclose(heads.evenly(features, some), torch.stack(wanted).mean())

    told = heads.letters(16 * rows / rows.norm(dim=-1, keepdim=True)).log_softmax(-1)
    total, weight = 0.0, 0.0
    for b, word in enumerate(numbers):
        for n, c in enumerate([*word, *[0] * (QUERIES - len(word))]):
            share = 1.0 if n <= len(word) else RARE
            total, weight = total - share * told[b, n, c], weight + share
    assert torch.isclose(heads.spelling(rows, some), total / weight)

    one = heads.columns(columns[1]).log_softmax(-1)  # "hh": all ways to read it must have a blank between
    ways = torch.full((32, 5), -torch.inf)
    h = tokens.number["h"]
    path = [0, h, 0, h, 0]
    ways[0, :2] = one[0, path[:2]]
    for t in range(1, 32):
        for s in range(5):
            before = [ways[t - 1, s]] + ([ways[t - 1, s - 1]] if s else [])
            ways[t, s] = torch.stack(before).logsumexp(0) + one[t, path[s]]
    expected = -torch.logsumexp(ways[-1, -2:], 0) / 2
    assert torch.isclose(heads.ctc(features[1:2], batch(["hh"], tokens)), expected)


def test_words_that_begin_alike_have_equal_numbers_up_to_there(tokens):
    some = batch(["hot", "hotel", "hotel", "Hotel", "ho"], tokens)
    numbers = prefixes(some.letters, some.lengths)
    assert (numbers[0, :3] == numbers[1, :3]).all()
    assert (numbers[1] == numbers[2]).all()
    assert numbers[0, 3] != numbers[1, 3]  # the end of hot, and the e of hotel
    assert numbers[0, -1] == numbers[0, 3]
    assert not (numbers[1] == numbers[3]).any()
    assert numbers[4, 2] not in numbers[1]


def test_contrast_is_open_clips_but_for_twins(tokens):
    torch.manual_seed(0)
    images, texts = torch.randn(4, 8), torch.randn(4, 8)
    a, b = F.normalize(images, dim=-1), F.normalize(texts, dim=-1)
    products = 7.0 * a @ b.T
    target = torch.arange(4)
    plainly = (F.cross_entropy(products, target) + F.cross_entropy(products.T, target)) / 2
    assert torch.isclose(contrast(images, texts, target, 7.0), plainly)
    products[0, 2] = products[2, 0] = -torch.inf
    without = (F.cross_entropy(products, target) + F.cross_entropy(products.T, target)) / 2
    assert torch.isclose(contrast(images, texts, torch.tensor([5, 1, 5, 3]), 7.0), without)
    rows = torch.randn(3, QUERIES, 8)
    some = batch(["hot", "hotel", "Bar"], tokens)
    assert row_contrast(rows, rows, some) < row_contrast(rows, rows.flip(1), some)


def test_alignment_is_zero_for_equal_rows_only():
    torch.manual_seed(0)
    texts, lengths = torch.randn(2, QUERIES, 8), torch.tensor([3, 25])
    same = SimpleNamespace(pooled=texts[:, -1], rows=texts)
    assert alignment(same, texts, lengths).abs() < 1e-6
    longer = SimpleNamespace(pooled=texts[:, -1], rows=texts * 2)
    weights = [sum(1.0 if n <= length else RARE for n in range(QUERIES)) for length in (3, 25)]
    wanted = np.log(2) ** 2 * sum(weights) / (sum(weights) + 2)
    assert abs(float(alignment(longer, texts, lengths)) - wanted) < 1e-5


def test_pointing_is_least_where_the_letters_are(tokens):
    some = batch(["ab", "xyz"], tokens, [[0.2, 0.7], [0.1, 0.5, 0.9]])
    some.centres[1] = torch.nan  # a real crop: nobody knows
    columns = torch.arange(COLUMNS)

    def looks(places):
        weights = torch.zeros(2, QUERIES, 2, COLUMNS)
        for n, place in enumerate(places):
            near = torch.softmax(-0.5 * (((columns + 0.5) / COLUMNS - place) / 0.2) ** 2, -1)
            weights[:, n] = near / 2
        return [weights.flatten(2)]

    right, wrong = (float(pointing(looks(places), some)) for places in ((0.2, 0.7), (0.7, 0.2)))
    assert right < wrong
    target = torch.softmax(-0.5 * (((columns + 0.5) / COLUMNS - torch.tensor([[0.2], [0.7]])) / 0.2) ** 2, -1)
    assert abs(right + float((target * target.log()).sum()) / 2) < 1e-3  # its own entropy
