"""What the literal references share: layers for one sample, written out, and decoders and memories to try them on."""

import pytest
import torch
from torch.nn import functional as F

from models.charset import EOS
from models.decoders import configure, make


def attend(attention, x, source, allowed):
    """Multi-head attention of x (Q, W) over source (S, D), where allowed (Q, S), head by head."""
    keys, values = F.linear(source, attention.keys_and_values.weight, attention.keys_and_values.bias).chunk(2, -1)
    queries = attention.query(x)
    size = x.shape[-1] // attention.heads
    found = []
    for h in range(attention.heads):
        part = slice(h * size, (h + 1) * size)
        scores = queries[:, part] @ keys[:, part].T / size**0.5
        found.append(scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ values[:, part])
    return attention.out(torch.cat(found, -1))


def look(layer, x, memory):
    """Cross-attention of x (Q, W) on all rows of a memory (M, D), then feed-forward, both with residuals."""
    x = x + attend(layer.cross_attention, layer.norm_cross(x), memory, torch.ones(len(x), len(memory)).bool())
    return x + layer.feed(layer.norm_feed(x))


def layer_by_hand(layer, x, memory, allowed):
    """Self-attention of x (Q, W), where allowed (Q, Q), then `look`."""
    normed = layer.norm_self(x)
    return look(layer, x + attend(layer.self_attention, normed, normed, allowed), memory)


def small(kind, depth=2, **changes):
    """A decoder for memories of width 24, in evaluation mode, with scattered weights, so that errors show."""
    torch.manual_seed(0)
    decoder = make(configure(kind, memory_width=24, width=32, depth=depth, heads=4, **changes)).eval()
    for name, parameter in decoder.named_parameters():
        torch.nn.init.normal_(parameter, float("norm" in name and name.endswith("weight")), std=0.2)
    return decoder


def ragged(B, D, lengths):
    """Padded memory, mask, and the memories one by one; the padding is not zero, since it must not matter."""
    memory = torch.randn(B, max(lengths), D)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return memory, mask, [m[:n] for m, n in zip(memory, lengths, strict=True)]


def assert_same_loss(decoder, loss, expected):
    """Both losses, and the gradients of both."""
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    parameters = dict(decoder.named_parameters())
    found, wanted = (torch.autograd.grad(one, parameters.values()) for one in (loss, expected))
    for name, a, b in zip(parameters, found, wanted, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5), name


def assert_same_reading(decoder, found, expected):
    """ids and shares (B, S) against (ids, shares) of each sample, up to and including EOS; after it EOS and 1."""
    S = decoder.config.max_length + 1
    assert [tuple(one.shape) for one in found] == [(len(expected), S)] * 2
    for ids, shares, (wanted, likely) in zip(*found, expected, strict=True):
        rest = S - len(wanted)
        assert ids.tolist() == wanted + [EOS] * rest
        assert shares.tolist() == pytest.approx(likely + [1.0] * rest, abs=1e-5)


def masks_by_loop(order: list[int]) -> tuple[list[list[bool]], list[list[bool]]]:
    """Query and content mask of one order, by asking of each pair which came first."""
    S = len(order) - 1
    query = [[order.index(key) < order.index(i + 1) for key in range(S)] for i in range(S)]
    content = [[order.index(key) <= order.index(i) for key in range(S)] for i in range(S)]
    return query, content
