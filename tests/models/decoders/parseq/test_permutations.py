"""Orders and masks against loops that follow the definition word by word."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.decoders.parseq.permutations import attention_masks, draw_permutations
from tests.helpers.decoders import masks_by_loop


@given(length=st.integers(1, 25), seed=st.integers(0, 2**31))
def test_masks_equal_the_loop(length, seed):
    orders = draw_permutations(length, 6, torch.Generator().manual_seed(seed))
    query, content = attention_masks(orders)
    for k, order in enumerate(orders.tolist()):
        assert (query[k].tolist(), content[k].tolist()) == masks_by_loop(order)


@given(length=st.integers(1, 25), count=st.sampled_from([1, 2, 4, 6, 12]), seed=st.integers(0, 2**31))
def test_orders_are_what_the_method_says(length, count, seed):
    orders = draw_permutations(length, count, torch.Generator().manual_seed(seed)).tolist()
    assert len(orders) == min(count, math.factorial(length))
    assert orders[0] == list(range(length + 2))
    if len(orders) > 1:
        assert orders[1] == [0, *range(length + 1, 0, -1)]
    assert all(order[0] == 0 and sorted(order) == orders[0] for order in orders)
    for first, mirrored in zip(orders[2::2], orders[3::2], strict=True):
        assert first[-1] == mirrored[-1] == length + 1
        assert first[1:-1] == mirrored[1:-1][::-1]
    characters = [tuple(o[1:-1]) if n != 1 else tuple(o[2:]) for n, o in enumerate(orders)]
    assert len(set(characters)) == len(orders)


def test_every_order_of_a_short_word_is_drawn():
    seen = {
        tuple(o) for seed in range(50) for o in draw_permutations(3, 6, torch.Generator().manual_seed(seed)).tolist()
    }
    assert len(seen) == 6


def test_orders_of_long_words_are_uniform():
    """Over many draws, position 1 is equally often in each place of the third order (chi-squared, 9 degrees)."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([draw_permutations(10, 6, generator)[2] for _ in range(2000)])
    counts = torch.bincount((draws == 1).int().argmax(1) - 1, minlength=10)
    assert float(((counts - 200) ** 2 / 200).sum()) < 27.9  # exceeded once in a thousand


def test_a_query_never_sees_what_it_predicts():
    query, content = attention_masks(draw_permutations(7, 6))
    assert not query.diagonal(1, 1, 2).any()
    assert content.diagonal(0, 1, 2).all()
    assert query[:, :, 0].all()


@pytest.mark.parametrize("length", [1, 2, 5])
def test_forward_order_is_causal(length):
    query, content = attention_masks(draw_permutations(length, 2)[:1])
    causal = torch.ones(length + 1, length + 1, dtype=torch.bool).tril()
    assert (query[0] == causal).all()
    assert (content[0] == causal).all()
