"""The FMU is the released one: compared with torch's own attention with the same weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.recogniser import FMU


def by_hand(fmu, tokens):
    """Query + attention, then + feed-forward of the norm, with nn.MultiheadAttention."""
    W = fmu.queries.shape[1]
    attention = nn.MultiheadAttention(W, fmu.attention.heads, batch_first=True)
    query, both = fmu.attention.query, fmu.attention.keys_and_values
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.cat([query.weight, both.weight]))
        attention.in_proj_bias.copy_(torch.cat([query.bias, both.bias]))
        attention.out_proj.load_state_dict(fmu.attention.out.state_dict())
    x = fmu.queries.expand(len(tokens), -1, -1)
    x = x + attention(x, tokens, tokens)[0]
    inner = F.gelu(fmu.feed[0](F.layer_norm(x, (W,), fmu.norm.weight, fmu.norm.bias)))
    return x + fmu.feed[3](inner)


def test_equals_the_literal_one():
    torch.manual_seed(0)
    fmu = FMU(24, 4, 0.1, queries=7).eval()
    nn.init.normal_(fmu.attention.query.bias)
    tokens = torch.randn(3, 11, 24)
    assert fmu(tokens).shape == (3, 7, 24)
    assert torch.allclose(fmu(tokens), by_hand(fmu, tokens), atol=1e-6)


def test_released_size_and_initialised_queries():
    fmu = FMU(512, 8, 0.1)
    assert fmu.queries.shape == (26, 512)
    assert sum(p.numel() for p in fmu.parameters()) - fmu.queries.numel() == pytest.approx(3.15e6, rel=0.01)
    assert 0.01 < fmu.queries.std() < 0.03
