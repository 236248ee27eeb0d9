"""CTC against its definition: the probability of a word is the sum over all ways in which frames can write it."""

from itertools import groupby, product

import pytest
import torch

from models.charset import EOS
from models.decoders.ctc import BLANK
from tests.helpers.decoders import assert_same_loss, assert_same_reading, layer_by_hand, ragged, small


def written(path):
    """The word that frames with these ids write."""
    return tuple(i for i, _ in groupby(path) if i != BLANK)


def logits_by_hand(decoder, memory):
    """(T, head) of one sample's memory (M, D)."""
    x = decoder.queries
    for layer in decoder.layers:
        x = layer_by_hand(layer, x, memory, torch.ones(len(x), len(x)).bool())
    return decoder.head(decoder.norm(x))


@pytest.mark.parametrize("depth", [1, 3])
def test_loss_and_gradients_equal_the_literal_ones(depth):
    """Over all 4^6 paths; one word fits in one way only, with a blank between equal characters."""
    decoder, labels = small("ctc", depth, max_length=3, characters="abc"), ["aaa", "b", "cab", "bb"]
    memory, mask, memories = ragged(4, 24, [7, 9, 4, 9])
    paths = list(product(range(4), repeat=6))
    total = torch.zeros(())
    for one, label in zip(memories, labels, strict=True):
        shares = logits_by_hand(decoder, one).softmax(-1)
        ids = tuple("abc".index(c) + 1 for c in label)
        matching = torch.tensor([path for path in paths if written(path) == ids])
        total = total - shares[torch.arange(6), matching].prod(-1).sum().log()
    loss = decoder.loss(memory, mask, decoder.charset.encode(labels))
    assert_same_loss(decoder, loss, total / sum(map(len, labels)))


@pytest.mark.parametrize(("max_length", "blanks"), [(4, 0.0), (4, 1.0), (6, 1.0), (6, 9.0)])
@torch.no_grad()
def test_reading_equals_the_literal_one(max_length, blanks):
    decoder = small("ctc", max_length=max_length, characters="abc")
    decoder.queries.mul_(5)
    decoder.head.bias[BLANK] += blanks
    memory, mask, memories = ragged(9, 24, [7, 9, 4, 9, 6, 1, 5, 8, 3])
    expected, lengths = [], set()
    for one in memories:
        shares, frames = logits_by_hand(decoder, one).softmax(-1).max(-1)
        likely = shares.tolist()
        best, place = [], 0
        for i, same in groupby(frames.tolist()):
            count = len(list(same))
            if i != BLANK:
                best.append(max(likely[place : place + count]))
            place += count
        end = min([1.0, *(share for i, share in zip(frames, likely, strict=True) if i == BLANK)])
        ids = list(written(frames.tolist()))
        lengths.add(len(ids))
        expected.append(([*ids[:max_length], EOS], [*best[:max_length], end]))
    assert len(lengths) > 1 or blanks == 9
    assert_same_reading(decoder, decoder.read(memory, mask), expected)


def test_loss_of_bf16_is_that_of_fp32():
    """Training on a CPU runs under autocast, where torch has no CTC loss in bf16."""
    decoder = small("ctc")
    memory, mask, _ = ragged(2, 24, [7, 9])
    targets = decoder.charset.encode(["abc", "de"])
    expected = decoder.loss(memory, mask, targets)
    with torch.autocast("cpu", torch.bfloat16):
        found = decoder.loss(memory, mask, targets)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=0.05)
