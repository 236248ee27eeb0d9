"""The ABINet decoder against a literal one: one sample and one position at a time."""

import pytest
import torch
from torch.nn import functional as F

from models.charset import EOS
from tests.helpers.decoders import assert_same_loss, assert_same_reading, look, ragged, small

LABELS = ["street", "a", "no", "1984!?", "Hello"]  # the longest as long as can be, so that every position learns


def logits_by_hand(decoder, memory, n):
    """(head,) of position n of one sample's memory (M, D)."""
    x = decoder.positions[n][None]
    for layer in decoder.layers:
        x = look(layer, x, memory)
    return decoder.head(decoder.norm(x))[0]


@pytest.mark.parametrize("depth", [1, 3])
def test_loss_and_gradients_equal_the_literal_ones(depth):
    decoder = small("abinet", depth, max_length=6)
    memory, mask, memories = ragged(5, 24, [7, 9, 4, 9, 6])
    total, tokens = torch.zeros(()), 0
    for one, label in zip(memories, LABELS, strict=True):
        for n, wanted in enumerate([*(decoder.charset.characters.index(c) + 1 for c in label), EOS]):
            total = total + F.cross_entropy(logits_by_hand(decoder, one, n), torch.tensor(wanted))
            tokens += 1
    assert_same_loss(decoder, decoder.loss(memory, mask, decoder.charset.encode(LABELS)), total / tokens)


@pytest.mark.parametrize("depth", [1, 3])
@torch.no_grad()
def test_reading_equals_the_literal_one(depth):
    decoder = small("abinet", depth, max_length=8)
    decoder.head.bias[EOS] += 2.5  # so that some words end before the longest length
    memory, mask, memories = ragged(9, 24, [7, 9, 4, 9, 6, 1, 5, 8, 3])
    expected = []
    for one in memories:
        shares, ids = torch.stack([logits_by_hand(decoder, one, n).softmax(-1) for n in range(9)]).max(-1)
        end = ids.tolist().index(EOS) + 1 if EOS in ids else 9
        expected.append((ids.tolist()[:end], shares.tolist()[:end]))
    assert len({len(ids) for ids, _ in expected}) > 1
    assert_same_reading(decoder, decoder.read(memory, mask), expected)
