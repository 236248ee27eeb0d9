"""Packing prompts changes what is computed together, not what each token sees."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.towers.prefix_tree import ROW, PrefixTree, distinct_prefixes

SHARED = [7, 7, 7]
ENDINGS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=60)


def seen_by(tree: PrefixTree, positions: int) -> dict[int, tuple]:
    """For every row of the result, the tokens that its node sees, in the order of their positions."""
    found: dict[int, tuple] = {}
    for batch in tree.batches(positions):
        C, S = batch.tokens.shape
        assert max(positions, S) >= C * S
        for source, target in zip(batch.source, batch.target, strict=True):
            row, node = divmod(int(source), S)
            assert batch.ancestors[row, node, : len(SHARED)].all()
            ancestors = np.flatnonzero(batch.ancestors[row, node, len(SHARED) :])
            assert node in ancestors
            order = ancestors[np.argsort(batch.positions[row, ancestors])]
            assert batch.positions[row, order].tolist() == list(range(len(SHARED), len(SHARED) + len(order)))
            assert target not in found
            found[int(target)] = tuple(batch.tokens[row, order].tolist())
    return found


@given(ENDINGS, st.sampled_from([1, 64, 200, 10_000]))
def test_every_token_sees_its_own_beginning_and_nothing_else(endings, positions):
    tree = PrefixTree([SHARED + e for e in endings], len(SHARED))
    expected = [tuple(e[:n]) for e in endings for n in range(1, len(e) + 1)]
    found = seen_by(tree, positions)
    assert [found[n] for n in range(len(expected))] == expected
    assert len(found) == len(expected)


@given(ENDINGS)
def test_each_row_computes_a_beginning_once(endings):
    tree = PrefixTree([SHARED + e for e in endings], len(SHARED))
    for batch in tree.batches(1):
        used = np.unique(batch.source)
        beginnings = {tuple(batch.tokens[0, batch.ancestors[0, n, len(SHARED) :]].tolist()) for n in used}
        assert len(beginnings) == len(used)
        assert used.tolist() == list(range(len(used)))  # and no node lies between that nobody wants
    assert tree.rows <= 1 + sum(map(len, endings)) // (tree.width - 8)


def test_prompts_finished_by_the_batches_are_all():
    prompts = [[*SHARED, n, n % 5] for n in range(500)]
    assert sum(batch.prompts for batch in PrefixTree(prompts, 3).batches(128)) == 500


def test_rows_are_as_long_as_the_longest_prompt_needs():
    tree = PrefixTree([[*SHARED, *range(1, 91)], [*SHARED, 1]], 3)
    assert tree.width == 90 > ROW
    assert seen_by(tree, 1)[89] == tuple(range(1, 91))


def test_nearly_nothing_is_computed_twice():
    """On words with common prefixes, the evaluated positions stay within a tenth of the fewest possible."""
    random = np.random.default_rng(0)
    prompts = [[*SHARED, *random.integers(1, 40, random.integers(2, 5)), 99, 100] for _ in range(3000)]
    tree = PrefixTree(prompts, 3)
    assert tree.rows * tree.width < 1.1 * distinct_prefixes(prompts, 3)


def test_distinct_prefixes_counts_by_hand():
    assert distinct_prefixes([[7, 1, 2], [7, 1, 3], [7, 1, 2]], 1) == 3
    assert distinct_prefixes([[7, 1, 2], [7, 2, 2]], 1) == 4


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_prompts_is_kept(order):
    prompts = [[*SHARED, n] for n in range(1, 200)][::order]
    seen = seen_by(PrefixTree(prompts, 3), 64)
    assert [seen[n] for n in range(199)] == [(p[-1],) for p in prompts]
