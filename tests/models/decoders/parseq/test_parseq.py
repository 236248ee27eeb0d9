"""The decoder against a slow, literal one: permutations one after another, one stream at a time, no shared keys."""

import pytest
import torch
from torch.nn import functional as F

from models.charset import EOS
from models.decoders.parseq import Config, Decoder
from models.decoders.parseq.permutations import draw_permutations
from tests.helpers.decoders import attend, masks_by_loop, ragged

LABELS = ["street", "a", "no", "1984!", "Hello"]


def make(depth=2, memory_width=24, **changes):
    torch.manual_seed(0)
    decoder = Decoder(Config(memory_width, width=32, depth=depth, heads=4, **changes)).eval()
    for parameter in decoder.parameters():  # away from the symmetric start, so that errors show
        torch.nn.init.normal_(parameter, std=0.2)
    return decoder


def logits_by_hand(decoder, memory, ids, positions, query_mask, content_mask):
    """Logits (len(positions), head) of one sample: memory (M, D), input ids BOS + characters, masks as lists."""
    everything = torch.ones(max(len(ids), len(positions)), len(memory), dtype=torch.bool)
    content = torch.stack(
        [decoder.embedding.weight[i] * 32**0.5 + (decoder.positions[n - 1] if n else 0) for n, i in enumerate(ids)]
    )
    query = decoder.positions[positions]
    for layer in decoder.layers:
        normed = layer.norm_content(content)
        streams = []
        for stream, start, mask in ((query, layer.norm_query(query), query_mask), (content, normed, content_mask)):
            x = stream + attend(layer.self_attention, start, normed, torch.tensor(mask))
            x = x + attend(layer.cross_attention, layer.norm_cross(x), memory, everything[: len(x)])
            streams.append(x + layer.feed(layer.norm_feed(x)))
        query, content = streams
    return decoder.head(decoder.norm(query))


def loss_by_hand(decoder, memories, labels, orders):
    """Each order alone, weighted by its tokens; EOS in the first two orders only (dptr.md, section 3)."""
    charset, longest = decoder.charset, max(map(len, labels))
    total, tokens = torch.zeros(()), 0
    for k, order in enumerate(orders.tolist()):
        query_mask, content_mask = masks_by_loop(order)
        for memory, label in zip(memories, labels, strict=True):
            characters = [charset.characters.index(c) + 1 for c in label]
            ids = [charset.bos, *characters]
            ids += [EOS, *[charset.pad] * longest][: longest + 1 - len(ids)]
            readable = [i not in (EOS, charset.pad) for i in ids]
            masks = [
                [[see and ok for see, ok in zip(row, readable, strict=True)] for row in m]
                for m in (query_mask, content_mask)
            ]
            logits = logits_by_hand(decoder, memory, ids, list(range(longest + 1)), *masks)
            wanted = [*characters, EOS] if k < 2 else characters
            total = total + F.cross_entropy(logits[: len(wanted)], torch.tensor(wanted), reduction="sum")
            tokens += len(wanted)
    return total / tokens


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_loss_and_gradients_equal_the_literal_one(depth):
    decoder = make(depth)
    memory, mask, memories = ragged(5, 24, [7, 9, 4, 9, 6])
    orders = draw_permutations(6, 6, torch.Generator().manual_seed(1))
    targets = decoder.charset.encode(LABELS)
    loss = decoder.loss(memory, mask, targets, orders)
    loss.backward()
    gradients = [p.grad.clone() for p in decoder.parameters()]
    decoder.zero_grad()
    expected = loss_by_hand(decoder, memories, LABELS, orders)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for (name, parameter), gradient in zip(decoder.named_parameters(), gradients, strict=True):
        if parameter.grad is not None:
            assert torch.allclose(gradient, parameter.grad, rtol=1e-4, atol=1e-5), name


def read_by_hand(decoder, memory, refine):
    """Left to right from scratch at every step, then one cloze pass: ids and their probabilities."""
    ids, shares, S = [], [], decoder.config.max_length + 1
    for step in range(S):
        inputs = [decoder.charset.bos, *ids]
        causal = [[j <= i for j in range(step + 1)] for i in range(step + 1)]
        logits = logits_by_hand(decoder, memory, inputs, list(range(step + 1)), causal, causal)
        ids.append(int(logits[-1].argmax()))
        shares.append(float(logits[-1].softmax(-1).max()))
        if ids[-1] == EOS:
            break
    ids += [EOS] * (S - len(ids))
    for _ in range(refine):
        inputs = [decoder.charset.bos, *ids[:-1]]
        open_until = inputs.index(EOS) if EOS in inputs else S
        cloze = [[j != i + 1 and j < open_until for j in range(S)] for i in range(S)]
        causal = [[j <= i and j < open_until for j in range(S)] for i in range(S)]
        logits = logits_by_hand(decoder, memory, inputs, list(range(S)), cloze, causal)
        ids, shares = logits.argmax(-1).tolist(), logits.softmax(-1).amax(-1).tolist()
    return ids, shares


@pytest.mark.parametrize("refinements", [0, 1, 2])
@pytest.mark.parametrize("depth", [1, 3])
def test_reading_equals_the_literal_one(depth, refinements):
    decoder = make(depth, max_length=8)
    with torch.no_grad():
        decoder.head.bias[EOS] += 3  # so that some words end before the longest length
        memory, mask, memories = ragged(6, 24, [7, 9, 4, 9, 6, 1])
        expected = [read_by_hand(decoder, m, refinements) for m in memories]
    found, shares = decoder.read(memory, mask, refinements)
    assert decoder.charset.decode(found) == decoder.charset.decode(torch.tensor([ids for ids, _ in expected]))
    for row, (ids, likely) in zip(shares, expected, strict=True):
        end = ids.index(EOS) + 1 if EOS in ids else len(ids)
        assert row[:end].tolist() == pytest.approx(likely[:end], abs=1e-5)
        assert row[end:].tolist() == [1.0] * (len(ids) - end)


def test_released_shape_has_25_million_parameters():
    """DPTR's decoder: width 512, 6 layers, 26 positions, 97 ids, head of 95."""
    decoder = Decoder(Config())
    assert decoder.positions.shape == (26, 512)
    assert decoder.embedding.weight.shape == (97, 512)
    assert decoder.head.weight.shape == (95, 512)
    assert sum(p.numel() for p in decoder.parameters()) == pytest.approx(25.2e6, rel=0.01)


def test_orders_are_drawn_anew_from_the_global_generator():
    decoder = make(permutations=4)
    memory, mask, _ = ragged(5, 24, [7, 9, 4, 9, 6])
    targets = decoder.charset.encode(LABELS)
    torch.manual_seed(7)
    first, second = (decoder.loss(memory, mask, targets) for _ in range(2))
    torch.manual_seed(7)
    for found in (first, second):
        assert torch.equal(found, decoder.loss(memory, mask, targets, draw_permutations(6, 4)))
    assert first != second


@pytest.mark.parametrize(("permutations", "label"), [(6, "street"), (1, "street"), (6, "no"), (6, "a")])
def test_predictions_are_those_of_the_loss(permutations, label):
    decoder = make(permutations=permutations)
    orders = draw_permutations(len(label), permutations)
    wanted = [len(label) + (k < 2) for k in range(len(orders))]
    assert decoder.predictions(decoder.charset.encode([label])) == sum(wanted)
