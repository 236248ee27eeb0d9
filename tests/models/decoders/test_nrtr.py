"""The NRTR decoder against a literal one: one sample and one position at a time, nothing cached."""

import pytest
import torch
from torch.nn import functional as F

from models.charset import EOS
from tests.helpers.decoders import assert_same_loss, assert_same_reading, layer_by_hand, ragged, small

LABELS = ["street", "a", "no", "1984!", "Hello"]


def logits_by_hand(decoder, memory, ids):
    """(len(ids), head) of one sample: memory (M, D), input ids BOS + characters."""
    x = torch.stack([decoder.embedding.weight[i] * 32**0.5 + decoder.positions[n] for n, i in enumerate(ids)])
    causal = torch.tensor([[j <= i for j in range(len(ids))] for i in range(len(ids))])
    for layer in decoder.layers:
        x = layer_by_hand(layer, x, memory, causal)
    return decoder.head(decoder.norm(x))


@pytest.mark.parametrize("depth", [1, 3])
def test_loss_and_gradients_equal_the_literal_ones(depth):
    decoder = small("nrtr", depth)
    memory, mask, memories = ragged(5, 24, [7, 9, 4, 9, 6])
    total, tokens = torch.zeros(()), 0
    for one, label in zip(memories, LABELS, strict=True):
        ids = [decoder.charset.characters.index(c) + 1 for c in label]
        for n, wanted in enumerate([*ids, EOS]):
            logits = logits_by_hand(decoder, one, [decoder.charset.bos, *ids[:n]])
            total, tokens = total + F.cross_entropy(logits[-1], torch.tensor(wanted)), tokens + 1
    assert_same_loss(decoder, decoder.loss(memory, mask, decoder.charset.encode(LABELS)), total / tokens)


@pytest.mark.parametrize("depth", [1, 3])
@torch.no_grad()
def test_reading_equals_the_literal_one(depth):
    decoder = small("nrtr", depth, max_length=8)
    decoder.head.bias[EOS] += 2.8  # so that some words end before the longest length
    memory, mask, memories = ragged(9, 24, [7, 9, 4, 9, 6, 1, 5, 8, 3])
    expected = []
    for one in memories:
        ids, shares = [], []
        while len(ids) < 9 and EOS not in ids:
            share, found = logits_by_hand(decoder, one, [decoder.charset.bos, *ids])[-1].softmax(-1).max(-1)
            ids, shares = [*ids, int(found)], [*shares, float(share)]
        expected.append((ids, shares))
    assert len({len(ids) for ids, _ in expected}) > 2
    assert_same_reading(decoder, decoder.read(memory, mask), expected)
