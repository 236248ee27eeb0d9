"""The mask-diffusion decoder against a literal one: one word and one place at a time."""

import pytest
import torch
from torch.nn import functional as F

from models.charset import EOS
from models.decoders.mdiff import corrupted
from tests.helpers.decoders import assert_same_loss, assert_same_reading, layer_by_hand, ragged, small

LABELS = ["street", "a", "", "no", "1984!?", "Hello", "exit"]


def corrupted_by_hand(n, head, draws, S):
    """The places masked and {place: id} of those replaced, for a word of n characters and EOS."""
    kind, cut, blocks, share, *rest = draws
    chance, again, other = (rest[i * S : (i + 1) * S] for i in range(3))
    lowest = min(range(n), key=lambda i: chance[i])
    middle = 1 + int(cut * (n - 1)) if n > 1 else 0
    match int(kind * 7):
        case 0:
            masked = set(range(n))
        case 1:
            masked = set(range(middle, n))
        case 2:
            masked = set(range(middle))
        case 3:
            count = 2 + int(blocks * 5)
            masked = set(range(min(max(1, n // count) * (1 + int(cut * (count - 1))), n - 1), n))
        case 4:
            masked = {lowest}
        case 5:
            masked = {i for i in range(n) if chance[i] < share}
        case 6:
            return set(), {i: int(other[i] * head) for i in range(n) if again[i] < share}
    return masked or {lowest}, {}


def every_kind(rows, S):
    """Draws in which row r is corrupted in way r % 7."""
    draws = torch.rand(rows, 4 + 3 * S)
    draws[:, 0] = (torch.arange(rows) % 7 + 0.5) / 7
    return draws


def test_words_are_corrupted_as_said():
    torch.manual_seed(0)
    S, lengths = 9, torch.arange(2100) // 7 % 9 + 1
    draws = every_kind(len(lengths), S)
    masked, replaced = corrupted(torch.arange(S) < lengths[:, None], 95, draws)
    for n, row, hidden, ids in zip(lengths.tolist(), draws.tolist(), masked, replaced, strict=True):
        expected, instead = corrupted_by_hand(n, 95, row, S)
        assert set(hidden.nonzero()[:, 0].tolist()) == expected
        assert {i: found for i, found in enumerate(ids.tolist()) if found >= 0} == instead


def logits_by_hand(decoder, memory, ids):
    """(S, head) of one sample: memory (M, D), input ids, and masks up to the longest length."""
    S = len(decoder.positions)
    ids = [*ids, *[decoder.charset.pad] * (S - len(ids))]
    x = torch.stack([(decoder.embedding.weight[i] + decoder.positions[n]) * 32**0.5 for n, i in enumerate(ids)])
    for layer in decoder.layers:
        x = layer_by_hand(layer, x, memory, torch.ones(S, S).bool())
    return decoder.head(decoder.norm(x))


@pytest.mark.parametrize("depth", [1, 3])
def test_loss_and_gradients_equal_the_literal_ones(depth):
    """Every word in each of the seven ways."""
    decoder, labels = small("mdiff", depth, max_length=6), [label for label in LABELS for _ in range(7)]
    memory, mask, memories = ragged(len(labels), 24, [3 + n % 5 for n in range(len(labels))])
    draws, total, count = every_kind(len(labels), 7), torch.zeros(()), 0
    for one, label, row in zip(memories, labels, draws.tolist(), strict=True):
        wanted = [*(decoder.charset.characters.index(c) + 1 for c in label), EOS]
        masked, replaced = corrupted_by_hand(len(wanted), 95, row, 7)
        given = [decoder.charset.pad if n in masked else replaced.get(n, i) for n, i in enumerate(wanted)]
        logits = logits_by_hand(decoder, one, given)
        losses = [F.cross_entropy(logits[n], torch.tensor(wanted[n])) for n in masked or range(len(wanted))]
        total, count = total + sum(losses) / len(losses) * len(wanted), count + len(wanted)
    targets = decoder.charset.encode(labels)
    assert decoder.predictions(targets) == count
    assert_same_loss(decoder, decoder.loss(memory, mask, targets, draws), total / count)


def test_a_word_s_loss_does_not_depend_on_how_far_its_batch_is_padded():
    decoder, draws = small("mdiff", max_length=8), torch.rand(1, 31)
    memory, targets = torch.randn(1, 5, 24), decoder.charset.encode(["on", "streets"])[:1]
    losses = [decoder.loss(memory, None, some, draws) for some in (targets, targets[:, :4])]
    assert torch.equal(*losses)


@pytest.mark.parametrize("refinements", [0, 1, 2])
@torch.no_grad()
def test_reading_equals_the_literal_one(refinements):
    decoder = small("mdiff", max_length=8)
    decoder.head.bias[EOS] += 2.5  # so that some words end before the longest length
    memory, mask, memories = ragged(9, 24, [7, 9, 4, 9, 6, 1, 5, 8, 3])
    expected = []
    for one in memories:
        ids = []
        for _ in range(1 + refinements):
            shares, found = logits_by_hand(decoder, one, ids).softmax(-1).max(-1)
            ids = found.tolist()
            ids = ids[: ids.index(EOS) + 1] if EOS in ids else ids
        expected.append((ids, shares.tolist()[: len(ids)]))
    assert len({len(ids) for ids, _ in expected}) > 1
    assert_same_reading(decoder, decoder.read(memory, mask, refinements), expected)
