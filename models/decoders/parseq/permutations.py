"""Permutation language modelling: the orders in which a batch's characters are predicted, and their attention masks.

The method is PARSeq's (Bautista and Atienza, ECCV 2022, arXiv 2207.06966, section 3.2): forward, its reverse, and
random orders, each with its mirror image.
"""

import math

import torch
from torch import Tensor


def draw_permutations(length: int, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Orders of positions 0 to length + 1 (BOS, characters, EOS): (K, length + 2) int64, K <= `count`.

    Every order begins with BOS. Row 0 is forward and ends with EOS. Row 1 is the reverse, with EOS right after BOS.
    The other rows are mirrored pairs of distinct random orders of the characters and end with EOS. Short words have
    fewer orders than `count`, and then K is that number. `count` is even, or 1 for forward alone.
    """
    forward, K = torch.arange(length), order_count(length, count)
    chosen = {tuple(forward.tolist()): forward}
    while 2 * len(chosen) < K:  # for count 6: two more draws, repeated only if two are equal or mirrored
        order = torch.randperm(length, generator=generator)
        if tuple(order.tolist()) not in chosen and tuple(order.flip(0).tolist()) not in chosen:
            chosen[tuple(order.tolist())] = order
    pairs = [order for first in chosen.values() for order in (first, first.flip(0))]
    characters = torch.stack(pairs[:K]) + 1
    orders = torch.cat([torch.zeros(K, 1, dtype=torch.long), characters, torch.full((K, 1), length + 1)], 1)
    if K > 1:
        orders[1, 1:] = torch.arange(length + 1, 0, -1)
    return orders


def order_count(length: int, count: int) -> int:
    """The number of orders that `draw_permutations` returns."""
    return 1 if length == 1 or count == 1 else 2 * min(count // 2, max(1, math.factorial(length) // 2))


def attention_masks(orders: Tensor) -> tuple[Tensor, Tensor]:
    """The query mask and the content mask for orders (K, S + 1): (K, S, S) bool, True where attention is allowed.

    Keys are positions 0 to S - 1 (BOS and characters). Query row i predicts position i + 1 and sees what precedes that
    in the order. Content row i is position i, and sees what precedes it and itself.
    """
    rank = orders.argsort(-1)  # (K, S + 1): the place of each position in the order
    query = rank[:, 1:, None] > rank[:, None, :-1]
    content = rank[:, :-1, None] >= rank[:, None, :-1]
    return query, content
